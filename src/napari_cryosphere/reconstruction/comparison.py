"""How alike two maps are, and what differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.particles.image_grid import resampling_matrix
from napari_cryosphere.reconstruction._shells import scale_shells, shell_sums, transform_of
from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation, fourier_shell_correlation
from napari_cryosphere.reconstruction.mask import masked_correlation

__all__ = [
    "MapComparison",
    "check_one_grid",
    "compare_maps",
    "difference_map",
    "normalise_map",
    "resampled_map",
]

_SAME_PIXEL_SIZE = (
    0.01  # relative, 1 voxel at the edge of a box of 200: headers are rounded to two digits
)
# Relative: less than 0.05 voxel over a box of 1000, and resampling would only blur.
_SAME_GRID = 1e-4


@dataclass(frozen=True)
class MapComparison:
    """The FSC of two maps and their correlation, both inside the same mask."""

    curve: FourierShellCorrelation
    correlation: float


def check_one_grid(
    first: DensityMap, second: DensityMap, mask: DensityMap | None, names: tuple[str, str, str]
) -> None:
    """Refuse maps that do not lie on one grid.

    Parameters
    ----------
    names
        What an error calls the maps and the mask: their files, say.

    Raises
    ------
    MetadataError
        If boxes differ, or pixel sizes by more than 1 %.
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

    Parameters
    ----------
    first, second
        Maps of one box and pixel size.
    mask
        Multiplied with both maps for the FSC, the voxels' weight in the correlation; None for no
        mask.
    names
        What an error calls the maps and the mask: their files, say.

    Raises
    ------
    MetadataError
        If boxes differ, or pixel sizes by more than 1 %.
    """
    check_one_grid(first, second, mask, names)
    weights = None if mask is None else mask.voxels
    curve = fourier_shell_correlation(
        first.voxels, second.voxels, first.pixel_size_angstrom, weights
    )
    return MapComparison(curve, masked_correlation(first.voxels, second.voxels, weights))


def resampled_map(density: DensityMap, box: int, pixel_size_angstrom: float) -> DensityMap:
    """Return a map on another grid with the same centre, by trigonometric interpolation axis by axis.

    Frequencies beyond the coarser Nyquist frequency are left out; voxels outside the given map get
    the mean of its outermost voxels. Grey values are kept.

    Parameters
    ----------
    density
        The map.
    box
        Even number of voxels along the new edge.
    pixel_size_angstrom
        New voxel size.
    """
    step = pixel_size_angstrom / density.pixel_size_angstrom
    if box == density.box and abs(step - 1) < _SAME_GRID:
        return density
    matrix = resampling_matrix(density.box, box, step)
    border = _border_mean(density.voxels)
    voxels = density.voxels - border
    for axis in range(3):
        voxels = np.moveaxis(np.tensordot(matrix, voxels, (1, axis)), 0, axis)
    return DensityMap(voxels + border, pixel_size_angstrom, density.symmetry)


def _border_mean(voxels: NDArray[np.float32]) -> np.float32:
    """Return the mean of the six outermost planes."""
    faces = [voxels.take(index, axis) for axis in range(3) for index in (0, -1)]
    return np.float32(np.mean(faces, dtype=np.float64))


def normalise_map(density: DensityMap, mask: NDArray[np.floating] | None = None) -> DensityMap:
    """Return a map with mean 0 and standard deviation 1, inside a mask if there is one.

    Raises
    ------
    MetadataError
        If the map is constant there.
    """
    weights = np.ones(density.voxels.shape) if mask is None else np.asarray(mask, dtype=np.float64)
    mean = float(np.average(density.voxels, weights=weights))
    deviation = np.sqrt(np.average((density.voxels - mean) ** 2, weights=weights))
    if not deviation > 1e-12 * max(1.0, abs(mean)):
        raise MetadataError("the map is constant inside the mask: there is nothing to normalise by")
    voxels = (density.voxels - mean) / deviation
    return DensityMap(voxels.astype(np.float32), density.pixel_size_angstrom, density.symmetry)


def difference_map(
    first: DensityMap, second: DensityMap, mask: NDArray[np.floating] | None = None
) -> DensityMap:
    """Return the first map less the second, the second scaled to the first shell by shell.

    In each shell the second map's amplitude is multiplied by the ratio of the maps' root mean
    powers inside the mask, so that a difference in sharpening or in units leaves nothing.

    Parameters
    ----------
    first, second
        Maps on one grid, aligned.
    mask
        ``(n, n, n)``; where the amplitudes are compared and the difference is kept.

    Raises
    ------
    MetadataError
        If the maps do not lie on one grid.
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
