"""First maps of the states that particles at the poses of one map are in.

Each half of the particles finds its own, from nothing that the other knows: principal components of what
the map leaves over, clusters of the particles' coordinates in them, and from these a mixture of maps. A
difference between two states counts if both halves find it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment

from napari_cryosphere.alignment.variability import Mixture, Residuals
from napari_cryosphere.jobs._coarse_images import CoarseImages
from napari_cryosphere.jobs.configs import AligningConfig
from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.particles import DensityMap, ParticleStack, spread_rows

__all__ = ["START_SHELLS", "HalfStates", "alike", "differ", "found_states", "merged_columns"]

START_SHELLS = 12
"""Shells in which states are told apart at first. In 12 and in 8 shells a domain of a GPCR complex, turned
by 15 degrees, was seen in the same particles (AUROC of the first component 0.85 and 0.79 with 400).
"""
_MOST = 4000  # particles of a half from which the maps are found: memory, 10 kB each
_ROUNDS_OF_COMPONENTS, _ROUNDS, _LAST_ROUNDS = 10, 6, 10
"""Rounds of expectation maximisation: of components, of every mixture, of the best one. Twenty more
changed the AUROC of 750 particles by less than 0.001."""
_CLUSTERINGS = 2  # first clusters that are tried; the likeliest mixture is kept
_FIRST_SURE = 0.9  # probability of a particle's own cluster at first; chosen, not tuned
_DEVIATIONS = 4.0
"""By which images have to scatter along a difference that the other half found, in standard deviations of
what noise does: one in 30,000, and matching the halves' states chooses among a few.
"""
_NOTHING_ALIKE = 2.0
"""Standard deviations of chance by which the halves' differences between two refined states have to agree."""


@dataclass(frozen=True)
class HalfStates:
    """The states of one half of the particles.

    ``maps``, ``(k, box, box, box)``: each one's difference from the common map. ``probabilities``:
    ``(n, k)``.
    """

    maps: NDArray[np.float32]
    probabilities: NDArray[np.float64]

    def ordered(self, order: Sequence[int] | NDArray[np.int64]) -> HalfStates:
        """Return the states in another order."""
        return HalfStates(self.maps[order], self.probabilities[:, order])


