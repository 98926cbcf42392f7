"""Comparison of two maps: correlation, FSC and difference map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction._shells import scale_shells, shell_sums, transform_of
from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation, fourier_shell_correlation

__all__ = [
    "MapComparison",
    "check_one_grid",
    "compare_maps",
    "difference_map",
    "masked_correlation",
]

# relative, 1 voxel at the edge of a box of 200: headers are rounded to two digits
_SAME_PIXEL_SIZE = 0.01


@dataclass(frozen=True)
class MapComparison:
    """The FSC of two maps and their correlation, both inside the same mask."""

    curve: FourierShellCorrelation
    correlation: float


def check_one_grid(
    first: DensityMap, second: DensityMap, mask: DensityMap | None, names: tuple[str, str, str]
) -> None:
    """Refuse maps that do not lie on one grid.

    ``names`` are what an error calls the maps and the mask: their files, say. Raises
    `MetadataError` if boxes differ, or pixel sizes by more than 1 %.
    """
    for density, name in ((second, names[1]), (mask, names[2])):
        if density is not None and density.box != first.box:
            raise MetadataError(
                f"{name} has a box of {density.box}, {names[0]} one of {first.box}; "
                "maps and mask must have one box, crop or pad one of them"
            )
    if abs(second.pixel_size_angstrom / first.pixel_size_angstrom - 1) > _SAME_PIXEL_SIZE:
        raise MetadataError(
            f"{names[1]} has pixels of {second.pixel_size_angstrom:g} A, {names[0]} of "
            f"{first.pixel_size_angstrom:g} A; resample one of them"
        )


def compare_maps(
    first: DensityMap,
    second: DensityMap,
    mask: DensityMap | None = None,
    names: tuple[str, str, str] = ("the first map", "the second map", "the mask"),
) -> MapComparison:
    """Compare two maps on one grid.

    ``first``, ``second``: maps of one box and pixel size. ``mask``: multiplied with both maps for
    the FSC, the voxels' weight in the correlation; None for no mask. ``names``: what an error calls
    the maps and the mask: their files, say. Raises `MetadataError` if boxes differ, or pixel sizes
    by more than 1 %.
    """
    check_one_grid(first, second, mask, names)
    weights = None if mask is None else mask.voxels
    curve = fourier_shell_correlation(
        first.voxels, second.voxels, first.pixel_size_angstrom, weights
    )
    return MapComparison(curve, masked_correlation(first.voxels, second.voxels, weights))


def masked_correlation(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    mask: NDArray[np.floating] | None = None,
) -> float:
    """Return Pearson's correlation of two maps, each voxel weighted by the mask (None: all the same).

    All are ``(box, box, box)``. Summed in float64, one section at a time, so that large maps need
    no copies.
    """
    means = np.zeros(3)  # of the weight, and of each map times the weight
    moments = np.zeros(3)
    for centred in (False, True):
        for z in range(len(first)):
            w = np.ones(first[z].shape) if mask is None else mask[z].astype(np.float64)
            a, b = first[z].astype(np.float64), second[z].astype(np.float64)
            if centred:
                a, b = a - means[1] / means[0], b - means[2] / means[0]
                moments += (w * a * b).sum(), (w * a * a).sum(), (w * b * b).sum()
            else:
                means += w.sum(), (w * a).sum(), (w * b).sum()
    return float(moments[0] / np.sqrt(moments[1] * moments[2]))


def difference_map(
    first: DensityMap, second: DensityMap, mask: NDArray[np.floating] | None = None
) -> DensityMap:
    """Return the first map less the second, the second scaled to the first shell by shell.

    In each shell the second map's amplitude is multiplied by the ratio of the maps' root mean
    powers inside the mask, so that a difference in sharpening or in units leaves nothing.

    ``first``, ``second``: maps on one grid, aligned. ``mask``: ``(n, n, n)``; where the amplitudes
    are compared and the difference is kept. Raises `MetadataError` if the maps do not lie on one
    grid.
    """
    check_one_grid(first, second, None, ("the first map", "the second map", "the mask"))
    inside = np.ones((), dtype=np.float32) if mask is None else mask
    f, g = transform_of(first.voxels * inside), transform_of(second.voxels * inside)
    powers = shell_sums(first.box, np.abs(f) ** 2, np.abs(g) ** 2)
    ratio = np.sqrt(
        np.divide(powers[0], powers[1], out=np.zeros_like(powers[0]), where=powers[1] > 0)
    )
    scale_shells(f, np.ones_like(ratio))  # both end at Nyquist
    scale_shells(g, ratio)
    voxels = scipy.fft.irfftn(f - g, first.voxels.shape) * inside
    return DensityMap(
        np.asarray(voxels, dtype=np.float32), first.pixel_size_angstrom, first.symmetry
    )
