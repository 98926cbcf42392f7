"""The job ``abinitio``: particles alone to a coarse map and poses, or to the maps of several kinds.

Each half of the particles is searched from several random starts (`_searches`). What one search finds can
be an accident, and from poor starts both halves can end at the same wrong map. So a map is believed that
two searches find which share no particle, and that explains the images as well as the best found
(`_confirmed_searches`). Only then are all particles aligned to it. Where several kinds of particles may
be there, these are told apart before (`_kinds`), and each is searched on its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path, write_json
from napari_cryosphere.errors import MetadataError, NotConvergedError
from napari_cryosphere.jobs._confirmed_searches import (
    AGREEMENT,
    Believed,
    confirmed,
    laid_on,
    mean_fsc,
)
from napari_cryosphere.jobs._kinds import ALIKE, alike, kinds_of
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
from napari_cryosphere.jobs.running.ranks import Ranks
from napari_cryosphere.jobs.running.run_folder import (
    UNFINISHED,
    begins,
    clear_unfinished,
    files_of_state,
    further_states,
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

_TOLD_APART, _SEARCHED, _ALIGNED = 0.3, 0.7, 0.97
"""How far a run is, for its progress, when kinds of particles are told apart, when maps are found and when
the particles are aligned to them.
"""
_OF_STATE = ("map", "fsc")  # roles of the files that every state has


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
    stack: ParticleStack, config: SearchingConfig, kept: Callable[[str], Finished]
) -> Generator[Event, None, InitialMap]:
    """Find maps and poses from images alone; yields what the job yields.

    Parameters
    ----------
    stack, config
        Particles and settings.
    kept
        Returns what keeps a part of the work, by its name.

    Raises
    ------
    NotConvergedError
        If no two searches agree.
    """
    since, stack = time.monotonic(), stack.with_half_sets()
    yield from warnings_of(stack, "they are compared as they are")
    yield Progress(0.0, "reading the images")
    kinds, begun = np.zeros(len(stack), np.int64), 0.0
    if config.classes > 1:
        begun = _TOLD_APART
        telling = kinds_of(stack, config, kept("kinds"))
        kinds = yield from part_of(telling, between(0.0, begun))
    searching = _searched(stack, kinds, config, kept, since)
    found = yield from part_of(searching, between(begun, _SEARCHED))
    aligning = _aligned_as_told(stack, kinds, found, config, kept)
    found, posed = yield from part_of(aligning, between(_SEARCHED, _ALIGNED))
    densities, number = list[DensityMap](), len(found)
    for state in range(number):
        rows = slice(None) if posed.states is None else np.flatnonzero(posed.states.best == state)
        reconstructing = reconstruct_stack(posed.particles[rows], config.symmetry)
        place = between(*(_ALIGNED + (1 - _ALIGNED) * part / number for part in (state, state + 1)))
        densities.append((yield from part_of(reconstructing, place)).density)
    return InitialMap(
        posed.particles,
        tuple(densities),
        tuple(one.believed.curve for one in found),
        posed.summary,
        pd.concat([one.history(number) for one in found]),
        shares_of(posed.states),
    )


@dataclass(frozen=True)
class _OfKind:
    """What was found of one kind of particles.

    Attributes
    ----------
    kind
        Its number.
    believed
        Its map.
    finest_angstrom, max_shell
        Finest detail compared.
    """

    kind: int
    believed: Believed
    finest_angstrom: float
    max_shell: int

    def history(self, number: int) -> pd.DataFrame:
        """Return one row per step; of several kinds, each with its number."""
        history = self.believed.history
        return history if number == 1 else history.assign(state=self.kind + 1)


def _searched(
    stack: ParticleStack,
    kinds: NDArray[np.int64],
    config: SearchingConfig,
    kept: Callable[[str], Finished],
    since: float,
) -> Generator[Event, None, list[_OfKind]]:
    """Return the map of each kind of which one is found twice; all share the minutes ``since`` the start.

    Raises
    ------
    NotConvergedError
        If none is.
    """
    found, number, error = list[_OfKind](), int(kinds.max()) + 1, None
    for kind in range(number):
        place = between(kind / number, (kind + 1) / number)
        name = "searches" if number == 1 else f"searches_{number}_{kind + 1}"
        try:
            searches = Searches(stack[kinds == kind], config, kept(name))
            yield Note(
                f"compared to {searches.finest_angstrom:.0f} A; radius of the particle "
                f"{searches.radius_angstrom:.0f} A"
            )
            believed = yield from part_of(confirmed(stack, searches, config, since), place)
        except (MetadataError, NotConvergedError) as raised:
            if number == 1:
                raise
            error = raised
            yield Note(f"of kind {kind + 1} no map is found: {raised}", warning=True)
            continue
        found.append(_OfKind(kind, believed, searches.finest_angstrom, searches.course.max_shell))
    if error is not None and not found:
        raise error
    return found


def _aligned_as_told(
    stack: ParticleStack,
    kinds: NDArray[np.int64],
    found: list[_OfKind],
    config: SearchingConfig,
    kept: Callable[[str], Finished],
) -> Generator[Event, None, tuple[list[_OfKind], Aligned]]:
    """Align all particles to the maps of all kinds, as long as these divide them as they were.

    A map that does not draw its own particles is none of its own: these are then of the kind whose map draws
    most of them.
    """
    while True:
        name = "_".join(["aligned", *(str(one.kind + 1) for one in found)])
        posed = yield from _aligned(stack, found, config, kept(name))
        if posed.states is None:
            return found, posed
        shares = posed.states.probabilities
        agreed = [alike(shares[:, place], kinds == one.kind) for place, one in enumerate(found)]
        # of two kinds both agree as far: the less frequent, later one goes
        worst = int(np.flatnonzero(np.isclose(agreed, min(agreed)))[-1])
        if agreed[worst] >= ALIKE:
            return found, posed
        yield Note(
            f"the maps of {len(found)} kinds do not divide the particles as they were divided before "
            f"(agreement {agreed[worst]:.2f}): two are one"
        )
        dropped, found = found[worst], [*found[:worst], *found[worst + 1 :]]
        drawn = np.delete(shares[kinds == dropped.kind], worst, axis=1).sum(0)
        kinds = np.where(kinds == dropped.kind, found[int(drawn.argmax())].kind, kinds)


def _aligned(
    stack: ParticleStack, found: Sequence[_OfKind], config: SearchingConfig, journal: Finished
) -> Generator[Event, None, Aligned]:
    """Align all particles to the maps that were found."""
    settings = AligningConfig(
        symmetry=config.symmetry, device=config.device, max_memory_gb=config.max_memory_gb
    )
    batches, maps = batches_of(stack, settings), [one.believed.density for one in found]
    several, ranks, everywhere = len(maps), Ranks(), search_everywhere
    details = [MapDetail(one.finest_angstrom, "as found") for one in found]
    done = all(block.start in journal for block in batches.blocks())
    if several == 1:
        if not done:
            yield from align_rows(
                stack, maps[0], settings, details[0], everywhere, batches, ranks, journal
            )
        return gathered(stack, batches, journal, config.symmetry)
    if not done:
        if config.symmetry == "C1":
            maps = _in_one_frame(maps, min(one.max_shell for one in found))
        yield from align_rows_to_states(
            stack,
            maps,
            settings,
            details,
            everywhere,
            [everywhere] * several,
            batches,
            ranks,
            journal,
        )
    return gathered_in_states(stack, batches, journal, config.symmetry, several)


def _in_one_frame(maps: Sequence[DensityMap], last_shell: int) -> list[DensityMap]:
    """Return maps laid on the first, be it by their mirror images, if they are like it."""
    # on a common grid twice as fine: splines damp what is near a grid's Nyquist frequency
    box, size = 2 * maps[0].box, maps[0].pixel_size_angstrom / 2
    first, *others = (resampled_map(one, box, size) for one in maps)
    laid = [first]
    for one in others:
        moved, curve = laid_on(first, one)
        laid.append(moved if mean_fsc(curve, last_shell) >= AGREEMENT else one)
    return laid


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
    if not begins(config, outputs["particles"]):
        yield Result({}, {})
        return
    stack = open_particles(config)
    settings: dict[str, Any] = described(config) | {"table": digest_of_table(stack)}
    for limit in ("minutes", "starts"):  # a run may be resumed with more
        settings.pop(limit)

    def kept(name: str) -> Journal:
        return Journal(config.output / UNFINISHED / name, settings, config.resume)

    found = yield from ab_initio_stack(stack, config, kept)
    outputs |= _write(found, config, outputs)
    remove_stale(config.output, further_states(outputs, _OF_STATE), outputs.values())
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
    return (yield from ab_initio_stack(stack, config, lambda name: MemoryJournal()))


def _write(found: InitialMap, config: AbInitioConfig, outputs: dict[str, Path]) -> dict[str, Path]:
    """Write all outputs; returns those of the states after the first, by role."""
    overwrite, further = True, dict[str, Path]()
    found.particles.save(outputs["particles"], overwrite)
    for state, (density, curve) in enumerate(zip(found.densities, found.curves, strict=True), 1):
        paths = files_of_state(outputs, _OF_STATE, state)
        map_path, fsc_path = paths.values()
        density.save(map_path, overwrite)
        write_fsc_csv({"fsc": curve}, fsc_path, overwrite=overwrite)
        further |= paths
    with atomic_path(outputs["history"], overwrite=overwrite) as temporary:
        found.history.to_csv(temporary, index=False)
    write_json(config.model_dump(mode="json"), outputs["config"], overwrite=overwrite)
    return further
