"""A stack's images as a network takes them, read and prepared when they are asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.imaging.corrections import corrected_images
from napari_cryosphere.imaging.ctf import radial_ctf, transfer_functions
from napari_cryosphere.imaging.preprocess import Preprocessing, background_plane
from napari_cryosphere.particles import ParticleStack

__all__ = ["PreparedImages"]

_CHUNK = 256  # images at once: 16 MB at a box of 128


class PreparedImages:
    """Images of a stack, prepared by one `Preprocessing`.

    Every optics group goes the way from its own pixels to the final grid, with its own CTF, so that
    nothing is resampled twice.

    ``steps``: what to do to each image.
    """

    def __init__(self, stack: ParticleStack, steps: Preprocessing) -> None:
        self.stack = stack
        self.grid = steps.result_grid(stack.grid)
        stored = all(grid.even().matches(stack.grid) for grid in stack.grids.values())
        self.steps = steps if stored else replace(steps, grid=self.grid)
        self._flat: set[int] = set()

    def __len__(self) -> int:
        return len(self.stack)

    def __getitem__(self, indices: Any) -> Tensor:
        """Return some images, ``(k, box, box)`` float32: a slice, a mask, integers, or one integer.

        Raises `CryosphereError` if an image cannot be read.
        """
        rows = np.atleast_1d(np.arange(len(self))[indices])
        prepared = torch.empty(len(rows), self.grid.box, self.grid.box)
        for mine, images, grid in self.stack.images_by_grid(rows):
            chosen = rows[mine]
            part = self.stack[chosen]
            raw = torch.from_numpy(corrected_images(part, images, grid))
            wanted = part.has_ctf and self.steps.ctf is not None
            ctf = transfer_functions(part, grid) if wanted else None
            self._note_flat(raw, chosen)
            prepared[torch.from_numpy(mine)] = self.steps(raw, grid, ctf)
        return prepared

    def with_ctf(self, indices: Any) -> tuple[Tensor, Tensor | None]:
        """Return some images, and what the CTF left of them, as a `PoseModel` takes both.

        ``(k, box, box)`` and ``(k, box // 2 + 1)`` float32; the second as
        `napari_cryosphere.imaging.ctf.radial_ctf` returns it, None where the CTF is not known.
        """
        rows = np.atleast_1d(np.arange(len(self))[indices])
        return self[rows], radial_ctf(self.stack[rows], self.grid)

    def load(self, rows: NDArray[np.int64] | None = None, out: Tensor | None = None) -> Tensor:
        """Return all images or those of some rows, ``(k, box, box)`` float32, read in chunks.

        ``rows``: which, counted from 0. ``out``: where they go; a new tensor by default.
        """
        wanted = np.arange(len(self)) if rows is None else rows
        images = torch.empty(len(wanted), self.grid.box, self.grid.box) if out is None else out
        for start in range(0, len(wanted), _CHUNK):
            images[start : start + _CHUNK] = self[wanted[start : start + _CHUNK]]
        return images

    @property
    def warnings(self) -> list[str]:
        """Warnings about the pixels of the images read so far."""
        if not self._flat:
            return []
        return [
            f"{self.stack.source}: {len(self._flat)} images with a constant background, the first particle "
            f"{min(self._flat) + 1}: without noise to normalise by, they were used unscaled"
        ]

    def _note_flat(self, images: Tensor, rows: NDArray[np.int64]) -> None:
        """Remember the images whose background is constant."""
        corner = images[:, :2, :2].flatten(1)
        candidates = torch.nonzero(corner.amax(1) == corner.amin(1))[:, 0]
        if len(candidates):
            flat = background_plane(images[candidates])[1] == 0
            self._flat.update(rows[candidates[flat].numpy()].tolist())
