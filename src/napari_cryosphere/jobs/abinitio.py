"""The job ``abinitio``: particles alone to a coarse map and poses.

Each half of the particles is searched from several random starts. They compete: those are continued
first that explain the images best. What one search finds can be an accident, and from poor starts
both halves can end at the same wrong map. So a map is believed that two searches find which share no
particle, and that explains the images as well as the best found. Only then are all particles aligned
to it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path, write_json
from napari_cryosphere.alignment.stochastic import (
    CoarseImages,
    Course,
    StochasticMap,
    image_radius_px,
    shells_compared,
)
from napari_cryosphere.errors import MetadataError, NotConvergedError
from napari_cryosphere.jobs.align import (
    AlignerInput,
    align_rows,
    batches_of,
    gathered,
    search_everywhere,
    spread_rows,
)
from napari_cryosphere.jobs.configs import AbInitioConfig, AligningConfig, SearchingConfig
from napari_cryosphere.jobs.events import (
    Event,
    Events,
    Note,
    Progress,
    Result,
    Snapshot,
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
from napari_cryosphere.jobs.running.run_folder import UNFINISHED, clear_unfinished, refuse_ended
from napari_cryosphere.jobs.running.uncertainty import summary_metrics
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import (
    FourierShellCorrelation,
    fourier_shell_correlation,
    write_fsc_csv,
)
from napari_cryosphere.reconstruction.map_alignment import align_maps
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.so3.symmetry import point_group

__all__ = [
    "InitialMap",
    "Searches",
    "ab_initio_in_memory",
    "ab_initio_outputs",
    "ab_initio_stack",
    "abinitio",
]

_MOST_PARTICLES = 8192  # of a half that take part: 5 kB each; a coarse map needs no more
_FEWEST_PARTICLES = 50  # of a half; chosen, not tuned
_STEPS, _FEWEST_STEPS = 80, 30
"""Of a search, at most and at least. On 2000 ribosomes of the benchmarks the right map stands out after 40 to
60, on 1000 beta-galactosidases after 15.
"""
_AT_ONCE, _FEWEST_AT_ONCE = 1000, 300
"""Images of a step, divided by the order of the point group. With 400 the ribosome of the benchmarks
stays in a wrong map within 50 steps, with 1000 it is found within 45.
"""
_DECAY = 0.6  # of earlier sums: they hold some 2500 images; 0.7 was slower on the ribosome
_STORED_STEPS = 5  # after which a search is stored
_SETTLED_STEPS, _SETTLED_RISE, _SETTLED_GAIN = 8, 0.01, 0.02
"""A search ends when in so many steps the mean probability of the best pose rises by less, and the evidence
by less of what it has risen by since the second step. The first alone left a search of the ribosome at a
wrong map after 43 steps, where others leave it after 45.
"""
_RIVALS, _EARLY_STEPS = 4, 15
"""Starts of each half that compete, and the steps after which they are ranked by evidence. On a symmetric
phantom of 300 particles two of five starts find the right map, most of them within 15 steps.
"""
_MANY_AT_ONCE = 500
"""Images of a step from which starts follow one another instead: with 1000 ribosomes a step early evidence
says nothing of where a search will end, and most find the right map.
"""
_RANKED_STEPS = 4  # whose evidence is averaged for that; chosen, not tuned
_AGREEMENT = 0.6
"""Mean FSC of two searches' maps in the finer half of the shells that counts as one map. It is not enough:
right ones have 0.9 and more, but wrong ones of the small phantom agree by 0.6 to 0.94 as well.
"""
_REACH = 0.1
"""Share of what the best map explains (evidence over that of noise alone) by which a map may explain less
to be believed. On the small phantom right maps differ by 3 %, wrong ones explain 20 to 25 % less.
"""
_ROOM = 1.1
"""Radius of the sphere that maps are cut out with over the measured one, which is 8 % too small for the
beta-galactosidase and 8 % too large for the ribosome of the benchmarks.
"""
_WIDEST_OF_BOX = 0.45  # of that sphere's radius; chosen, not tuned
_SEARCHED, _ALIGNED = 0.7, 0.97
"""How far a run is, for its progress, when a map is found and when the particles are aligned to it."""
_SHIFT_REACH_OF_BOX = 1 / 16  # shifts searched, in boxes; 4 of 64 pixels, as align's smallest range


@dataclass(frozen=True)
class InitialMap:
    """What the images alone tell.

    Attributes
    ----------
    particles
        The particles with poses, shifts and uncertainties.
    density
        The map of all particles at these poses.
    curve
        FSC of the two maps that were found independently.
    summary
        Uncertainty of the poses, one row per particle.
    history
        One row per step: start, half, step, shell, evidence, sharpness.
    """

    particles: ParticleStack
    density: DensityMap
    curve: FourierShellCorrelation
    summary: PoseSummary
    history: pd.DataFrame

    def _repr_html_(self) -> str:
        """Return the particles and the map, for notebooks."""
        return self.particles._repr_html_() + self.density._repr_html_()


@dataclass(frozen=True)
class Found:
    """The map of one search."""

    density: DensityMap
    evidence: float
    history: NDArray[np.float64]


class Searches:
    """Searches from random poses, each on the particles of one half.

    Parameters
    ----------
    stack, config
        Particles and settings.
    journal
        Keeps the state of each search.
    """

    def __init__(self, stack: ParticleStack, config: SearchingConfig, journal: Finished) -> None:
        self._config, self._journal = config, journal
        grid, read = stack.grid, AlignerInput(stack)
        few = read(spread_rows(len(stack), 512))[0]  # as many as the noise is measured on
        cut, _ = shells_compared(0.4 * grid.box, grid.box)
        coarse = CoarseImages.of(few, None, min(grid.box, 2 * cut + 6)).images
        radius = image_radius_px(coarse) * grid.box / coarse.shape[-1]
        if config.diameter_angstrom is not None:
            radius = config.diameter_angstrom / 2 / grid.pixel_size_angstrom
        most = None
        if config.resolution_angstrom is not None:
            most = int(grid.field_angstrom / config.resolution_angstrom + 1e-6)
        shell, box = shells_compared(radius, grid.box, most)
        self.pixel_size_angstrom = grid.field_angstrom / box
        self.radius_angstrom = radius * grid.pixel_size_angstrom
        reach = _SHIFT_REACH_OF_BOX * box
        sphere = min(_ROOM * radius * box / grid.box, _WIDEST_OF_BOX * box)
        self.course = Course(box, shell, sphere, reach, config.symmetry)
        self.data = [self._read(read, half, box) for half in (1, 2)]
        at_once = max(_FEWEST_AT_ONCE, _AT_ONCE // len(point_group(config.symmetry)))
        self._at_once = [min(at_once, len(data)) for data in self.data]
        parts = zip(self.data, self._at_once, strict=True)
        judges = [data[spread_rows(len(data), number // 2)] for data, number in parts]
        self.rivals = _RIVALS if max(self._at_once) <= _MANY_AT_ONCE else 1
        self._judges = CoarseImages.joined(judges)  # of both halves: every map is scored on them
        self.evidence_of_nothing = self._judges.evidence_of_nothing(shell)

    def _read(self, read: AlignerInput, half: int, box: int) -> CoarseImages:
        """Return the coarse images of a half, or of as many of them as take part.

        Raises
        ------
        MetadataError
            If there are too few.
        """
        rows = np.flatnonzero(read.stack.half_sets() == half)
        if len(rows) < _FEWEST_PARTICLES:
            raise MetadataError(
                f"{read.stack.source}: {len(rows)} particles in half {half}; a search from random "
                f"poses needs {_FEWEST_PARTICLES} in each half at least"
            )
        if len(rows) > _MOST_PARTICLES:
            rng = np.random.default_rng((self._config.seed, half))
            rows = np.sort(rng.choice(rows, _MOST_PARTICLES, replace=False))
        parts = [rows[start : start + 256] for start in range(0, len(rows), 256)]
        return CoarseImages.joined([CoarseImages.of(*read(part), box) for part in parts])

    @property
    def finest_angstrom(self) -> float:
        """The finest detail compared."""
        return self.pixel_size_angstrom * self.course.box / self.course.max_shell

    def run(self, start: int, half: int, steps: int | None = None) -> Generator[Event, None, Found]:
        """Search from random poses on the particles of half 0 or 1; goes on where it was stored.

        With ``steps`` it stops early, and its evidence is that of its own last steps.
        """
        data, key = self.data[half], 2 * start + half
        state, history = self._stored(key)
        last = self.course.max_shell
        for number in range(len(history), _STEPS if steps is None else steps):
            if _settled(history):
                break
            # all starts of a half are shown the same images, so that their evidence can be compared
            shown = np.random.default_rng((self._config.seed, half, number))
            rows = shown.choice(len(data), self._at_once[half], replace=False)
            rng = np.random.default_rng((self._config.seed, half, number, start))
            state.step(data[rows], last, _DECAY, rng)
            line = (start, half + 1, number, last, state.evidence, state.sharpness)
            history = np.vstack([history, line])
            done = (number + 1) / _STEPS
            message = f"search {start + 1} on half {half + 1}: step {number + 1}"
            metrics = {"mean_probability_of_best_pose": state.sharpness}
            yield Progress(done, message, metrics)
            if (number + 1) % _STORED_STEPS == 0:
                self._store(key, state, history)
                yield Snapshot(done, self._density(state), (number + 1) * len(rows))
            if number + 1 == steps:
                self._store(key, state, history)
        if steps is not None:
            evidence = float(history[:steps][-_RANKED_STEPS:, 4].mean())
        else:
            self._store(key, state, history)
            evidence = state.score(self._judges, np.random.default_rng(self._config.seed))
        return Found(self._density(state), evidence, history)

    def _density(self, state: StochasticMap) -> DensityMap:
        voxels = np.zeros(3 * (self.course.box,), np.float32)
        if state.voxels is not None:
            voxels = state.voxels
        return DensityMap(voxels, self.pixel_size_angstrom, self.course.symmetry)

    def _store(self, key: int, state: StochasticMap, history: NDArray[np.float64]) -> None:
        arrays = {"voxels": state.voxels, "sums": state.sums, "spectrum": state.spectrum.numpy()}
        self._journal.write(
            key, {name: np.array(of) for name, of in arrays.items()} | {"history": history}
        )

    def _stored(self, key: int) -> tuple[StochasticMap, NDArray[np.float64]]:
        """Return the state of a search and its history, from the journal if it is there."""
        if key not in self._journal:
            power = self.data[key % 2].power()
            return StochasticMap(self.course, power), np.empty((0, 6))
        kept = self._journal.read(key, ("voxels", "sums", "spectrum", "history"))
        spectrum = torch.from_numpy(kept["spectrum"])
        return StochasticMap(self.course, spectrum, kept["voxels"], kept["sums"]), kept["history"]


def _settled(history: NDArray[np.float64]) -> bool:
    """Return whether the last steps explained the images no better."""
    if len(history) < _FEWEST_STEPS:
        return False
    before, after = (
        part.mean(0) for part in np.split(history[-2 * _SETTLED_STEPS :, 4:6], 2, axis=0)
    )
    gained = after[0] - history[1, 4]
    sharper = after[1] > before[1] + _SETTLED_RISE
    return not (sharper or after[0] > before[0] + _SETTLED_GAIN * gained)


def _agreement(first: DensityMap, second: DensityMap) -> FourierShellCorrelation:
    """Return the FSC of two maps, the second laid on the first, whichever hand it has."""
    laid = align_maps(first, second).apply(second)
    return fourier_shell_correlation(first.voxels, laid.voxels, first.pixel_size_angstrom)


def _mean_fsc(curve: FourierShellCorrelation, last_shell: int) -> float:
    """Return the mean of a curve over the finer half of the shells compared."""
    return float(curve.values[last_shell // 2 : last_shell + 1].mean())


def ab_initio_stack(
    stack: ParticleStack, config: SearchingConfig, journal: Finished, aligned: Finished
) -> Generator[Event, None, InitialMap]:
    """Find a map and poses from images alone; yields what the job yields.

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
    searching = part_of(_confirmed(stack, searches, config), between(0.0, _SEARCHED))
    found, curve, history = yield from searching
    settings = AligningConfig(
        symmetry=config.symmetry, device=config.device, max_memory_gb=config.max_memory_gb
    )
    batches, detail = batches_of(stack, settings), MapDetail(searches.finest_angstrom, "as found")
    if any(block.start not in aligned for block in batches.blocks()):
        aligning = align_rows(
            stack, found.density, settings, detail, search_everywhere, batches, Ranks(), aligned
        )
        yield from part_of(aligning, between(_SEARCHED, _ALIGNED))
    posed = gathered(stack, batches, aligned, config.symmetry)
    reconstructing = reconstruct_stack(posed.particles, config.symmetry)
    maps = yield from part_of(reconstructing, between(_ALIGNED, 1.0))
    return InitialMap(posed.particles, maps.density, curve, posed.summary, history)


