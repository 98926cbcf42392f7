"""Piecewise constant densities on cells of HEALPix x S1 grids, of one order or of several.

The lowest layer of the distributions: arrays and their arithmetic. `CellDistribution` adds what all
pose distributions can be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.asymmetric_unit import expand, reduce, view_shares
from napari_cryosphere.so3.grid import MAX_ORDER, Indices, SO3Grid, cell_centres
from napari_cryosphere.so3.rotations import nearest_rotation
from napari_cryosphere.so3.symmetry import normalise_group_name, point_group

__all__ = [
    "Array",
    "Cells",
    "Index",
    "from_log_values",
    "join_cells",
    "like_given",
    "padded",
    "per_particle",
    "unit_rotations",
    "whole_unit",
]

Array = NDArray[np.float64]
Index = int | slice | NDArray[np.integer] | NDArray[np.bool_]
Rows = tuple[NDArray[np.int8], Indices, Array]
"""Orders, indices and log-densities of cells, each ``(n, k)``, or ``(1, k)`` and shared."""
Self = TypeVar("Self", bound="Cells")

# A cell's key: its index, counted through all orders from 0 on; then one such range per particle.
_FIRST_KEY = np.concatenate(
    [[0], np.cumsum([SO3Grid(order).size for order in range(MAX_ORDER + 1)])]
)
_KEYS = int(_FIRST_KEY[-1]) + 1  # the last one is for padding
_BELOW_ONE = float(np.nextafter(1.0, 0.0))


class Cells:
    """Densities that are constant in each of a list of cells and zero outside, one per particle.

    ``orders``, ``indices``: ``(n, k)`` int8 and int64: the cells; index -1 is padding. The same
    list for all particles is held once (a view that repeats its only row). ``log_density``:
    ``(n, k)`` float64 nats relative to uniform, normalised; minus infinity in padding.
    ``log_total``, ``(n,)``: what the log-densities that came exceeded the normalised ones by.
    """

    def __init__(
        self,
        order: int | ArrayLike,
        indices: ArrayLike,
        log_density: ArrayLike,
        symmetry: str = "C1",
        *,
        check: bool = True,
    ) -> None:
        self.symmetry = normalise_group_name(symmetry)
        values = np.atleast_2d(np.asarray(log_density, dtype=np.float64))
        self.indices: Indices = np.broadcast_to(np.asarray(indices, dtype=np.int64), values.shape)
        self.orders: NDArray[np.int8] = np.broadcast_to(
            np.asarray(order, dtype=np.int8), values.shape
        )
        self._check_cells(values, overlaps=check)
        with np.errstate(divide="ignore"):
            logs = np.where(self.indices < 0, -np.inf, values) + np.log(self.volumes)
        peak = logs.max(1, keepdims=True, initial=-np.inf)
        empty = np.flatnonzero(~np.isfinite(peak[:, 0]))
        if len(empty):
            raise ValueError(
                f"row {empty[0]} has no cell of finite log-density in the asymmetric unit"
            )
        total = peak + np.log(np.exp(logs - peak).sum(1, keepdims=True))
        self.log_total: Array = total[:, 0]
        self.log_density: Array = np.where(np.isfinite(logs), values - total, -np.inf)

    def _check_cells(self, values: Array, overlaps: bool) -> None:
        """Refuse values that are no log-density, orders and indices out of range, and overlapping cells."""
        orders, indices = self._cells
        if np.isnan(values).any() or np.isposinf(values).any():
            raise ValueError("log-densities must be numbers or minus infinity")
        if orders.size and not (orders.min() >= 0 and orders.max() <= MAX_ORDER):
            raise ValueError(f"cell orders must be between 0 and {MAX_ORDER}")
        sizes = np.diff(_FIRST_KEY)[orders]
        if (indices < -1).any() or (indices >= sizes).any():
            row, column = np.argwhere((indices < -1) | (indices >= sizes))[0]
            raise ValueError(
                f"row {row}, cell {column}: index {indices[row, column]} is not on the grid of order "
                f"{orders[row, column]}; legal are 0 to {sizes[row, column] - 1}, and -1 for padding"
            )
        if not overlaps:
            return
        keys, _ = self._sorted
        valid = keys % _KEYS < _KEYS - 1
        clash = (np.diff(keys) == 0) & valid[1:]
        for coarse in self._present[:-1]:
            for fine in self._present[self._present > coarse]:
                rows, columns = np.nonzero((orders == fine) & (indices >= 0))
                above = SO3Grid(int(fine)).ancestors(indices[rows, columns], int(coarse))
                wanted = _FIRST_KEY[coarse] + above + rows * _KEYS
                at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                clash = np.append(clash, keys[at] == wanted)
        if clash.any():
            raise ValueError(
                "cells of a row overlap: each may be listed once, and not together with its descendants"
            )

    # ------------------------------------------------------------------ the list of cells

    @cached_property
    def shared(self) -> bool:
        """Whether all particles have the same cells."""
        return len(self.indices) <= 1 or (
            self.indices.strides[0] == 0 and self.orders.strides[0] == 0
        )

    @property
    def _cells(self) -> tuple[NDArray[np.int8], Indices]:
        """Orders and indices, with a single row if all are the same."""
        return (self.orders[:1], self.indices[:1]) if self.shared else (self.orders, self.indices)

    @cached_property
    def _present(self) -> NDArray[np.int64]:
        """The orders that occur, ascending."""
        orders, indices = self._cells
        return np.unique(orders[indices >= 0]).astype(np.int64)

    @cached_property
    def _sorted(self) -> tuple[Indices, Indices]:
        """Keys of all cells ascending, and the column of each."""
        orders, indices = self._cells
        keys = np.where(indices < 0, _KEYS - 1, _FIRST_KEY[orders] + indices)
        keys = keys + np.arange(len(keys))[:, None] * _KEYS
        column = keys.argsort(1, kind="stable")
        return np.take_along_axis(keys, column, 1).ravel(), column.ravel()

    @cached_property
    def volumes(self) -> Array:
        """Volumes of the cells inside the asymmetric unit, as a share of it: ``(n, k)``, or ``(1, k)``."""
        orders, indices = self._cells
        volumes = np.where(indices < 0, 0.0, 1 / np.diff(_FIRST_KEY)[orders])
        if self.symmetry == "C1":
            return volumes
        for order in self._present:
            here = (orders == order) & (indices >= 0)
            views, place = np.unique(
                indices[here] // SO3Grid(int(order)).n_psi, return_inverse=True
            )
            volumes[here] *= view_shares(int(order), views, self.symmetry)[place]
        return volumes * len(point_group(self.symmetry))

    @cached_property
    def probability(self) -> Array:
        """Probability of each cell, equivalents included, ``(n, k)``."""
        return np.exp(self.log_density) * self.volumes

    @cached_property
    def centres(self) -> Array:
        """The cells' centres, ``(n, k, 3, 3)``, or ``(1, k, 3, 3)`` if all are the same."""
        order = self.whole_order
        return (
            cell_centres(*self._cells)
            if order is None
            else unit_rotations(order, self.symmetry)[None]
        )

    @cached_property
    def whole_order(self) -> int | None:
        """Order of the grid whose cells, all of the unit's in their order, every particle has; or None."""
        if not self.shared or len(self._present) != 1:
            return None
        order = int(self._present[0])
        return order if np.array_equal(self.indices[0], whole_unit(order, self.symmetry)) else None

    def find(self, rotations: Array) -> tuple[Indices, Array]:
        """Return the column of the cell that holds each rotation, and how high in the cell it lies.

        ``(n, q, 3, 3)`` to ``(n, q)`` columns, -1 where there is none, and ``(n, q)`` in [0, 1):
        the place of psi in its bin, which is evenly distributed over the cell.
        """
        reduced = reduce(rotations, self.symmetry)
        keys, columns = self._sorted
        found = np.full(reduced.shape[:2], -1, dtype=np.int64)
        height = np.zeros(reduced.shape[:2])
        first = 0 if self.shared else np.arange(len(reduced))[:, None] * _KEYS
        for order in self._present:
            cells, place = SO3Grid(int(order)).locate(reduced)
            wanted = cells + _FIRST_KEY[order] + first
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            hit = keys[at] == wanted
            found[hit] = columns[at][hit]
            height[hit] = place[hit]
        return found, height

    def leaves(self) -> tuple[NDArray[np.int64], Indices]:
        """Return orders and indices of the first particle's cells, ``(k,)`` each, without padding."""
        there = self.indices[0] >= 0
        return self.orders[0, there].astype(np.int64), self.indices[0, there]

    # ------------------------------------------------------------------ answers

    def __len__(self) -> int:
        return len(self.log_density)

    def __getitem__(self: Self, index: Index) -> Self:
        """Select particles; an integer gives a batch of one."""
        rows = np.arange(len(self))[index].reshape(-1)
        pick = slice(0, 1) if self.shared else rows
        chosen = type(self)(
            self.orders[pick],
            self.indices[pick],
            self.log_density[rows],
            self.symmetry,
            check=False,
        )
        chosen.log_total = self.log_total[rows]
        return chosen

    def log_prob(self, rotations: ArrayLike) -> Array:
        """Return the log-density at rotations, in nats relative to uniform; minus infinity outside."""
        column, _ = self.find(per_particle(rotations, len(self)))
        values = np.take_along_axis(self.log_density, np.maximum(column, 0), 1)
        return like_given(np.where(column < 0, -np.inf, values), rotations)

    def log_prob_of_cells(self, orders: NDArray[np.int64], indices: Indices) -> Array:
        """Return the first particle's log-density in ``(k,)`` cells of its own or of finer grids."""
        single = self if len(self) == 1 else self[0]
        keys, columns = single._sorted
        values = np.full(len(indices), -np.inf)
        for order in single._present:
            for finer in np.unique(orders[orders >= order]):
                here = np.flatnonzero(orders == finer)
                wanted = _FIRST_KEY[order] + SO3Grid(int(finer)).ancestors(
                    indices[here], int(order)
                )
                at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                hit = keys[at] == wanted
                values[here[hit]] = single.log_density[0, columns[at[hit]]]
        return values

    @cached_property
    def below(self) -> Array:
        """Probability of all cells that rank before each one, ``(n, k)``: those of higher density.

        Cells of equal density rank as they are listed.
        """
        rank = np.argsort(-self.log_density, axis=1, kind="stable")
        ordered = np.take_along_axis(self.probability, rank, 1)
        before = np.empty_like(ordered)
        np.put_along_axis(before, rank, np.cumsum(ordered, axis=1) - ordered, 1)
        return before.clip(0, 1)

    def levels(self, rotations: Array) -> Array:
        """Return the credible level of ``(n, q, 3, 3)`` rotations, ``(n, q)``.

        Cells are taken in the order of their density; in the cell that a level cuts, poses are
        taken by the place of psi in its bin. Every level's set then holds just that probability.
        """
        column, height = self.find(rotations)
        safe = np.maximum(column, 0)
        start, mass = (
            np.take_along_axis(table, safe, 1) for table in (self.below, self.probability)
        )
        return np.where(column < 0, 1.0, np.minimum(start + height * mass, _BELOW_ONE))

    def climb(self, rotations: Array) -> Array:
        """Move poses to the centre of mass of the cells around them.

        A piecewise constant density has no slope. The mean, over the cells within 1.5 spacings of
        the pose's own cell, of rotations weighted by density is the peak of any density that is
        symmetric about it.
        """
        moved = rotations.copy()
        column, _ = self.find(rotations)
        for row, k in zip(*np.nonzero(column >= 0), strict=True):
            cells = 0 if self.shared else row
            grid = SO3Grid(int(self.orders[row, column[row, k]]))
            mates = self._mates_of(cells, rotations[row, k])
            traces = np.einsum("kij,kij->k", mates, np.broadcast_to(rotations[row, k], mates.shape))
            near = traces > 1 + 2 * np.cos(np.radians(1.5 * grid.spacing_degrees))
            weights = self.probability[row] * near
            if weights.sum() > 0:
                moved[row, k] = nearest_rotation(np.einsum("k,kij->ij", weights, mates))
        return moved

    def _mates_of(self, row: int, rotation: Array) -> Array:
        """Return the equivalents of a row's centres that are nearest to a rotation, ``(k, 3, 3)``."""
        centres = self.centres[row]
        images = expand(rotation, self.symmetry)
        group = point_group(self.symmetry)
        nearest = np.einsum("gij,kij->kg", images, centres).argmax(1)
        return group[nearest].swapaxes(1, 2) @ centres

    def unit_masses(self, order: int) -> Array:
        """Return the probability of every cell of a grid inside the asymmetric unit, ``(n, size)``."""
        grid = SO3Grid(order)
        orders, indices = self._cells
        number, answer = len(self), np.zeros((len(self), grid.size))
        if self.shared and (orders == order).all() and indices.min() >= 0:
            answer[:, indices[0]] = self.probability
            return answer
        for present in self._present:
            rows, columns = np.nonzero((self.orders == present) & (self.indices >= 0))
            cells = self.indices[rows, columns]
            if present >= order:
                places = rows * grid.size + SO3Grid(int(present)).ancestors(cells, order)
                masses = np.bincount(places, self.probability[rows, columns], number * grid.size)
                answer += masses.reshape(number, -1)
            else:
                coarse = np.zeros((number, SO3Grid(int(present)).size))
                coarse[rows, cells] = np.exp(self.log_density[rows, columns])
                above = grid.ancestors(np.arange(grid.size), int(present))
                answer += coarse[:, above] * _unit_volumes(order, self.symmetry)
        return answer

    def on_grid(self, order: int) -> Array:
        """Return the probability of every cell of a grid, ``(n, size)``, equivalents included."""
        masses = self.unit_masses(order)
        if self.symmetry == "C1":
            return masses
        volumes = _unit_volumes(order, self.symmetry)
        density = np.divide(masses, volumes, out=np.zeros_like(masses), where=volumes > 0)
        spread: Array = density[:, _equivalents(order, self.symmetry)]
        return np.asarray(spread / spread.sum(1, keepdims=True))


