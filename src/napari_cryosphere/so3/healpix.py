"""HEALPix pixel arithmetic in numpy, for powers of two.

Gorski et al. (2005), ApJ 622:759, sections 4 and 5. The sphere is twelve squares (faces), four about each
pole and four between them, of ``n_side`` x ``n_side`` pixels each. A pixel's place is written in two ways,
and every numbering goes by way of one of them:

- **face, x, y**: x counts from the face's southern corner to the north-east, y to the north-west. The face's
  column and row are its number's remainder and quotient by four. NESTED numbers interleave x's and y's bits.
- **ring, step**: rings of equal latitude count from 1 in the north to ``4 n_side - 1``. With ``length``
  pixels in a quarter of a ring, the longitude is ``step * pi / (4 length)``. RING numbers follow the rings.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ang2pix", "nest2ring", "pix2ang", "pix2vec", "pixel_neighbours", "ring2nest", "vec2pix"]

Whole: TypeAlias = NDArray[np.int64]
Real: TypeAlias = NDArray[np.float64]

_HALVES = [
    (1, 0x3333333333333333),
    (2, 0x0F0F0F0F0F0F0F0F),
    (4, 0x00FF00FF00FF00FF),
    (8, 0x0000FFFF0000FFFF),
    (16, 0x00000000FFFFFFFF),
]
_EVEN_BITS = 0x5555555555555555
_AROUND = np.array([(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)])


def pix2ang(n_side: int, pixels: ArrayLike, nest: bool = False) -> tuple[Real, Real]:
    """Return tilt and rot of pixel centres in radians, two arrays of the pixels' shape."""
    vectors = pix2vec(n_side, pixels, nest)
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.arctan2(np.hypot(x, y), z), np.arctan2(y, x) % (2 * np.pi)


def pix2vec(n_side: int, pixels: ArrayLike, nest: bool = False) -> Real:
    """Return the unit vectors of pixel centres, ``(..., 3)``."""
    numbers = np.asarray(pixels, dtype=np.int64)
    ring, step = _ring_of_face(n_side, *_face_of_nest(n_side, numbers)) if nest else _ring_of(n_side, numbers)
    length = _quarter(n_side, ring)
    # 1 - |z| in the caps, which keeps its digits near the poles
    cap = length.astype(np.float64) ** 2 / (3 * n_side**2)
    belt = (2 * n_side - ring) * (2 / (3 * n_side))
    z = np.where(length < n_side, np.sign(2 * n_side - ring) * (1 - cap), belt)
    radius = np.sqrt(np.where(length < n_side, cap * (2 - cap), 1 - belt**2))
    longitude = step * (np.pi / 4) / length
    return np.stack([radius * np.cos(longitude), radius * np.sin(longitude), z], axis=-1)


def ang2pix(n_side: int, tilt: ArrayLike, rot: ArrayLike, nest: bool = False) -> Whole:
    """Return the pixels that hold directions of given tilt and rot in radians; ``(...)`` to ``(...)``."""
    half = np.asarray(tilt, dtype=np.float64) / 2
    cap = 2 * np.minimum(np.sin(half) ** 2, np.cos(half) ** 2)
    quarters = np.asarray(rot, dtype=np.float64) % (2 * np.pi) * (2 / np.pi)
    return _pixel_at(n_side, *np.broadcast_arrays(np.cos(2 * half), cap, quarters), nest)


def vec2pix(n_side: int, x: ArrayLike, y: ArrayLike, z: ArrayLike, nest: bool = False) -> Whole:
    """Return the pixels that hold the directions of vectors of any length but 0; ``(...)`` to ``(...)``."""
    vx, vy, vz = (np.asarray(part, dtype=np.float64) for part in (x, y, z))
    across = vx * vx + vy * vy
    squared = across + vz * vz
    height = vz / np.sqrt(squared)
    cap = across / squared / (1 + np.abs(height))
    quarters = np.arctan2(vy, vx) % (2 * np.pi) * (2 / np.pi)
    return _pixel_at(n_side, *np.broadcast_arrays(height, cap, quarters), nest)


def ring2nest(n_side: int, pixels: ArrayLike) -> Whole:
    """Return the NESTED numbers of RING pixels; ``(...)`` to ``(...)``."""
    ring, step = _ring_of(n_side, np.asarray(pixels, dtype=np.int64))
    return _nest_of_face(n_side, *_face_of_ring(n_side, ring, step))


