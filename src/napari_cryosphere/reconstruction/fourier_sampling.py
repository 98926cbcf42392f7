"""How evenly a set of views samples Fourier space: one number for preferred orientation.

A view d fills the central plane perpendicular to it, so that a direction q of Fourier space is
sampled by the views on the great circle around q: the sampling S(q) is the mean density of views on
that circle (their Funk transform), 1 everywhere for even views. How strongly a view counts does not
depend on its sign.

The signal-to-noise ratio of a shell falls, against even views, by the harmonic mean of the sampling
over directions, the sampling compensation factor: ``1 / SCF = mean of 1 / S`` (Baldwin and Lyumkis,
Prog. Biophys. Mol. Biol. 150:160, 2020). It is 1 for even views, 8 / pi^2 = 0.81 for even side
views, and 0 where a direction is never seen.

Circles are a spacing of the grid to either side of the great one wide (weights 1/4, 1/2, 1/4), so
that a few hundred particles leave no directions unseen by mere chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.healpix import pix2vec, vec2pix

__all__ = ["FourierSampling", "fourier_sampling"]

Array = NDArray[np.float64]

_WEAK = 0.1  # of even sampling: directions that are hardly seen
_STEPS_PER_SPACING = 3  # points on a circle for each spacing of the grid
_CIRCLES = (-1, 0, 0, 1)  # circles, in spacings from the great one; it counts twice


@dataclass(frozen=True)
class FourierSampling:
    """How the directions of Fourier space are sampled.

    ``sampling``, ``(n_views,)``: S of every HEALPix direction in RING order; 1 is even.
    """

    sampling: Array

    @property
    def compensation_factor(self) -> float:
        """The sampling compensation factor in [0, 1]: 1 for even views."""
        return 0.0 if (self.sampling <= 0).any() else float(1 / np.mean(1 / self.sampling))

    @property
    def weak_fraction(self) -> float:
        """Fraction of the directions with less than a tenth of even sampling, in [0, 1]."""
        return float(np.mean(self.sampling < _WEAK))


def fourier_sampling(view_probability: ArrayLike) -> FourierSampling:
    """Return how views sample Fourier space.

    ``view_probability``, ``(n_views,)``: a HEALPix map in RING order of where views fall, such as
    the mean of `PoseDistribution.view_map` over particles; need not sum to 1. With a symmetry it
    must hold the equivalents too. Raises `ValueError` if it is not a HEALPix map of a grid's size,
    has negative values or sums to zero.
    """
    views = np.asarray(view_probability, dtype=np.float64)
    order = _order_of(views)
    total = views.sum()
    if not (views >= 0).all() or not total > 0:
        raise ValueError(
            "the probabilities of views must not be negative, and some must be positive"
        )
    density = views * (len(views) / total)
    return FourierSampling(density[_great_circles(order)].mean(axis=1))


def _order_of(views: Array) -> int:
    order = round(np.log2(max(len(views) / 12, 1)) / 2)
    if views.ndim != 1 or len(views) != SO3Grid(order).n_views:
        raise ValueError(
            f"views must be a HEALPix map of 12 * 4**k pixels, not of shape {views.shape}"
        )
    return order


@lru_cache(maxsize=4)
def _great_circles(order: int) -> NDArray[np.int32]:
    """Return the pixels on the circles around each direction, evenly spaced, ``(n_views, k)``."""
    grid = SO3Grid(order)
    axes = pix2vec(grid.n_side, np.arange(grid.n_views))
    helper = np.where(np.abs(axes[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(axes, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(axes, first)
    number = round(_STEPS_PER_SPACING * 360 / grid.spacing_degrees)
    angle = 2 * np.pi * (np.arange(number) + 0.5) / number
    # (k, n_views, 3)
    circle = np.cos(angle)[:, None, None] * first + np.sin(angle)[:, None, None] * second
    offsets = np.radians(np.multiply(_CIRCLES, grid.spacing_degrees))
    points = np.concatenate([np.cos(off) * circle + np.sin(off) * axes for off in offsets])
    pixels = vec2pix(grid.n_side, points[..., 0], points[..., 1], points[..., 2])
    return np.ascontiguousarray(pixels.T.astype(np.int32))
