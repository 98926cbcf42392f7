"""A distribution over SO(3) as one picture: the sphere of view directions in Mollweide projection.

Position on the ellipse is the view direction, brightness the logarithm of its density over the uniform
distribution, hue the most probable in-plane angle there. The map from pixel to HEALPix cell is
computed once per image size and order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.healpix import ang2pix
from napari_cryosphere.so3.mollweide import (
    HEIGHT,
    MARGIN,
    WIDTH,
    mollweide_position,
    pixel_directions,
)
from napari_cryosphere.widgets.state.sphere_density import (
    CONTOUR_LEVEL,
    ViewDensity,
    contour_density,
    smoothed_views,
)

__all__ = [
    "HIGHEST",
    "LOWEST",
    "blend_contour",
    "density_colours",
    "draw_contour",
    "draw_cross",
    "draw_diamond",
    "draw_ring",
    "in_plane_colours",
    "paint",
    "rasterise",
    "rasterise_views",
    "view_colours",
]

LOWEST, HIGHEST = 0.1, 1000.0
"""Densities over the uniform one that are darkest and brightest: 1000 is a spot of 2.6 degrees (standard
deviation), the least that a network of degree 6 usually gives."""

_INTERIOR = (38, 40, 46)
_GRATICULE_OPACITY = 0.28
_RIM = (120, 124, 134)
_HUES = 360  # steps of the colour wheel: a degree of the in-plane angle each
_LEVELS = 128  # steps of brightness: 7 per cent of density each
_DARKEST, _BRIGHTEST, _MOST_COLOUR = 0.275, 0.84, 0.13
"""OKLCH lightness at both ends, and chroma at the bright one: what sRGB can show at every hue, nearly."""
_BLACK = (0, 0, 0)
_MOST_OUTLINED = 0.5
"""Share of the sphere: a set that fills more is not outlined, it says little and its border is long."""
_BLUR_PX = 3
"""How far the blur reaches that takes the HEALPix cells, of two pixels, out of contours."""
_BLOCK_PX, _ROOM_PX = 8, 4
"""Side of the squares by which the parts of a contour are told apart (those that are nearer are one), and
what their outlines take around them."""
_LINES = ((1.6, 0.5), (0.6, 1.0))
"""Half the width in pixels, and opacity, of the dark line below a contour and of the contour."""
_COLOURED_FROM, _COLOURED_TO = 0.25, 0.6
"""Brightness between which colour sets in: the uniform density, 0.25, is grey."""


@lru_cache(maxsize=16)
def _lookup(n_side: int, height: int, width: int) -> NDArray[np.int32]:
    """Return, for every pixel, its entry in the palettes that `paint` makes.

    The palette holds each HEALPix cell's colour, then each cell's colour below the graticule (every 30
    degrees of latitude and 60 of longitude), then the rim, then nothing.
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


def _srgb(lightness: ArrayLike, chroma: ArrayLike, hue: ArrayLike) -> NDArray[np.float64]:
    """Return sRGB, ``(..., 3)`` 0-1, of OKLCH (Ottosson 2020); hue in radians."""
    light = np.asarray(lightness, dtype=np.float64)
    a, b = np.asarray(chroma) * np.cos(hue), np.asarray(chroma) * np.sin(hue)
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
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


@lru_cache(maxsize=8)
def in_plane_colours(number: int) -> NDArray[np.float64]:
    """Return a perceptually even wheel of colours for in-plane angles: number p is that of 360 p / number.

    Equal lightness and chroma, so that no angle looks more probable than another. Returns
    ``(number, 3)`` sRGB in 0-1.
    """
    return _srgb(0.78, 0.125, 2 * np.pi * np.arange(number) / number)


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """Return RGBA by brightness and hue, ``(2, levels, hues, 4)``: plain, and below the graticule."""
    level = np.arange(_LEVELS) / (_LEVELS - 1)
    colour = ((level - _COLOURED_FROM) / (_COLOURED_TO - _COLOURED_FROM)).clip(0, 1)
    hue = 2 * np.pi * np.arange(_HUES) / _HUES
    lightness = _DARKEST + (_BRIGHTEST - _DARKEST) * level
    plain = 255 * _srgb(lightness[:, None], _MOST_COLOUR * colour[:, None], hue)
    plain[0] = _INTERIOR
    lined = (1 - _GRATICULE_OPACITY) * plain + _GRATICULE_OPACITY * np.array(_RIM)
    table = np.full((2, _LEVELS, _HUES, 4), 255, dtype=np.uint8)
    table[..., :3] = np.rint([plain, lined])
    return table