class _Competition:
    """Searches of both halves, of several starts the best first.

    Attributes
    ----------
    found
        Maps of the searches that were finished, by half.
    begun
        How many searches each half has begun.
    steps
        How many steps they may have had, for the progress: those that ended before count as whole.
    """

    def __init__(self, searches: Searches, config: SearchingConfig) -> None:
        self.found: tuple[list[Found], list[Found]] = ([], [])
        self.begun = [0, 0]
        self.steps = 0
        self._searches, self._config, self._since = searches, config, time.monotonic()
        self._early: tuple[dict[int, float], dict[int, float]] = ({}, {})  # evidence by start
        self._courses: dict[tuple[int, int], NDArray[np.float64]] = {}

    def goes_on(self, half: int) -> bool:
        """Return whether starts and time are left for another search of a half."""
        left = bool(self._early[half]) or self.begun[half] < self._config.starts
        return left and not self._late()

    def _late(self) -> bool:
        most = self._config.minutes
        return most is not None and time.monotonic() - self._since > 60 * most

    def steps_to_come(self, half: int) -> int:
        """Return how many steps another search of a half may have, with those of its rivals."""
        if self._early[half]:
            return _STEPS - _EARLY_STEPS
        rivals = 1 if self.found[half] else self._searches.rivals
        return _STEPS + (rivals - 1) * _EARLY_STEPS

    def search(self, half: int, wanted: int) -> Generator[Event, None, None]:
        """Finish another search of a half: of those begun the one whose map explains most.

        Its progress is that of all steps that are ``wanted`` so far.
        """
        early = self._early[half]
        last = min(self.begun[half] + self._searches.rivals, self._config.starts)
        while not early or (len(self.found[half]) == 0 and self.begun[half] < last):
            start = self.begun[half]
            if start and early and self._late():
                break
            begun = yield from self._run(start, half, wanted, _EARLY_STEPS)
            early[start] = begun.evidence
            self.begun[half] += 1
        best = max(early, key=lambda start: early[start])
        found = yield from self._run(best, half, wanted)
        del early[best]
        self.found[half].append(found)

    def _run(
        self, start: int, half: int, wanted: int, steps: int | None = None
    ) -> Generator[Event, None, Found]:
        """Search to the end, or to a number of steps, from a start or from where it was left early."""
        before = self.steps - (_EARLY_STEPS if start in self._early[half] else 0)
        work = self._searches.run(start, half, steps)
        found = yield from part_of(work, lambda part: (before + part * _STEPS) / wanted)
        self.steps = before + (steps or _STEPS)
        self._courses[start, half] = found.history
        return found

    def verdict(self) -> _Verdict:
        """Compare the maps of both halves that were found so far."""
        nothing = self._searches.evidence_of_nothing
        best = max(one.evidence for half in self.found for one in half)
        least = best - _REACH * (best - nothing)
        lacking = [
            number
            for number, half in enumerate(self.found)
            if all(one.evidence < least for one in half)
        ]
        agreement = set_aside = 0.0
        pair = None
        for new in self.found[0]:
            for other in self.found[1]:
                curve = _agreement(new.density, other.density)
                value = _mean_fsc(curve, self._searches.course.max_shell)
                if min(new.evidence, other.evidence) < least:
                    set_aside = max(set_aside, value)
                elif value > agreement:
                    agreement = value
                    pair = (curve, new, other) if value >= _AGREEMENT else None
        return _Verdict(agreement, set_aside, lacking or [0, 1], pair)

    def history(self) -> pd.DataFrame:
        """Return one row per step of all searches."""
        names = ["start", "half", "step", "shell", "evidence", "sharpness"]
        rows = np.concatenate([self._courses[key] for key in sorted(self._courses)])
        return pd.DataFrame(rows, columns=names)