class _Half:
    """Particles of a half at known poses, seen in a few shells."""

    def __init__(
        self, stack: ParticleStack, reference: DensityMap, mask: DensityMap, config: AligningConfig
    ) -> None:
        self._images = CoarseImages(
            stack,
            reference,
            START_SHELLS,
            config.symmetry,
            config.shift_range_px,
            config.batch_size,
        )
        self._voxels, self._mask = self._images.voxels(reference), self._images.mask(mask)
        self._number = len(stack)

    def _residuals(self, rows: NDArray[np.int64]) -> Residuals:
        return self._images.residuals(rows, self._voxels, self._mask)

    def states(self, number: int) -> tuple[Residuals, HalfStates]:
        """Return what some of the particles leave over, and the states of all."""
        residuals = self._residuals(spread_rows(self._number, _MOST))
        found = residuals.components(number, _ROUNDS_OF_COMPONENTS)
        sizes = np.linalg.norm(found.maps.reshape(number, -1), axis=1)
        coordinates = found.coordinates * sizes
        best: Mixture | None = None
        for seed in range(_CLUSTERINGS):
            _, labels = kmeans2(coordinates, number, minit="++", seed=seed, missing="warn")
            first = np.full((len(labels), number), (1 - _FIRST_SURE) / (number - 1))
            first[np.arange(len(labels)), labels] = _FIRST_SURE
            mixture = residuals.mixture(first, _ROUNDS)
            if best is None or mixture.log_likelihood > best.log_likelihood:
                best = mixture
        assert best is not None
        return residuals, self.shared_out(residuals, best.probabilities)

    def shared_out(self, residuals: Residuals, first: NDArray[np.float64]) -> HalfStates:
        """Return the states of all particles from first probabilities of those that maps are made of."""
        mixture = residuals.mixture(first, _LAST_ROUNDS)
        number = self._number
        if len(residuals) == number:
            return HalfStates(mixture.maps, mixture.probabilities)
        rows = np.array_split(np.arange(number), -(-number // _MOST))
        each = [self._residuals(some).shared_out(mixture) for some in rows]
        return HalfStates(mixture.maps, np.concatenate(each))


def found_states(
    halves: Sequence[ParticleStack],
    references: Sequence[DensityMap],
    mask: DensityMap,
    number: int,
    config: AligningConfig,
) -> Generator[Progress, None, list[NDArray[np.float64]]]:
    """Find up to so many states in two halves and return each half's probabilities, ``(n, k)``.

    The largest state is the first. States that the halves do not both tell from another are merged.

    - ``halves``: the particles of each, with poses and cryospherePresence.
    - ``references``: each half's map.
    - ``mask``: where particles may differ.
    - ``number``: most states.
    - ``config``: how particles are compared.
    """
    sides, residuals, states = list[_Half](), list[Residuals](), list[HalfStates]()
    for half, (stack, reference) in enumerate(zip(halves, references, strict=True), 1):
        yield Progress(0.0, f"telling states apart in half {half}")
        sides.append(_Half(stack, reference, mask, config))
        left, found = sides[-1].states(number)
        residuals.append(left)
        states.append(found)
    states[1] = states[1].ordered(_matched(states[0].maps, states[1].maps))
    while states[0].maps.shape[0] > 1:
        twins = _not_seen_apart(residuals, states)
        if twins is None:
            break
        yield Progress(0.0, "merging states that the halves do not tell apart")
        merged = [merged_columns(one.probabilities, twins) for one in states]
        if merged[0].shape[1] == 1:
            return merged
        states = [
            side.shared_out(left, first[spread_rows(len(first), _MOST)])
            for side, left, first in zip(sides, residuals, merged, strict=True)
        ]
    total = np.sum([one.probabilities.sum(0) for one in states], axis=0)
    order = np.argsort(-total, kind="stable")
    return [one.ordered(order).probabilities for one in states]


def _matched(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the order of the second's maps in which each fits the first's best."""
    flat = [maps.reshape(len(maps), -1) for maps in (first, second)]
    one, other = (maps - maps.mean(0) for maps in flat)
    _, order = linear_sum_assignment(-(one @ other.T))
    return np.asarray(order, dtype=np.int64)


def merged_columns(values: NDArray[np.float64], twins: tuple[int, int]) -> NDArray[np.float64]:
    """Return ``(n, k)`` with the second of two columns added to the first."""
    kept, gone = twins
    merged = values.copy()
    merged[:, kept] += merged[:, gone]
    return np.delete(merged, gone, axis=1)


def _not_seen_apart(
    residuals: Sequence[Residuals], states: Sequence[HalfStates]
) -> tuple[int, int] | None:
    """Return the two states whose difference in each half scatters the other's images least.

    None if all do, more than noise would.
    """
    pairs = _pairs(len(states[0].maps))
    seen = np.zeros(len(pairs))
    for half, left in enumerate(residuals):
        own, other = states[half], states[1 - half]
        rows = spread_rows(len(own.probabilities), _MOST)
        for place, (a, b) in enumerate(pairs):
            counts = own.probabilities[rows]
            weight = counts[:, a] + counts[:, b]
            share = float(counts[:, a].sum() / max(float(weight.sum()), 1e-30))
            middle = share * own.maps[a] + (1 - share) * own.maps[b]
            difference = other.maps[a] - other.maps[b]
            seen[place] += left.scatter_along(difference, middle, weight) / np.sqrt(2)
    least = int(np.argmin(seen))
    return pairs[least] if seen[least] < _DEVIATIONS else None


def _pairs(number: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(number) for b in range(a + 1, number)]


def alike(maps: Sequence[NDArray[np.float32]], mask: NDArray[np.float32]) -> tuple[int, int] | None:
    """Return the two states whose difference the halves agree on least, None if they do on all.

    ``maps`` are those of each half, ``(k, box, box, box)``.
    """
    pairs = _pairs(len(maps[0]))
    agreed = [differ(maps[0][a] - maps[0][b], maps[1][a] - maps[1][b], mask) for a, b in pairs]
    least = int(np.argmin(agreed))
    return pairs[least] if agreed[least] < _NOTHING_ALIKE else None


def differ(
    first: NDArray[np.float32], second: NDArray[np.float32], mask: NDArray[np.float32]
) -> float:
    """Return by how many standard deviations two maps correlate in a mask, beyond chance.

    Two maps of noise with their power spectrum, in the mask m, correlate by 0 with variance
    ``sum(m^4) / sum(m^2)^2 * voxels * sum(P^2) / sum(P)^2``.
    """
    one, other = first.astype(np.float64) * mask, second.astype(np.float64) * mask
    size = np.sqrt(float((one**2).sum()) * float((other**2).sum()))
    if size == 0:
        return 0.0
    power = np.abs(np.fft.fftn(one)) * np.abs(np.fft.fftn(other))
    squared = mask.astype(np.float64) ** 2
    variance = (squared**2).sum() / squared.sum() ** 2 * (power**2).sum() / power.sum() ** 2
    return float((one * other).sum() / size / np.sqrt(variance * mask.size))
