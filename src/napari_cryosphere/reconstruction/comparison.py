"""How alike two maps are, in one call."""

from __future__ import annotations

from dataclasses import dataclass

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation, fourier_shell_correlation
from napari_cryosphere.reconstruction.mask import masked_correlation

__all__ = ["MapComparison", "compare_maps"]


@dataclass(frozen=True)
class MapComparison:
    """The FSC of two maps and their correlation, both inside the same mask."""

    curve: FourierShellCorrelation
    correlation: float


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
        Multiplied with both maps for the FSC, the voxels' weight in the correlation; None for no mask.
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
    if abs(second.pixel_size_angstrom / first.pixel_size_angstrom - 1) > 0.01:
        raise MetadataError(
            f"{names[1]} has pixels of {second.pixel_size_angstrom:g} A, {names[0]} of "
            f"{first.pixel_size_angstrom:g} A; resample one of them"
        )
    weights = None if mask is None else mask.voxels
    curve = fourier_shell_correlation(first.voxels, second.voxels, first.pixel_size_angstrom, weights)
    return MapComparison(curve, masked_correlation(first.voxels, second.voxels, weights))
