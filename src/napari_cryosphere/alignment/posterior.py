"""One image's posterior on cells of SO(3): coarse where little is, fine where the likelihood peaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cryosphere.alignment.observation import (
    Observation,
    best_contrast,
    contrast_integral,
)
from napari_cryosphere.alignment.refine import RefinedPoses
from napari_cryosphere.alignment.search import Candidates
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import vector_from_rotation
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["SEED_ORDER", "CellDensities", "Likelihood", "posterior_cells"]

SEED_ORDER = 3
"""Order of the cells that are split first where no search has left any."""

_FINEST = 6
_CELL_PER_WIDTH = 1.8
_SPLIT_SPAN = 12.0
_NEGLIGIBLE = 10.0
_REACH = 3.2
_GAUSSIAN_REACH = 5.0
_LAST_SPAN = 8.0
_SAMPLES_AT_ONCE = 1 << 16

Cells = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class CellDensities:
    """A density on cells of grids of several orders, which do not overlap.

    Attributes
    ----------
    orders
        ``(c,)`` HEALPix order of each cell.
    cells
        ``(c,)`` flat index in that order's grid.
    log_density
        ``(c,)`` nats, not normalised: the log-likelihood over that of an empty image, integrated
        over shifts (px^2).
    """

    orders: Cells
    cells: Cells
    log_density: Values

    @classmethod
    def join(cls, parts: list[CellDensities]) -> CellDensities:
        """Put the cells of several together."""
        return cls(
            np.concatenate([part.orders for part in parts]),
            np.concatenate([part.cells for part in parts]),
            np.concatenate([part.log_density for part in parts]),
        )


@dataclass(frozen=True)
class Likelihood:
    """One image's likelihood of a rotation, its shift integrated about the nearest of the refined modes.

    In the shift the log-likelihood is quadratic about the mode's, with the mode's curvature ``C``
    and a gradient ``g`` of its own at each rotation: the integral is ``L + g C^-1 g / 2 + log(2 pi
    / sqrt det C)``.
    """

    sampler: SliceSampler
    image: Observation
    modes: RefinedPoses
    symmetry: str

    def at(self, rotations: Values) -> Values:
        """Return the logarithm of the likelihood's integral over the shift, ``(c, 3, 3)`` to ``(c,)``."""
        nearest, _ = self.nearest_mode(rotations)
        integral = np.empty(len(rotations))
        for mode in np.unique(nearest):
            mine = nearest == mode
            integral[mine] = self._shift_integrals(rotations[mine], int(mode))
        return integral

    def nearest_mode(self, rotations: Values) -> tuple[Cells, Values]:
        """Return the mode in whose deviations each rotation is nearest, and that squared distance."""
        distances = np.stack([self.distances(rotations, mode) for mode in range(len(self.modes))])
        return distances.argmin(0), distances.min(0)

    def distances(self, rotations: Values, mode: int) -> Values:
        """Return squared Mahalanobis distances from a mode, modulo symmetry, ``(..., 3, 3)`` to ``(...)``."""
        vectors, precision = self._offsets(rotations, mode)
        squared: Values = ((vectors @ precision) * vectors).sum(-1)
        return squared

    def gaussian(self, grid: SO3Grid, cells: Cells, mode: int) -> Values:
        """Return the logarithm of the mean over each cell of the Gaussian at a mode; its peak is 0.

        To second order, the mean over a cell of volume v differs from the value at its centre by
        ``v^(2/3) / 24`` times the Laplacian, which of a Gaussian with precision P is ``|P x|^2 - tr
        P``.
        """
        vectors, precision = self._offsets(grid.rotations(cells), mode)
        pull = vectors @ precision
        moment = (8 * math.pi**2 / grid.size) ** (2 / 3) / 24
        laplacian = (pull * pull).sum(-1) - np.trace(precision)
        value: Values = -0.5 * (pull * vectors).sum(-1) + moment * laplacian
        return value

    @cached_property
    def _precisions(self) -> Values:
        return np.linalg.inv(self.modes.rotation_covariance().cpu().numpy())

    @cached_property
    def _equivalents(self) -> Values:
        """The modes' poses and all their equivalents, ``(modes, group, 3, 3)``."""
        poses = self.modes.rotations.double().cpu().numpy()
        return point_group(self.symmetry).transpose(0, 2, 1) @ poses[:, None]

    def _offsets(self, rotations: Values, mode: int) -> tuple[Values, Values]:
        """Return the rotation vectors from a mode to each pose's nearest image, and the mode's precision."""
        images = self._equivalents[mode]
        traces = np.einsum("gij,...ij->...g", images, rotations)
        nearest = images[traces.argmax(-1)]
        return vector_from_rotation(np.swapaxes(nearest, -1, -2) @ rotations), self._precisions[
            mode
        ]

    def _shift_integrals(self, rotations: Values, mode: int) -> Values:
        """Return the log-likelihood at ``(c, 3, 3)`` rotations, integrated over the shift."""
        frequencies = self.image.band.frequencies.to(self.sampler.device)
        poses = torch.from_numpy(rotations).float().to(self.sampler.device)
        factor = self.image.band.phases(self.modes.shifts_px[mode]) * self.image.filters[0]
        matched = self.image.data[0].conj() * factor
        power = 0.5 * self.image.filters[0].square()
        curvature = self.modes.information[mode, 3:, 3:].double()
        at_once = max(1, _SAMPLES_AT_ONCE // len(frequencies))
        products, norms, gradients = [], [], []
        for start in range(0, len(poses), at_once):
            slices = self.sampler.values(poses[start : start + at_once], frequencies)
            products.append((slices @ matched).real)
            norms.append(slices.abs().square() @ power)
            gradients.append((slices @ (matched[:, None] * frequencies)).imag)
        product, norm = torch.cat(products).double(), torch.cat(norms).double()
        spread = self.image.contrast_spread
        score = contrast_integral(product, norm, spread)
        contrast = best_contrast(product, norm, spread)[:, None]
        gradient = torch.cat(gradients).double() * contrast * (2 * math.pi / self.image.band.box)
        gain = 0.5 * torch.einsum("ni,ij,nj->n", gradient, torch.linalg.inv(curvature), gradient)
        constant = math.log(2 * math.pi) - 0.5 * torch.logdet(curvature)
        integral: Values = (score + gain + constant).cpu().numpy()
        return integral


def posterior_cells(
    sampler: SliceSampler,
    image: Observation,
    modes: RefinedPoses,
    candidates: Candidates | None,
    symmetry: str,
) -> CellDensities:
    """Integrate one image's likelihood over shifts, on cells as fine as its modes are narrow.

    Of the search's cells, those near a mode and those whose density is within 12 nats of the
    largest are split in eight, and their parts evaluated, order by order; the others stay as they
    are. When the cells are 1.8 times as wide as the best mode's deviation, they are split once more
    without evaluating: inside such a cell the likelihood falls off as the Gaussian at the mode
    does.

    Parameters
    ----------
    sampler
        The map's slices.
    image
        One image.
    modes
        Its refined modes, best first.
    candidates
        Cells that the search compared, or None after a local refinement, when cells around the
        modes stand for them.
    symmetry
        Point group of the map; cells lie in its asymmetric unit.
    """
    likelihood = Likelihood(sampler, image, modes, symmetry)
    evidence = modes.log_evidence.double().cpu().numpy()
    modes_that_matter = modes[
        torch.from_numpy(np.flatnonzero(evidence > evidence.max() - _NEGLIGIBLE))
    ]
    poses = modes_that_matter.rotations.double().cpu().numpy()
    widths = modes_that_matter.rotation_covariance().cpu().numpy()
    reach = np.degrees(_REACH * np.sqrt(np.linalg.eigvalsh(widths)[:, -1]))
    parts: list[CellDensities] = []
    seeds = SO3Grid(SEED_ORDER) if candidates is None else candidates.grid
    cells = _cells_near(seeds, poses, reach, symmetry)
    if candidates is not None:
        compared = candidates.cells.cpu().numpy()
        density = candidates.log_density.double().cpu().numpy()
        hopeful = density > density.max() - _SPLIT_SPAN
        kept = ~hopeful & ~np.isin(compared, cells)
        parts.append(
            CellDensities(np.full(int(kept.sum()), seeds.order), compared[kept], density[kept])
        )
        cells = np.union1d(cells, compared[hopeful])
    last = _last_order(widths[0], seeds.order)
    for order in range(seeds.order, last + 1):
        grid = SO3Grid(order)
        centres = grid.rotations(cells)
        density = likelihood.at(centres)
        if order == last:
            break
        split = (density > density.max() - _SPLIT_SPAN) | _near(
            centres, poses, reach, grid, symmetry
        )
        parts.append(
            CellDensities(np.full(int((~split).sum()), order), cells[~split], density[~split])
        )
        cells = _in_unit(SO3Grid(order + 1), grid.children(cells[split]).ravel(), symmetry)
    parts += _split_by_gaussian(likelihood, grid, cells, centres, density)
    return CellDensities.join(parts)


def _split_by_gaussian(
    likelihood: Likelihood, grid: SO3Grid, cells: Cells, centres: Values, density: Values
) -> list[CellDensities]:
    """Split cells that matter in eight, the density inside following the nearest mode's Gaussian."""
    nearest, distances = likelihood.nearest_mode(centres)
    near = (distances < _GAUSSIAN_REACH**2) & (density > density.max() - _LAST_SPAN)
    children, finer = grid.children(cells[near]), SO3Grid(grid.order + 1)
    values = np.empty(children.shape)
    for mode in np.unique(nearest[near]):
        mine = nearest[near] == mode
        rise = (
            likelihood.gaussian(finer, children[mine], int(mode))
            + 0.5 * distances[near][mine, None]
        )
        values[mine] = density[near][mine, None] + rise
    kept = np.isin(children, _in_unit(finer, children.ravel(), likelihood.symmetry))
    return [
        CellDensities(np.full(int((~near).sum()), grid.order), cells[~near], density[~near]),
        CellDensities(np.full(int(kept.sum()), finer.order), children[kept], values[kept]),
    ]


def _cells_near(grid: SO3Grid, poses: Values, reach_degrees: Values, symmetry: str) -> Cells:
    """Return the cells of the unit within reach of a pose: its own, their neighbours, theirs and so on."""
    cells = np.unique(grid.reduced(symmetry).cell_of(poses))
    while True:
        around = grid.neighbours(cells).ravel()
        grown = _in_unit(grid, np.append(cells, around[around >= 0]), symmetry)
        grown = grown[_near(grid.rotations(grown), poses, reach_degrees, grid, symmetry)]
        grown = np.union1d(grown, cells)
        if len(grown) == len(cells):
            return grown
        cells = grown


def _near(
    centres: Values, poses: Values, reach_degrees: Values, grid: SO3Grid, symmetry: str
) -> NDArray[np.bool_]:
    """Return which cells may have a part within reach of a pose, modulo symmetry."""
    near = np.zeros(len(centres), dtype=bool)
    rows = centres.reshape(-1, 9)
    limits = np.radians(np.minimum(reach_degrees + 0.8 * grid.spacing_degrees, 180.0))
    for pose, limit in zip(poses, limits, strict=True):
        images = (point_group(symmetry) @ pose).reshape(-1, 9)
        near |= (rows @ images.T).max(1) > 1 + 2 * np.cos(limit)
    return near


def _in_unit(grid: SO3Grid, cells: Cells, symmetry: str) -> Cells:
    """Return the cells that meet the asymmetric unit, each once."""
    if symmetry == "C1":
        return np.unique(cells)
    views = grid.reduced(symmetry).views
    kept: Cells = np.unique(cells[np.isin(cells // grid.n_psi, views)])
    return kept


def _last_order(covariance: Values, first: int) -> int:
    """Return the coarsest order from ``first`` whose cells are at most 1.8 times as wide as a deviation."""
    width = math.degrees(float(np.linalg.det(covariance)) ** (1 / 6))
    for order in range(first, _FINEST):
        if SO3Grid(order).spacing_degrees <= _CELL_PER_WIDTH * width:
            return order
    return _FINEST
