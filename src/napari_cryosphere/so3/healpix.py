"""HEALPix pixel arithmetic: healpy, or astropy-healpix where healpy has no build (Windows).

Gorski et al. (2005), ApJ 622:759. The rest of the package imports these names and knows neither library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    import healpy as _healpix
except ImportError:
    from astropy_healpix import healpy as _healpix

__all__ = ["ang2pix", "nest2ring", "pix2ang", "pix2vec", "pixel_neighbours", "ring2nest", "vec2pix"]

pix2ang = _healpix.pix2ang
ang2pix = _healpix.ang2pix
vec2pix = _healpix.vec2pix
ring2nest = _healpix.ring2nest
nest2ring = _healpix.nest2ring


def pix2vec(n_side: int, pixels: ArrayLike, nest: bool = False) -> NDArray[np.float64]:
    """Return the unit vectors of pixel centres, ``(..., 3)``."""
    return np.stack(_healpix.pix2vec(n_side, np.asarray(pixels), nest=nest), axis=-1)


def pixel_neighbours(n_side: int, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the eight neighbours of RING pixels, ``(8, ...)``; -1 where a pixel has but seven or six."""
    if hasattr(_healpix, "get_all_neighbours"):
        return np.asarray(_healpix.get_all_neighbours(n_side, pixels))
    import astropy_healpix

    found: Any = astropy_healpix.neighbours(pixels, n_side, order="ring")
    return np.asarray(found)
