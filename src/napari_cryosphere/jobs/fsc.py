"""The job ``fsc``: how alike two maps are, shell by shell."""

from __future__ import annotations

import numpy as np

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.configs import FscConfig
from napari_cryosphere.jobs.events import Events, Note, Result
from napari_cryosphere.jobs.running.inputs import open_map
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.reconstruction import (
    FourierShellCorrelation,
    compare_maps,
    conical_fsc,
    write_fsc_csv,
)

__all__ = ["fsc"]


@claims(files=("output",))
def fsc(config: FscConfig) -> Events:
    """Write the FSC of two maps as CSV and report the resolutions at 0.5 and 0.143.

    Raises
    ------
    MetadataError
        If a map is zero everywhere, or maps and mask are not on one grid.
    """
    refuse_overwrite(config.output, config.overwrite)
    first, second = open_map(config, config.first), open_map(config, config.second)
    mask = None if config.mask is None else open_map(config, config.mask)
    for path, density in ((config.first, first), (config.second, second)):
        if not density.voxels.any():
            raise MetadataError(f"{path} is zero everywhere, as of an empty half: it has no FSC")
    if config.first.resolve() != config.second.resolve() and np.array_equal(
        first.voxels, second.voxels
    ):
        yield Note(f"{config.first} and {config.second} hold the same map", warning=True)
    compared = compare_maps(
        first, second, mask, (str(config.first), str(config.second), str(config.mask))
    )
    curve = compared.curve
    columns: dict[str, FourierShellCorrelation] = {"fsc": curve}
    metrics: dict[str, float | int | str] = {
        "resolution_05_angstrom": curve.resolution_angstrom(0.5),
        "resolution_0143_angstrom": curve.resolution_angstrom(0.143),
        "correlation": compared.correlation,
    }
    if config.cones:
        cones = conical_fsc(first, second, None if mask is None else mask.voxels)
        columns |= {"cone_min": cones.lowest, "cone_max": cones.highest}
        best, worst = cones.resolution_range_angstrom(0.143)
        metrics |= {"best_cone_0143_angstrom": best, "worst_cone_0143_angstrom": worst}
    write_fsc_csv(columns, config.output, overwrite=config.overwrite)
    yield Result({"fsc": config.output}, metrics)