def density_colours(density: ArrayLike, psi_radians: ArrayLike = 0.0) -> NDArray[np.uint8]:
    """Return the colours of densities and in-plane angles.

    ``density``: ``(...)``, over the uniform one; 0.1 and less is darkest, 1000 and more brightest.
    ``psi_radians``, ``(...)``: the in-plane angle there. Returns ``(2, ..., 4)`` uint8 RGBA: the
    colours, and the same below the graticule.
    """
    steps = (_LEVELS - 1) / np.log(HIGHEST / LOWEST)
    level = steps * (np.log(np.maximum(density, LOWEST)) - np.log(LOWEST))
    level = np.minimum(level + 0.5, _LEVELS - 1).astype(np.int32)
    hue = (np.asarray(psi_radians) * (_HUES / (2 * np.pi)) + (_HUES + 0.5)).astype(np.int32) % _HUES
    table = _table().reshape(2, -1, 4).view(np.uint32)[..., 0]
    found = np.stack([colours.take(level * _HUES + hue) for colours in table])
    return found[..., None].view(np.uint8)


def view_colours(views: ViewDensity) -> NDArray[np.uint8]:
    """Return the colours of a density's views, ``(12 * 4**order, 3)`` sRGB 0-255."""
    return density_colours(views.density, views.psi_radians)[0, :, :3]


def rasterise(
    probability: ArrayLike, height: int = HEIGHT, width: int = WIDTH
) -> NDArray[np.uint8]:
    """Draw one distribution.

    ``probability``, ``(n_views, n_psi)``: probability of every cell of a HEALPix x S1 grid, RING
    order. ``height``, ``width``: size of the picture in pixels. Returns ``(height, width, 4)``
    uint8 RGBA, see `paint`. Raises `ValueError` if the shape is not that of a grid.
    """
    return paint(smoothed_views(probability), height, width)


def paint(
    views: ViewDensity,
    height: int = HEIGHT,
    width: int = WIDTH,
    rim: tuple[int, int, int] | None = None,
) -> NDArray[np.uint8]:
    """Draw a density of views, ``(height, width, 4)`` uint8 RGBA; the rim is grey without a colour.

    Brightness follows the logarithm of the density over the uniform one, on the same scale for all
    particles; hue is RELION's psi where it is most probable.
    """
    return _paint(density_colours(views.density, views.psi_radians), height, width, rim or _RIM)


def rasterise_views(
    colours: ArrayLike, height: int = HEIGHT, width: int = WIDTH
) -> NDArray[np.uint8]:
    """Draw a map of the sphere with a colour for each view direction.

    ``colours``: ``(n_views, 3)`` sRGB, 0-255; HEALPix pixels in RING order. ``height``, ``width``:
    size of the picture in pixels. Returns ``(height, width, 4)`` uint8 RGBA, the graticule shining
    through.
    """
    given = np.asarray(colours, dtype=np.float64)
    both = np.full((2, len(given), 4), 255, dtype=np.uint8)
    both[0, :, :3], both[1, :, :3] = given, 0.7 * given + 0.3 * _RIM[0]
    return _paint(both, height, width)


