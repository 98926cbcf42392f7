"""Distributions whose log-density is band-limited: Wigner coefficients, as the network predicts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_cryosphere.so3._cells import CellDistribution, unit_rotations, whole_unit
from napari_cryosphere.so3._harmonic_sums import HarmonicSums
from napari_cryosphere.so3._modes import Derivatives, grid_maxima, newton, pick, uphill
from napari_cryosphere.so3._plane_waves import PlaneWaves
from napari_cryosphere.so3._smooth import LEVEL_NATS, SmoothDistribution
from napari_cryosphere.so3.asymmetric_unit import expand, reduce
from napari_cryosphere.so3.distribution import (
    EVALUATION_ORDER,
    Array,
    Index,
    PoseDistribution,
    PoseSummary,
    like_given,
    per_particle,
)
from napari_cryosphere.so3.grid import MAX_ORDER, SO3Grid
from napari_cryosphere.so3.grid_transform import evaluate_on_grid
from napari_cryosphere.so3.rotations import rotation_from_vector
from napari_cryosphere.so3.symmetry import normalise_group_name, point_group
from napari_cryosphere.so3.wigner import evaluate_at, rotate_coefficients

__all__ = ["HarmonicDistribution", "order_for_degree"]

_STEPS = 4
_STEPS_OF_MODES = 3
_REACH = 30.0  # degrees; divided by the degree: longest step towards a mode, a twelfth of the shortest wave
_SETTLED_DEGREES = (
    1.0  # what would still move farther is on its way to a maximum that others reached
)
_ROUNDING = 1e-5  # of values in single precision
_STEEP = 1e-3  # of probability: more than this between equal log-densities, and the density is level there
_CHUNK = 16  # particles at once: what lies between the steps stays in the processor's cache


def order_for_degree(l_max: int) -> int:
    """Return the order of the grid for functions up to a degree: some five points to the shortest wave.

    That is order 3 up to degree 10, order 4 up to degree 16.
    """
    orders = range(EVALUATION_ORDER, MAX_ORDER)
    return next((k for k in orders if SO3Grid(k).spacing_degrees <= 75 / max(l_max, 1)), MAX_ORDER)


class HarmonicDistribution(SmoothDistribution):
    """See `PoseDistribution.from_coefficients`.

    Attributes
    ----------
    coefficients
        ``(n, L + 1, 2 L + 1, L + 1)`` complex: the unnormalised log-density, expanded as in
        `napari_cryosphere.so3.wigner`. At L = 6 this is 5 kB a particle.

    Notes
    -----
    The log-density has the degree L; the density itself may be sharper than any grid made for that
    degree. The normalisation is a sum over the grid of `order_for_degree`, refined around the best
    pose while a single cell there would hold more than 0.06, as a normal peak one spacing wide
    does.
    """

    def __init__(self, coefficients: Tensor, symmetry: str = "C1") -> None:
        shape = coefficients.shape
        count = shape[-1] if len(shape) == 4 else 0
        if shape[1:] != (count, 2 * count - 1, count):
            raise ValueError(f"coefficients must be (n, L + 1, 2 L + 1, L + 1), not {tuple(shape)}")
        self.coefficients = coefficients
        self.symmetry = normalise_group_name(symmetry)

    @property
    def l_max(self) -> int:
        """The largest degree."""
        return self.coefficients.shape[-1] - 1

    @property
    def width_degrees(self) -> float:
        """Not known beforehand."""
        return 0.0

    @property
    def coarse_order(self) -> int:
        """Order of the grid on which `HarmonicSums` begins."""
        return self._base_order

    @property
    def _base_order(self) -> int:
        return order_for_degree(self.l_max)

    def __len__(self) -> int:
        return len(self.coefficients)

    def __getitem__(self, index: Index) -> HarmonicDistribution:
        """Select particles; an integer gives a batch of one."""
        rows = torch.from_numpy(np.arange(len(self))[index].reshape(-1)).to(
            self.coefficients.device
        )
        return HarmonicDistribution(self.coefficients[rows], self.symmetry)

    def cpu(self) -> HarmonicDistribution:
        """Return the distribution in the computer's own memory."""
        return HarmonicDistribution(self.coefficients.cpu(), self.symmetry)

    def score(self, rotations: Array) -> Array:
        """Return the unnormalised log-density, in double precision."""
        exact = self.coefficients.detach().to(torch.complex128)
        group = point_group(self.symmetry)
        images = np.einsum("gij,nqjk->nqgik", group, rotations).reshape(len(rotations), -1, 3, 3)
        values = evaluate_at(exact, torch.from_numpy(images).to(exact.device))
        return (
            _group_mean(values.reshape(*rotations.shape[:2], len(group)).movedim(-1, 0))
            .cpu()
            .numpy()
        )

    def values_on_grid(self, order: int, views: Tensor | None = None) -> Tensor:
        """Return the unnormalised log-density, averaged over the group, ``(n, n_views, n_psi)``.

        ``views`` are those wanted; without it all.
        """
        coefficients = self.coefficients.detach()
        if self.symmetry == "C1":
            return evaluate_on_grid(coefficients, order)
        group = point_group(self.symmetry)
        total = None
        for operator in group:
            values = evaluate_on_grid(rotate_coefficients(coefficients, operator), order)
            wanted = values if views is None else values[:, views]
            total = wanted if total is None else torch.logaddexp(total, wanted)
        assert total is not None
        return total - float(np.log(len(group)))

    def values_in_unit(self, order: int) -> Tensor:
        """Return the unnormalised log-density in the cells of the asymmetric unit, ``(n, k)``."""
        views = torch.from_numpy(SO3Grid(order).reduced(self.symmetry).views)
        return self.values_on_grid(order, views.to(self.coefficients.device)).flatten(1)

    def climb(self, rotations: Array) -> Array:
        """Move poses uphill by Newton's method with exact derivatives."""
        return self.climb_to(rotations)[0]

    def climb_to(self, rotations: Array) -> tuple[Array, Array]:
        """Return what `climb` does, and the unnormalised log-density there."""
        spacing = SO3Grid(self.coarse_order).spacing_degrees
        return newton(self._derive(), rotations, spacing / 2, _STEPS, _ROUNDING)[:2]

    def _sums(self) -> Iterator[HarmonicSums]:
        for rows in self._chunks():
            yield HarmonicSums(self[rows])

    @cached_property
    def log_normaliser(self) -> Array:
        """What `score` exceeds the normalised log-density by, ``(n,)``."""
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
        """See `PoseDistribution.credible_level`; all particles of a batch at once."""
        given = per_particle(rotations, len(self))
        answers = np.empty(given.shape[:2])
        for rows in self._chunks():
            sums, logs = HarmonicSums(self[rows], ranked=True), self[rows].score(given[rows])
            lowest, highest = (
                sums.probability_above(logs + shift) for shift in (LEVEL_NATS, -LEVEL_NATS)
            )
            answers[rows] = (lowest + highest) / 2
            level = rows[(highest - lowest > _STEEP).any(1)]
            if len(level):  # the cells' own order decides
                answers[level] = super(HarmonicDistribution, self[level]).credible_level(
                    given[level]
                )
        return like_given(answers, rotations)

    def _derive(self) -> Callable[[Array, int], Derivatives]:
        """Return the derivatives of the unnormalised log-density, for `newton`."""
        waves = PlaneWaves(self.coefficients.detach())
        order = len(point_group(self.symmetry))

        def derive(poses: Array, step: int) -> Derivatives:
            images = torch.from_numpy(expand(poses, self.symmetry).reshape(len(poses), -1, 3, 3))
            found = waves.derivatives(
                images.to(self.coefficients.device, self.coefficients.real.dtype)
            )
            value, gradient, hessian = (
                part.double().cpu().numpy().reshape(*poses.shape[:2], order, *part.shape[2:])
                for part in found
            )
            return (
                _of_mean(value, gradient, hessian)
                if order > 1
                else (value[:, :, 0], gradient[:, :, 0], hessian[:, :, 0])
            )

        return derive

    def maxima(
        self, rows: NDArray[np.int64], most: int
    ) -> Iterator[tuple[NDArray[np.int64], Array, Array, Array]]:
        """See `PoseDistribution.maxima`; all particles of a batch at once.

        Of four times as many cells, those are followed uphill that promise to become the highest.
        """
        grid = SO3Grid(self.coarse_order)
        spacing, reach = grid.spacing_degrees, _REACH / max(self.l_max, 1)
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            chunk = self[some]
            cells = grid_maxima(
                chunk.values_in_unit(grid.order), grid.order, self.symmetry, 4 * most
            )
            poses, derive = unit_rotations(grid.order, self.symmetry)[cells], chunk._derive()
            first = derive(poses, 0)
            move = uphill(first[1], first[2], np.full(cells.shape, np.radians(reach)))
            promise = np.where(cells < 0, -np.inf, first[0] + (move * first[1]).sum(-1) / 2)
            there, apart = poses @ rotation_from_vector(move), np.full(len(some), spacing / 2)
            places, _, found = pick(there, promise, apart, min(most, cells.shape[1]), self.symmetry)
            at = np.arange(len(some))[:, None], places
            known = first[0][at], first[1][at], first[2][at]
            tops, heights, rest = newton(
                derive, poses[at], reach, _STEPS_OF_MODES, _ROUNDING, known
            )
            settled = np.isfinite(found) & (rest < np.radians(_SETTLED_DEGREES))
            logs = np.where(settled, heights - self.log_normaliser[some][:, None], -np.inf)
            yield some, tops, logs, np.full(len(some), spacing)

    def probability_grid(self, order: int = EVALUATION_ORDER) -> Array:
        """Return the probability of every cell, by the density at its centre, ``(n, n_views, n_psi)``."""
        values = self.values_on_grid(order)
        return values.flatten(1).softmax(1).reshape(values.shape).double().cpu().numpy()

    def coarse(self) -> CellDistribution:
        """Return the copy of a small batch on the grid of `order_for_degree`."""
        unit = whole_unit(self._base_order, self.symmetry)
        values = self.values_in_unit(self._base_order).double().cpu().numpy()
        return CellDistribution(self._base_order, unit, values, self.symmetry, check=False)

    def seeds(self, part: CellDistribution) -> Array:
        """Return the maximum beside the best cell, ``(n, 1, 3, 3)``."""
        best = part.centres[0][part.log_density.argmax(1)][:, None]
        likely = (
            part.probability.max(1) > 0.02
        )  # less than that, and the peak is wider than the grid
        if likely.any():
            best[likely] = self[np.flatnonzero(likely)].climb(best[likely])
        return reduce(best, self.symmetry)

    def symmetrise(self, symmetry: str) -> PoseDistribution:
        """See `PoseDistribution.symmetrise`."""
        return HarmonicDistribution(self.coefficients, self._other_symmetry(symmetry))


def _group_mean(logs: Tensor) -> Tensor:
    """Return the logarithm of the mean over the first axis."""
    return logs[0] if len(logs) == 1 else logs.logsumexp(0) - float(np.log(len(logs)))


def _of_mean(value: Array, gradient: Array, hessian: Array) -> Derivatives:
    """Return the derivatives of the logarithm of the mean of exponentials over axis 2."""
    highest = value.max(2, keepdims=True)
    shares = np.exp(value - highest)
    total = shares.sum(2, keepdims=True)
    shares = shares / total
    slope = np.einsum("nkg,nkgi->nki", shares, gradient)
    bend = hessian + gradient[..., :, None] * gradient[..., None, :]
    curvature = (
        np.einsum("nkg,nkgij->nkij", shares, bend) - slope[..., :, None] * slope[..., None, :]
    )
    return (highest + np.log(total))[..., 0] - np.log(value.shape[2]), slope, curvature
