"""The job ``abinitio``: particles alone to a coarse map and poses.

Each half of the particles is searched from random poses of its own. What one search finds can be an
accident; a map that two searches find which share no particle is not. Only then are all particles
aligned to it.
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

from napari_cryosphere._files import atomic_path, refuse_overwrite, write_json
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
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result, Snapshot
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
_SETTLED_STEPS, _SETTLED_RISE = 8, 0.01
"""A search ends when the mean probability of the best pose rises by less in so many steps."""
_AGREEMENT = 0.6
"""Mean FSC of two searches' maps in the finer half of the shells that counts as one map. Right ones have
0.9, wrong ones 0.5 at most (ribosome and beta-galactosidase of the benchmarks).
"""
_ROOM = 1.1
"""Radius of the sphere that maps are cut out with over the measured one, which is 8 % too small for the
beta-galactosidase and 8 % too large for the ribosome of the benchmarks.
"""
_WIDEST_OF_BOX = 0.45  # of that sphere's radius; chosen, not tuned
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

    def run(self, start: int, half: int) -> Generator[Event, None, Found]:
        """Search from random poses on the particles of half 0 or 1; goes on where it was stored."""
        data, key = self.data[half], 2 * start + half
        state, history = self._stored(key)
        last = self.course.max_shell
        for number in range(len(history), _STEPS):
            if _settled(history):
                break
            rng = np.random.default_rng((self._config.seed, key, number))
            rows = rng.choice(len(data), self._at_once[half], replace=False)
            state.step(data[rows], last, _DECAY, rng)
            line = (start, half + 1, number, last, state.evidence, state.sharpness)
            history = np.vstack([history, line])
            done = (number + 1) / _STEPS
            message = f"search {start + 1} on half {half + 1}: step {number + 1}"
            metrics = {"mean_probability_of_best_pose": state.sharpness}
            yield Progress(0.0, message, metrics)
            if (number + 1) % _STORED_STEPS == 0:
                self._store(key, state, history)
                yield Snapshot(done, self._density(state), (number + 1) * len(rows))
        self._store(key, state, history)
        evidence = float(history[-_SETTLED_STEPS:, 4].mean())
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
    """Return whether the posteriors of the last steps became no sharper."""
    if len(history) < _FEWEST_STEPS:
        return False
    recent = history[-2 * _SETTLED_STEPS :, 5]
    return bool(recent[_SETTLED_STEPS:].mean() < recent[:_SETTLED_STEPS].mean() + _SETTLED_RISE)


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
    found, curve, history = yield from _confirmed(stack, searches, config)
    settings = AligningConfig(
        symmetry=config.symmetry, device=config.device, max_memory_gb=config.max_memory_gb
    )
    batches, detail = batches_of(stack, settings), MapDetail(searches.finest_angstrom, "as found")
    if any(block.start not in aligned for block in batches.blocks()):
        yield from align_rows(
            stack, found.density, settings, detail, search_everywhere, batches, Ranks(), aligned
        )
    posed = gathered(stack, batches, aligned, config.symmetry)
    maps = yield from reconstruct_stack(posed.particles, config.symmetry)
    return InitialMap(posed.particles, maps.density, curve, posed.summary, history)


def _confirmed(
    stack: ParticleStack, searches: Searches, config: SearchingConfig
) -> Generator[Event, None, tuple[Found, FourierShellCorrelation, pd.DataFrame]]:
    """Search until two maps of different halves agree, and return the one of larger evidence.

    Raises
    ------
    NotConvergedError
        If none do within the starts and minutes.
    """
    began, last, best = time.monotonic(), searches.course.max_shell, -1.0
    halves: tuple[list[Found], list[Found]] = ([], [])
    for start in range(config.starts):
        minutes = (time.monotonic() - began) / 60
        if config.minutes is not None and start and minutes > config.minutes:
            break
        for half, others in ((0, halves[1]), (1, halves[0])):
            new = yield from searches.run(start, half)
            halves[half].append(new)
            for other in others:
                curve = _agreement(new.density, other.density)
                best = max(best, _mean_fsc(curve, last))
                if _mean_fsc(curve, last) >= _AGREEMENT:
                    yield Note(
                        f"two searches on different particles found one map: mean FSC {best:.2f}"
                    )
                    names = ["start", "half", "step", "shell", "evidence", "sharpness"]
                    rows = np.concatenate([one.history for one in (*halves[0], *halves[1])])
                    history = pd.DataFrame(rows, columns=names)
                    return max(new, other, key=lambda one: one.evidence), curve, history
        yield Note(f"start {start + 1}: the halves' maps do not agree (mean FSC {best:.2f})")
    raise NotConvergedError(
        f"{stack.source}: {len(halves[0])} searches from random poses on each half of the particles "
        f"found no map twice (best mean FSC {best:.2f}, {_AGREEMENT} needed): nothing that can be "
        "believed is seen; check contrast (--invert), --diameter and --symmetry, remove junk, or "
        "allow more --starts and --minutes"
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
    if not config.resume:
        refuse_overwrite(outputs["particles"], config.overwrite)
    if not current_ranks().first:  # one process does the work
        yield Result({}, {})
        return
    stack = open_particles(config)
    settings: dict[str, Any] = described(config) | {"table": digest_of_table(stack)}
    for limit in ("minutes", "starts"):  # a run may be resumed with more
        settings.pop(limit)
    kept = [
        Journal(config.output / "unfinished" / name, settings, config.resume)
        for name in ("searches", "aligned")
    ]
    found = yield from ab_initio_stack(stack, config, *kept)
    _write(found, config, outputs)
    for journal in kept:
        journal.remove()
    folder = config.output / "unfinished"
    if folder.is_dir():
        folder.rmdir()
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
