"""A distribution over SO(3) as one picture: the sphere of view directions in Mollweide projection.

Position on the ellipse is the view direction, lightness its probability, hue the most probable
in-plane angle there. The map from pixel to HEALPix cell is computed once per image size and order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.healpix import ang2pix
from napari_cryosphere.so3.mollweide import (
    HEIGHT,
    MARGIN,
    WIDTH,
    mollweide_position,
    pixel_directions,
)

__all__ = [
    "draw_cross",
    "draw_diamond",
    "draw_outline",
    "draw_ring",
    "in_plane_colours",
    "rasterise",
    "rasterise_views",
    "view_colours",
]

_INTERIOR = (38, 40, 46)
_GRATICULE = (62, 65, 74)
_RIM = (120, 124, 134)
_HUES = 720  # steps of the colour wheel: half a degree of the in-plane angle each


@lru_cache(maxsize=16)
def _lookup(n_side: int, height: int, width: int) -> NDArray[np.int32]:
    """Return, for every pixel, its entry in the palette that `rasterise` makes.

    The palette holds each HEALPix cell's colour on the grey interior, then each cell's colour on
    the graticule (every 30 degrees of latitude and 60 of longitude), then the rim, then nothing.
    """
    inside, polar, longitude = pixel_directions(height, width)
    cells = ang2pix(n_side, polar, longitude).astype(np.int32)
    n_views = 12 * n_side**2
    pixel = np.pi / height
    parallel = np.abs((polar / np.radians(30) + 0.5) % 1 - 0.5) * np.radians(30)
    meridian = np.abs((longitude / np.radians(60) + 0.5) % 1 - 0.5) * np.radians(60) * np.sin(polar)
    cells[np.minimum(parallel, meridian) < 0.6 * pixel] += n_views
    entries = np.full((height, width), 2 * n_views + 1, dtype=np.int32)
    entries[inside] = cells
    row, column = np.mgrid[:height, :width]
    up = ((height - 1) / 2 - row) / (MARGIN * height / 2)
    across = (column - (width - 1) / 2) / (MARGIN * width / 2)
    entries[np.abs(np.hypot(up, across) - 1) < 1.6 / height] = 2 * n_views
    return entries


@lru_cache(maxsize=8)
def _psi_steps(order: int) -> NDArray[np.float64]:
    """Return RELION's psi at in-plane index 0 of every view, ``(n_views,)``, in steps of the colour wheel."""
    grid = SO3Grid(order)
    return (grid.psi_offsets() + grid.psi_angles()[0]) / (2 * np.pi) * _HUES


@lru_cache(maxsize=8)
def in_plane_colours(number: int) -> NDArray[np.float64]:
    """Return a perceptually even wheel of colours for in-plane angles: number p is that of 360 p / number.

    Equal lightness and chroma in OKLCH (Ottosson 2020), so that no angle looks more probable than
    another.

    Returns
    -------
    ``(number, 3)`` sRGB in 0-1.
    """
    hue = 2 * np.pi * np.arange(number) / number
    lightness, chroma = 0.78, 0.125
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    return np.asarray(
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    )


