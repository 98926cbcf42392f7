"""Cells that resolve two densities at once, or one density and its images under a point group."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.so3.asymmetric_unit import reduce
from napari_cryosphere.so3.distributions.cells import Array, Cells, Rows, padded
from napari_cryosphere.so3.grid import Indices, SO3Grid, cell_centres
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["common_leaves", "symmetrised"]

Leaves = tuple[NDArray[np.int64], Indices]
"""Orders and indices of cells that do not overlap, each ``(k,)``."""


def symmetrised(cells: Cells, symmetry: str) -> Rows:
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
    return padded(rows)


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


def _parts_of(orders: NDArray[np.int64], indices: Indices) -> Array:
    """Return the centres of the eight parts of each cell, ``(k, 8, 3, 3)``."""
    parts = np.empty((len(indices), 8), dtype=np.int64)
    for order in np.unique(orders):
        parts[orders == order] = SO3Grid(int(order)).children(indices[orders == order])
    return cell_centres(np.broadcast_to(orders[:, None] + 1, parts.shape), parts)