@dataclass(frozen=True)
class _Verdict:
    """How far the best maps of both halves agree.

    Attributes
    ----------
    agreement
        Best mean FSC of two maps of different halves that explain the images as well as any.
    set_aside
        Best mean FSC of two of which one explains less.
    lacking
        Halves that have to be searched further.
    pair
        Their FSC and the two maps, if they agree.
    """

    agreement: float
    set_aside: float
    lacking: list[int]
    pair: tuple[FourierShellCorrelation, Found, Found] | None

    def __str__(self) -> str:
        text = f"best mean FSC {self.agreement:.2f}, {_AGREEMENT} needed"
        if self.set_aside >= _AGREEMENT:
            text += f"; {self.set_aside:.2f} of maps that explain the images less than another does"
        return text


def _confirmed(
    stack: ParticleStack, searches: Searches, config: SearchingConfig
) -> Generator[Event, None, tuple[Found, FourierShellCorrelation, pd.DataFrame]]:
    """Search until two maps of different halves agree and none explains more; return the better one.

    Raises
    ------
    NotConvergedError
        If none do within the starts and minutes.
    """
    competition = _Competition(searches, config)
    wanted = [0, 1]
    while True:
        steps = competition.steps + sum(competition.steps_to_come(half) for half in wanted)
        for half in wanted:
            yield from competition.search(half, steps)
        verdict = competition.verdict()
        if verdict.pair is not None:
            curve, new, other = verdict.pair
            yield Note(
                f"two searches on different particles found one map: mean FSC {verdict.agreement:.2f}"
            )
            better = max(new, other, key=lambda one: one.evidence)
            return better, curve, competition.history()
        numbers = " and ".join(str(len(half)) for half in competition.found)
        yield Note(f"after {numbers} searches the halves' maps do not agree: {verdict}")
        wanted = verdict.lacking
        if not all(competition.goes_on(half) for half in wanted):
            break
    raise NotConvergedError(
        f"{stack.source}: {numbers} searches from random poses on the halves of the particles found no "
        f"map twice ({verdict}): nothing that can be believed is seen; check contrast (--invert), "
        "--diameter and --symmetry, remove junk, or allow more --starts and --minutes"
    )


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
    _write(found, config, outputs)
    clear_unfinished(config.output)
    yield Note(
        "map and poses have one hand of two: projections of a map and of its mirror image are the "
        "same, so that the images cannot tell which is right"
    )
    yield Result(outputs, summary_metrics(stack, found.summary, config.symmetry))


def ab_initio_in_memory(
    stack: ParticleStack, config: SearchingConfig
) -> Generator[Event, None, InitialMap]:
    """Find a map and poses from images alone, without files."""
    return (yield from ab_initio_stack(stack, config, MemoryJournal(), MemoryJournal()))


def _write(found: InitialMap, config: AbInitioConfig, outputs: dict[str, Path]) -> None:
    overwrite = True
    found.particles.save(outputs["particles"], overwrite)
    found.density.save(outputs["map"], overwrite)
    write_fsc_csv({"fsc": found.curve}, outputs["fsc"], overwrite=overwrite)
    with atomic_path(outputs["history"], overwrite=overwrite) as temporary:
        found.history.to_csv(temporary, index=False)
    write_json(config.model_dump(mode="json"), outputs["config"], overwrite=overwrite)
