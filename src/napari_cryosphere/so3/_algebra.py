"""New distributions from old: product, mixture, temperature, symmetry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3._cells import CellDistribution
from napari_cryosphere.so3._harmonic import HarmonicDistribution
from napari_cryosphere.so3.asymmetric_unit import reduce
from napari_cryosphere.so3.distribution import Array, PoseDistribution
from napari_cryosphere.so3.grid import Indices, SO3Grid, cell_centres
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["mixture", "product", "symmetrise_cells", "temperature"]

Leaves = tuple[NDArray[np.int64], Indices]


def product(first: PoseDistribution, second: PoseDistribution) -> PoseDistribution:
    """See `PoseDistribution.product`."""
    _check_alike(first, second)
    if _are_plain(first, second):
        assert isinstance(first, HarmonicDistribution)
        assert isinstance(second, HarmonicDistribution)
        return HarmonicDistribution(first.coefficients + second.coefficients)
    return _on_common_cells(first, second, lambda p, q, row: p + q)


def mixture(
    first: PoseDistribution, second: PoseDistribution, weight: ArrayLike
) -> PoseDistribution:
    """See `PoseDistribution.mixture`."""
    _check_alike(first, second)
    shares = np.broadcast_to(np.asarray(weight, dtype=np.float64), len(first))
    if ((shares < 0) | (shares > 1)).any():
        raise ValueError("a mixture's weight must be between 0 and 1")

    def mixed(p: Array, q: Array, row: int) -> Array:
        with np.errstate(divide="ignore"):
            return np.logaddexp(p + np.log(1 - shares[row]), q + np.log(shares[row]))

    return _on_common_cells(first, second, mixed)


def temperature(distribution: PoseDistribution, value: float) -> PoseDistribution:
    """See `PoseDistribution.temperature`."""
    if not value > 0:
        raise ValueError(f"a temperature must be positive, not {value}")
    if isinstance(distribution, HarmonicDistribution) and distribution.symmetry == "C1":
        return HarmonicDistribution(distribution.coefficients / value)
    cells = distribution.cells()
    return CellDistribution(
        cells.orders, cells.indices, cells.log_density / value, cells.symmetry, check=False
    )


def symmetrise_cells(cells: CellDistribution, symmetry: str) -> CellDistribution:
    """Average over a point group the density of cells without symmetry.

    The cells of the asymmetric unit that the density's images reach take its mean over their eight
    parts and the group; their orders are those of the images.
    """
    group = point_group(symmetry)
    rows = []
    for row in range(len(cells)):
        single = cells[row]
        reached: list[Leaves] = []
        for order in np.unique(single.orders[single.indices >= 0]):
            grid = SO3Grid(int(order))
            parts = SO3Grid(int(order) + 1).rotations(
                grid.children(single.indices[(single.indices >= 0) & (single.orders == order)])
            )
            found = np.unique(grid.cell_of(reduce(parts, symmetry)))
            reached.append((np.full(len(found), order), found))
        orders, indices = common_leaves(reached)
        total = np.full(len(indices), -np.inf)
        for operator in group:
            images = operator @ _parts_of(orders, indices)  # k, 8, 3, 3
            logs = single.log_prob(images.reshape(1, -1, 3, 3)).reshape(-1, 8)
            total = np.logaddexp(total, np.logaddexp.reduce(logs, axis=1))
        rows.append((orders, indices, total))
    return _from_rows(rows, symmetry)


def common_leaves(lists: list[Leaves]) -> Leaves:
    """Return the coarsest cells, ``(orders, indices)``, of which every listed cell is one or a union.

    A cell that holds a finer one of the lists gives way to its children, from the coarsest order
    down.
    """
    orders = np.concatenate([part[0] for part in lists]).astype(np.int64)
    indices = np.concatenate([part[1] for part in lists])
    levels = {int(order): np.unique(indices[orders == order]) for order in np.unique(orders)}
    coarsest, finest = min(levels), max(levels)
    for order in range(coarsest, finest):
        below = [
            SO3Grid(fine).ancestors(cells, order)
            for fine, cells in levels.items()
            if fine > order and len(cells)
        ]
        here = levels.get(order, np.zeros(0, dtype=np.int64))
        split = np.isin(here, np.concatenate(below)) if below else np.zeros(len(here), dtype=bool)
        levels[order] = here[~split]
        children = SO3Grid(order).children(here[split]).reshape(-1)
        levels[order + 1] = np.union1d(levels.get(order + 1, here[:0]), children)
    return (
        np.concatenate([np.full(len(cells), order) for order, cells in sorted(levels.items())]),
        np.concatenate([cells for _, cells in sorted(levels.items())]),
    )


def _on_common_cells(
    first: PoseDistribution, second: PoseDistribution, combine: Callable[[Array, Array, int], Array]
) -> CellDistribution:
    """Combine log-densities at the centres of the cells that resolve both distributions."""
    rows = []
    for row in range(len(first)):
        one, other = first[row], second[row]
        both = [part.cells() for part in (one, other)]
        leaves = [(part.orders[0], part.indices[0]) for part in both]
        orders, indices = common_leaves(
            [(o[i >= 0].astype(np.int64), i[i >= 0]) for o, i in leaves]
        )
        logs = [part.log_prob_of_cells(orders, indices) for part in (one, other)]
        rows.append((orders, indices, combine(logs[0], logs[1], row)))
        if not np.isfinite(rows[-1][2]).any():
            raise ValueError(f"row {row}: the two densities have no pose in common")
    return _from_rows(rows, first.symmetry)


def _parts_of(orders: NDArray[np.int64], indices: Indices) -> Array:
    """Return the centres of the eight parts of each cell, ``(k, 8, 3, 3)``."""
    parts = np.empty((len(indices), 8), dtype=np.int64)
    for order in np.unique(orders):
        parts[orders == order] = SO3Grid(int(order)).children(indices[orders == order])
    return cell_centres(np.broadcast_to(orders[:, None] + 1, parts.shape), parts)


def _from_rows(
    rows: list[tuple[NDArray[np.int64], Indices, Array]], symmetry: str
) -> CellDistribution:
    """Pad rows of different lengths."""
    shape = len(rows), max(len(indices) for _, indices, _ in rows)
    orders, indices = np.zeros(shape, dtype=np.int8), np.full(shape, -1, dtype=np.int64)
    logs = np.full(shape, -np.inf)
    for row, (its_orders, its_indices, its_logs) in enumerate(rows):
        width = len(its_indices)
        orders[row, :width], indices[row, :width], logs[row, :width] = (
            its_orders,
            its_indices,
            its_logs,
        )
    return CellDistribution(orders, indices, logs, symmetry, check=False)


def _are_plain(*distributions: PoseDistribution) -> bool:
    """Whether all are coefficients of one degree without symmetry, whose log-densities can be added."""
    return all(
        isinstance(d, HarmonicDistribution) and d.symmetry == "C1" for d in distributions
    ) and (len({d.l_max for d in distributions if isinstance(d, HarmonicDistribution)}) == 1)


def _check_alike(first: PoseDistribution, second: PoseDistribution) -> None:
    if len(first) != len(second):
        raise ValueError(f"the distributions are of {len(first)} and {len(second)} particles")
    if first.symmetry != second.symmetry:
        raise ValueError(
            f"the distributions have symmetries {first.symmetry} and {second.symmetry}"
        )
