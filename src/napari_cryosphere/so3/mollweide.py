"""The sphere of view directions in Mollweide projection: places in a picture, and back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere._html import picture
from napari_cryosphere.so3.healpix import ang2pix

__all__ = [
    "HEIGHT",
    "MARGIN",
    "WIDTH",
    "direction_at",
    "mollweide_position",
    "pixel_directions",
    "view_sphere",
]

HEIGHT, WIDTH = 128, 256
"""Default size of a picture, in pixels."""

MARGIN = 0.97
"""Half-axes of the ellipse as a fraction of half the picture, so that the rim is inside."""


def mollweide_position(
    directions: ArrayLike, height: int = HEIGHT, width: int = WIDTH
) -> NDArray[np.float64]:
    """Return where view directions fall in the picture.

    ``directions``: ``(..., 3)`` unit vectors in the map frame; +z is up, +x in the middle, +y to
    the left of it, as on a sky map (healpy's default). ``height``, ``width``: size of the picture
    in pixels. Returns ``(..., 2)`` float64: row and column.
    """
    x, y, z = np.moveaxis(np.asarray(directions, dtype=np.float64), -1, 0)
    latitude = np.arcsin(np.clip(z, -1, 1))
    theta = latitude.copy()
    for _ in range(20):  # Newton's iteration for 2 theta + sin 2 theta = pi sin latitude
        slope = 2 + 2 * np.cos(2 * theta)
        step = (2 * theta + np.sin(2 * theta) - np.pi * np.sin(latitude)) / np.maximum(slope, 1e-9)
        theta = np.clip(theta - step, -np.pi / 2, np.pi / 2)
    across = -np.arctan2(y, x) / np.pi * np.cos(theta)
    row = (height - 1) / 2 - np.sin(theta) * MARGIN * height / 2
    column = (width - 1) / 2 + across * MARGIN * width / 2
    return np.stack([row, column], axis=-1)


def direction_at(
    row: float, column: float, height: int = HEIGHT, width: int = WIDTH
) -> NDArray[np.float64] | None:
    """Return the view direction at a place in the picture; the inverse of `mollweide_position`.

    ``row``, ``column``: the place, in pixels. ``height``, ``width``: size of the picture in pixels.
    Returns ``(3,)`` unit vector in the map frame, or None outside the ellipse.
    """
    up = ((height - 1) / 2 - row) / (MARGIN * height / 2)
    across = (column - (width - 1) / 2) / (MARGIN * width / 2)
    if up**2 + across**2 > 1:
        return None
    theta = np.arcsin(up)
    sine = np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1)
    longitude = -np.pi * across / max(np.cos(theta), 1e-9)
    cosine = np.sqrt(1 - sine**2)
    return np.array([cosine * np.cos(longitude), cosine * np.sin(longitude), sine])


@lru_cache(maxsize=8)
def pixel_directions(
    height: int, width: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return the view direction of every pixel of a picture.

    ``height``, ``width``: size of the picture in pixels. Returns which pixels lie inside the
    ellipse, ``(height, width)``, and polar angle and longitude of those that do, ``(n_inside,)``
    each, in radians.
    """
    row, column = np.mgrid[:height, :width]
    up = ((height - 1) / 2 - row) / (MARGIN * height / 2)
    across = (column - (width - 1) / 2) / (MARGIN * width / 2)
    inside = up**2 + across**2 <= 1
    theta = np.arcsin(np.clip(up, -1, 1))
    latitude = np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1))
    longitude = -np.pi * across / np.maximum(np.cos(theta), 1e-9)
    return inside, np.pi / 2 - latitude[inside], longitude[inside]


def view_sphere(views: ArrayLike, width: int, label: str) -> str:
    """Return an ``<img>`` of a HEALPix map of views in RING order, the square root of its values in grey.

    ``views``: ``(12 * 4**order,)``, not negative. ``width``: of the picture, pixels; it is half as
    high. ``label``: what it shows.
    """
    values = np.asarray(views, dtype=np.float64)
    inside, polar, longitude = pixel_directions(width // 2, width)
    pixels = ang2pix(round((len(values) / 12) ** 0.5), polar, longitude)
    shown = np.zeros((width // 2, width, 4), dtype=np.uint8)
    shown[inside, :3] = (255 * np.sqrt(values[pixels] / values.max()))[:, None]
    shown[inside, 3] = 255
    return picture(shown, width, label)
