"""The job ``refine``: particles and a coarse map to poses, half-maps and their FSC."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from napari_cryosphere._files import atomic_path, write_json
from napari_cryosphere.imaging.map_mask import masked_map, particle_mask
from napari_cryosphere.jobs._classes import ClassRefinement, StateIteration
from napari_cryosphere.jobs._refinement import RESOLVED, Iteration
from napari_cryosphere.jobs.align import refuse_without_poses
from napari_cryosphere.jobs.configs import RefineConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result, Snapshot
from napari_cryosphere.jobs.running.halves import refuse_few_in_half
from napari_cryosphere.jobs.running.inputs import open_particles, warnings_of
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.ranks import current_ranks
from napari_cryosphere.jobs.running.references import open_map, open_mask, pixel_size_notes
from napari_cryosphere.jobs.running.run_folder import (
    clear_unfinished,
    files_of_state,
    further_states,
    refuse_ended,
    remove_stale,
)
from napari_cryosphere.jobs.running.uncertainty import summary_metrics
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.reconstruction import write_fsc_csv
from napari_cryosphere.reconstruction.map_symmetry import axes_to_lay
from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = ["refine", "refine_outputs"]

_SPREAD_SHELLS = 1.5
"""By which the mask may spread what both halves began with: 240 images of noise agreed up to half a shell
further in six runs.
"""

_FEWEST = 10  # particles of a half, as of a state; chosen, not tuned
_OF_STATE = ("map", "half1", "half2", "mask", "fsc")
"""Roles of the files that every state has; those of the second end with ``_class002``."""


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
        If a half set has too few particles, a local search has no poses, or the map is not seen.
    """
    outputs = refine_outputs(config)
    refuse_ended(config, outputs["particles"])
    stack = open_particles(config).with_half_sets()
    refuse_few_in_half(stack, _FEWEST)
    refuse_without_poses(stack, config)
    yield from warnings_of(stack, "they are compared as they are")
    mask: DensityMap | None = None
    if isinstance(config.mask, Path):
        opened = open_mask(config.mask, stack.grid, "the particles")
        yield from opened.notes
        mask = opened.density
    starts = list[DensityMap]()
    for path in config.map:
        starts.append((yield from _starting_map(config, path, stack.grid)))
    refinement = ClassRefinement(config, stack, starts, mask)
    history, found, share = list[dict[str, float]](), None, 0.0
    for event in refinement if config.states == 1 else refinement.of_states():
        if not isinstance(event, Iteration | StateIteration):
            share = event.fraction if isinstance(event, Progress) else share
            yield event
            continue
        found = _Found.of(event)
        rows = found.rows(config.states)
        again = {row["iteration"] for row in rows}  # what the run ends with comes a second time
        history = [row for row in history if row["iteration"] not in again] + rows
        yield Progress(share, found.message(), rows[-1])
        yield Snapshot(share, found.first.maps.density, len(stack))
    if not current_ranks().first or found is None:
        yield Result({}, {})
        return
    last = found.first
    reached, began = last.resolution_angstrom, config.initial_resolution_angstrom
    field = stack.grid.field_angstrom
    if field / reached < field / began + _SPREAD_SHELLS:
        yield Note(
            f"the halves agree to {reached:.1f} A and no further than the {began:g} A of the map "
            "they began with: nothing of it is seen in these particles",
            warning=True,
        )
    outputs |= _write(found, history, config, outputs)
    remove_stale(config.output, further_states(outputs, _OF_STATE), outputs.values())
    clear_unfinished(config.output)
    measured = summary_metrics(stack, found.summary, config.symmetry)
    yield Result(outputs, measured | {k: round(v, 4) for k, v in found.metrics().items()})