def _weights_and_hues(probability: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return views' lightness ``(n_views, 1)``, 0-1, and colour ``(n_views, 3)`` by their angle, 0-255."""
    cells = np.asarray(probability)
    grid = SO3Grid((cells.shape[1] // 6).bit_length() - 1)
    if cells.shape != (grid.n_views, grid.n_psi):
        raise ValueError(
            f"probabilities must be (n_views, n_psi) on a HEALPix x S1 grid, not {cells.shape}"
        )
    marginal = cells.sum(1)
    weight = np.sqrt(marginal / max(float(marginal.max()), 1e-30))[:, None]
    steps = (
        np.rint(_psi_steps(grid.order) + cells.argmax(1) * (_HUES / grid.n_psi)).astype(np.int64)
        % _HUES
    )
    return weight, in_plane_colours(_HUES)[steps] * 255


def view_colours(probability: ArrayLike) -> NDArray[np.float64]:
    """Return the colours that `rasterise` gives to the views, ``(n_views, 3)`` sRGB, 0-255.

    Parameters
    ----------
    probability
        As of `rasterise`.

    Raises
    ------
    ValueError
        If the shape is not that of a grid.
    """
    weight, hues = _weights_and_hues(probability)
    return np.asarray(weight * hues + (1 - weight) * _INTERIOR)


def rasterise(
    probability: ArrayLike, height: int = HEIGHT, width: int = WIDTH
) -> NDArray[np.uint8]:
    """Draw one distribution.

    Parameters
    ----------
    probability
        ``(n_views, n_psi)``: probability of every cell of a HEALPix x S1 grid, RING order.
    height, width
        Size of the picture in pixels.

    Returns
    -------
    ``(height, width, 4)`` uint8 RGBA. Lightness follows the square root of the view's probability,
    the brightest view being full; hue is RELION's psi where it is most probable.

    Raises
    ------
    ValueError
        If the shape is not that of a grid.
    """
    weight, hues = _weights_and_hues(probability)
    n_views, colours = len(weight), weight * hues
    palette = np.zeros((2 * n_views + 2, 4), dtype=np.uint8)
    palette[:-1, 3] = 255
    palette[:n_views, :3] = colours + (1 - weight) * _INTERIOR
    palette[n_views:-2, :3] = colours + (1 - weight) * _GRATICULE
    palette[-2, :3] = _RIM
    entries = _lookup(round((n_views / 12) ** 0.5), height, width)
    return palette.view(np.uint32)[:, 0][entries].view(np.uint8).reshape(height, width, 4)


def rasterise_views(
    colours: ArrayLike, height: int = HEIGHT, width: int = WIDTH
) -> NDArray[np.uint8]:
    """Draw a map of the sphere with a colour for each view direction.

    Parameters
    ----------
    colours
        ``(n_views, 3)`` sRGB, 0-255; HEALPix pixels in RING order.
    height, width
        Size of the picture in pixels.

    Returns
    -------
    ``(height, width, 4)`` uint8 RGBA, the graticule shining through.
    """
    given = np.asarray(colours, dtype=np.float64)
    n_views = len(given)
    palette = np.zeros((2 * n_views + 2, 4), dtype=np.uint8)
    palette[:-1, 3] = 255
    palette[:n_views, :3] = given
    palette[n_views:-2, :3] = 0.7 * given + 0.3 * _RIM[0]
    palette[-2, :3] = _RIM
    entries = _lookup(round((n_views / 12) ** 0.5), height, width)
    return palette.view(np.uint32)[:, 0][entries].view(np.uint8).reshape(height, width, 4)


def _stamp(
    picture: NDArray[np.uint8], stencil: NDArray[np.bool_], direction: ArrayLike, colour: ArrayLike
) -> None:
    """Paint a stencil, centred on a view direction, into the picture in place; clipped at the border."""
    height, width = picture.shape[:2]
    row, column = np.rint(mollweide_position(direction, height, width)).astype(int)
    offsets = np.argwhere(stencil) - np.array(stencil.shape) // 2
    rows, columns = offsets.T + np.array([[row], [column]])
    keep = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    picture[rows[keep], columns[keep], :3] = np.asarray(colour, dtype=np.uint8)
    picture[rows[keep], columns[keep], 3] = 255


def _outlined(stencil: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grow a stencil by one pixel on every side, for a dark outline that shows on any colour."""
    grown = np.zeros_like(stencil)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            grown |= np.roll(stencil, (down, right), axis=(0, 1))
    return grown


def draw_cross(
    picture: NDArray[np.uint8],
    direction: ArrayLike,
    colour: ArrayLike = (255, 255, 255),
    radius: float = 4.0,
) -> None:
    """Mark a view direction with a cross (the true pose, where known), in place; ``radius`` in pixels.

    ``picture`` is ``(height, width, 3)``, ``direction`` ``(3,)`` in the map's frame, ``colour``
    ``(3,)``.
    """
    axis = np.arange(-int(radius) - 2, int(radius) + 3)
    reach, thin = np.abs(axis) <= radius, np.abs(axis) <= radius / 8
    stencil = (thin[:, None] & reach[None]) | (thin[None] & reach[:, None])
    _stamp(picture, _outlined(stencil), direction, (0, 0, 0))
    _stamp(picture, stencil, direction, colour)


def draw_diamond(
    picture: NDArray[np.uint8],
    direction: ArrayLike,
    colour: ArrayLike = (255, 255, 255),
    radius: float = 5.0,
) -> None:
    """Mark a view direction with a diamond (the refined pose), in place; ``radius`` in pixels.

    ``picture`` is ``(height, width, 3)``, ``direction`` ``(3,)`` in the map's frame, ``colour``
    ``(3,)``.
    """
    axis = np.arange(-int(radius) - 3, int(radius) + 4)
    half_width = max(1.0, 0.16 * radius)
    stencil = np.abs(np.abs(axis[:, None]) + np.abs(axis[None]) - radius) < half_width
    _stamp(picture, _outlined(stencil), direction, (0, 0, 0))
    _stamp(picture, stencil, direction, colour)


def draw_outline(
    picture: NDArray[np.uint8],
    marginal: ArrayLike,
    level: float = 0.95,
    colour: ArrayLike = (255, 255, 255),
) -> None:
    """Outline the smallest set of view directions that holds the truth with a probability, in place.

    Parameters
    ----------
    picture
        ``(height, width, 4)`` uint8, as `rasterise` draws it.
    marginal
        ``(n_views,)``: probability of every view direction, a HEALPix map in RING order.
    level
        The probability that the set holds.
    colour
        sRGB, 0-255.
    """
    views = np.asarray(marginal, dtype=np.float64)
    order = np.argsort(-views)
    before = np.cumsum(views[order]) - views[order]
    chosen = np.zeros(2 * len(views) + 2, dtype=bool)
    chosen[order[before < level * views.sum()]] = True
    chosen[len(views) : -2] = chosen[: len(views)]
    height, width = picture.shape[:2]
    inside = chosen[_lookup(round((len(views) / 12) ** 0.5), height, width)]
    line = _outlined(inside) & ~inside
    picture[_outlined(line), :3] = 0
    picture[_outlined(line), 3] = 255
    picture[line, :3] = np.asarray(colour, dtype=np.uint8)


def draw_ring(
    picture: NDArray[np.uint8],
    direction: ArrayLike,
    colour: ArrayLike = (255, 255, 255),
    radius: float = 6.0,
) -> None:
    """Mark a view direction with a ring (the predicted pose), in place; ``radius`` in pixels.

    ``picture`` is ``(height, width, 3)``, ``direction`` ``(3,)`` in the map's frame, ``colour``
    ``(3,)``.
    """
    axis = np.arange(-int(radius) - 3, int(radius) + 4)
    half_width = max(0.8, 0.13 * radius)
    stencil = np.abs(np.hypot(axis[:, None], axis[None]) - radius) < half_width
    _stamp(picture, _outlined(stencil), direction, (0, 0, 0))
    _stamp(picture, stencil, direction, colour)