def nest2ring(n_side: int, pixels: ArrayLike) -> Whole:
    """Return the RING numbers of NESTED pixels; ``(...)`` to ``(...)``."""
    face = _face_of_nest(n_side, np.asarray(pixels, dtype=np.int64))
    return _pixel_of_ring(n_side, *_ring_of_face(n_side, *face))


def pixel_neighbours(n_side: int, pixels: ArrayLike) -> Whole:
    """Return the eight neighbours of RING pixels, ``(8, ...)``; -1 where a pixel has but seven or six.

    In the order SW, W, NW, N, NE, E, SE, S.
    """
    home = _face_of_ring(n_side, *_ring_of(n_side, np.asarray(pixels, dtype=np.int64)))
    face, x, y = (np.stack([part] * len(_AROUND)) for part in home)
    x += _AROUND[:, :1].reshape(-1, *[1] * home[1].ndim)
    y += _AROUND[:, 1:].reshape(-1, *[1] * home[2].ndim)
    outside = ((x | y) < 0) | (np.maximum(x, y) >= n_side)
    face[outside], x[outside], y[outside] = _across_edges(n_side, face[outside], x[outside], y[outside])
    return np.where(face < 0, -1, _pixel_of_ring(n_side, *_ring_of_face(n_side, face, x, y)))


def _across_edges(n_side: int, face: Whole, x: Whole, y: Whole) -> tuple[Whole, Whole, Whole]:
    """Return which pixel stands at a place that may lie one step outside of its face; face -1 for none.

    A step over an edge between faces of different rows goes on straight. One over an edge between two faces
    of the same cap turns the corner at the pole: what led away from the edge runs along it.
    """
    row, column = face // 4, face % 4
    east, west = (x >= n_side).astype(np.int64), (x < 0).astype(np.int64)  # beyond the NE and SW edges
    north, south = (y >= n_side).astype(np.int64), (y < 0).astype(np.int64)  # beyond the NW and SE edges
    u, v = x - n_side * (east - west), y - n_side * (north - south)
    # straight on: rows and columns of the belt's faces interlace with those of the caps
    up, aside = (east - west) + (north - south), (east - west) - (north - south)
    half_columns = 2 * column + (row != 1) + aside
    next_row = row - up
    next_face = next_row * 4 + (half_columns - (next_row != 1)) // 2 % 4
    moved = np.array([next_face, u, v])
    last = n_side - 1
    # within the northern cap, over the NE or NW edge or the pole
    capped, over = (row == 0) & (up > 0), up == 2
    turned = np.where(east > 0, [(column + 1) % 4, v, last - u], [(column + 3) % 4, last - v, u])
    polar = np.array([(column + 2) % 4, last - u, last - v])
    moved = np.where(capped, np.where(over, polar, turned), moved)
    # within the southern cap, over the SW or SE edge or the pole
    capped, over = (row == 2) & (up < 0), up == -2
    turned = np.where(south > 0, [8 + (column + 1) % 4, last - v, u], [8 + (column + 3) % 4, v, last - u])
    polar = np.array([8 + (column + 2) % 4, last - u, last - v])
    moved = np.where(capped, np.where(over, polar, turned), moved)
    # three faces meet where a corner of the belt's touches a cap, and at the side corners of the caps'
    missing = np.where(row == 1, np.abs(up) == 2, np.abs(aside) == 2)
    face_there, x_there, y_there = np.where(missing, -1, moved)
    return face_there, x_there, y_there


def _quarter(n_side: int, ring: Whole) -> Whole:
    """Return how many pixels a quarter of each ring has."""
    return np.minimum(np.minimum(ring, 4 * n_side - ring), n_side)


def _ring_of(n_side: int, pixels: Whole) -> tuple[Whole, Whole]:
    """Return ring and step of RING pixels."""
    number, cap = 12 * n_side**2, 2 * n_side * (n_side - 1)
    in_south = pixels >= number - cap
    from_pole = np.where(in_south, number - 1 - pixels, np.minimum(pixels, cap))
    ring = (1 + _root(1 + 2 * from_pole)) // 2
    place = from_pole - 2 * ring * (ring - 1)
    step = 2 * place + 1
    ring, step = np.where(in_south, 4 * n_side - ring, ring), np.where(in_south, 8 * ring - step, step)
    below, place = np.divmod(pixels - cap, 4 * n_side)
    in_belt = (pixels >= cap) & ~in_south
    return np.where(in_belt, below + n_side, ring), np.where(in_belt, 2 * place + 1 - (below & 1), step)


def _root(squares: Whole) -> Whole:
    """Return the largest whole numbers whose squares are not larger."""
    root = np.sqrt(squares.astype(np.float64)).astype(np.int64)
    root -= root * root > squares
    return root + ((root + 1) ** 2 <= squares)


