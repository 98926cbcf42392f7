"""Distributions with a smooth density: their piecewise constant copies, refined where a peak asks for it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.asymmetric_unit import border_depth, expand
from napari_cryosphere.so3.distributions.cells import (
    Array,
    Cells,
    join_cells,
    like_given,
    per_particle,
)
from napari_cryosphere.so3.distributions.distribution import CellDistribution, PoseDistribution
from napari_cryosphere.so3.distributions.modes import by_differences, newton
from napari_cryosphere.so3.grid import MAX_ORDER, Indices, SO3Grid, cell_centres
from napari_cryosphere.so3.symmetry import point_group

__all__ = [
    "AROUND_SPACINGS",
    "LEVEL_NATS",
    "SHARPEST",
    "SPLIT_FROM",
    "SmoothDistribution",
    "probability_above",
]

LEVEL_NATS = 1e-6
"""Log-densities that differ by less are equal."""

SHARPEST = 0.0635
"""A cell that would hold more than this, at the peak's density, is split: a normal peak whose
standard deviation is the grid's spacing. (The sum of a narrower one errs: by 0.1 per cent at 0.6 of
it.)"""

_NEWTON_STEPS = 4  # as for coefficients, see `band_limited`
SPLIT_FROM = 1e-4  # cells of less probability are left whole
# Spacings: cells whose centre is nearer to a peak are split, whatever they seem to hold.
AROUND_SPACINGS = 2.2
_DROP_BELOW = 1e-9  # and of less are left out, where cells are listed for each particle


class SmoothDistribution(PoseDistribution):
    """Base of distributions whose unnormalised log-density, `score`, is given by a formula."""

    @abstractmethod
    def score(self, rotations: Array) -> Array:
        """Return the unnormalised log-density, averaged over the group: ``(n, q, 3, 3)`` to ``(n, q)``."""

    @abstractmethod
    def coarse(self) -> Cells:
        """Return the copy of a small batch on one grid, the same cells for all."""

    @abstractmethod
    def seeds(self, part: Cells) -> Array:
        """Return poses ``(n, s, 3, 3)`` where a peak may hide between the points of the coarse grid."""

    @property
    @abstractmethod
    def width_degrees(self) -> float:
        """A lower bound on the standard deviation of peaks, below which no cell need be split; may be 0."""

    @cached_property
    def log_normaliser(self) -> Array:
        """Logarithm of the integral of ``exp(score)`` over the uniform distribution, ``(n,)``."""
        totals = np.empty(len(self))
        for rows, part in self.parts():
            totals[rows] = part.log_total
        return totals

    def log_prob(self, rotations: ArrayLike) -> Array:
        """Return the log-density at rotations ``(n, q, 3, 3)``, ``(n, q)`` nats relative to uniform."""
        given = per_particle(rotations, len(self))
        values = np.concatenate([self[rows].score(given[rows]) for rows in self._chunks()])
        return like_given(values - self.log_normaliser[:, None], rotations)

    def log_prob_of_cells(self, orders: NDArray[np.int64], indices: Indices) -> Array:
        """Return the first particle's log-density at the centres of ``(k,)`` cells."""
        return np.asarray(self[0].log_prob(cell_centres(orders, indices)[None])[0])

    def credible_level(self, rotations: ArrayLike) -> Array:
        """Return the level of the smallest credible set that holds each rotation, ``(n, q)``.

        The cells give the probability that lies at higher densities than the rotation's own, which
        is read from the formula; where the density is level (uniform) the cells' own order decides.
        """
        given = per_particle(rotations, len(self))
        answers = np.empty(given.shape[:2])
        for rows, part, peak in self._parts_with_peaks(ranked=True):
            logs = self[rows].score(given[rows]) - part.log_total[:, None]
            both = _mass_above(part, peak, np.hstack([logs + LEVEL_NATS, logs - LEVEL_NATS]))
            lowest, highest = np.hsplit(both, 2)
            answers[rows] = part.levels(given[rows]).clip(lowest, highest)
        return like_given(answers, rotations)

    def climb(self, rotations: Array) -> Array:
        """Move poses ``(n, k, 3, 3)`` uphill by Newton's method with derivatives by differences."""
        spacing = SO3Grid(self.coarse_order).spacing_degrees
        return newton(
            by_differences(self.score, spacing / 16), rotations, spacing / 2, _NEWTON_STEPS
        )[0]

    @property
    @abstractmethod
    def coarse_order(self) -> int:
        """Order of the grid that refinement starts from."""

    def parts(self) -> Iterator[tuple[NDArray[np.int64], Cells]]:
        """Yield particles ``(b,)`` whose peaks the coarse grid resolves with their cells, then the others."""
        for rows, part, _ in self._parts_with_peaks():
            yield rows, part

    def fine_cells(self) -> CellDistribution:
        """Return the copy of all particles on cells half as wide as those of `cells`."""
        parts = [(rows, part) for rows, part, _ in self._parts_with_peaks(ranked=True)]
        return CellDistribution(*join_cells(len(self), parts), self.symmetry, check=False)

    def _parts_with_peaks(
        self, ranked: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], Cells, Array]]:
        """Yield what `parts` does, and the log-density at the highest peak; ``ranked`` on smaller cells."""
        for rows in self._chunks():
            chunk = self[rows]
            part = chunk.coarse()
            seeds = chunk.seeds(part)
            peak = chunk.score(seeds).max(1)
            sharp = chunk._too_coarse(self.coarse_order, seeds, peak - part.log_total, ranked)
            for refine in (False, True):
                which = np.flatnonzero(sharp == refine)
                if len(which):
                    copy = part if len(which) == len(rows) else part[which]
                    if refine:
                        copy = chunk[which]._refined(copy, seeds[which], ranked)
                    yield rows[which], copy, peak[which] - copy.log_total

    def _too_coarse(self, order: int, seeds: Array, peak: Array, ranked: bool) -> NDArray[np.bool_]:
        """Return whether cells of an order are too large for the highest peak, ``(n,)``.

        They must be half as wide to rank poses by density, where few cells would make large steps,
        and near the unit's border: what is inside of a cell that it cuts lies off the centre, where
        density is read.
        """
        grid = SO3Grid(order)
        held = np.exp(peak) * len(point_group(self.symmetry)) / grid.size  # by the cell at the peak
        width = np.radians(grid.spacing_degrees) * np.cbrt(SHARPEST / held)  # of a normal peak
        near = (border_depth(seeds[..., 2], self.symmetry) < 3 * width[:, None]).any(1)
        return (held * np.where(near | ranked, 8, 1) > SHARPEST) | (
            0 < self.width_degrees < grid.spacing_degrees
        )

    def _refined(self, part: Cells, seeds: Array, ranked: bool) -> Cells:
        """Split the cells around peaks, order by order, until no cell holds too much of one."""
        for order in range(self.coarse_order, MAX_ORDER):
            split = self._to_split(part, seeds, order)
            part = self._with_children(part, split, order)
            peak = self.score(seeds).max(1) - part.log_total
            if not self._too_coarse(order + 1, seeds, peak, ranked).any():
                break
        return part

    def _to_split(self, part: Cells, seeds: Array, order: int) -> NDArray[np.bool_]:
        """Return which cells ``(n, k)`` are split: the probable ones of an order, and those around seeds."""
        finest = (part.orders == order) & (part.indices >= 0)
        split = finest & (part.probability > SPLIT_FROM)
        reach = 1 + 2 * np.cos(np.radians(AROUND_SPACINGS * SO3Grid(order).spacing_degrees))
        images = expand(seeds, part.symmetry).reshape(len(part), -1, 9)
        centres = part.centres.reshape(len(part.centres), -1, 9)
        for row in range(len(part)):
            its_centres = centres[0 if part.shared else row][finest[row]]
            split[row, finest[row]] |= (its_centres @ images[row].T).max(1) > reach
        return split

    def _with_children(self, part: Cells, split: NDArray[np.bool_], order: int) -> Cells:
        """Return the cells, the improbable ones dropped, with those of a mask replaced by their children."""
        keep = ~split & (part.probability > _DROP_BELOW)
        children = [
            SO3Grid(order).children(part.indices[row][split[row]]).reshape(-1)
            for row in range(len(part))
        ]
        orders, indices = _pad(children, order + 1)
        centres = SO3Grid(order + 1).rotations(np.maximum(indices, 0))
        scores = np.where(indices < 0, -np.inf, self.score(centres))
        kept = _gather(part, keep)
        return Cells(
            np.hstack([kept[0], orders]),
            np.hstack([kept[1], indices]),
            np.hstack([kept[2], scores]),
            part.symmetry,
            check=False,
        )


