"""The job ``fsc``: how alike two maps are, shell by shell."""

from __future__ import annotations

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs._writing import write_fsc
from napari_cryosphere.jobs.configs import FscConfig
from napari_cryosphere.jobs.events import Events, Result
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import fourier_shell_correlation, masked_correlation

__all__ = ["fsc"]


def fsc(config: FscConfig) -> Events:
    """Write the FSC of two maps as CSV and report the resolutions at 0.5 and 0.143."""
    refuse_overwrite(config.output, config.overwrite)
    first, second = DensityMap.read(config.first), DensityMap.read(config.second)
    mask = None if config.mask is None else DensityMap.read(config.mask)
    for path, density in ((config.second, second), (config.mask, mask)):
        if density is not None and density.box != first.box:
            raise MetadataError(
                f"{path} has a box of {density.box}, {config.first} one of {first.box}; "
                "maps and mask must have one box"
            )
    if abs(second.pixel_size_angstrom / first.pixel_size_angstrom - 1) > 0.01:
        raise MetadataError(
            f"{config.second} has pixels of {second.pixel_size_angstrom:g} A, {config.first} of "
            f"{first.pixel_size_angstrom:g} A; resample one of them"
        )
    weights = None if mask is None else mask.voxels
    curve = fourier_shell_correlation(first.voxels, second.voxels, first.pixel_size_angstrom, weights)
    write_fsc(curve, config.output, overwrite=config.overwrite)
    yield Result(
        {"fsc": config.output},
        {
            "resolution_05_angstrom": curve.resolution_angstrom(0.5),
            "resolution_0143_angstrom": curve.resolution_angstrom(0.143),
            "correlation": masked_correlation(first.voxels, second.voxels, weights),
        },
    )
