"""Local maxima of distributions over SO(3), and the way up to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.so3.asymmetric_unit import reduce
from napari_cryosphere.so3.distribution import Array, Modes, PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import rotation_from_vector
from napari_cryosphere.so3.symmetry import angular_error_degrees

if TYPE_CHECKING:
    from napari_cryosphere.so3._cells import CellDistribution

__all__ = ["find_modes", "newton"]

_STEPS = 4

# Central differences: the centre, +-e_i (gradient, diagonal), then (+,+) and (-,-) of each pair (mixed).
_PAIRS = ((0, 1), (0, 2), (1, 2))
_STENCIL = np.concatenate(
    [np.zeros((1, 3)), np.eye(3), -np.eye(3)]
    + [sign * (np.eye(3)[[i]] + np.eye(3)[[j]]) for i, j in _PAIRS for sign in (1, -1)]
)


def newton(score: Callable[[Array], Array], start: Array, spacing_degrees: float) -> Array:
    """Move poses to the maxima of a log-density beside them.

    Newton's method in the tangent space, with derivatives by central differences. A step is at most half of
    the spacing and is kept only if it leads uphill; where it does not, the next is shorter.

    Parameters
    ----------
    score
        Takes ``(n, q, 3, 3)`` rotations to ``(n, q)`` log-densities.
    start
        ``(n, k, 3, 3)``.
    spacing_degrees
        Spacing of the grid that the poses come from.

    Returns
    -------
    ``(n, k, 3, 3)``.
    """
    poses = start.copy()
    number, k = poses.shape[:2]
    width = np.radians(spacing_degrees) / 16
    reach = np.full((number, k, 1), np.radians(spacing_degrees) / 2)
    for _ in range(_STEPS):
        stencil = rotation_from_vector(_STENCIL * width)
        values = score((poses[:, :, None] @ stencil).reshape(number, -1, 3, 3)).reshape(number, k, -1)
        centre, gradient, hessian = _derivatives(values, width)
        # bend every direction downwards, so that the step leads uphill; flat functions stay where they are
        steepest = np.linalg.eigvalsh(hessian)[..., -1]
        bend = (steepest + 1e-3 * np.abs(hessian).max((-1, -2))).clip(min=0) + 1e-9
        move = -np.linalg.solve(hessian - bend[..., None, None] * np.eye(3), gradient[..., None])[..., 0]
        length = np.linalg.norm(move, axis=-1, keepdims=True)
        move = move * np.minimum(1, reach / np.maximum(length, 1e-12))
        moved = poses @ rotation_from_vector(move)
        better = score(moved) > centre
        poses = np.where(better[..., None, None], moved, poses)
        reach = np.where(better[..., None], reach, np.minimum(reach, length) / 4)
        width /= 2
    return poses


def _derivatives(values: Array, step: float) -> tuple[Array, Array, Array]:
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


def find_modes(distribution: PoseDistribution, k: int) -> Modes:
    """See `PoseDistribution.mode`."""
    if k < 1:
        raise ValueError(f"ask for at least one mode, not {k}")
    rotations = np.full((len(distribution), k, 3, 3), np.nan)
    log_prob = np.full((len(distribution), k), -np.inf)
    for rows, part in distribution.parts():
        for place, row in enumerate(rows):
            tops = _local_maxima(part[place], 4 * k)
            climbed = distribution[int(row)].climb(tops[None])[0]
            logs = distribution[int(row)].log_prob(climbed[None])[0] if len(climbed) else np.zeros(0)
            spacing = _spacing(part, place)
            found: list[Array] = []
            for index in np.argsort(-logs, kind="stable"):
                pose = climbed[index]
                if all(_apart(pose, other, part.symmetry) > spacing for other in found):
                    rotations[row, len(found)], log_prob[row, len(found)] = pose, logs[index]
                    found.append(pose)
                if len(found) == k:
                    break
    return Modes(_reduced(rotations, distribution.symmetry), log_prob)


def _reduced(rotations: Array, symmetry: str) -> Array:
    """Move the poses that are there into the asymmetric unit; NaN stays."""
    answer = rotations.copy()
    there = np.isfinite(rotations).all((-1, -2))
    answer[there] = reduce(rotations[there], symmetry)
    return answer


def _apart(first: Array, second: Array, symmetry: str) -> float:
    return float(angular_error_degrees(first[None], second[None], symmetry)[0])


def _spacing(part: CellDistribution, row: int) -> float:
    """Return the spacing of the grid at a row's best cell, in degrees."""
    return SO3Grid(int(part.orders[row, part.log_density[row].argmax()])).spacing_degrees


def _local_maxima(part: CellDistribution, most: int) -> Array:
    """Return the centres of up to ``most`` cells that no neighbour exceeds, best first, ``(m, 3, 3)``."""
    density = part.log_density[0]
    ranked = np.argsort(-density, kind="stable")
    ranked = ranked[np.isfinite(density[ranked])]
    if part.whole_order is not None:
        highest = density[_unit_neighbours(part.whole_order, part.symmetry)].max(1)
        return part.centres[0][ranked[density[ranked] >= highest[ranked] - 1e-12][:most]]
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


def _around(part: CellDistribution, columns: NDArray[np.int64]) -> Array:
    """Return the centres of the 26 cells around each cell, ``(c, 26, 3, 3)``; its own where one lacks."""
    orders, cells = part.orders[0, columns], part.indices[0, columns]
    centres = np.empty((len(columns), 26, 3, 3))
    for order in np.unique(orders):
        grid, mine = SO3Grid(int(order)), orders == order
        beside = grid.neighbours(cells[mine])
        centres[mine] = grid.rotations(np.where(beside < 0, cells[mine, None], beside))
    return centres


@lru_cache(maxsize=4)
def _unit_neighbours(order: int, symmetry: str) -> NDArray[np.int32]:
    """Return for each cell of the asymmetric unit where the 26 around it stand in the unit's list.

    A neighbour outside the unit stands where its equivalent does. 8 MB for C1 at order 3.
    """
    from napari_cryosphere.so3._cells import whole_unit

    grid, unit = SO3Grid(order), whole_unit(order, symmetry)
    beside = grid.neighbours(unit)
    beside = np.where(beside < 0, unit[:, None], beside)
    if symmetry != "C1":
        beside = grid.reduced(symmetry).cell_of(grid.rotations(beside))
    columns = np.searchsorted(unit, beside)
    columns = np.minimum(columns, len(unit) - 1)
    own = np.arange(len(unit))[:, None]
    places: NDArray[np.int32] = np.where(unit[columns] == beside, columns, own).astype(np.int32)
    return places
