"""The job ``postprocess``: two half-maps to a sharpened map, its mask and its FSC."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.configs import PostprocessConfig, SharpeningConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.references import open_map, open_mask
from napari_cryosphere.particles import DensityMap, ImageGrid
from napari_cryosphere.reconstruction import (
    Postprocessed,
    check_one_grid,
    postprocess_maps,
    soft_mask,
    write_fsc_csv,
    write_fsc_star,
    write_fsc_xml,
)

__all__ = ["postprocess", "postprocess_outputs", "sharpened"]


def postprocess_outputs(config: PostprocessConfig) -> dict[str, Path]:
    """Return what a run writes, by role."""
    output = config.output
    files = {
        "map": output,
        "masked_map": output.with_name(f"{output.stem}_masked.mrc"),
        "fsc": output.with_name(f"{output.stem}_fsc.csv"),
        "fsc_star": output.with_name(f"{output.stem}_fsc.star"),
        "fsc_xml": output.with_name(f"{output.stem}_fsc.xml"),
    }
    made = {} if config.mask is not None else {"mask": output.with_name(f"{output.stem}_mask.mrc")}
    return files | made


@claims(files=("output",))
def postprocess(config: PostprocessConfig) -> Events:
    """Sharpen the mean of two half-maps and measure their FSC.

    Raises `MetadataError` if both halves are one file, or the maps do not fit each other.
    """
    outputs = postprocess_outputs(config)
    for path in outputs.values():
        refuse_overwrite(path, config.overwrite)
    if config.half1.resolve() == config.half2.resolve():
        raise MetadataError(
            f"both half-maps are {config.half1}; give the two halves of one reconstruction"
        )
    first, second = open_map(config, config.half1), open_map(config, config.half2)
    yield Progress(0.1, "read the half-maps")
    mask = None
    if config.mask is not None:
        grid = ImageGrid(first.box, first.pixel_size_angstrom)
        opened = open_mask(config.mask, grid, f"the half-map {config.half1}")
        yield from opened.notes
        mask = opened.density
    made, mask = sharpened(
        first, second, config, mask, (str(config.half1), str(config.half2), str(config.mask))
    )
    if made.note:
        yield Note(made.note, warning=True)
    yield Progress(0.9, "sharpened the map")
    _write(made, mask, config, outputs)
    curves = made.curves
    yield Result(
        outputs,
        {
            "resolution_0143_angstrom": curves.corrected.resolution_angstrom(0.143),
            "resolution_05_angstrom": curves.corrected.resolution_angstrom(0.5),
            "unmasked_resolution_0143_angstrom": curves.unmasked.resolution_angstrom(0.143),
            "b_factor": made.b_factor,
        },
    )


def sharpened(
    first: DensityMap,
    second: DensityMap,
    config: SharpeningConfig,
    mask: DensityMap | None = None,
    names: tuple[str, str, str] = ("the first half-map", "the second half-map", "the mask"),
) -> tuple[Postprocessed, DensityMap]:
    """Sharpen the mean of two half-maps; returns the mask too, made from their low-passed mean if None.

    Raises `MetadataError` if maps and mask do not lie on one grid.
    """
    check_one_grid(first, second, mask, names)
    if mask is None:
        size = first.pixel_size_angstrom
        mask = DensityMap(soft_mask((first.voxels + second.voxels) / 2, size), size)
    made = postprocess_maps(
        first,
        second,
        mask.voxels,
        config.b_factor,
        config.fit_from_angstrom,
        config.fit_to_angstrom,
        config.low_pass_angstrom,
        np.random.default_rng(config.seed),
    )
    return made, mask


def _write(
    made: Postprocessed, mask: DensityMap, config: PostprocessConfig, outputs: dict[str, Path]
) -> None:
    overwrite, curves = config.overwrite, made.curves
    made.density.save(outputs["map"], overwrite)
    masked = DensityMap(made.density.voxels * mask.voxels, made.density.pixel_size_angstrom)
    masked.save(outputs["masked_map"], overwrite)
    if "mask" in outputs:
        mask.save(outputs["mask"], overwrite)
    columns = {
        "fsc": curves.corrected,
        "unmasked": curves.unmasked,
        "masked": curves.masked,
        "phase_randomised": curves.randomised,
    }
    write_fsc_csv(columns, outputs["fsc"], overwrite=overwrite)
    write_fsc_star(
        made, str(outputs.get("mask", config.mask)), outputs["fsc_star"], overwrite=overwrite
    )
    title = f"{config.half1.name} / {config.half2.name}"
    write_fsc_xml(curves.corrected, title, outputs["fsc_xml"], overwrite=overwrite)
