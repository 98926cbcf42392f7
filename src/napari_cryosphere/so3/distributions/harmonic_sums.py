"""Sums over SO(3) of distributions with a band-limited log-density, for many particles at once.

What `smooth` does with cells of mixed orders is done here with arrays: the whole coarse grid in
single precision, and below it lists of the finer cells around sharp peaks, whose values come from
waves that are summed up once per view direction rather than once per pose.

The reason is speed. Most predictions are wider than the grid, and one softmax over the coarse grid
gives all their sums; a list of cells per particle would cost ten times that. Only where a single
cell would hold more than a normal peak one spacing wide puts into it are the cells around the peak
split in eight, order by order, until none does. Children of neighbouring cells share few view
directions, so the sum over rot and tilt is made once for each of these and the ring of in-plane
angles follows as one small product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.so3.asymmetric_unit import border_depth, expand
from napari_cryosphere.so3.distributions.band_limited import BandLimited
from napari_cryosphere.so3.distributions.cells import Array, unit_rotations
from napari_cryosphere.so3.distributions.smooth import (
    AROUND_SPACINGS,
    SHARPEST,
    SPLIT_FROM,
    probability_above,
)
from napari_cryosphere.so3.grid import MAX_ORDER, Indices, SO3Grid
from napari_cryosphere.so3.healpix import nest2ring, ring2nest
from napari_cryosphere.so3.plane_waves import PlaneWaves
from napari_cryosphere.so3.pose_summary import (
    CONFIDENCE_RADIUS_DEGREES,
    EVALUATION_ORDER,
    PoseSummary,
)
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["HarmonicSums"]

_RANKED_FROM = 1e-10
"""Cells of less probability are left out where poses are ranked by density."""
_ON_GRID = ("C1", "C2", "C4", "D1", "D2", "D4")
"""Groups that take the grid's cells to cells: those that the unit's border cuts complete each other."""


@dataclass(frozen=True)
class _Finer:
    """Cells of one order, flat lists over all particles.

    - ``order``: of the cells.
    - ``row``, ``view``, ``frame``: ``(p,)`` particles, ``(p,)`` view pixels and ``(p, 3, 3)`` poses
      there at psi 0.
    - ``pair``, ``psi``, ``(k,)``: which of these, and the in-plane index, for every cell.
    - ``home``, ``(k,)``: the cell of the coarse grid above, as its place in the unit.
    - ``value``: ``(k,)`` unnormalised log-density.
    """

    order: int
    row: Indices
    view: Indices
    frame: Array
    pair: Indices
    psi: Indices
    home: Indices
    value: Array

    @property
    def rows(self) -> Indices:
        """The particle of every cell."""
        return self.row[self.pair]

    def volumes(self, symmetry: str) -> Array:
        """Volume of every cell inside the asymmetric unit, as a share of it."""
        grid = SO3Grid(self.order)
        shares = _shares(self.order, symmetry)[self.view[self.pair]]
        return shares * len(point_group(symmetry)) / grid.size

    def angles_to(self, poses: Array, symmetry: str) -> Array:
        """Return the angle of every cell's centre to its particle's pose ``(n, 3, 3)``, in radians."""
        mixed = expand(poses[self.row], symmetry).swapaxes(-1, -2) @ self.frame[:, None]
        even, odd = mixed[..., 0, 0] + mixed[..., 1, 1], mixed[..., 0, 1] - mixed[..., 1, 0]
        turn = (self.psi + 0.5) * (2 * np.pi / SO3Grid(self.order).n_psi)
        cosine, sine = np.cos(turn)[:, None], np.sin(turn)[:, None]
        traces = even[self.pair] * cosine + odd[self.pair] * sine + mixed[self.pair, :, 2, 2]
        return np.arccos(((traces.max(1) - 1) / 2).clip(-1, 1))

    def rotations(self, cells: Indices) -> Array:
        """Return the centres of some of the cells, ``(..., 3, 3)``."""
        grid = SO3Grid(self.order)
        return grid.rotations(self.view[self.pair[cells]] * grid.n_psi + self.psi[cells])

    def only(self, keep: NDArray[np.bool_]) -> _Finer:
        """Return the cells of a mask."""
        return replace(
            self,
            pair=self.pair[keep],
            psi=self.psi[keep],
            home=self.home[keep],
            value=self.value[keep],
        )


class HarmonicSums:
    """The sums of a small batch of distributions.

    ``functions``: the log-densities, not normalised. ``ranked``: whether to sum over cells half as
    wide, fine enough to rank poses by density (`probability_above`). ``log_total``, ``(n,)``:
    logarithm of the mean of the exponentials of the unnormalised log-density.
    """

    def __init__(self, functions: BandLimited, *, ranked: bool = False) -> None:
        self._functions, self._ranked = functions, ranked
        self._symmetry = functions.symmetry
        self._order = functions.coarse_order
        self._waves = PlaneWaves(functions.coefficients.detach())
        self._values = functions.values_in_unit(self._order)
        self._log_volumes = _log_volumes(self._order, self._symmetry).to(self._values)
        self._finer: list[_Finer] = []
        start = self._values.argmax(1).cpu().numpy()
        self._seeds, self._peak = functions.climb_to(self._centres[start][:, None])
        self.log_total = self._coarse_total()
        self._refine()

    @cached_property
    def _centres(self) -> Array:
        return unit_rotations(self._order, self._symmetry)

    def _coarse_total(self) -> Array:
        return (self._values + self._log_volumes).logsumexp(1).double().cpu().numpy()

    # ------------------------------------------------------------------ refinement

    def _too_coarse(self, order: int) -> NDArray[np.bool_]:
        """Return whether cells of an order are too large for the highest peak, as in `smooth`, ``(n,)``."""
        grid = SO3Grid(order)
        with np.errstate(over="ignore"):
            density = np.exp(self._peak[:, 0] - self.log_total)
            held = density * len(point_group(self._symmetry)) / grid.size
        if self._symmetry not in _ON_GRID:
            width = np.radians(grid.spacing_degrees) * np.cbrt(SHARPEST / held)
            near = border_depth(self._seeds[:, 0, :, 2], self._symmetry) < 3 * width
            held = np.where(near | self._ranked, 8 * held, held)
        elif self._ranked:
            held = 8 * held
        return np.asarray(held > SHARPEST)

    def _refine(self) -> None:
        """Split cells around peaks, order by order, until none holds too much of one."""
        coarse = self._too_coarse(self._order)
        if not coarse.any():
            return
        split = torch.from_numpy(coarse)[:, None].to(self._values.device) & self._to_split()
        rows, cells = (part.cpu().numpy() for part in split.nonzero(as_tuple=True))
        self._values = self._values.masked_fill(split, -torch.inf)
        views = SO3Grid(self._order).reduced(self._symmetry).views
        place, psi = np.divmod(cells, SO3Grid(self._order).n_psi)
        self._finer.append(self._children(self._order, rows, views[place], psi, cells))
        remaining = self._coarse_total()
        for order in range(self._order + 1, MAX_ORDER + 1):
            self._add_up(remaining)
            coarse = self._too_coarse(order)
            if order == MAX_ORDER or not coarse.any():
                break
            last = self._finer[-1]
            near = last.angles_to(self._seeds[:, 0], self._symmetry) < self._reach(order)
            split_here = coarse[last.rows] & (near | (self._masses(last) > SPLIT_FROM))
            self._finer[-1] = last.only(~split_here)
            chosen = last.only(split_here)
            self._finer.append(
                self._children(
                    order, chosen.rows, chosen.view[chosen.pair], chosen.psi, chosen.home
                )
            )

    def _reach(self, order: int) -> float:
        return float(np.radians(AROUND_SPACINGS * SO3Grid(order).spacing_degrees))

    def _to_split(self) -> Tensor:
        """Return which coarse cells are split: the probable ones, and those around seeds."""
        total = torch.from_numpy(self.log_total).to(self._values)[:, None]
        probable = self._values + self._log_volumes > total + float(np.log(SPLIT_FROM))
        return probable | (
            self._coarse_cosines(self._seeds[:, 0]) > np.cos(self._reach(self._order))
        )

    def _add_up(self, remaining: Array) -> None:
        """Set the total from the coarse cells that are left and from the finer ones."""
        total = remaining
        for level in self._finer:
            logs = level.value + np.log(level.volumes(self._symmetry).clip(1e-300))
            highest = np.full(len(total), -np.inf)
            np.maximum.at(highest, level.rows, logs)
            safe = np.where(np.isfinite(highest), highest, 0.0)
            sums = np.bincount(level.rows, np.exp(logs - safe[level.rows]), len(total))
            with np.errstate(divide="ignore"):
                total = np.logaddexp(total, safe + np.log(sums))
        self.log_total = total

    def _masses(self, level: _Finer) -> Array:
        return np.exp(level.value - self.log_total[level.rows]) * level.volumes(self._symmetry)

    def _children(
        self, order: int, rows: Indices, views: Indices, psi: Indices, home: Indices
    ) -> _Finer:
        """Return the children, inside the unit, of cells of an order."""
        grid = SO3Grid(order + 1)
        pairs, pair = np.unique(rows * SO3Grid(order).n_views + views, return_inverse=True)
        row, above = np.divmod(pairs, SO3Grid(order).n_views)
        nested = np.asarray(ring2nest(2**order, above))[:, None] * 4 + np.arange(4)
        below = np.asarray(nest2ring(2 ** (order + 1), nested), dtype=np.int64)
        frame = grid.frames(below.ravel())
        values = self._on_views(np.repeat(row, 4), frame, grid)
        pair_of = (pair[:, None, None] * 4 + np.arange(4)[:, None]).repeat(2, 2)
        psi_of = np.broadcast_to((2 * psi[:, None] + np.arange(2))[:, None], pair_of.shape)
        inside = _shares(order + 1, self._symmetry)[below.ravel()][pair_of] > 0
        pair_of, psi_of = pair_of[inside], psi_of[inside]
        home_of = np.broadcast_to(home[:, None, None], inside.shape)[inside]
        value = values[pair_of, psi_of].astype(np.float64)
        return _Finer(
            order + 1, np.repeat(row, 4), below.ravel(), frame, pair_of, psi_of, home_of, value
        )

    def _on_views(self, rows: Indices, frames: Array, grid: SO3Grid) -> NDArray[np.floating]:
        """Return the log-density on whole rings of in-plane angles, ``(p, n_psi)``; rows ascend."""
        images = expand(frames, self._symmetry)
        values = self._waves.along_psi(rows, torch.from_numpy(images), grid.psi_angles())
        if values.shape[1] == 1:
            return values[:, 0].cpu().numpy()
        return (values.logsumexp(1) - float(np.log(values.shape[1]))).cpu().numpy()

    # ------------------------------------------------------------------ answers

    def probability_above(self, logs: Array) -> Array:
        """Return the probability of all poses denser than each unnormalised log-density, ``(n, q)``."""
        total = torch.from_numpy(self.log_total).to(self._values)[:, None]
        masses = (self._values - total + self._log_volumes).exp_()
        above = np.empty_like(logs)
        for row, wanted in enumerate(logs):
            kept = masses[row] > _RANKED_FROM
            values = [self._values[row][kept].double().cpu().numpy()]
            volumes = [masses[row][kept].double().cpu().numpy()]
            for level in self._finer:
                its = level.only(level.rows == row)
                values.append(its.value)
                volumes.append(self._masses(its))
            above[row] = probability_above(
                np.concatenate(values), np.concatenate(volumes), self._peak[row, 0], wanted
            )
        return above

    def _coarse_cosines(self, poses: Array) -> Tensor:
        """Return the cosine of the angle from poses ``(n, 3, 3)`` to the coarse cells modulo symmetry."""
        images = torch.from_numpy(expand(poses, self._symmetry).reshape(-1, 9)).to(self._values)
        table = _flat_centres(self._order, self._symmetry).to(self._values)
        traces = (images @ table).view(len(poses), -1, table.shape[1])
        highest = traces[:, 0] if traces.shape[1] == 1 else traces.amax(1)
        return ((highest - 1) / 2).clamp_(-1, 1)

    def summary(self) -> PoseSummary:
        """Return best pose, entropy, spread and confidence of every particle."""
        total = torch.from_numpy(self.log_total).to(self._values)[:, None]
        logs = self._values - total
        masses = (logs + self._log_volumes).exp_()
        rotations = self._best()
        angles = self._coarse_cosines(rotations).arccos_()
        entropy = -(masses * logs.clamp_(min=-100)).sum(1).double().cpu().numpy()
        spread = (masses * angles).sum(1).double().cpu().numpy()
        radius = np.radians(CONFIDENCE_RADIUS_DEGREES)
        within = (masses * (angles <= radius)).sum(1).double().cpu().numpy()
        number = len(total)
        for level in self._finer:
            mass, rows = self._masses(level), level.rows
            angle = level.angles_to(rotations, self._symmetry)
            entropy -= np.bincount(rows, mass * (level.value - self.log_total[rows]), number)
            spread += np.bincount(rows, mass * angle, number)
            within += np.bincount(rows, mass * (angle <= radius), number)
        highest = self._max_probability(masses)
        return PoseSummary(rotations, highest, entropy, np.degrees(spread), within.clip(0, 1))

    def _best(self) -> Array:
        """Return the highest maximum, by way of the highest cell, ``(n, 3, 3)``."""
        height, place = self._values.max(1)
        best, start = height.double().cpu().numpy(), self._centres[place.cpu().numpy()]
        for level in self._finer:
            ranked = np.lexsort((level.value, level.rows))
            rows = level.rows[ranked]
            last = np.flatnonzero(np.append(rows[1:] != rows[:-1], True)) if len(rows) else rows
            higher = last[level.value[ranked[last]] > best[rows[last]]]
            best[rows[higher]] = level.value[ranked[higher]]
            start[rows[higher]] = level.rotations(ranked[higher])
        return self._functions.climb(start[:, None])[:, 0]

    def _max_probability(self, masses: Tensor) -> Array:
        """Return the probability of the best cell of the grid of `EVALUATION_ORDER`."""
        cells = masses.shape[1]
        for level in self._finer:
            added = np.bincount(
                level.rows * cells + level.home, self._masses(level), masses.numel()
            )
            masses = masses + torch.from_numpy(added.reshape(masses.shape)).to(masses)
        if self._order > EVALUATION_ORDER:
            above = _ancestors(self._order, self._symmetry).to(masses.device)
            coarser = masses.new_zeros(len(masses), int(above.max()) + 1)
            masses = coarser.index_add_(1, above, masses)
        return masses.amax(1).double().cpu().numpy()


@lru_cache(maxsize=16)
def _shares(order: int, symmetry: str) -> Array:
    """Return the share of every view pixel inside the asymmetric unit, ``(n_views,)``."""
    reduced = SO3Grid(order).reduced(symmetry)
    shares = np.zeros(SO3Grid(order).n_views)
    shares[reduced.views] = reduced.shares
    return shares


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _log_volumes(order: int, symmetry: str) -> Tensor:
    """Return the logarithm of the volumes of the unit's cells as shares of it, ``(k,)``."""
    grid = SO3Grid(order)
    shares = np.repeat(grid.reduced(symmetry).shares, grid.n_psi)
    return torch.from_numpy(np.log(shares * len(point_group(symmetry)) / grid.size))


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _flat_centres(order: int, symmetry: str) -> Tensor:
    """Return the centres of the unit's cells, ``(9, k)`` float32."""
    return torch.from_numpy(unit_rotations(order, symmetry).reshape(-1, 9).T.astype(np.float32))


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _ancestors(order: int, symmetry: str) -> Tensor:
    """Return the cell of `EVALUATION_ORDER` above each of the unit's cells, ``(k,)``."""
    cells = SO3Grid(order).reduced(symmetry).indices()
    return torch.from_numpy(SO3Grid(order).ancestors(cells, EVALUATION_ORDER))
