"""Searches from random poses, each on the particles of one half."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from napari_cryosphere.alignment.stochastic import (
    CoarseImages,
    Course,
    StochasticMaps,
    image_radius_px,
    shells_compared,
)
from napari_cryosphere.jobs.align import AlignerInput
from napari_cryosphere.jobs.configs import SearchingConfig
from napari_cryosphere.jobs.events import Event, Progress, Snapshot
from napari_cryosphere.jobs.running.halves import refuse_few_in_half
from napari_cryosphere.jobs.running.journal import Finished
from napari_cryosphere.particles import DensityMap, ParticleStack, spread_rows
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["EARLY_STEPS", "STEPS", "Found", "Searches"]

_MOST_PARTICLES = 8192  # of a half that take part: 5 kB each; a coarse map needs no more
_FEWEST_PARTICLES = 50  # of a half; chosen, not tuned
STEPS, _FEWEST_STEPS = 80, 30
"""Of a search, at most and at least. On 2000 ribosomes of the benchmarks the right map stands out
after 40 to 60, on 1000 beta-galactosidases after 15."""
_AT_ONCE, _FEWEST_AT_ONCE = 1000, 300
"""Images of a step, divided by the order of the point group. With 400 the ribosome of the
benchmarks stays in a wrong map within 50 steps, with 1000 it is found within 45."""
_DECAY = 0.6  # of earlier sums: they hold some 2500 images; 0.7 was slower on the ribosome
_READ = 256  # images that are read at once; chosen, not tuned
_STORED_STEPS = 5  # after which a search is stored
_SETTLED_STEPS, _SETTLED_RISE, _SETTLED_GAIN = 8, 0.01, 0.02
"""A search ends when in so many steps the mean probability of the best pose rises by less, and the
evidence by less of what it has risen by since the second step. The first alone left a search of the
ribosome at a wrong map after 43 steps, where others leave it after 45."""
_RIVALS, EARLY_STEPS = 8, 15
"""Starts of each half that compete, and the steps after which they are ranked by evidence. Of 96
starts on beta-galactosidase (benchmarks) a third find the right map within 15 steps; with four of
each half one of three runs had none in either, and both halves agreed on a wrong map."""
_MANY_AT_ONCE = 500
"""Images of a step from which starts follow one another instead: with 1000 ribosomes a step early
evidence says nothing of where a search will end, and most find the right map."""
_RANKED_STEPS = 4  # whose evidence is averaged for that; chosen, not tuned
_ROOM = 1.1
"""Radius of the sphere that maps are cut out with over the measured one, which is 8 % too small for
the beta-galactosidase and 8 % too large for the ribosome of the benchmarks."""
_WIDEST_OF_BOX = 0.45  # of that sphere's radius; chosen, not tuned
_SHIFT_REACH_OF_BOX = 1 / 16  # shifts searched, in boxes; 4 of 64 pixels, as align's smallest range


@dataclass(frozen=True)
class Found:
    """What one search found.

    - ``maps``: the map of each state.
    - ``evidence``: what they explain: mean logarithm of the probability of images of both halves,
      nats.
    - ``history``: one row per step.
    - ``key``: under which the search is kept.
    """

    maps: tuple[DensityMap, ...]
    evidence: float
    history: NDArray[np.float64]
    key: int = 0

    @property
    def density(self) -> DensityMap:
        """The map, or that of the first state."""
        return self.maps[0]


class Searches:
    """Searches from random poses, each on the particles of one half.

    ``journal``: keeps the state of each search. ``states``: maps that each search has. Raises
    `MetadataError` if there are too few particles.
    """

    def __init__(
        self, stack: ParticleStack, config: SearchingConfig, journal: Finished, states: int = 1
    ) -> None:
        refuse_few_in_half(stack, _FEWEST_PARTICLES)
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
        self.course = Course(box, shell, sphere, reach, config.symmetry, states)
        self.data = [self._read(read, half, box) for half in (1, 2)]
        at_once = max(_FEWEST_AT_ONCE, _AT_ONCE // len(point_group(config.symmetry)))
        self._at_once = [min(at_once, len(data)) for data in self.data]
        parts = zip(self.data, self._at_once, strict=True)
        judges = [data[spread_rows(len(data), number // 2)] for data, number in parts]
        self.rivals = _RIVALS if max(self._at_once) <= _MANY_AT_ONCE else 1
        self._judges = CoarseImages.joined(judges)  # every search is scored on them
        self.evidence_of_nothing = self._judges.evidence_of_nothing(shell)

    def _read(self, read: AlignerInput, half: int, box: int) -> CoarseImages:
        """Return the coarse images of a half, or of as many of them as take part."""
        rows = np.flatnonzero(read.stack.half_sets() == half)
        if len(rows) > _MOST_PARTICLES:
            rng = np.random.default_rng((self._config.seed, half))
            rows = np.sort(rng.choice(rows, _MOST_PARTICLES, replace=False))
        parts = [rows[start : start + _READ] for start in range(0, len(rows), _READ)]
        return CoarseImages.joined([CoarseImages.of(*read(part), box) for part in parts])

    @property
    def finest_angstrom(self) -> float:
        """The finest detail compared."""
        return self.pixel_size_angstrom * self.course.box / self.course.max_shell

    def run(self, start: int, half: int, steps: int | None = None) -> Generator[Event, None, Found]:
        """Search from random poses on the particles of half 0 or 1; goes on where it was stored.

        With ``steps`` it stops early, and its evidence is that of its own last steps. Its progress is that of
        the steps it may have.
        """
        key = 2 * start + half
        state, history = self._stored(key)
        most = steps or STEPS
        for number in range(len(history), most):
            if _settled(history):
                break
            history = self._step(state, history, start, half)
            done = (number + 1) / most
            message = f"search {start + 1} on half {half + 1}: step {number + 1}"
            metrics = {"mean_probability_of_best_pose": state.sharpness}
            yield Progress(done, message, metrics)
            if (number + 1) % _STORED_STEPS == 0:
                self._store(key, state, history)
                yield Snapshot(done, self._maps(state)[0], (number + 1) * self._at_once[half])
            if number + 1 == steps:
                self._store(key, state, history)
        if steps is not None:
            evidence = float(history[:steps][-_RANKED_STEPS:, 4].mean())
            return Found(self._maps(state), evidence, history, key)
        self._store(key, state, history)
        return self._found(key, state, history)

    def judged(
        self, stack: ParticleStack, found: Found
    ) -> Generator[Event, None, NDArray[np.float64]]:
        """Return what all images say of the maps of a search, ``(n, states)`` nats.

        The logarithm of each one's probability under each map.
        """
        state, read = self._stored(found.key)[0], AlignerInput(stack)
        logs, rng = list[NDArray[np.float64]](), np.random.default_rng(self._config.seed)
        for start in range(0, len(stack), _READ):
            rows = np.arange(start, min(start + _READ, len(stack)))
            images = CoarseImages.of(*read(rows), self.course.box)
            logs.append(state.judged(images, rng))
            yield Progress(
                (start + len(rows)) / len(stack), "comparing all particles with all maps"
            )
        return np.concatenate(logs)

    def _step(
        self, state: StochasticMaps, history: NDArray[np.float64], start: int, half: int
    ) -> NDArray[np.float64]:
        """Make a step of a search, and return its history with it."""
        data, number, last = self.data[half], len(history), self.course.max_shell
        # all starts of a half are shown the same images, so that their evidence can be compared
        shown = np.random.default_rng((self._config.seed, half, number))
        rows = shown.choice(len(data), self._at_once[half], replace=False)
        rng = np.random.default_rng((self._config.seed, half, number, start))
        state.step(data[rows], last, _DECAY, rng)
        line = (start, half + 1, number, last, state.evidence, state.sharpness)
        return np.vstack([history, line])

    def _found(self, key: int, state: StochasticMaps, history: NDArray[np.float64]) -> Found:
        logs = state.judged(self._judges, np.random.default_rng(self._config.seed))
        evidence = logsumexp(logs, axis=1).mean() - np.log(logs.shape[1])
        return Found(self._maps(state), float(evidence), history, key)

    def _maps(self, state: StochasticMaps) -> tuple[DensityMap, ...]:
        voxels = np.zeros((self.course.states, *3 * (self.course.box,)), np.float32)
        if state.voxels is not None:
            voxels = state.voxels
        return tuple(
            DensityMap(one, self.pixel_size_angstrom, self.course.symmetry) for one in voxels
        )

    def _store(self, key: int, state: StochasticMaps, history: NDArray[np.float64]) -> None:
        arrays = {"voxels": state.voxels, "sums": state.sums, "spectrum": state.spectrum.numpy()}
        self._journal.write(
            key, {name: np.array(of) for name, of in arrays.items()} | {"history": history}
        )

    def _stored(self, key: int) -> tuple[StochasticMaps, NDArray[np.float64]]:
        """Return the state of a search and its history, from the journal if it is there."""
        if key not in self._journal:
            power = self.data[key % 2].power()
            return StochasticMaps(self.course, power), np.empty((0, 6))
        kept = self._journal.read(key, ("voxels", "sums", "spectrum", "history"))
        spectrum = torch.from_numpy(kept["spectrum"])
        return StochasticMaps(self.course, spectrum, kept["voxels"], kept["sums"]), kept["history"]


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