def _paint(
    colours: NDArray[np.uint8], height: int, width: int, rim: tuple[int, int, int] = _RIM
) -> NDArray[np.uint8]:
    """Draw views by their colours, ``(2, n_views, 4)``, plain and below the graticule."""
    n_views = colours.shape[1]
    palette = np.zeros((2 * n_views + 2, 4), dtype=np.uint8)
    palette[:-2] = colours.reshape(-1, 4)
    palette[-2] = (*rim, 255)
    entries = _lookup(round((n_views / 12) ** 0.5), height, width)
    drawn = palette.view(np.uint32)[:, 0].take(entries, mode="clip")
    return drawn.view(np.uint8).reshape(height, width, 4)


# ---------------------------------------------------------------------- contours


def draw_contour(
    picture: NDArray[np.uint8],
    views: ViewDensity,
    level: float = CONTOUR_LEVEL,
    colour: ArrayLike = (255, 255, 255),
) -> None:
    """Outline the smallest set of view directions that holds the truth with a probability, in place.

    - ``picture``: ``(height, width, 4)`` uint8, as `paint` draws it.
    - ``views``: the density.
    - ``level``: the probability that the set holds.
    - ``colour``: sRGB, 0-255.
    """
    border = contour_density(views.density, level)
    height, width = picture.shape[:2]
    n_views = len(views.density)
    chosen = views.density > border
    if not 0 < chosen.mean() < _MOST_OUTLINED:
        return
    entries = _lookup(views.n_side, height, width)
    inside = np.concatenate([chosen, chosen, [False, False]]).take(entries, mode="clip")
    nats = np.log(np.maximum(views.density, 1e-3 * border) / border)
    padded = np.concatenate([nats, nats, np.zeros(2, nats.dtype)])
    free = entries < 2 * n_views  # neither the rim nor outside
    for place in _spots(inside):
        around = [
            np.arange(side.start - _BLUR_PX, side.stop + _BLUR_PX).clip(0, size - 1)
            for side, size in zip(place, entries.shape, strict=True)
        ]
        blend_contour(
            picture[place], _blurred(padded[entries[np.ix_(*around)]]), colour, free[place]
        )
        free[place] = False  # boxes of parts that reach around each other overlap


def _spots(inside: NDArray[np.bool_]) -> list[tuple[slice, ...]]:
    """Return boxes around the separate parts of a set of pixels, with room for their outlines."""
    from scipy.ndimage import find_objects, label

    starts = [np.arange(0, size, _BLOCK_PX) for size in inside.shape]
    blocks = np.logical_or.reduceat(np.logical_or.reduceat(inside, starts[0]), starts[1], axis=1)
    return [
        tuple(
            slice(
                max(_BLOCK_PX * side.start - _ROOM_PX, 0),
                min(_BLOCK_PX * side.stop + _ROOM_PX, size),
            )
            for side, size in zip(box, inside.shape, strict=True)
        )
        for box in find_objects(label(blocks, np.ones((3, 3)))[0])
    ]


