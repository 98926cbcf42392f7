"""The job ``refine``: particles and a coarse map to poses, half-maps and their FSC."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from napari_cryosphere._files import atomic_path, refuse_overwrite, write_json
from napari_cryosphere.imaging.map_mask import masked_map, particle_mask
from napari_cryosphere.jobs._refinement import RESOLVED, Iteration, Refinement
from napari_cryosphere.jobs.align import refuse_without_poses
from napari_cryosphere.jobs.configs import RefineConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result, Snapshot
from napari_cryosphere.jobs.running.halves import refuse_empty_half
from napari_cryosphere.jobs.running.inputs import open_particles, warnings_of
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.ranks import current_ranks
from napari_cryosphere.jobs.running.references import open_map, open_mask, pixel_size_notes
from napari_cryosphere.jobs.running.uncertainty import summary_metrics
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import write_fsc_csv
from napari_cryosphere.reconstruction.map_symmetry import axes_to_lay

__all__ = ["refine", "refine_outputs"]

_SPREAD_SHELLS = 1.5
"""By which the mask spreads what both halves began with: 1000 images of noise agree 0.9 shells
further.
"""


def refine_outputs(config: RefineConfig) -> dict[str, Path]:
    """Return what a run writes, by role."""
    names = {
        "particles": "particles.star",
        "map": "map.mrc",
        "half1": "half1.mrc",
        "half2": "half2.mrc",
        "mask": "mask.mrc",
        "fsc": "fsc.csv",
        "history": "history.csv",
        "config": "config.json",
    }
    return {role: config.output / name for role, name in names.items()}


@claims(folders=("output",))
def refine(config: RefineConfig) -> Events:
    """Refine poses and map with independent halves and write the run folder.

    Raises
    ------
    MetadataError
        If a half set is empty, a local search has no poses, or the map is not seen in the images.
    """
    outputs = refine_outputs(config)
    if not config.resume:
        refuse_overwrite(outputs["particles"], config.overwrite)
    stack = open_particles(config).with_half_sets()
    refuse_empty_half(stack)
    refuse_without_poses(stack, config)
    yield from warnings_of(stack, "they are compared as they are")
    mask: DensityMap | None = None
    if isinstance(config.mask, Path):
        opened = open_mask(config.mask, stack.grid, "the particles")
        yield from opened.notes
        mask = opened.density
    density = open_map(config, config.map)
    if config.map_pixel_size_angstrom is None:
        yield from pixel_size_notes(config.map, density, stack.grid)
    laid = axes_to_lay(density, config.symmetry, config.initial_resolution_angstrom)
    if laid is not None:
        density = laid.laid(density)
        yield Note(
            f"the axes of {config.map} are {laid.off_degrees:.1f} degrees off RELION's frame of "
            f"{config.symmetry}: they are laid there (correlation {laid.correlation:.2f})"
        )
    wide = None
    if config.mask == "auto":
        wide = particle_mask(density.voxels, density.pixel_size_angstrom)
    refinement = Refinement(config, stack, masked_map(density, wide), mask)
    history: list[Iteration] = []
    for event in refinement:
        if not isinstance(event, Iteration):
            yield event
            continue
        history.append(event)
        share = event.number / config.iterations
        yield Progress(share, _told(event), event.row())
        yield Snapshot(share, event.maps.density, len(stack))
    if not current_ranks().first:
        yield Result({}, {})
        return
    last = history[-1]
    reached, began = last.resolution_angstrom, config.initial_resolution_angstrom
    field = stack.grid.field_angstrom
    if field / reached < field / began + _SPREAD_SHELLS:
        yield Note(
            f"the halves agree to {reached:.1f} A and no further than the {began:g} A of the map "
            "they began with: nothing of it is seen in these particles",
            warning=True,
        )
    _write(history, config, outputs)
    refinement.remove_journals()
    measured = summary_metrics(stack, last.summary, config.symmetry)
    yield Result(outputs, measured | {k: round(v, 4) for k, v in last.row().items()})


def _told(iteration: Iteration) -> str:
    return (
        f"iteration {iteration.number}: compared to {iteration.compared_angstrom:.1f} A, half-maps "
        f"agree to {iteration.resolution_angstrom:.1f} A (FSC {RESOLVED})"
    )


def _write(history: list[Iteration], config: RefineConfig, outputs: dict[str, Path]) -> None:
    last, overwrite = history[-1], True
    last.stack.save(outputs["particles"], overwrite)
    last.maps.density.save(outputs["map"], overwrite)
    for half, role in zip(last.maps.halves, ("half1", "half2"), strict=True):
        half.save(outputs[role], overwrite)
    last.mask.save(outputs["mask"], overwrite)
    curves = {
        "fsc": last.fsc.corrected,
        "unmasked": last.fsc.unmasked,
        "masked": last.fsc.masked,
        "phase_randomised": last.fsc.randomised,
    }
    write_fsc_csv(curves, outputs["fsc"], overwrite=overwrite)
    with atomic_path(outputs["history"], overwrite=overwrite) as temporary:
        pd.DataFrame([iteration.row() for iteration in history]).to_csv(temporary, index=False)
    write_json(config.model_dump(mode="json"), outputs["config"], overwrite=overwrite)
