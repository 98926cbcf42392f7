"""HEALPix pixel arithmetic, by hpgeom; the rest of the package imports these names and not the library.

Gorski et al. (2005), ApJ 622:759. healpy computes the same, but brings astropy and matplotlib
along, which take longer to import than a thousand particles to align; the tests compare with it.
"""

from __future__ import annotations

from typing import TypeAlias

import hpgeom
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ang2pix", "nest2ring", "pix2ang", "pix2vec", "pixel_neighbours", "ring2nest", "vec2pix"]

Whole: TypeAlias = NDArray[np.int64]
Real: TypeAlias = NDArray[np.float64]


def pix2ang(n_side: int, pixels: ArrayLike, nest: bool = False) -> tuple[Real, Real]:
    """Return tilt and rot of pixel centres in radians, two arrays of the pixels' shape."""
    tilt, rot = hpgeom.pixel_to_angle(n_side, pixels, nest=nest, lonlat=False)
    return np.asarray(tilt), np.asarray(rot)


def pix2vec(n_side: int, pixels: ArrayLike, nest: bool = False) -> Real:
    """Return the unit vectors of pixel centres, ``(..., 3)``."""
    return np.stack(hpgeom.pixel_to_vector(n_side, pixels, nest=nest), axis=-1)


def ang2pix(n_side: int, tilt: ArrayLike, rot: ArrayLike, nest: bool = False) -> Whole:
    """Return the pixels that hold directions of given tilt and rot, ``(...)`` radians; any rot will do."""
    around = np.asarray(rot, dtype=np.float64) % (2 * np.pi)
    return np.asarray(hpgeom.angle_to_pixel(n_side, tilt, around, nest=nest, lonlat=False))


def vec2pix(n_side: int, x: ArrayLike, y: ArrayLike, z: ArrayLike, nest: bool = False) -> Whole:
    """Return the pixels that hold directions, ``(...)``; vectors of any length."""
    return np.asarray(hpgeom.vector_to_pixel(n_side, x, y, z, nest=nest))


def ring2nest(n_side: int, pixels: ArrayLike) -> Whole:
    """Return the NESTED numbers of RING pixels; ``(...)`` to ``(...)``."""
    return np.asarray(hpgeom.ring_to_nest(n_side, pixels))


def nest2ring(n_side: int, pixels: ArrayLike) -> Whole:
    """Return the RING numbers of NESTED pixels; ``(...)`` to ``(...)``."""
    return np.asarray(hpgeom.nest_to_ring(n_side, pixels))


def pixel_neighbours(n_side: int, pixels: ArrayLike) -> Whole:
    """Return the eight neighbours of ``(k,)`` RING pixels, ``(8, k)``; -1 where there is none."""
    return np.asarray(hpgeom.neighbors(n_side, pixels, nest=False)).T
