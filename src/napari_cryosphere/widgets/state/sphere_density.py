"""The density of view directions as it is drawn: smooth, wide enough to be seen, with its contours.

A grid of poses is summed over the in-plane angle, and the views' probabilities are spread by a narrow
Gaussian over a finer HEALPix map. The Gaussian is the smallest spot that is ever drawn: a particle
that is certain to a fraction of a degree still shows. True widths are in the lens (`lens`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.healpix import pix2vec

if TYPE_CHECKING:
    from napari_cryosphere.so3.distributions import PoseDistribution

__all__ = [
    "CONTOUR_LEVEL",
    "ORDER",
    "ViewDensity",
    "contour_density",
    "drawn_sigma_degrees",
    "smoothed_views",
    "views_of",
]

ORDER = 4
"""HEALPix order of the grid that large pictures are made from: cells of 3.7 degrees, finer than what
degree-6 harmonics can tell apart."""

CONTOUR_LEVEL = 0.95
"""The probability inside of the contour that is drawn around a distribution's views."""

_FINER = 2
"""Orders from the grid that is given to the map that is drawn: cells of two pixels in the large picture."""
_PROBABLE = 1e-3
"""Cells with less are not seen, and may be coarser than the others."""
_SIGMA_SPACINGS = 0.45
"""Standard deviation of the Gaussian over the given grid's spacing. 0.4 shows the grid as blocks, 0.6
doubles the smallest spot; chosen by eye."""
_NEIGHBOURS = 13
"""Views of the given grid that a finer one takes from: the next weighs less than 1e-4 of the nearest."""
_WEAK = 0.05
"""Density of views, over the uniform one, that lend no hue to what is coloured, which has 1 or more."""
_BINS_PER_NAT = 64
_LOWEST_NATS, _HIGHEST_NATS = -7.0, 12.0
"""Range of the histogram that contours are found by, over the uniform density: what is sparser than e^-7
holds less than 0.1 per cent, e^12 is 80 times the density of the smallest spot."""


@dataclass(frozen=True)
class ViewDensity:
    """A density of view directions on a HEALPix map.

    ``density``: ``(12 * 4**order,)`` float32, RING order, over the uniform distribution: 1
    everywhere where nothing is known, 0 where there is no distribution. ``psi_radians``:
    ``(12 * 4**order,)`` float32: RELION's psi that is most probable there; of no meaning where the
    density is at most 1.
    """

    density: NDArray[np.float32]
    psi_radians: NDArray[np.float32]

    @property
    def n_side(self) -> int:
        """HEALPix's N_side of the map."""
        return round((len(self.density) / 12) ** 0.5)


def drawn_sigma_degrees(order: int) -> float:
    """Return the standard deviation of the smallest spot that is drawn of a grid of an order."""
    return _SIGMA_SPACINGS * SO3Grid(order).spacing_degrees


def views_of(distribution: PoseDistribution | None) -> ViewDensity:
    """Return the density of views of a batch of one, for a large picture; 0 everywhere for None.

    Of a coarse grid of cells the spots are as smooth as of a fine one, and wider.
    """
    from napari_cryosphere.so3.distributions.harmonic import HarmonicDistribution

    if distribution is None:
        return ViewDensity(np.zeros(12, np.float32), np.zeros(12, np.float32))
    if isinstance(distribution, HarmonicDistribution):
        return smoothed_views(distribution.density_alone(ORDER))
    cells = distribution.cells()
    order = min(ORDER, int(cells.orders[cells.probability > _PROBABLE].max(initial=0)))
    return smoothed_views(cells.probability_grid(order)[0], ORDER + _FINER)