def probability_above(values: Array, masses: Array, peak: float, logs: Array) -> Array:
    """Return the probability of all poses whose log-density exceeds each of ``(q,)``, by interpolation.

    Half of a cell's own mass counts as above its centre's density; nothing is above the peak.

    ``values``, ``masses``: ``(k,)`` log-density at the centres of cells, and their probability.
    ``peak``: log-density at the highest maximum. ``logs``: ``(q,)``.
    """
    return np.array([_one_above(values, masses, peak, log) for log in logs])


def _one_above(values: Array, masses: Array, peak: float, log: float) -> float:
    """Return `probability_above` of one log-density; without sorting, which takes longer than a few sums."""
    higher = values > log
    if higher.all():
        return 1.0
    mass = masses[higher].sum()
    next_below = np.where(higher, -np.inf, values).argmax()
    below = values[next_below], mass + masses[next_below] / 2
    above = max(peak, below[0]), 0.0
    if higher.any():
        next_above = np.where(higher, values, np.inf).argmin()
        above = values[next_above], mass - masses[next_above] / 2
    (lower, most), (upper, least) = below, above
    return float(np.interp(log, [lower, upper], [most, least], right=least))


def _mass_above(part: Cells, peak: Array, logs: Array) -> Array:
    """Return `probability_above` of ``(n, q)`` log-densities."""
    rows = zip(part.log_density, part.probability, peak, logs, strict=True)
    return np.stack([probability_above(*row) for row in rows])


def _pad(lists: list[Indices], order: int) -> tuple[NDArray[np.int8], Indices]:
    """Return lists of cells of one order as padded ``(n, k)`` arrays of orders and indices."""
    indices = np.full((len(lists), max(map(len, lists))), -1, dtype=np.int64)
    for row, cells in enumerate(lists):
        indices[row, : len(cells)] = cells
    return np.full(indices.shape, order, dtype=np.int8), indices


def _gather(part: Cells, keep: NDArray[np.bool_]) -> tuple[NDArray[np.int8], Indices, Array]:
    """Return the orders, indices and unnormalised log-densities of the cells of a mask, padded."""
    width = int(keep.sum(1).max())
    column = np.argsort(~keep, axis=1, kind="stable")[:, :width]
    kept = np.take_along_axis(keep, column, 1)
    logs = np.take_along_axis(part.log_density, column, 1) + part.log_total[:, None]
    return (
        np.take_along_axis(part.orders, column, 1),
        np.where(kept, np.take_along_axis(part.indices, column, 1), -1),
        np.where(kept, logs, -np.inf),
    )
