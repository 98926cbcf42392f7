"""Local maxima of distributions over SO(3), and the way up to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.so3.asymmetric_unit import expand, reduce
from napari_cryosphere.so3.distributions.cells import Array, Cells, whole_unit
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.pose_summary import Modes
from napari_cryosphere.so3.rotations import rotation_from_vector

__all__ = [
    "Derivatives",
    "Maxima",
    "by_differences",
    "find_modes",
    "grid_maxima",
    "local_maxima",
    "newton",
    "pick",
    "uphill",
]

Maxima: TypeAlias = Iterator[tuple[NDArray[np.int64], Array, Array, Array]]
"""Batches of local maxima, see `PoseDistribution.maxima`."""

Derivatives: TypeAlias = tuple[Array, Array, Array]
"""Values ``(n, k)``, gradients ``(n, k, 3)`` and Hessians ``(n, k, 3, 3)`` by rotation vectors in radians."""

# Central differences: the centre, +-e_i (gradient, diagonal), then (+,+) and (-,-) of each pair
# (mixed).
_PAIRS = ((0, 1), (0, 2), (1, 2))
_STENCIL = np.concatenate(
    [np.zeros((1, 3)), np.eye(3), -np.eye(3)]
    + [sign * (np.eye(3)[[i]] + np.eye(3)[[j]]) for i, j in _PAIRS for sign in (1, -1)]
)


def newton(
    derive: Callable[[Array, int], Derivatives],
    start: Array,
    reach_degrees: float,
    steps: int,
    rounding: float = 0.0,
    first: Derivatives | None = None,
) -> tuple[Array, Array, Array]:
    """Move poses to the nearest maxima of a log-density, by Newton's method in the tangent space.

    A step is kept only if it leads uphill; where it does not, the next is shorter. Returns poses
    ``(n, k, 3, 3)``, the log-densities there ``(n, k)``, and the length of the step that would
    follow ``(n, k)`` in radians: large where no maximum was found.

    - ``derive``: takes rotations ``(n, k, 3, 3)`` and the number of the step, from 0, to the
      log-density's derivatives.
    - ``start``: ``(n, k, 3, 3)``.
    - ``reach_degrees``: longest step.
    - ``steps``: number of steps; ``derive`` is called once more.
    - ``rounding``: relative error of the values: a step may seem to lead downhill by this much.
    - ``first``: the derivatives at the start, if they are known already.
    """
    poses = start
    value, gradient, hessian = derive(poses, 0) if first is None else first
    reach = np.full(value.shape, np.radians(reach_degrees))
    for step in range(steps):
        move = uphill(gradient, hessian, reach)
        moved = poses @ rotation_from_vector(move)
        there = derive(moved, step + 1)
        better = there[0] > value - rounding * np.abs(value)
        wide = better[..., None]
        reach = np.where(better, reach, np.minimum(reach, np.linalg.norm(move, axis=-1)) / 4)
        poses = np.where(wide[..., None], moved, poses)
        value = np.where(better, there[0], value)
        gradient = np.where(wide, there[1], gradient)
        hessian = np.where(wide[..., None], there[2], hessian)
    rest = np.linalg.norm(uphill(gradient, hessian, np.full(value.shape, np.pi)), axis=-1)
    return poses, value, rest


def uphill(gradient: Array, hessian: Array, reach: Array) -> Array:
    """Return Newton's steps, ``(..., 3)`` radians, no longer than ``reach``, ``(...)``.

    Every direction is bent downwards first, so that the step leads uphill; flat functions stay as
    they are.
    """
    steepest = np.linalg.eigvalsh(hessian)[..., -1]
    bend = (steepest + 1e-3 * np.abs(hessian).max((-1, -2))).clip(min=0) + 1e-9
    move = -np.linalg.solve(hessian - bend[..., None, None] * np.eye(3), gradient[..., None])[
        ..., 0
    ]
    length = np.linalg.norm(move, axis=-1)
    return np.asarray(move * np.minimum(1, reach / np.maximum(length, 1e-12))[..., None])


def by_differences(
    score: Callable[[Array], Array], width_degrees: float
) -> Callable[[Array, int], Derivatives]:
    """Return derivatives by central differences, for `newton`; their width halves with every step.

    ``score`` takes ``(n, q, 3, 3)`` rotations to ``(n, q)`` log-densities.
    """

    def derive(poses: Array, step: int) -> Derivatives:
        width = np.radians(width_degrees) / 2**step
        stencil = poses[:, :, None] @ rotation_from_vector(_STENCIL * width)
        values = score(stencil.reshape(len(poses), -1, 3, 3)).reshape(*poses.shape[:2], -1)
        return _derivatives(values, width)

    return derive


def _derivatives(values: Array, step: float) -> Derivatives:
    """Turn ``(..., 13)`` values on the stencil into value ``(...)``, gradient and Hessian."""
    centre, plus, minus = values[..., 0], values[..., 1:4], values[..., 4:7]
    gradient = (plus - minus) / (2 * step)
    second = plus + minus - 2 * centre[..., None]
    hessian = second[..., None] / step**2 * np.eye(3)
    for pair, (i, j) in enumerate(_PAIRS):
        both = values[..., 7 + 2 * pair] + values[..., 8 + 2 * pair] - 2 * centre
        mixed = (both - second[..., i] - second[..., j]) / (2 * step**2)
        hessian[..., i, j] = hessian[..., j, i] = mixed
    return centre, gradient, hessian


def find_modes(
    maxima: Callable[[NDArray[np.int64], int], Maxima],
    number: int,
    symmetry: str,
    k: int,
    apart_degrees: float | None,
) -> Modes:
    """Return the k highest maxima of ``number`` particles, see `PoseDistribution.mode`.

    ``maxima`` yields local maxima of some particles, as many as are asked for or more. Twice k are
    asked for; where fewer than k of these lie far enough apart, four times as many, twice at most.
    The modes are ``(n, k, 3, 3)`` poses and ``(n, k)`` log-densities. Raises `ValueError` if k is
    below 1, or the angle is not between 0 and 180 degrees.
    """
    if k < 1:
        raise ValueError(f"ask for at least one mode, not {k}")
    if apart_degrees is not None and not 0 <= apart_degrees <= 180:
        raise ValueError(f"modes can be 0 to 180 degrees apart, not {apart_degrees}")
    modes = Modes(np.full((number, k, 3, 3), np.nan), np.full((number, k), -np.inf))
    rows, most = np.arange(number), 2 * k
    while len(rows) and most <= 32 * k:
        wanting = [rows[:0]]
        for some, poses, logs, spacing in maxima(rows, most):
            apart = spacing if apart_degrees is None else np.full(len(some), apart_degrees)
            _, picked, found = pick(poses, logs, apart, k, symmetry)
            modes.rotations[some] = _reduced(picked, symmetry)
            modes.log_prob[some] = found
            if logs.shape[1] >= most:  # there may be more
                wanting.append(some[~np.isfinite(found[:, -1])])
        rows, most = np.concatenate(wanting), 4 * most
    return modes


def pick(
    poses: Array, logs: Array, apart_degrees: Array, k: int, symmetry: str
) -> tuple[NDArray[np.int64], Array, Array]:
    """Return the k highest of ``(n, c)`` poses that are farther than some angle from all higher ones.

    Their places ``(n, k)``, the poses, NaN where there are fewer, and their log-densities, minus
    infinity there.
    """
    number = np.arange(len(poses))
    places = np.zeros((len(poses), k), dtype=np.int64)
    rotations = np.full((len(poses), k, 3, 3), np.nan)
    found = np.full((len(poses), k), -np.inf)
    left, flat = logs.copy(), poses.reshape(*logs.shape, 9)
    limit = 1 + 2 * np.cos(np.radians(apart_degrees))[:, None]
    for place in range(k if logs.shape[1] else 0):
        best = places[:, place] = left.argmax(1)
        there = np.isfinite(left[number, best])
        rotations[there, place] = poses[number, best][there]
        found[:, place] = left[number, best]
        images = expand(poses[number, best], symmetry).reshape(len(poses), -1, 9)
        left[(flat @ images.swapaxes(1, 2)).max(2) >= limit] = -np.inf
        left[number, best] = -np.inf
    return places, rotations, found


def _reduced(rotations: Array, symmetry: str) -> Array:
    """Move poses into the asymmetric unit and leave NaN as it is."""
    answer = rotations.copy()
    there = np.isfinite(rotations).all((-1, -2))
    answer[there] = reduce(rotations[there], symmetry)
    return answer


def grid_maxima(values: Tensor, order: int, symmetry: str, most: int) -> NDArray[np.int64]:
    """Return the highest cells that none of the six that share a face with them exceeds.

    A maximum on a slanting ridge may have a higher cell across an edge or a corner.

    ``values``, ``(n, k)``: a function in all cells of the asymmetric unit. ``order``, ``symmetry``:
    of the cells. ``most``: how many to return. Returns ``(n, up to most)`` places in the unit's
    list, best first; -1 pads rows that have fewer.
    """
    size = values.shape[1]
    around = _unit_neighbours(order, symmetry).to(values.device)
    rings = values.view(len(values), -1, SO3Grid(order).n_psi)
    height = values.flatten()
    along = torch.maximum(torch.maximum(rings, rings.roll(1, 2)), rings.roll(-1, 2))
    flat = _where(height == along.flatten())
    cell = flat % size
    top = height.index_select(0, flat)
    for steps in around:  # most candidates fall at the first neighbours
        stay = _where(top >= height.index_select(0, flat + steps.index_select(0, cell)))
        flat, cell, top = (part.index_select(0, stay) for part in (flat, cell, top))
    rows, cells, heights = (part.cpu().numpy() for part in (flat // size, cell, top))
    ranked = np.lexsort((-heights, rows))
    ranked = ranked[np.isfinite(heights[ranked])]
    rows, cells = rows[ranked], cells[ranked]
    count = np.bincount(rows, minlength=len(values))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    found = np.full((len(values), min(most, count.max())), -1)
    found[rows[place < most], place[place < most]] = cells[place < most]
    return found


def _where(mask: Tensor) -> Tensor:
    """Return the places of a flat mask; numpy finds them several times faster than torch."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def local_maxima(part: Cells, most: int) -> Array:
    """Return the centres of up to ``most`` cells that no neighbour exceeds, best first, ``(m, 3, 3)``."""
    if part.whole_order is not None:
        tops = grid_maxima(
            torch.from_numpy(part.log_density), part.whole_order, part.symmetry, most
        )[0]
        return part.centres[0][tops]
    density = part.log_density[0]
    ranked = np.argsort(-density, kind="stable")
    ranked = ranked[np.isfinite(density[ranked])]
    found: list[Array] = []
    for start in range(0, len(ranked), 256):
        columns = ranked[start : start + 256]
        around = _around(part, columns)
        heights = part.log_prob(around.reshape(1, -1, 3, 3)).reshape(len(columns), -1).max(1)
        top = density[columns] >= heights - 1e-12
        found.extend(part.centres[0][columns[top]])
        if len(found) >= most:
            break
    return np.array(found[:most]).reshape(-1, 3, 3)


