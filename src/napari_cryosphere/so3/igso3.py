"""The isotropic Gaussian on SO(3), IGSO(3): the density of a rotation that diffuses from the identity.

Of width sigma (radians) it is, relative to the uniform distribution,

    f(w) = sum_l (2 l + 1) exp(-l (l + 1) sigma^2 / 2) sin((l + 1/2) w) / sin(w / 2)

at the angle w from its centre (Nikolayev & Savyolova 1997, Textures and Microstructures 29:201).
For small sigma the three components of the rotation vector are normal with standard deviation
sigma.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.rotations import rotation_from_vector

__all__ = ["igso3_angle_cdf", "igso3_log_density", "sample_igso3"]

# Radians: above it ten terms of the series do, below it two images of the Gaussian.
_SERIES_FROM_RADIANS = 0.6
_ANGLES = 4096  # of the table that is drawn from: 8 sigma in steps of sigma / 512


def igso3_log_density(angle: ArrayLike, sigma: float) -> NDArray[np.float64]:
    """Return the log-density relative to uniform at the angle from the centre.

    ``angle``: ``(...)`` radians in [0, pi]. ``sigma``: width in radians, positive. Returns
    ``(...)`` float64 nats. Raises `ValueError` if the width is not positive.

    For a wide density the series is summed directly. For a narrow one, whose series needs many
    terms that cancel, Poisson's summation turns it into ``sqrt(2 pi) / sigma^3 exp(sigma^2 / 8)
    sum_k (-1)^k (w + 2 pi k) exp(-(w + 2 pi k)^2 / 2 sigma^2) / sin(w / 2)``, of which k = 0 and -1
    count.
    """
    if not sigma > 0:
        raise ValueError(f"the width of an IGSO(3) density must be positive, not {sigma}")
    w = np.clip(np.asarray(angle, dtype=np.float64), 1e-9, np.pi)
    if sigma >= _SERIES_FROM_RADIANS:
        degree = np.arange(int(10 / sigma) + 3)
        terms = (2 * degree + 1) * np.exp(-degree * (degree + 1) * sigma**2 / 2)
        series = np.sin((degree + 0.5) * w[..., None]) @ terms / np.sin(w / 2)
        return np.asarray(np.log(np.maximum(series, 1e-300)))
    # k = -1, which enters with a plus since (w - 2 pi) and (-1)^k are both negative
    image = 2 * np.pi - w
    ratio = image / w * np.exp((w**2 - image**2) / (2 * sigma**2))
    main = np.log(w / np.sin(w / 2)) - w**2 / (2 * sigma**2)
    scale = 0.5 * np.log(2 * np.pi) - 3 * np.log(sigma) + sigma**2 / 8
    return np.asarray(scale + main + np.log1p(ratio))


def igso3_angle_cdf(sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return angles in radians, and the probability of a smaller angle than each, ``(4097,)`` each."""
    reach = min(np.pi, 8 * sigma)
    angle = np.linspace(0, reach, _ANGLES + 1)
    middle = (angle[1:] + angle[:-1]) / 2
    # Haar measure of the angle
    mass = np.exp(igso3_log_density(middle, sigma)) * (1 - np.cos(middle))
    cumulative = np.concatenate([[0.0], np.cumsum(mass)])
    return angle, cumulative / cumulative[-1]


def sample_igso3(number: int, sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw rotations about the identity, ``(number, 3, 3)``; a centre times them is about the centre."""
    angle, cumulative = igso3_angle_cdf(sigma)
    drawn = np.interp(rng.random(number), cumulative, angle)
    axis = rng.normal(size=(number, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    return rotation_from_vector(drawn[:, None] * axis)
