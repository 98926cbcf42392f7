"""Maps on other grids: another pixel size, another box, the same centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.particles import DensityMap
from napari_cryosphere.particles.image_grid import resampling_matrix

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["border_mean", "map_on_grid", "resampled_map"]

# Relative: less than 0.05 voxel over a box of 1000, and resampling would only blur.
_SAME_GRID = 1e-4


def resampled_map(density: DensityMap, box: int, pixel_size_angstrom: float) -> DensityMap:
    """Return a map on another grid with the same centre, by trigonometric interpolation axis by axis.

    Frequencies beyond the coarser Nyquist frequency are left out; voxels outside the given map get
    the mean of its outermost voxels. Grey values are kept.

    ``box``: even number of voxels along the new edge. ``pixel_size_angstrom``: new voxel size.
    """
    step = pixel_size_angstrom / density.pixel_size_angstrom
    if box == density.box and abs(step - 1) < _SAME_GRID:
        return density
    matrix = resampling_matrix(density.box, box, step)
    border = border_mean(density.voxels)
    voxels = density.voxels - border
    for axis in range(3):
        voxels = np.moveaxis(np.tensordot(matrix, voxels, (1, axis)), 0, axis)
    return DensityMap(voxels + border, pixel_size_angstrom, density.symmetry)


def border_mean(voxels: NDArray[np.float32]) -> np.float32:
    """Return the mean of the six outermost planes of ``(z, y, x)`` voxels."""
    faces = [voxels.take(index, axis).ravel() for axis in range(3) for index in (0, -1)]
    return np.float32(np.concatenate(faces).mean(dtype=np.float64))


def map_on_grid(density: DensityMap, box: int, pixel_size_angstrom: float) -> Tensor:
    """Return the voxels of `resampled_map`, ``(box, box, box)`` float32 in z, y, x order."""
    import torch  # a second of start that reconstruction does without

    return torch.from_numpy(resampled_map(density, box, pixel_size_angstrom).voxels.copy())
