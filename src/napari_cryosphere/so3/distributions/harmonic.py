"""Distributions whose log-density is band-limited: Wigner coefficients, as the network predicts them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.asymmetric_unit import reduce
from napari_cryosphere.so3.distributions.band_limited import ROUNDING, BandLimited
from napari_cryosphere.so3.distributions.cells import (
    Array,
    Cells,
    like_given,
    per_particle,
    unit_rotations,
    whole_unit,
)
from napari_cryosphere.so3.distributions.harmonic_sums import HarmonicSums
from napari_cryosphere.so3.distributions.modes import Maxima, grid_maxima, newton, pick, uphill
from napari_cryosphere.so3.distributions.smooth import LEVEL_NATS, SmoothDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.pose_summary import EVALUATION_ORDER, PoseSummary
from napari_cryosphere.so3.rotations import rotation_from_vector

__all__ = ["HarmonicDistribution"]

_STEPS_OF_MODES = 3  # poses that have not arrived by then are left out; chosen, not tuned
# Over the degree L: longest step towards a mode, a twelfth of the shortest wave.
_REACH_DEGREES = 30.0
# What would still move farther is on its way to a maximum that others reached.
_SETTLED_DEGREES = 1.0
_STEEP = 1e-3  # of probability: more than this between equal log-densities, and the density is level there
# Particles at once: what lies between the steps stays in the processor's cache.
_PARTICLES_AT_ONCE = 16


class HarmonicDistribution(BandLimited, SmoothDistribution, kind="harmonic"):
    """Distributions given by Wigner coefficients, see `PoseDistribution.from_coefficients`.

    ``coefficients``: ``(n, L + 1, 2 L + 1, L + 1)`` complex: the unnormalised log-density, expanded
    as in `napari_cryosphere.so3.wigner`. At L = 6 this is 5 kB per particle.

    The log-density has the degree L; the density itself may be sharper than any grid made for that
    degree. The normalisation is a sum over the grid of `order_for_degree`, refined around the best
    pose while a single cell there would hold more than 0.06, as a normal peak one spacing wide
    does.
    """

    @property
    def width_degrees(self) -> float:
        """Not known beforehand."""
        return 0.0

    def _sums(self) -> Iterator[HarmonicSums]:
        for rows in self._chunks():
            yield HarmonicSums(self[rows])

    @cached_property
    def log_normaliser(self) -> Array:
        """Logarithm of the integral of ``exp(score)`` over the uniform distribution, ``(n,)``."""
        return np.concatenate([np.zeros(0), *(sums.log_total for sums in self._sums())])

    def summary(self) -> PoseSummary:
        """Return best pose, entropy, spread and confidence of every particle, in bounded memory."""
        summaries, totals = [], [np.zeros(0)]
        for sums in self._sums():
            summaries.append(sums.summary())
            totals.append(sums.log_total)
        self.log_normaliser = np.concatenate(totals)  # which modes and densities need too
        return PoseSummary.concatenate(summaries)

    def credible_level(self, rotations: ArrayLike) -> Array:
        """Return the level of the smallest credible set that holds each rotation, by arrays over a batch."""
        given = per_particle(rotations, len(self))
        answers = np.empty(given.shape[:2])
        for rows in self._chunks():
            sums, logs = HarmonicSums(self[rows], ranked=True), self[rows].score(given[rows])
            both = sums.probability_above(np.hstack([logs + LEVEL_NATS, logs - LEVEL_NATS]))
            lowest, highest = np.hsplit(both, 2)
            answers[rows] = (lowest + highest) / 2
            level = rows[(highest - lowest > _STEEP).any(1)]
            if len(level):  # the cells' own order decides
                answers[level] = super(HarmonicDistribution, self[level]).credible_level(
                    given[level]
                )
        return like_given(answers, rotations)

    def maxima(self, rows: NDArray[np.int64], most: int) -> Maxima:
        """Yield local maxima of some particles, all those of a batch at once.

        Of four times as many cells, those are followed uphill that promise to become the highest.
        """
        grid = SO3Grid(self.coarse_order)
        spacing, reach = grid.spacing_degrees, _REACH_DEGREES / max(self.l_max, 1)
        for start in range(0, len(rows), _PARTICLES_AT_ONCE):
            some = rows[start : start + _PARTICLES_AT_ONCE]
            chunk = self[some]
            cells = grid_maxima(
                chunk.values_in_unit(grid.order), grid.order, self.symmetry, 4 * most
            )
            poses, derive = unit_rotations(grid.order, self.symmetry)[cells], chunk.derive()
            first = derive(poses, 0)
            move = uphill(first[1], first[2], np.full(cells.shape, np.radians(reach)))
            promise = np.where(cells < 0, -np.inf, first[0] + (move * first[1]).sum(-1) / 2)
            there, apart = poses @ rotation_from_vector(move), np.full(len(some), spacing / 2)
            places, _, found = pick(there, promise, apart, min(most, cells.shape[1]), self.symmetry)
            at = np.arange(len(some))[:, None], places
            known = first[0][at], first[1][at], first[2][at]
            tops, heights, rest = newton(derive, poses[at], reach, _STEPS_OF_MODES, ROUNDING, known)
            settled = np.isfinite(found) & (rest < np.radians(_SETTLED_DEGREES))
            logs = np.where(settled, heights - self.log_normaliser[some][:, None], -np.inf)
            yield some, tops, logs, np.full(len(some), spacing)

    def probability_grid(self, order: int = EVALUATION_ORDER) -> Array:
        """Return the probability of every cell, by the density at its centre, ``(n, n_views, n_psi)``."""
        values = self.values_on_grid(order)
        return values.flatten(1).softmax(1).reshape(values.shape).double().cpu().numpy()

    def coarse(self) -> Cells:
        """Return the copy of a small batch on the grid of `order_for_degree`."""
        unit = whole_unit(self.coarse_order, self.symmetry)
        values = self.values_in_unit(self.coarse_order).double().cpu().numpy()
        return Cells(self.coarse_order, unit, values, self.symmetry, check=False)

    def seeds(self, part: Cells) -> Array:
        """Return the maximum nearest to the best cell, ``(n, 1, 3, 3)``."""
        best = part.centres[0][part.log_density.argmax(1)][:, None]
        # less than that, and the peak is wider than the grid
        likely = part.probability.max(1) > 0.02
        if likely.any():
            best[likely] = self[np.flatnonzero(likely)].climb(best[likely])
        return reduce(best, self.symmetry)
