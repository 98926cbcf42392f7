"""The job ``variability``: how particles at known poses differ, and where each is along that."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np

from napari_cryosphere._files import write_json
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs._variability import MaskWord, Variability, variability_stack
from napari_cryosphere.jobs.configs import VariabilityConfig, VaryingConfig
from napari_cryosphere.jobs.events import Event, Events, Result
from napari_cryosphere.jobs.running.inputs import described, digest_of_table, open_particles
from napari_cryosphere.jobs.running.journal import Journal, MemoryJournal
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.references import checked_mask, open_mask
from napari_cryosphere.jobs.running.run_folder import (
    UNFINISHED,
    begins,
    clear_unfinished,
    remove_stale,
)
from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = ["variability", "variability_in_memory", "variability_outputs"]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the coordinates along a component: where volumes are written."""


_OF_COMPONENTS = [
    f"component_{number}{name}"
    for number in ("[1-9]", "[1-9][0-9]")
    for name in (".mrc", "_volumes/at_[0-9][0-9]_percent.mrc")
]
"""Patterns of the files of components 1 to 99."""


def variability_outputs(config: VariabilityConfig, found: int = 0) -> dict[str, Path]:
    """Return what a run that finds so many components writes, by role."""
    names = {
        "particles": "particles.star",
        "mean": "mean.mrc",
        "mask": "mask.mrc",
        "variability": "variability.json",
        "config": "config.json",
    }
    for number in range(1, found + 1):
        names[f"component_{number}"] = f"component_{number}.mrc"
        for quantile in _QUANTILES:
            role = f"component_{number}_at_{100 * quantile:02.0f}"
            names[role] = f"component_{number}_volumes/at_{100 * quantile:02.0f}_percent.mrc"
    return {role: config.output / name for role, name in names.items()}


@claims(folders=("output",))
def variability(config: VariabilityConfig) -> Events:
    """Find how particles at known poses differ and write the folder.

    Raises `MetadataError` if there are no poses, too few particles, or the halves' maps at these
    poses have nothing in common.
    """
    if not begins(config, variability_outputs(config)["particles"]):
        yield Result({}, {})
        return
    stack = open_particles(config)
    mask: DensityMap | MaskWord
    if isinstance(config.mask, Path):
        opened = open_mask(config.mask, stack.grid, "the particles")
        yield from opened.notes
        mask = opened.density
    else:
        mask = config.mask
    settings = described(config) | {"table": digest_of_table(stack)}
    kept = [
        Journal(config.output / UNFINISHED / name, settings, config.resume)
        for name in ("components", "coordinates")
    ]
    found = yield from variability_stack(stack, config, mask, *kept)
    outputs = _write(found, config)
    remove_stale(config.output, _OF_COMPONENTS, outputs.values())
    clear_unfinished(config.output)
    metrics: dict[str, float | int | str] = {
        "particles": len(stack),
        "components": len(found.found),
        "resolution_angstrom": round(found.resolution_angstrom, 2),
    }
    for place, one in enumerate(found.found, start=1):
        metrics[f"half_set_correlation_of_component_{place}"] = round(one.half_set_correlation, 3)
        metrics[f"median_error_of_component_{place}"] = round(
            float(np.median(found.errors(place))), 3
        )
    yield Result(outputs, metrics)


def variability_in_memory(
    stack: ParticleStack, config: VaryingConfig, mask: DensityMap | MaskWord
) -> Generator[Event, None, Variability]:
    """Find how particles differ, without files.

    Raises `MetadataError` as `variability`, or if the mask is another word or does not fit the
    particles.
    """
    if isinstance(mask, DensityMap):
        opened = checked_mask(mask, "the mask", stack.grid, "the particles")
        yield from opened.notes
        mask = opened.density
    elif not (isinstance(mask, str) and mask in get_args(MaskWord)):
        given = repr(mask) if isinstance(mask, str) else type(mask).__name__
        raise MetadataError(f"mask={given}: it must be 'auto', 'none' or a DensityMap (read_map)")
    return (yield from variability_stack(stack, config, mask, MemoryJournal(), MemoryJournal()))


def _write(found: Variability, config: VariabilityConfig) -> dict[str, Path]:
    """Write all outputs; returns them by role."""
    outputs, overwrite = variability_outputs(config, len(found.found)), True

    def save(density: DensityMap, role: str) -> None:
        outputs[role].parent.mkdir(exist_ok=True)
        density.save(outputs[role], overwrite)

    save(found.mean, "mean")
    save(found.mask, "mask")
    kept = list[dict[str, Any]]()
    for place, one in enumerate(found.found, start=1):
        save(found.components[place - 1], f"component_{place}")
        at = np.quantile(found.coordinates(place), _QUANTILES)
        for quantile, value in zip(_QUANTILES, at, strict=True):
            save(found.volume(place, value), f"component_{place}_at_{100 * quantile:02.0f}")
        told = {
            "median_error": float(np.median(found.errors(place))),
            "coordinates_of_volumes": {
                f"{quantile:g}": float(value)
                for quantile, value in zip(_QUANTILES, at, strict=True)
            },
        }
        kept.append(asdict(one) | told)
    content = {
        "particles": len(found.particles),
        "components_sought": config.components,
        "components_found": len(found.found),
        "resolution_angstrom": found.resolution_angstrom,
        "half_map_resolution_angstrom": found.half_map_resolution_angstrom,
        "box": found.mean.box,
        "pixel_size_angstrom": found.mean.pixel_size_angstrom,
        "components": kept,
        "judged": [asdict(one) | {"found_by_both_halves": one.real} for one in found.judged],
    }
    write_json(content, outputs["variability"], overwrite=overwrite)
    write_json(config.model_dump(mode="json"), outputs["config"], overwrite=overwrite)
    found.particles.save(outputs["particles"], overwrite)
    return outputs
