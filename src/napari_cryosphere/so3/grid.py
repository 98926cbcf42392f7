"""HEALPix x S1: an equal-volume partition of the rotations whose polar axis is the optical axis.

A grid of order k has ``12 * 4**k`` view directions (HEALPix pixels, RING order) and ``6 * 2**k``
in-plane angles, as many as RELION and Image2Sphere take. The rotation of view pixel v and in-plane
index p, at flat index ``v n_psi + p``, is

    F_v Rz(psi_p),    psi_p = (p + 1/2) 360 / n_psi degrees,

with a frame F_v whose third axis is the view. It is the centre of a cell: the rotations whose view
lies in pixel v and whose in-plane angle in the frame of that view lies in [p, p + 1) 360 / n_psi.
Cells have equal Haar volume and tile SO(3), and each is tiled exactly by eight cells of the next
order: HEALPix's four nested pixels times psi 2 p and 2 p + 1.

The frame is that of HEALPix's base pixel, ``Rz(rot) Ry(tilt)`` at its centre, carried along the
great circle to the view; RELION's psi is ``psi_p`` plus an offset that depends on the view alone
(`psi_offsets`). Were it RELION's own frame, cells near the poles would be up to 90 degrees long,
since rot turns quickly there, and a pose could be far from the centre of its cell. As it is, no
pose is farther than 1.2 spacings.

Nothing is stored: every quantity follows from the order by arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.asymmetric_unit import reduce, view_shares
from napari_cryosphere.so3.healpix import (
    nest2ring,
    pix2ang,
    pix2vec,
    pixel_neighbours,
    ring2nest,
    vec2pix,
)
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = ["MAX_ORDER", "Indices", "ReducedGrid", "SO3Grid", "cell_centres", "order_of_size"]

MAX_ORDER = 8
"""The finest grid has cells of 0.23 degrees, as RELION's."""

Indices = NDArray[np.int64]
_CHUNK = 8192  # rotations at once, which bounds temporaries; chosen, not tuned


@lru_cache(maxsize=1)
def _base_frames() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres of HEALPix's 12 base pixels and the x axes there, ``(12, 3)`` each."""
    tilt, rot = pix2ang(1, np.arange(12))
    return pix2vec(1, np.arange(12)), _tilting(rot, tilt)


