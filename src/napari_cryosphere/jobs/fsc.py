"""The job ``fsc``: how alike two maps are, shell by shell."""

from __future__ import annotations

import numpy as np

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.configs import FscConfig
from napari_cryosphere.jobs.events import Events, Note, Result
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.references import open_map, open_mask
from napari_cryosphere.particles import ImageGrid
from napari_cryosphere.reconstruction import (
    FourierShellCorrelation,
    compare_maps,
    conical_fsc,
    resampled_map,
    write_fsc_csv,
)

__all__ = ["fsc"]


@claims(files=("output",))
def fsc(config: FscConfig) -> Events:
    """Write the FSC of two maps as CSV and report the resolutions at 0.5 and 0.143.

    The second map and the mask are brought to the first one's grid if they are on another. Raises
    `MetadataError` if a map is constant, or nothing of it is inside the mask.
    """
    refuse_overwrite(config.output, config.overwrite)
    first, second = open_map(config, config.first), open_map(config, config.second)
    grid = ImageGrid(first.box, first.pixel_size_angstrom)
    if not ImageGrid(second.box, second.pixel_size_angstrom).matches(grid):
        yield Note(
            f"{config.second} ({second.box} voxels of {second.pixel_size_angstrom:.5g} A) is resampled to "
            f"the grid of {config.first} ({grid.box} of {grid.pixel_size_angstrom:.5g} A); if a header is "
            "wrong, give --map-pixel-size",
            warning=True,
        )
        second = resampled_map(second, grid.box, grid.pixel_size_angstrom)
    mask = None
    if config.mask is not None:
        opened = open_mask(config.mask, grid, f"the map {config.first}")
        yield from opened.notes
        mask = opened.density
    names = (str(config.first), str(config.second), str(config.mask))
    for path, density in zip(names, (first, second), strict=False):
        if mask is not None and not (density.voxels * mask.voxels).any():
            raise MetadataError(f"nothing of {path} is inside the mask {config.mask}: no FSC")
    if config.first.resolve() != config.second.resolve() and np.array_equal(
        first.voxels, second.voxels
    ):
        yield Note(f"{config.first} and {config.second} hold the same map", warning=True)
    compared = compare_maps(first, second, mask, names)
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
