"""Posteriors of images on cells of SO(3): coarse where little is, fine where modes are narrow.

About each mode of an image's likelihood the posterior is a Gaussian as wide as the likelihood is
(`widths`), laid out on cells as fine as it is narrow; away from the modes it is what the search
found on its own cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cryosphere.alignment.refine import RefinedPoses
from napari_cryosphere.alignment.search import Candidates
from napari_cryosphere.so3.distributions.distribution import PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["posterior"]

_SEED_ORDER = 3
"""Order of the cells that are split first where no search has left any."""
_FINEST = 6
"""Finest order: 0.9 degrees, where a particle of 100 px radius moves by a pixel and a half."""
_CELL_PER_WIDTH = 1.2
"""Widest final cell in deviations of the mode: the mass in a cell is exact to second order."""
_NEGLIGIBLE_NATS = 8.0
"""Cells whose density is farther below their image's peak are not split: beyond 4 deviations."""
_REACH = 4.0  # deviations about a mode in which cells are looked at
_IMAGES_AT_ONCE = 32  # bounds the cells held; chosen, not tuned

Cells = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class _Modes:
    """Modes of a few images, padded to the largest number ``m`` of an image.

    Attributes
    ----------
    count
        ``(n,)``.
    log_mass
        ``(n, m)`` nats: evidence.
    equivalents
        ``(n, m, g, 3, 3)``: the poses and their images under the point group.
    covariance
        ``(n, m, 3, 3)`` radians^2.
    """

    count: Cells
    log_mass: Values
    equivalents: Values
    covariance: Values

    @classmethod
    def of(cls, modes: RefinedPoses, counts: Cells, symmetry: str) -> _Modes:
        """Pad ``counts`` modes each, image by image, best first; negligible ones are left out."""
        first = np.cumsum(counts) - counts
        mass = modes.log_evidence.double().cpu().numpy()
        poses = modes.rotations.double().cpu().numpy()
        covariance = modes.rotation_covariance().cpu().numpy()
        matter = mass > np.repeat(mass[first], counts) - _NEGLIGIBLE_NATS
        kept = np.add.reduceat(matter.astype(np.int64), first)
        index = np.minimum(first[:, None] + np.arange(kept.max()), len(mass) - 1)
        group = point_group(symmetry).transpose(0, 2, 1)
        return cls(kept, mass[index], group @ poses[index][:, :, None], covariance[index])

    def widths(self) -> Values:
        """Return the narrowest mode's mean deviation of each image, ``(n,)`` degrees."""
        there = np.arange(self.log_mass.shape[1]) < self.count[:, None]
        sizes = np.degrees(np.linalg.det(self.covariance) ** (1 / 6))
        return np.where(there, sizes, np.inf).min(1)

    def log_density(self, image: Cells, rotations: Values, cell_radians: float) -> Values:
        """Return the logarithm of the mean density over cells, ``(c,)`` and ``(c, 3, 3)`` to ``(c,)``.

        A cube of side ``cell_radians`` has a variance of ``side^2 / 12`` along each axis: the mean
        over it is to second order that of a Gaussian which is wider by this.
        """
        wider = self.covariance + cell_radians**2 / 12 * np.eye(3)
        precision = np.linalg.inv(wider)
        peak = self.log_mass - 0.5 * np.linalg.slogdet(2 * math.pi * wider)[1]
        total = np.full(len(image), -np.inf)
        for rank in range(self.log_mass.shape[1]):
            rows = np.flatnonzero(self.count[image] > rank)
            mine = image[rows]
            vectors = _offsets(self.equivalents[mine, rank], rotations[rows])
            squared = np.einsum("ci,cij,cj->c", vectors, precision[mine, rank], vectors)
            total[rows] = np.logaddexp(total[rows], peak[mine, rank] - 0.5 * squared)
        return total


def posterior(
    modes: RefinedPoses,
    counts: Cells,
    candidates: list[Candidates] | None,
    symmetry: str,
) -> PoseDistribution:
    """Lay out images' posteriors, shifts integrated.

    Parameters
    ----------
    modes
        All images' refined modes, image by image, best first.
    counts
        ``(n,)``: how many are each image's, one at least.
    candidates
        Cells that the search compared with each image; None after a local refinement, which leaves
        nothing away from the modes.
    symmetry
        Point group of the map; cells lie in its asymmetric unit.
    """
    ends, parts = np.cumsum(counts), list[tuple[Cells, Cells, Values]]()
    for start in range(0, len(counts), _IMAGES_AT_ONCE):
        images = slice(start, start + _IMAGES_AT_ONCE)
        begin = int(ends[start] - counts[start])
        own = modes[slice(begin, int(ends[images][-1]))]
        compared = None if candidates is None else candidates[images]
        parts += _laid_out(_Modes.of(own, counts[images], symmetry), compared, symmetry)
    width = max(len(cells) for _, cells, _ in parts)
    orders = np.zeros((len(parts), width), dtype=np.int8)
    indices = np.full((len(parts), width), -1, dtype=np.int64)
    densities = np.full((len(parts), width), -np.inf)
    for row, (order, cells, density) in enumerate(parts):
        count = slice(len(cells))
        orders[row, count], indices[row, count], densities[row, count] = order, cells, density
    return PoseDistribution.from_cells(orders, indices, densities, symmetry)