def _starting_map(
    config: RefineConfig, path: Path, grid: ImageGrid
) -> Generator[Note, None, DensityMap]:
    """Return a map without its background and, with ``--mask auto``, its solvent, in RELION's frame."""
    density = open_map(config, path)
    if config.map_pixel_size_angstrom is None:
        yield from pixel_size_notes(path, density, grid)
    laid = axes_to_lay(density, config.symmetry, config.initial_resolution_angstrom)
    if laid is not None:
        density = laid.laid(density)
        yield Note(
            f"the axes of {path} are {laid.off_degrees:.1f} degrees off RELION's frame of "
            f"{config.symmetry}: they are laid there (correlation {laid.correlation:.2f})"
        )
    wide = None
    if config.mask == "auto":
        wide = particle_mask(density.voxels, density.pixel_size_angstrom)
    return masked_map(density, wide)


@dataclass(frozen=True)
class _Found:
    """What an iteration found, of one state or of several."""

    each: tuple[Iteration, ...]
    states: StateIteration | None

    @classmethod
    def of(cls, event: Iteration | StateIteration) -> _Found:
        if isinstance(event, StateIteration):
            return cls(event.each, event)
        return cls((event,), None)

    @property
    def first(self) -> Iteration:
        return self.each[0]

    @property
    def summary(self) -> PoseSummary:
        return self.first.summary if self.states is None else self.states.summary()

    @property
    def particles(self) -> ParticleStack:
        return self.first.stack if self.states is None else self.states.particles()

    def rows(self, states: int) -> list[dict[str, float]]:
        """Return the lines of history.csv; where states are sought, state 0 is all of them together."""
        if self.states is not None:
            return self.states.rows()
        row = self.first.row()
        return [row if states == 1 else row | {"state": 0, "share": 1.0}]

    def metrics(self) -> dict[str, float]:
        """Return the values that a run ends with."""
        values = self.first.row()
        if self.states is None:
            return values
        for row in self.states.rows():
            state = int(row["state"])
            values[f"share_of_state_{state}"] = row["share"]
            values[f"resolution_of_state_{state}_angstrom"] = row["resolution_0143_angstrom"]
        return values

    def message(self) -> str:
        """Say how far it is."""
        first = self.first
        begun = f"iteration {first.number}: compared to {first.compared_angstrom:.1f} A, half-maps agree to"
        if self.states is None:
            return f"{begun} {first.resolution_angstrom:.1f} A (FSC {RESOLVED})"
        parts = (
            f"{row['resolution_0143_angstrom']:.1f} A with {100 * row['share']:.0f} %"
            for row in self.states.rows()
        )
        return f"{begun} {', '.join(parts)} of the particles (FSC {RESOLVED})"


def _write(
    found: _Found, history: list[dict[str, float]], config: RefineConfig, outputs: dict[str, Path]
) -> dict[str, Path]:
    """Write all outputs; returns those of the states after the first, by role."""
    overwrite = True
    found.particles.save(outputs["particles"], overwrite)
    further = dict[str, Path]()
    for state, one in enumerate(found.each, start=1):
        paths = files_of_state(outputs, _OF_STATE, state)
        _write_maps(one, dict(zip(_OF_STATE, paths.values(), strict=True)))
        further |= paths
    with atomic_path(outputs["history"], overwrite=overwrite) as temporary:
        pd.DataFrame(history).to_csv(temporary, index=False)
    write_json(config.model_dump(mode="json"), outputs["config"], overwrite=overwrite)
    return further


def _write_maps(one: Iteration, paths: dict[str, Path]) -> None:
    """Write map, half-maps, mask and FSC of a state."""
    overwrite = True
    one.maps.density.save(paths["map"], overwrite)
    for half, role in zip(one.maps.halves, ("half1", "half2"), strict=True):
        half.save(paths[role], overwrite)
    one.mask.save(paths["mask"], overwrite)
    curves = {
        "fsc": one.fsc.corrected,
        "unmasked": one.fsc.unmasked,
        "masked": one.fsc.masked,
        "phase_randomised": one.fsc.randomised,
    }
    write_fsc_csv(curves, paths["fsc"], overwrite=overwrite)