@lru_cache(maxsize=16)
def whole_unit(order: int, symmetry: str) -> Indices:
    """Return the cells of the asymmetric unit, ``(k,)``, read-only."""
    indices = SO3Grid(order).reduced(symmetry).indices()
    indices.setflags(write=False)
    return indices


@lru_cache(maxsize=4)
def unit_rotations(order: int, symmetry: str) -> Array:
    """Return the centres of the cells of the asymmetric unit, ``(k, 3, 3)``."""
    return SO3Grid(order).rotations(whole_unit(order, symmetry))


@lru_cache(maxsize=8)
def _unit_volumes(order: int, symmetry: str) -> Array:
    """Return the volume of every cell inside the asymmetric unit as a share of it, ``(size,)``."""
    grid = SO3Grid(order)
    shares = view_shares(order, np.arange(grid.n_views), symmetry)
    return np.repeat(shares, grid.n_psi) * len(point_group(symmetry)) / grid.size


@lru_cache(maxsize=8)
def _equivalents(order: int, symmetry: str) -> Indices:
    """Return, for every cell of a grid, the one in the unit that holds an equivalent of its centre.

    Where that is a splinter whose volume was measured as nothing, it is the largest of all such
    cells.
    """
    grid = SO3Grid(order)
    volumes = _unit_volumes(order, symmetry)
    cells = grid.cell_of(reduce(grid.rotations(), symmetry))
    lost = np.flatnonzero(volumes[cells] == 0)
    mates = grid.cell_of(expand(grid.rotations(lost), symmetry))
    cells[lost] = np.take_along_axis(mates, volumes[mates].argmax(1)[:, None], 1)[:, 0]
    return cells