def _laid_out(
    modes: _Modes, candidates: list[Candidates] | None, symmetry: str
) -> Iterator[tuple[Cells, Cells, Values]]:
    """Yield each image's orders, cells and log-densities."""
    grid = SO3Grid(_SEED_ORDER) if candidates is None else candidates[0].grid
    last = np.array([_last_order(width, grid.order) for width in modes.widths()])
    # a search's own cells will do where the likelihood is as broad as they are
    narrow = last > grid.order if candidates is not None else np.ones(len(last), dtype=bool)
    image, cells = _near(modes, grid, symmetry)
    image, cells = image[narrow[image]], cells[narrow[image]]
    columns = [_searched(candidates, image, cells, grid)] if candidates is not None else []
    while len(cells):
        side = (8 * math.pi**2 / grid.size) ** (1 / 3)
        density = modes.log_density(image, grid.rotations(cells), side)
        peak = np.full(len(last), -np.inf)
        np.maximum.at(peak, image, density)
        split = (last[image] > grid.order) & (density > peak[image] - _NEGLIGIBLE_NATS)
        order = np.full(int((~split).sum()), grid.order)
        columns.append((image[~split], order, cells[~split], density[~split]))
        children = grid.children(cells[split])
        grid = SO3Grid(grid.order + 1)
        image, cells = np.repeat(image[split], 8), children.ravel()
        if symmetry != "C1":
            inside = _unit(grid, symmetry)[cells // grid.n_psi]
            image, cells = image[inside], cells[inside]
    owner, orders, indices, densities = (np.concatenate(c) for c in zip(*columns, strict=True))
    sorting = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(last)))
    for rows in np.split(sorting, ends[:-1]):
        yield orders[rows], indices[rows], densities[rows]


def _searched(
    candidates: list[Candidates], image: Cells, taken: Cells, grid: SO3Grid
) -> tuple[Cells, Cells, Cells, Values]:
    """Return image, order, cell and log-density of the search's cells but those taken."""
    owner = np.repeat(np.arange(len(candidates)), [len(found.cells) for found in candidates])
    cells = torch.cat([found.cells for found in candidates]).cpu().numpy()
    density = torch.cat([found.log_density for found in candidates]).double().cpu().numpy()
    kept = ~np.isin(owner * grid.size + cells, image * grid.size + taken)
    return owner[kept], np.full(int(kept.sum()), grid.order), cells[kept], density[kept]


def _near(modes: _Modes, grid: SO3Grid, symmetry: str) -> tuple[Cells, Cells]:
    """Return images and cells of the asymmetric unit within reach of a mode, in pairs."""
    reduced = grid.reduced(symmetry)
    cells, centres = reduced.indices(), reduced.rotations().reshape(-1, 9).astype(np.float32)
    spread = np.sqrt(np.linalg.eigvalsh(modes.covariance)[..., -1])
    limits = np.minimum(_REACH * spread + np.radians(0.8 * grid.spacing_degrees), math.pi)
    images, found = [], []
    for row, count in enumerate(modes.count):
        poses = modes.equivalents[row, :count].reshape(count, -1, 9).astype(np.float32)
        traces = np.stack([(centres @ each.T).max(1) for each in poses], axis=1)
        near = (traces > 1 + 2 * np.cos(limits[row, :count])).any(1)
        near[traces.argmax(0)] = True
        found.append(cells[near])
        images.append(np.full(int(near.sum()), row))
    return np.concatenate(images), np.concatenate(found)


def _unit(grid: SO3Grid, symmetry: str) -> NDArray[np.bool_]:
    """Return which view pixels meet the asymmetric unit, ``(n_views,)``."""
    inside = np.zeros(grid.n_views, dtype=bool)
    inside[grid.reduced(symmetry).views] = True
    return inside


def _offsets(equivalents: Values, rotations: Values) -> Values:
    """Return rotation vectors from the nearest of ``(c, g, 3, 3)`` poses to ``(c, 3, 3)``, ``(c, 3)``."""
    if equivalents.shape[1] == 1:
        nearest = equivalents[:, 0]
    else:
        traces = np.einsum(
            "cgk,ck->cg", equivalents.reshape(*equivalents.shape[:2], 9), rotations.reshape(-1, 9)
        )
        nearest = equivalents[np.arange(len(rotations)), traces.argmax(1)]
    turns = np.swapaxes(nearest, -1, -2) @ rotations
    twice = turns[:, [2, 0, 1], [1, 2, 0]] - turns[:, [1, 2, 0], [2, 0, 1]]
    cosine = np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)
    length = np.linalg.norm(twice, axis=1)
    # half a turn has no axis in the antisymmetric part; any will do so far away
    angle = np.arccos(cosine)
    factor = np.where(length > 1e-9, angle / np.maximum(length, 1e-9), 0.5)
    return twice * factor[:, None]


def _last_order(width_degrees: float, first: int) -> int:
    """Return the coarsest order from ``first`` whose cells are at most 1.2 deviations wide."""
    for order in range(first, _FINEST):
        if SO3Grid(order).spacing_degrees <= _CELL_PER_WIDTH * width_degrees:
            return order
    return _FINEST
