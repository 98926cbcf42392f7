"""Particles at known poses, seen in a few shells: their images whitened, and what maps leave over in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from napari_cryosphere.alignment.aligner import Aligner
from napari_cryosphere.alignment.observation import Observation
from napari_cryosphere.alignment.variability import Nuisances, Residuals
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.jobs.align import AlignerInput, pilot_around, prepare_aligner
from napari_cryosphere.jobs.running.compute import choose_device
from napari_cryosphere.jobs.running.references import mask_on_grid
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack

__all__ = ["CoarseImages", "coarse_grid"]


def coarse_grid(grid: ImageGrid, shells: int) -> ImageGrid:
    """Return the coarsest grid of the same field that holds so many shells."""
    shell = min(shells, grid.box // 2 - 2)
    box = min(2 * int(scipy.fft.next_fast_len(shell + 3, real=True)), grid.box)
    return ImageGrid(box, grid.field_angstrom / box)


class CoarseImages:
    """Images in a few shells, whitened by noise that is measured around a map.

    - ``stack``: particles with poses; as an attribute, those on the coarse ``grid``.
    - ``reference``: their map, on any grid.
    - ``shells``: how many are looked at.
    - ``symmetry``: point group of the map.
    - ``shift_range_px``: as far as shifts may be off where the noise is measured; None is 4 pixels.
    - ``batch_size``: images that are read at once.
    """

    def __init__(
        self,
        stack: ParticleStack,
        reference: DensityMap,
        shells: int,
        symmetry: str,
        shift_range_px: float | None,
        batch_size: int,
    ) -> None:
        field = stack.grid.field_angstrom
        self.grid = coarse_grid(stack.grid, shells)
        self.stack = stack.on_grid(self.grid)
        self._symmetry, self._batch_size = symmetry, batch_size
        self._aligner: Aligner = prepare_aligner(
            self.stack,
            reference,
            symmetry,
            field / min(shells, stack.box // 2 - 2),
            shift_range_px,
            choose_device("cpu"),
            pilot_around(self.stack, 0.0),
        )
        self._read = AlignerInput(self.stack)

    @property
    def max_shell(self) -> int:
        """The last shell that is looked at: no farther than images tell of poses."""
        return self._aligner.band.max_shell

    @property
    def contrast_spread(self) -> float:
        """Standard deviation of the images' contrasts about 1, as far as it was seen."""
        return self._aligner.noise.contrast_spread

    def observed(self, rows: NDArray[np.int64]) -> Observation:
        """Return some images, whitened."""
        parts = [
            self._aligner.observe(*self._read(some))
            for some in np.array_split(rows, -(-len(rows) // self._batch_size))
        ]
        return replace(
            parts[0],
            data=torch.cat([part.data for part in parts]),
            filters=torch.cat([part.filters for part in parts]),
        )

    def voxels(self, density: DensityMap) -> torch.Tensor:
        """Return a map on the coarse grid."""
        return map_on_grid(density, self.grid.box, self.grid.pixel_size_angstrom).cpu()

    def mask(self, mask: DensityMap) -> NDArray[np.float32]:
        """Return a mask on the coarse grid, 0 to 1."""
        return mask_on_grid(mask, self.grid.box, self.grid.pixel_size_angstrom)

    def residuals(
        self,
        rows: NDArray[np.int64],
        voxels: torch.Tensor,
        mask: NDArray[np.float32],
        nuisances: Nuisances | None = None,
        noise: NDArray[np.float64] | None = None,
    ) -> Residuals:
        """Return what a map on the coarse grid leaves over in some images; see `Residuals`."""
        mine = self.stack[rows]
        presence = None
        if "cryospherePresence" in mine.particles:
            presence = mine.particles["cryospherePresence"].to_numpy(float)
        return Residuals(
            self.observed(rows),
            mine.rotations(),
            -mine.shifts_angstrom() / self.grid.pixel_size_angstrom,
            voxels,
            mask,
            self._symmetry,
            presence,
            nuisances,
            noise,
        )