def from_log_values(log_values: ArrayLike, symmetry: str) -> tuple[int, Indices, Array]:
    """Return order, cells and log-densities of functions on a whole grid, gathered in the unit.

    ``log_values``: ``(n, n_views, n_psi)``, views in RING order. ``symmetry``: canonical name of a
    point group; equivalent cells are averaged. Returns the grid's order, the cells ``(k,)`` and
    their log-densities ``(n, k)``. Raises `ValueError` if the shape is not that of a grid.
    """
    values = np.asarray(log_values, dtype=np.float64)
    flat = values.reshape(len(values), -1)
    sizes = {SO3Grid(order).size: order for order in range(MAX_ORDER + 1)}
    if flat.shape[1] not in sizes:
        raise ValueError(
            f"log-values must be (n, n_views, n_psi) on a HEALPix x S1 grid, not {values.shape}"
        )
    order = sizes[flat.shape[1]]
    unit = whole_unit(order, symmetry)
    if symmetry != "C1":
        grid = SO3Grid(order)
        gathered = np.full((len(flat), len(unit)), -np.inf)
        for operator in point_group(symmetry):
            mates = grid.cell_of(operator @ unit_rotations(order, symmetry))
            gathered = np.logaddexp(gathered, flat[:, mates])
        flat = gathered
    return order, unit, flat