def smoothed_views(probability: ArrayLike, drawn_order: int | None = None) -> ViewDensity:
    """Sum a distribution over the in-plane angle and spread it over a finer map.

    ``probability``, ``(n_views, n_psi)``: probability of every cell of a HEALPix x S1 grid, of any
    scale, views in RING order; all zero where there is no distribution. ``drawn_order``: HEALPix
    order of the map; without it, two orders finer than the grid. Raises `ValueError` if the shape
    is not that of a grid.
    """
    cells = np.asarray(probability)
    grid = SO3Grid((cells.shape[1] // 6).bit_length() - 1)
    if cells.shape != (grid.n_views, grid.n_psi):
        raise ValueError(
            f"probabilities must be (n_views, n_psi) on a HEALPix x S1 grid, not {cells.shape}"
        )
    spread = _spreading(grid.order, grid.order + _FINER if drawn_order is None else drawn_order)
    views = cells.sum(1)
    views = (views * (grid.n_views / (views.sum() or 1.0))).astype(np.float32)
    density = np.asarray(spread @ views)
    psi = np.zeros_like(density)
    lit = np.flatnonzero(density > 1)
    if len(lit):
        strong = np.flatnonzero(views > _WEAK)
        best = cells[strong].argmax(1) if 2 * len(strong) < len(views) else cells.argmax(1)[strong]
        angles = _psi_offsets(grid.order)[strong] + best * np.float32(2 * np.pi / grid.n_psi)
        across, up = np.zeros_like(views), np.zeros_like(views)
        across[strong], up[strong] = views[strong] * np.cos(angles), views[strong] * np.sin(angles)
        rows = spread[lit]
        psi[lit] = np.arctan2(rows @ up, rows @ across)
    return ViewDensity(density, psi)


def contour_density(density: NDArray[np.floating[Any]], level: float = CONTOUR_LEVEL) -> float:
    """Return the density above which equal-area pixels hold a probability, to 2 per cent.

    ``density``: ``(n,)`` of any scale; HEALPix pixels or others of equal area. ``level``: the
    probability, between 0 and 1. Returns the density on the border of the smallest set with that
    probability; 0 if the density is 0 everywhere.
    """
    total = float(density.sum())
    if not total > 0:
        return 0.0
    scale = total / len(density)
    dense = density[density > np.exp(_LOWEST_NATS) * scale]
    bins = ((np.log(dense / scale) - _LOWEST_NATS) * _BINS_PER_NAT).astype(np.int64)
    last = int((_HIGHEST_NATS - _LOWEST_NATS) * _BINS_PER_NAT)
    held = np.bincount(np.minimum(bins, last), dense, last + 1)[::-1].cumsum()
    first = last - int(np.searchsorted(held, level * total))
    return scale * float(np.exp(_LOWEST_NATS + first / _BINS_PER_NAT))


@lru_cache(maxsize=4)
def _spreading(order: int, drawn_order: int) -> Any:
    """Return the sparse matrix, scipy's CSR, that takes views of an order to the finer map."""
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    grid, fine = SO3Grid(order), SO3Grid(drawn_order)
    number = min(_NEIGHBOURS, grid.n_views)
    centres = pix2vec(grid.n_side, np.arange(grid.n_views))
    chords, nearest = cKDTree(centres).query(pix2vec(fine.n_side, np.arange(fine.n_views)), number)
    angles = 2 * np.arcsin(np.clip(chords / 2, 0, 1))
    weights = np.exp(-0.5 * (angles / np.radians(drawn_sigma_degrees(order))) ** 2)
    weights /= weights.sum(1, keepdims=True)
    starts = np.arange(0, weights.size + 1, number)
    parts = (weights.ravel().astype(np.float32), nearest.ravel().astype(np.int32), starts)
    return csr_array(parts, shape=(fine.n_views, grid.n_views))


@lru_cache(maxsize=8)
def _psi_offsets(order: int) -> NDArray[np.float32]:
    """Return RELION's psi at in-plane index 0 of every view, ``(n_views,)`` radians."""
    grid = SO3Grid(order)
    return (grid.psi_offsets() + grid.psi_angles()[0]).astype(np.float32)