def _around(part: Cells, columns: NDArray[np.int64]) -> Array:
    """Return the centres of the 26 cells around each cell, ``(c, 26, 3, 3)``; its own where there is none."""
    orders, cells = part.orders[0, columns], part.indices[0, columns]
    centres = np.empty((len(columns), 26, 3, 3))
    for order in np.unique(orders):
        grid, mine = SO3Grid(int(order)), orders == order
        others = grid.neighbours(cells[mine])
        centres[mine] = grid.rotations(np.where(others < 0, cells[mine, None], others))
    return centres


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _unit_neighbours(order: int, symmetry: str) -> Tensor:
    """Return how far on in the unit's list each cell has its neighbours in other views, ``(8, k)``.

    Of the three cells there that touch it, the middle one. A neighbour outside the unit is
    replaced by its equivalent, one that does not exist where the cell itself does. 1 MB for C1 at
    order 3.
    """
    grid, unit = SO3Grid(order), whole_unit(order, symmetry)
    # after 2 along psi, 8 views at three angles, corners second
    others = grid.neighbours(unit)[:, 10:18:2].T
    others = np.where(others < 0, unit, others)
    if symmetry != "C1":
        others = grid.reduced(symmetry).cell_of(grid.rotations(others))
    columns = np.minimum(np.searchsorted(unit, others), len(unit) - 1)
    places = np.where(unit[columns] == others, columns, np.arange(len(unit)))
    return torch.from_numpy(places - np.arange(len(unit)))