def join_cells(number: int, parts: list[tuple[NDArray[np.int64], Cells]]) -> Rows:
    """Put parts together, in the order of the particles: orders, indices and log-densities, ``(n, k)``."""
    first = parts[0][1]
    if all(part.shared for _, part in parts) and all(
        np.array_equal(part._cells, first._cells) for _, part in parts
    ):
        logs = np.empty((number, first.indices.shape[1]))
        for rows, part in parts:
            logs[rows] = part.log_density
        return first.orders[:1], first.indices[:1], logs
    single = {
        int(row): (part.orders[place], part.indices[place], part.log_density[place])
        for rows, part in parts
        for place, row in enumerate(rows)
    }
    return padded([single[row] for row in range(number)])


def padded(rows: Sequence[tuple[NDArray[np.integer], Indices, Array]]) -> Rows:
    """Return the cells of particles that have different numbers of them as ``(n, k)`` arrays."""
    shape = len(rows), max(len(indices) for _, indices, _ in rows)
    orders, indices = np.zeros(shape, dtype=np.int8), np.full(shape, -1, dtype=np.int64)
    logs = np.full(shape, -np.inf)
    for row, parts in enumerate(rows):
        width = len(parts[1])
        orders[row, :width], indices[row, :width], logs[row, :width] = parts
    return orders, indices, logs


def per_particle(rotations: ArrayLike, number: int) -> Array:
    """Return rotations as ``(number, k, 3, 3)``, one row per particle.

    Raises `ValueError` if the shape is neither ``(n, 3, 3)`` nor ``(n, k, 3, 3)`` with n the number
    of particles or 1.
    """
    given = np.asarray(rotations, dtype=np.float64)
    if given.ndim == 3:
        given = given[:, None]
    if given.ndim != 4 or given.shape[2:] != (3, 3) or given.shape[0] not in (1, number):
        raise ValueError(
            f"rotations must be ({number}, 3, 3) or ({number}, k, 3, 3), or 1 in place of {number}, "
            f"not {np.shape(rotations)}"
        )
    return np.broadcast_to(given, (number, *given.shape[1:]))


def like_given(answers: Array, rotations: ArrayLike) -> Array:
    """Drop the second axis of ``(n, 1)`` answers if one rotation per particle was asked about."""
    return answers[:, 0] if np.ndim(rotations) == 3 else answers
