"""The job ``abinitio``: particles alone to a coarse map and poses, or to the maps of several states.

Each half of the particles is searched from several random starts (`_searches`). What one search finds can
be an accident, and from poor starts both halves can end at the same wrong map. So maps are believed that
two searches find which share no particle, and that explain the images as well as the best found
(`_confirmed_searches`). Only then are all particles aligned to them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_cryosphere._files import atomic_path, write_json
from napari_cryosphere.jobs._confirmed_searches import (
    AGREEMENT,
    Believed,
    confirmed,
    laid_on,
    mean_fsc,
)
from napari_cryosphere.jobs._searches import Searches
from napari_cryosphere.jobs.align import (
    Aligned,
    align_rows,
    align_rows_to_states,
    batches_of,
    gathered,
    gathered_in_states,
    search_everywhere,
    shares_of,
)
from napari_cryosphere.jobs.configs import AbInitioConfig, AligningConfig, SearchingConfig
from napari_cryosphere.jobs.events import (
    Event,
    Events,
    Note,
    Progress,
    Result,
    between,
    part_of,
)
from napari_cryosphere.jobs.reconstruct import reconstruct_stack
from napari_cryosphere.jobs.running.inputs import (
    described,
    digest_of_table,
    open_particles,
    warnings_of,
)
from napari_cryosphere.jobs.running.journal import Finished, Journal, MemoryJournal
from napari_cryosphere.jobs.running.map_detail import MapDetail
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.ranks import Ranks, current_ranks
from napari_cryosphere.jobs.running.run_folder import (
    STATE_FILES,
    UNFINISHED,
    clear_unfinished,
    files_of_state,
    refuse_ended,
    remove_stale,
)
from napari_cryosphere.jobs.running.uncertainty import summary_metrics
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import FourierShellCorrelation, resampled_map, write_fsc_csv
from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = [
    "InitialMap",
    "ab_initio_in_memory",
    "ab_initio_outputs",
    "ab_initio_stack",
    "abinitio",
]

_SEARCHED, _ALIGNED = 0.7, 0.97
"""How far a run is, for its progress, when a map is found and when the particles are aligned to it."""


@dataclass(frozen=True)
class InitialMap:
    """What the images alone tell.

    Attributes
    ----------
    particles
        The particles with poses, shifts and uncertainties; where there are several states, with those.
    densities
        The map of each state, of its particles at these poses.
    curves
        FSC of the two maps of each that were found independently.
    summary
        Uncertainty of the poses, one row per particle.
    history
        One row per step: start, half, step, shell, evidence, sharpness.
    """

    particles: ParticleStack
    densities: tuple[DensityMap, ...]
    curves: tuple[FourierShellCorrelation, ...]
    summary: PoseSummary
    history: pd.DataFrame
    shares: dict[str, float | int | str]

    @property
    def density(self) -> DensityMap:
        """The map, or that of the first state."""
        return self.densities[0]

    @property
    def curve(self) -> FourierShellCorrelation:
        """Its FSC."""
        return self.curves[0]

    def _repr_html_(self) -> str:
        """Return the particles and the maps, for notebooks."""
        return self.particles._repr_html_() + "".join(one._repr_html_() for one in self.densities)


def ab_initio_stack(
    stack: ParticleStack, config: SearchingConfig, journal: Finished, aligned: Finished
) -> Generator[Event, None, InitialMap]:
    """Find maps and poses from images alone; yields what the job yields.

    Parameters
    ----------
    stack, config
        Particles and settings.
    journal, aligned
        Keep the searches and the aligned batches.

    Raises
    ------
    NotConvergedError
        If no two searches agree.
    """
    stack = stack.with_half_sets()
    yield from warnings_of(stack, "they are compared as they are")
    yield Progress(0.0, "reading the images")
    searches = Searches(stack, config, journal)
    yield Note(
        f"compared to {searches.finest_angstrom:.0f} A; radius of the particle "
        f"{searches.radius_angstrom:.0f} A"
    )
    searching = part_of(confirmed(stack, searches, config), between(0.0, _SEARCHED))
    believed = yield from searching
    aligning = _aligned(stack, believed, searches, config, aligned)
    posed = yield from part_of(aligning, between(_SEARCHED, _ALIGNED))
    densities, number = list[DensityMap](), len(believed.maps)
    for state in range(number):
        rows = slice(None) if posed.states is None else np.flatnonzero(posed.states.best == state)
        reconstructing = reconstruct_stack(posed.particles[rows], config.symmetry)
        place = between(*(_ALIGNED + (1 - _ALIGNED) * part / number for part in (state, state + 1)))
        densities.append((yield from part_of(reconstructing, place)).density)
    return InitialMap(
        posed.particles,
        tuple(densities),
        believed.curves,
        posed.summary,
        believed.history,
        shares_of(posed.states),
    )


def _aligned(
    stack: ParticleStack,
    believed: Believed,
    searches: Searches,
    config: SearchingConfig,
    journal: Finished,
) -> Generator[Event, None, Aligned]:
    """Align all particles to the maps that were found."""
    settings = AligningConfig(
        symmetry=config.symmetry, device=config.device, max_memory_gb=config.max_memory_gb
    )
    batches, detail = batches_of(stack, settings), MapDetail(searches.finest_angstrom, "as found")
    maps, ranks, everywhere = believed.maps, Ranks(), search_everywhere
    several = len(maps)
    done = all(block.start in journal for block in batches.blocks())
    if several == 1:
        if not done:
            yield from align_rows(
                stack, maps[0], settings, detail, everywhere, batches, ranks, journal
            )
        return gathered(stack, batches, journal, config.symmetry)
    if not done:
        details, pilots = [detail] * several, [everywhere] * several
        laid = maps
        if config.symmetry == "C1":
            laid = _in_one_frame(maps, searches.course.max_shell)
        yield from align_rows_to_states(
            stack, laid, settings, details, everywhere, pilots, batches, ranks, journal
        )
    return gathered_in_states(stack, batches, journal, config.symmetry, several)


def _in_one_frame(maps: Sequence[DensityMap], last_shell: int) -> tuple[DensityMap, ...]:
    """Return maps laid on the first, be it by their mirror images, if they are like it."""
    # twice as fine: splines damp what is near a grid's Nyquist frequency
    first, *others = (resampled_map(one, 2 * one.box, one.pixel_size_angstrom / 2) for one in maps)
    laid = [first]
    for one in others:
        moved, curve = laid_on(first, one)
        laid.append(moved if mean_fsc(curve, last_shell) >= AGREEMENT else one)
    return tuple(laid)


def ab_initio_outputs(config: AbInitioConfig) -> dict[str, Path]:
    """Return what a run writes, by role."""
    names = {
        "particles": "particles.star",
        "map": "map.mrc",
        "fsc": "fsc.csv",
        "history": "history.csv",
        "config": "config.json",
    }
    return {role: config.output / name for role, name in names.items()}


@claims(folders=("output",))
def abinitio(config: AbInitioConfig) -> Events:
    """Find a map and poses from images alone and write the run folder.

    Raises
    ------
    NotConvergedError
        If no two searches on different particles agree.
    """
    outputs = ab_initio_outputs(config)
    refuse_ended(
        config.output,
        outputs["particles"],
        resume=config.resume,
        overwrite=config.overwrite,
    )
    if not current_ranks().first:  # one process does the work
        yield Result({}, {})
        return
    stack = open_particles(config)
    settings: dict[str, Any] = described(config) | {"table": digest_of_table(stack)}
    for limit in ("minutes", "starts"):  # a run may be resumed with more
        settings.pop(limit)
    kept = [
        Journal(config.output / UNFINISHED / name, settings, config.resume)
        for name in ("searches", "aligned")
    ]
    found = yield from ab_initio_stack(stack, config, *kept)
    outputs |= _write(found, config, outputs)
    remove_stale(config.output, [STATE_FILES], outputs.values())
    clear_unfinished(config.output)
    yield Note(
        "map and poses have one hand of two: projections of a map and of its mirror image are the "
        "same, so that the images cannot tell which is right"
    )
    yield Result(outputs, summary_metrics(stack, found.summary, config.symmetry) | found.shares)


def ab_initio_in_memory(
    stack: ParticleStack, config: SearchingConfig
) -> Generator[Event, None, InitialMap]:
    """Find a map and poses from images alone, without files."""
    return (yield from ab_initio_stack(stack, config, MemoryJournal(), MemoryJournal()))


def _write(found: InitialMap, config: AbInitioConfig, outputs: dict[str, Path]) -> dict[str, Path]:
    """Write all outputs; returns those of the states after the first, by role."""
    overwrite, further = True, dict[str, Path]()
    found.particles.save(outputs["particles"], overwrite)
    for state, (density, curve) in enumerate(zip(found.densities, found.curves, strict=True), 1):
        paths = files_of_state(outputs, ("map", "fsc"), state)
        map_path, fsc_path = paths.values()
        density.save(map_path, overwrite)
        write_fsc_csv({"fsc": curve}, fsc_path, overwrite=overwrite)
        further |= paths
    with atomic_path(outputs["history"], overwrite=overwrite) as temporary:
        found.history.to_csv(temporary, index=False)
    write_json(config.model_dump(mode="json"), outputs["config"], overwrite=overwrite)
    return further
