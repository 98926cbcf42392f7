"""Comparison of an image with a map's projection at a pose: correlation and residual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_cryosphere.imaging.fourier import from_fourier, shift_phases, to_fourier
from napari_cryosphere.imaging.preprocess import background_mask
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.particles import DensityMap, ImageGrid

__all__ = ["ProjectionMatch", "ProjectionMatcher"]


@dataclass(frozen=True)
class ProjectionMatch:
    """An image and a map's projection.

    - ``projection``: ``(box, box)`` float32: seen through the image's CTF, shifted to where it fits
      best, in the image's grey values.
    - ``residual``: ``(box, box)`` float32: the image minus the projection.
    - ``correlation``: Pearson's, over the inscribed circle.
    - ``shift_px``, ``(2,)``: where the particle's centre was found relative to pixel n // 2, x and
      y.
    """

    projection: NDArray[np.float32]
    residual: NDArray[np.float32]
    correlation: float
    shift_px: NDArray[np.float64]


class ProjectionMatcher:
    """Compares images on one grid with one map; its padded transform is computed once.

    ``density``: the map; it is resampled to ``grid``, the images' box and pixel size.
    """

    def __init__(self, density: DensityMap, grid: ImageGrid) -> None:
        self._projector = Projector(map_on_grid(density, grid.box, grid.pixel_size_angstrom))
        self._circle = ~background_mask(grid.box)

    def match(
        self,
        image: Tensor,
        ctf: Tensor | None,
        rotation: ArrayLike,
        centre_px: ArrayLike = (0.0, 0.0),
        reach_px: float = 4.0,
    ) -> ProjectionMatch:
        """Compare an image with the projection at a pose, at the shift where they correlate best.

        - ``image``: ``(box, box)`` float32.
        - ``ctf``: ``(box, box // 2 + 1)``, see `napari_cryosphere.imaging.ctf.transfer_functions`;
          None for 1.
        - ``rotation``: ``(3, 3)``; image to map coordinates.
        - ``centre_px``: where to look for the particle's centre, x and y relative to pixel n // 2.
        - ``reach_px``: largest distance from there along x and along y; 0 takes the place as it is.
        """
        transform = self._projector.slices(
            torch.as_tensor(np.asarray(rotation), dtype=torch.float32)[None]
        )
        if ctf is not None:
            transform = transform * ctf
        shift = self._best_shift(
            image, transform, np.asarray(centre_px, dtype=np.float64), reach_px
        )
        phases = shift_phases(torch.from_numpy(shift[None]), self._projector.box)
        projection = from_fourier(transform * phases)[0]
        inside, seen = projection[self._circle].double(), image[self._circle].double()
        inside_deviation, seen_deviation = inside - inside.mean(), seen - seen.mean()
        power = float(inside_deviation.square().sum())
        product = float((inside_deviation * seen_deviation).sum())
        norm = (power * float(seen_deviation.square().sum())) ** 0.5
        scale = product / power if power > 0 else 0.0
        shown = (projection - float(inside.mean())) * scale + float(seen.mean())
        return ProjectionMatch(
            shown.numpy(), (image - shown).numpy(), product / norm if norm > 0 else 0.0, shift
        )

    def projections(self, rotations: ArrayLike) -> NDArray[np.float32]:
        """Return the map's projections at poses ``(k, 3, 3)``, without a CTF, ``(k, box, box)``."""
        poses = torch.as_tensor(np.asarray(rotations), dtype=torch.float32)
        return from_fourier(self._projector.slices(poses)).numpy()

    def _best_shift(
        self, image: Tensor, transform: Tensor, centre_px: NDArray[np.float64], reach_px: float
    ) -> NDArray[np.float64]:
        """Return the shift of largest cross-correlation, to a fraction of a pixel."""
        if reach_px <= 0:
            return centre_px
        products = from_fourier(to_fourier(image[None]) * transform.conj())[0].numpy()
        axis = np.arange(self._projector.box) - self._projector.box // 2
        near_x, near_y = (np.abs(axis - centre) <= reach_px for centre in centre_px)
        allowed = np.where(near_y[:, None] & near_x, products, -np.inf)
        row, column = np.unravel_index(int(allowed.argmax()), allowed.shape)
        x = axis[column] + _summit(products[row], int(column))
        y = axis[row] + _summit(products[:, column], int(row))
        return np.array([x, y], dtype=np.float64)


def _summit(values: NDArray[np.float32], index: int) -> float:
    """Return where the parabola through three neighbours peaks, relative to the middle one."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, middle, after = (float(value) for value in values[index - 1 : index + 2])
    bend = before - 2 * middle + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