def _blurred(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average with binomial weights, nearly a Gaussian of 1.2 pixels; three pixels go on every side."""
    for _ in range(2 * _BLUR_PX):
        field = field[:-1] + field[1:]
        field = field[:, :-1] + field[:, 1:]
    return field / np.float32(4 ** (2 * _BLUR_PX))


def blend_contour(
    picture: NDArray[np.uint8],
    field: NDArray[np.floating[Any]],
    colour: ArrayLike,
    where: NDArray[np.bool_] | bool = True,
) -> None:
    """Draw a thin line where a smooth field ``(height, width)`` is 0, over a picture, in place.

    ``where`` says which pixels may be drawn on.
    """
    down, across = np.gradient(field)
    steep = np.maximum(down * down + across * across, 1e-12)
    widest = _LINES[0][0] + 0.5
    drawn = where & (field * field < widest**2 * steep)
    off = np.abs(field[drawn]) / np.sqrt(steep[drawn])
    part = picture[drawn].astype(np.float32)
    for (half, most), paint_with in zip(_LINES, (_BLACK, colour), strict=True):
        cover = most * (half + 0.5 - off).clip(0, 1)[..., None]
        part[..., :3] = (1 - cover) * part[..., :3] + cover * np.asarray(paint_with)
    picture[drawn] = np.rint(part)


# ---------------------------------------------------------------------- marks

_GAP = 0.45
"""Half of each of a ring's four gaps in radians: wide enough for the ticks of a cross."""


def draw_ring(
    picture: NDArray[np.uint8],
    direction: ArrayLike,
    colour: ArrayLike = (255, 255, 255),
    radius: float = 8.0,
    whole: bool = False,
) -> tuple[float, float]:
    """Mark a view direction with a ring around it (the predicted pose), in place.

    ``picture`` is ``(height, width, 4)``, ``direction`` ``(3,)`` in the map's frame, ``colour``
    ``(3,)``, ``radius`` in pixels. The ring is open at four places, unless it is to be ``whole``.
    Returns row and column of the direction, as the other marks do.
    """
    return _stamp(picture, _stencil("whole" if whole else "ring", radius), direction, colour)


def draw_cross(
    picture: NDArray[np.uint8],
    direction: ArrayLike,
    colour: ArrayLike = (255, 255, 255),
    radius: float = 8.0,
) -> tuple[float, float]:
    """Mark a view direction with four ticks around it (the known pose), in place.

    Parameters are those of `draw_ring`; the ticks stand across a ring of that radius, and leave the
    middle free.
    """
    return _stamp(picture, _stencil("cross", radius), direction, colour)


def draw_diamond(
    picture: NDArray[np.uint8],
    direction: ArrayLike,
    colour: ArrayLike = (255, 255, 255),
    radius: float = 8.0,
) -> tuple[float, float]:
    """Mark a view direction with the four corners of a diamond (the refined pose), in place.

    Parameters are those of `draw_ring`; the diamond goes around a ring of that radius.
    """
    return _stamp(picture, _stencil("diamond", radius), direction, colour)


@lru_cache(maxsize=32)
def _stencil(
    shape: str, radius: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return where a mark is drawn, ``(k, 2)`` rows and columns from its middle, and opacities ``(k, 1)``.

    The first opacity is that of the mark, the second that of the dark line below it.
    """
    reach = int(1.6 * radius) + 4
    axis = np.arange(-reach, reach + 1)
    x, y = np.abs(axis[None]), np.abs(axis[:, None])
    along, across = np.maximum(x, y), np.minimum(x, y)
    distance = np.hypot(x, y)
    if shape in ("ring", "whole"):
        off = np.abs(distance - radius)
        if shape == "ring":
            off = np.where(np.arctan2(across, along) < _GAP, np.inf, off)
    elif shape == "cross":
        off = np.hypot(across, np.maximum(np.abs(along - 1.1 * radius) - 0.22 * radius, 0))
    else:
        size = 1.5 * radius
        off = np.hypot((x + y - size) / np.sqrt(2), np.maximum(across - 0.3 * radius, 0))
    half = max(0.55, 0.055 * radius)
    light = (half + 0.5 - off).clip(0, 1)
    dark = 0.75 * (half + 1.5 - off).clip(0, 1)
    drawn = dark > 0
    return np.argwhere(drawn) - reach, light[drawn][:, None], dark[drawn][:, None]


def _stamp(
    picture: NDArray[np.uint8],
    stencil: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]],
    direction: ArrayLike,
    colour: ArrayLike,
) -> tuple[float, float]:
    """Blend a mark, centred on a view direction, into the picture in place; clipped at the border.

    Returns row and column of the direction.
    """
    offsets, light, dark = stencil
    place = mollweide_position(direction, *picture.shape[:2])
    at = offsets + np.rint(place).astype(int)
    inside = ((at >= 0) & (at < picture.shape[:2])).all(1)
    rows, columns = at[inside].T
    part = picture[rows, columns].astype(np.float64)
    for opacity, paint_with in ((dark[inside], _BLACK), (light[inside], colour)):
        part[:, :3] = (1 - opacity) * part[:, :3] + opacity * np.asarray(paint_with)
        part[:, 3:] = np.maximum(part[:, 3:], 255 * opacity)
    picture[rows, columns] = np.rint(part)
    return float(place[0]), float(place[1])