def _tilting(rot: NDArray[np.float64], tilt: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where directions move as their tilt grows, ``(..., 3)`` unit vectors."""
    along = [np.cos(tilt) * np.cos(rot), np.cos(tilt) * np.sin(rot), -np.sin(tilt)]
    return np.stack(along, axis=-1)


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cross product of ``(..., 3)`` vectors, several times faster than numpy's."""
    product = np.empty_like(b)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        product[..., i] = a[..., j] * b[..., k] - a[..., k] * b[..., j]
    return product


@dataclass(frozen=True)
class SO3Grid:
    """The HEALPix x S1 grid of a given order (0 has 72 rotations, 3 has 36,864, 5 has 2,359,296)."""

    order: int

    def __post_init__(self) -> None:
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"grid order must be between 0 and {MAX_ORDER}, not {self.order}")

    @property
    def n_side(self) -> int:
        """HEALPix's N_side."""
        return 2**self.order

    @property
    def n_views(self) -> int:
        """Number of view directions."""
        return int(12 * self.n_side**2)

    @property
    def n_psi(self) -> int:
        """Number of in-plane angles."""
        return 6 * self.n_side

    @property
    def size(self) -> int:
        """Number of rotations; a cell's volume is 1 / size of SO(3)."""
        return self.n_views * self.n_psi

    @property
    def spacing_degrees(self) -> float:
        """Spacing of the view directions, ``sqrt(4 pi / n_views)``, which is about that of psi."""
        return float(np.degrees(np.sqrt(4 * np.pi / self.n_views)))

    def view_angles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (rot, tilt) of every view direction, each ``(n_views,)``, in radians."""
        tilt, rot = pix2ang(self.n_side, np.arange(self.n_views))
        return rot, tilt

    def psi_angles(self) -> NDArray[np.float64]:
        """Return the in-plane angles in the views' frames, ``(n_psi,)`` radians: middles of bins."""
        return 2 * np.pi * (np.arange(self.n_psi) + 0.5) / self.n_psi

    def psi_offsets(self) -> NDArray[np.float64]:
        """Return what RELION's psi exceeds `psi_angles` by at every view, ``(n_views,)`` radians."""
        rot, tilt = self.view_angles()
        x, _, _ = self._frames(np.arange(self.n_views))
        along = _tilting(rot, tilt)
        across = np.stack([-np.sin(rot), np.cos(rot), np.zeros_like(rot)], axis=-1)
        return np.arctan2((x * across).sum(-1), (x * along).sum(-1))

    def rotations(self, indices: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the rotations at flat ``indices`` (default: all), ``(..., 3, 3)`` float64."""
        flat = np.arange(self.size) if indices is None else np.asarray(indices)
        view, psi = np.divmod(flat, self.n_psi)
        return self.rotations_at(
            view, pix2vec(self.n_side, view), (psi + 0.5) * (2 * np.pi / self.n_psi)
        )

    def rotations_at(
        self, views: Indices, directions: NDArray[np.float64], psi: ArrayLike
    ) -> NDArray[np.float64]:
        """Return the rotations of view directions within pixels and in-plane angles in their frames.

        ``(...)`` pixels, ``(..., 3)`` unit vectors in them and ``(...)`` radians to ``(..., 3,
        3)``.
        """
        x, y = self._carried(views, directions)
        cosine, sine = np.cos(psi)[..., None], np.sin(psi)[..., None]
        return np.stack([cosine * x + sine * y, cosine * y - sine * x, directions], axis=-1)

    def frames(self, views: Indices) -> NDArray[np.float64]:
        """Return the frames F_v of view pixels, ``(...)`` to ``(..., 3, 3)``: their poses at psi 0."""
        return np.stack(self._frames(views), axis=-1)

    def _frames(
        self, views: Indices
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the axes of the frames at pixel centres, each ``(..., 3)``."""
        z = pix2vec(self.n_side, views)
        x, y = self._carried(views, z)
        return x, y, z

    def _carried(
        self, views: Indices, z: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x and y of the frame at directions ``z`` inside pixels, each ``(..., 3)``."""
        centres, axes = _base_frames()
        base = np.asarray(ring2nest(self.n_side, views)) >> (2 * self.order)
        centre, axis = centres[base], axes[base]
        # the least rotation that takes centre to z, applied to an axis at right angles to the
        # centre
        share = (z * axis).sum(-1) / (1 + (z * centre).sum(-1))
        x = axis - share[..., None] * (centre + z)
        return x, _cross(z, x)

    def cell_of(self, rotations: ArrayLike) -> Indices:
        """Return the flat index of the cell that holds each rotation: ``(..., 3, 3)`` to ``(...)``."""
        return self.locate(rotations)[0]

    def locate(self, rotations: ArrayLike) -> tuple[Indices, NDArray[np.float64]]:
        """Return the cell that holds each rotation, and the place of psi in its bin, in [0, 1).

        ``(..., 3, 3)`` to two of shape ``(...)``.
        """
        matrices = np.asarray(rotations, dtype=np.float64)
        first, view = matrices[..., 0], matrices[..., 2]
        pixels = np.asarray(vec2pix(self.n_side, *np.moveaxis(view, -1, 0)), dtype=np.int64)
        x, y = self._carried(pixels, view)
        psi = np.arctan2((first * y).sum(-1), (first * x).sum(-1)) / (2 * np.pi) * self.n_psi
        bins = np.floor(psi)
        return pixels * self.n_psi + bins.astype(np.int64) % self.n_psi, psi - bins

    def nearest(self, rotations: ArrayLike) -> Indices:
        """Return the flat index of the grid rotation at the least angle from each of ``rotations``.

        The pixel under the view direction and its eight neighbours are tried, each with the
        in-plane angle that is best for it, see `_best_psi`. Memory does not grow with the grid, and
        is bounded by working through the rotations in chunks.

        ``rotations``: ``(..., 3, 3)``; image to map coordinates. Returns ``(...)`` int64. Near a
        cell's border this need not be `cell_of`.
        """
        matrices = np.asarray(rotations, dtype=np.float64)
        flat = matrices.reshape(-1, 3, 3)
        found = np.empty(len(flat), dtype=np.int64)
        for start in range(0, len(flat), _CHUNK):
            found[start : start + _CHUNK] = self._nearest(flat[start : start + _CHUNK])
        return found.reshape(matrices.shape[:-2])

    def _nearest(self, matrices: NDArray[np.float64]) -> Indices:
        home = np.asarray(vec2pix(self.n_side, *matrices[:, :, 2].T), dtype=np.int64)
        views = np.concatenate([home[None], pixel_neighbours(self.n_side, home)])
        psi, trace = self._best_psi(np.where(views < 0, home, views), matrices)
        pick = trace.argmax(0), np.arange(len(matrices))
        return np.where(views < 0, home, views)[pick] * self.n_psi + psi[pick]

    def _best_psi(
        self, views: Indices, matrices: NDArray[np.float64]
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Return the in-plane index that brings each view nearest to a rotation, and the trace there.

        ``trace(Rz(psi)^T M) = cos psi (M_xx + M_yy) + sin psi (M_yx - M_xy) + M_zz`` for ``M = F^T
        R``: largest where psi is nearest to ``atan2(M_yx - M_xy, M_xx + M_yy)``. ``views`` is ``(k,
        n)``, ``matrices`` ``(n, 3, 3)``; returns ``(k, n)`` arrays.
        """
        x, y, z = self._frames(views)
        first, second, third = np.moveaxis(matrices, 2, 0)
        even = (x * first + y * second).sum(-1)
        odd = (y * first - x * second).sum(-1)
        index = (
            np.floor(np.arctan2(odd, even) / (2 * np.pi) * self.n_psi).astype(np.int64) % self.n_psi
        )
        angle = (index + 0.5) * (2 * np.pi / self.n_psi)
        return index, np.cos(angle) * even + np.sin(angle) * odd + (z * third).sum(-1)

    def neighbours(self, indices: ArrayLike) -> Indices:
        """Return the cells around each cell: ``(...)`` to ``(..., 26)``, -1 where there is none.

        Two along psi, and for each of the eight neighbouring views (some have seven or six) the
        three in-plane angles that bring it nearest.
        """
        flat = np.asarray(indices, dtype=np.int64)
        cells = flat.reshape(-1)
        view, psi = np.divmod(cells, self.n_psi)
        others = pixel_neighbours(self.n_side, view)
        centre, _ = self._best_psi(np.where(others < 0, view, others), self.rotations(cells))
        steps = np.array([-1, 0, 1])[:, None, None]
        around = others * self.n_psi + (centre + steps) % self.n_psi
        along = view * self.n_psi + (psi + steps[[0, 2], 0]) % self.n_psi
        found = np.concatenate([along, np.where(others < 0, -1, around).reshape(-1, len(cells))])
        return found.T.reshape(*flat.shape, 26)

    def children(self, indices: ArrayLike) -> Indices:
        """Return the eight cells of the next order that tile each cell: ``(...)`` to ``(..., 8)``."""
        view, psi = np.divmod(np.asarray(indices, dtype=np.int64), self.n_psi)
        nested = np.asarray(ring2nest(self.n_side, view))[..., None] * 4 + np.arange(4)
        views = np.asarray(nest2ring(2 * self.n_side, nested))[..., None]
        cells: Indices = views * (2 * self.n_psi) + 2 * psi[..., None, None] + np.arange(2)
        return cells.reshape(*view.shape, 8)

    def ancestors(self, indices: ArrayLike, order: int) -> Indices:
        """Return the cells of a coarser ``order`` that hold each cell: ``(...)`` to ``(...)``.

        Raises `ValueError` if the order is finer than the grid's own.
        """
        steps = self.order - SO3Grid(order).order
        if steps < 0:
            raise ValueError(f"an ancestor's order is at most {self.order}, not {order}")
        view, psi = np.divmod(np.asarray(indices, dtype=np.int64), self.n_psi)
        nested = np.asarray(ring2nest(self.n_side, view)) >> (2 * steps)
        views = np.asarray(nest2ring(self.n_side >> steps, nested), dtype=np.int64)
        return views * (self.n_psi >> steps) + (psi >> steps)

    def reduced(self, symmetry: str) -> ReducedGrid:
        """Return the part of the grid that meets RELION's asymmetric unit of a point group."""
        return ReducedGrid(self, normalise_group_name(symmetry))


@lru_cache(maxsize=16)
def _unit_views(order: int, symmetry: str) -> tuple[Indices, NDArray[np.float64]]:
    views = np.arange(SO3Grid(order).n_views)
    shares = view_shares(order, views, symmetry)
    return views[shares > 0], shares[shares > 0]


@dataclass(frozen=True)
class ReducedGrid:
    """The cells of a grid that meet the asymmetric unit: they cover it, and no smaller set of cells does.

    A cell on the border counts with the share of its volume that lies inside.
    """

    grid: SO3Grid
    symmetry: str

    @property
    def views(self) -> Indices:
        """The view pixels that meet the unit, RING order, ascending."""
        return _unit_views(self.grid.order, self.symmetry)[0]

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of each of `views` that lies inside the unit, in (0, 1]; of the same shape."""
        return _unit_views(self.grid.order, self.symmetry)[1]

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.views) * self.grid.n_psi

    def indices(self) -> Indices:
        """Return the cells' flat indices in the grid, ``(size,)``, ascending."""
        cells: Indices = self.views[:, None] * self.grid.n_psi + np.arange(self.grid.n_psi)
        return cells.reshape(-1)

    def rotations(self) -> NDArray[np.float64]:
        """Return the cells' centres, ``(size, 3, 3)``; on the border some lie just outside the unit."""
        return self.grid.rotations(self.indices())

    def cell_of(self, rotations: ArrayLike) -> Indices:
        """Return the flat index in the grid of the cell that holds each rotation's equivalent in the unit.

        ``(..., 3, 3)`` to ``(...)``.
        """
        return self.grid.cell_of(reduce(rotations, self.symmetry))


def order_of_size(size: int) -> int:
    """Return the order of the grid that has ``size`` rotations. Raises `ValueError` if no grid has."""
    for order in range(MAX_ORDER + 1):
        if SO3Grid(order).size == size:
            return order
    raise ValueError(f"no grid has {size} rotations; they have 72 times a power of 8")


def cell_centres(orders: ArrayLike, indices: ArrayLike) -> NDArray[np.float64]:
    """Return the centres of cells of mixed orders: ``(...)`` and ``(...)`` to ``(..., 3, 3)``.

    A negative index is padding and gives the identity.
    """
    its_orders, cells = np.asarray(orders), np.asarray(indices)
    centres = np.broadcast_to(np.eye(3), (*cells.shape, 3, 3)).copy()
    for order in np.unique(its_orders[cells >= 0]):
        here = (its_orders == order) & (cells >= 0)
        centres[here] = SO3Grid(int(order)).rotations(cells[here])
    return centres
