"""The job ``fsc``: how alike two maps are, shell by shell."""

from __future__ import annotations

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.jobs._writing import write_fsc
from napari_cryosphere.jobs.configs import FscConfig
from napari_cryosphere.jobs.events import Events, Result
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import compare_maps

__all__ = ["fsc"]


def fsc(config: FscConfig) -> Events:
    """Write the FSC of two maps as CSV and report the resolutions at 0.5 and 0.143."""
    refuse_overwrite(config.output, config.overwrite)
    first, second = DensityMap.read(config.first), DensityMap.read(config.second)
    mask = None if config.mask is None else DensityMap.read(config.mask)
    compared = compare_maps(first, second, mask, (str(config.first), str(config.second), str(config.mask)))
    write_fsc(compared.curve, config.output, overwrite=config.overwrite)
    yield Result(
        {"fsc": config.output},
        {
            "resolution_05_angstrom": compared.curve.resolution_angstrom(0.5),
            "resolution_0143_angstrom": compared.curve.resolution_angstrom(0.143),
            "correlation": compared.correlation,
        },
    )
