"""Maps filtered shell by shell of their transforms."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_cryosphere.imaging.map_mask import falling_edge
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction._shells import scale_shells, shell_sums, transform_of

__all__ = ["filtered_shells", "low_passed", "shell_power", "whitened"]

_EDGE_SHELLS = 4  # of a low-pass filter's raised cosine: shorter ones ring; chosen, not tuned


def filtered_shells(
    voxels: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Multiply the shells of a map's transform by ``(box // 2 + 1,)`` weights; zero beyond the last."""
    transform = transform_of(voxels)
    scale_shells(transform, weights)
    return np.asarray(scipy.fft.irfftn(transform, voxels.shape), dtype=np.float32)


def low_passed(
    voxels: NDArray[np.floating], pixel_size_angstrom: float, resolution_angstrom: float
) -> NDArray[np.float32]:
    """Return a map without what is finer than a resolution; the edge is a raised cosine four shells wide.

    ``voxels``: ``(n, n, n)`` map. ``pixel_size_angstrom``: voxel size. ``resolution_angstrom``:
    where the filter is 1/2.
    """
    box = len(voxels)
    beyond = np.arange(box // 2 + 1) - box * pixel_size_angstrom / resolution_angstrom
    return filtered_shells(voxels, falling_edge(beyond / _EDGE_SHELLS + 0.5))


def shell_power(*maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean power of maps' transforms, added up, by shell: ``(box // 2 + 1,)``."""
    powers = [np.abs(transform_of(voxels)) ** 2 for voxels in maps]
    counts, *sums = shell_sums(len(maps[0]), np.ones(powers[0].shape), *powers)
    mean: NDArray[np.float64] = np.sum(sums, axis=0) / counts
    return mean


def whitened(first: DensityMap, second: DensityMap) -> tuple[DensityMap, DensityMap]:
    """Return half-maps with the same mean power in all shells.

    Strong coarse shells would spill through a mask into weak fine ones, which both halves share.
    """
    mean = shell_power(first.voxels, second.voxels)
    weights = np.divide(1, np.sqrt(mean), out=np.zeros_like(mean), where=mean > 0)
    one, other = (
        DensityMap(filtered_shells(half.voxels, weights), half.pixel_size_angstrom, half.symmetry)
        for half in (first, second)
    )
    return one, other