def _pixel_of_ring(n_side: int, ring: Whole, step: Whole) -> Whole:
    """Return the RING numbers of pixels."""
    length, cap = _quarter(n_side, ring), 2 * n_side * (n_side - 1)
    in_belt = (ring >= n_side) & (ring <= 3 * n_side)
    before = np.where(
        in_belt,
        cap + (ring - n_side) * 4 * n_side,
        np.where(ring < n_side, 2 * ring * (ring - 1), 12 * n_side**2 - 2 * length * (length + 1)),
    )
    shifted = np.where(in_belt, (ring - n_side) & 1, 0)  # every other ring of the belt begins at longitude 0
    return before + (step - 1 + shifted) // 2


def _ring_of_face(n_side: int, face: Whole, x: Whole, y: Whole) -> tuple[Whole, Whole]:
    """Return ring and step of a face's pixels."""
    row = face // 4
    ring = (row + 2) * n_side - x - y - 1
    length = _quarter(n_side, ring)
    return ring, (((2 * (face % 4) + (row != 1)) * length) + x - y) % (8 * length)


def _face_of_ring(n_side: int, ring: Whole, step: Whole) -> tuple[Whole, Whole, Whole]:
    """Return face, x and y of pixels."""
    length = _quarter(n_side, ring)
    in_cap = length < n_side
    # in the caps a quarter of the ring is one face's
    column, along = np.divmod(step, 2 * length)
    south = ring > 2 * n_side
    difference, total = along - length, np.where(south, length - 1, 2 * n_side - length - 1)
    capped = column + 8 * south, (total + difference) // 2, (total - difference) // 2
    belt = _face_in_belt(n_side, (step - ring + 3 * n_side) // 2, (3 * n_side - step - ring) // 2)
    face, x, y = (np.where(in_cap, *both) for both in zip(capped, belt, strict=True))
    return face, x, y


def _face_in_belt(n_side: int, x: Whole, y: Whole) -> tuple[Whole, Whole, Whole]:
    """Return face, x and y from places counted on, over all faces, from the belt's first."""
    a, x_there = np.divmod(x, n_side)
    b, y_there = np.divmod(y, n_side)
    row, half_columns = 1 - a - b, a - b
    return row * 4 + half_columns // 2 % 4, x_there, y_there


def _pixel_at(n_side: int, height: Real, cap: Real, quarters: Real, nest: bool) -> Whole:
    """Return the pixels at z, with ``cap`` = 1 - abs(z) to all its digits, and longitude in quarter turns."""
    step, ring = 2 * n_side * quarters, n_side * (2 - 1.5 * height)
    x, y = (np.floor(0.5 * (3 * n_side - ring + sign * step)).astype(np.int64) for sign in (1, -1))
    belt = _face_in_belt(n_side, x, y)
    column = np.minimum(quarters.astype(np.int64), 3)
    along, length = quarters - column, n_side * np.sqrt(3 * cap)
    from_pole = (np.minimum((length * part).astype(np.int64), n_side - 1) for part in (1 - along, along))
    east, west = from_pole
    south = height < 0
    capped = (
        column + 8 * south,
        np.where(south, west, n_side - 1 - east),
        np.where(south, east, n_side - 1 - west),
    )
    in_cap = np.abs(height) > 2 / 3
    face = [np.where(in_cap, *both) for both in zip(capped, belt, strict=True)]
    if nest:
        return _nest_of_face(n_side, *face)
    return _pixel_of_ring(n_side, *_ring_of_face(n_side, *face))


def _nest_of_face(n_side: int, face: Whole, x: Whole, y: Whole) -> Whole:
    number: Whole = face * n_side**2 + _spread(x) + 2 * _spread(y)
    return number


def _face_of_nest(n_side: int, pixels: Whole) -> tuple[Whole, Whole, Whole]:
    face, inside = np.divmod(pixels, n_side**2)
    return face, _gathered(inside), _gathered(inside >> 1)


def _spread(numbers: Whole) -> Whole:
    """Put a 0 before every bit."""
    bits = numbers
    masks = [mask for _, mask in _HALVES[-2::-1]] + [_EVEN_BITS]
    for (shift, _), mask in zip(reversed(_HALVES), masks, strict=True):
        bits = (bits | bits << shift) & mask
    return bits


def _gathered(numbers: Whole) -> Whole:
    """Keep every other bit, the lowest first."""
    bits = numbers & _EVEN_BITS
    for shift, mask in _HALVES:
        bits = (bits | bits >> shift) & mask
    return bits
