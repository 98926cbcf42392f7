"""What stands on every sphere: angles along the graticule, the scale of brightness, the wheel of hues.

Drawn once per size of picture, with Pillow, which napari brings along, and blended into each picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.so3.mollweide import mollweide_position
from napari_cryosphere.widgets.state.sphere_picture import (
    HIGHEST,
    LOWEST,
    density_colours,
    in_plane_colours,
)

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = ["TEXT", "add_frame", "write_above"]

TEXT = (116, 120, 128)
"""Legible on napari's black canvas and on the white one: contrasts of 4.7 and 4.4, letters made thicker."""
_INSIDE = (172, 176, 184)
"""Of what stands on the sphere, which is dark in both themes."""
_THICKER = 0.5  # pixels, by which Pillow's thin letters are written a second time
_FONT_PIXELS, _SMALL_PIXELS, _LARGE_PIXELS = 14, 12, 20
_BAR_LEFT, _BAR_WIDTH, _BAR_HEIGHT = 4, 128, 9
_BAR_UP = 29  # pixels from the bottom to the bar
_WHEEL_RADIUS, _WHEEL_THICKNESS = 18, 8
_WHEEL_IN, _WHEEL_UP = (
    46,
    26,
)  # pixels from the right and the bottom to the wheel's centre: clear of the rim
_TICKS = {0.1: "0.1", 1.0: "1", 10.0: "10", 100.0: "100", 1000.0: "1000"}


@dataclass(frozen=True, eq=False)
class _Piece:
    """Pixels that are drawn on, ``(n,)``, their opacity ``(n, 1)``, what is added ``(n, 4)``, and where."""

    places: NDArray[np.int64]
    opacity: NDArray[np.float32]
    premultiplied: NDArray[np.float32]
    box: tuple[int, int, int, int] | None
    """Top, left, bottom and right of a label that gives way to marks; None of what stays."""


def add_frame(
    picture: NDArray[np.uint8], marked: Sequence[tuple[float, float]] = (), radius: float = 0.0
) -> None:
    """Blend labels and scales into a large picture, ``(height, width, 4)`` uint8, in place.

    Labels on the sphere give way to marks: they are left out within a ``radius`` in pixels of rows and
    columns that are ``marked``.
    """
    flat = picture.reshape(-1, 4)
    whole, *pieces = _frame(*picture.shape[:2])
    hidden = [
        piece
        for piece in pieces
        if piece.box is not None and any(_meets(piece.box, *place, radius) for place in marked)
    ]
    for piece in [one for one in pieces if one not in hidden] if hidden else [whole]:
        _blend(flat, piece)


def write_above(picture: NDArray[np.uint8], text: str, colour: tuple[int, int, int]) -> None:
    """Write a few words in a colour, sRGB 0-255, into the upper left corner of a large picture, in place."""
    _blend(picture.reshape(-1, 4), _words(*picture.shape[:2], text, colour))


def _blend(flat: NDArray[np.uint8], piece: _Piece) -> None:
    flat[piece.places] = flat[piece.places] * (1 - piece.opacity) + piece.premultiplied


@lru_cache(maxsize=256)
def _words(height: int, width: int, text: str, colour: tuple[int, int, int]) -> _Piece:
    def write(draw: ImageDraw) -> None:
        _write(draw, 4, 4, text, "lt", _LARGE_PIXELS, colour)

    return _piece(write, height, width, False)


def _meets(box: tuple[int, int, int, int], row: float, column: float, radius: float) -> bool:
    """Return whether a label is within a distance of a place."""
    top, left, bottom, right = box
    down = max(top - row, row - bottom, 0)
    across = max(left - column, column - right, 0)
    return bool(down**2 + across**2 < radius**2)


@lru_cache(maxsize=4)
def _frame(height: int, width: int) -> tuple[_Piece, ...]:
    """Return all that is drawn as one piece, then its parts: the scales, and each label on the sphere."""

    def scales(draw: ImageDraw) -> None:
        _draw_bar(draw, height)
        _draw_wheel(draw, height, width)

    labels = [partial(_write_angle, at=at, text=text) for at, text in _angles(height, width)]
    pieces = [_piece(scales, height, width, False)]
    pieces += [_piece(label, height, width, True) for label in labels]
    places = np.concatenate([one.places for one in pieces])
    opacity = np.concatenate([one.opacity for one in pieces])
    premultiplied = np.concatenate([one.premultiplied for one in pieces])
    return (_Piece(places, opacity, premultiplied, None), *pieces)


def _piece(paint: Callable[[ImageDraw], None], height: int, width: int, gives_way: bool) -> _Piece:
    """Draw a part of the frame by itself."""
    from PIL import Image, ImageDraw

    image = Image.new("RGBA", (width, height), (*(_INSIDE if gives_way else TEXT), 0))
    paint(ImageDraw.Draw(image))
    drawn = np.asarray(image, dtype=np.float32)
    flat = drawn.reshape(-1, 4)
    places = np.flatnonzero(flat[:, 3])
    opacity = (flat[places, 3:] / 255).astype(np.float32)
    colours = np.concatenate([flat[places, :3], np.full((len(places), 1), 255)], axis=1)
    rows, columns = np.nonzero(drawn[..., 3])
    box = (int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max()))
    premultiplied = (opacity * colours).astype(np.float32)
    return _Piece(places, opacity, premultiplied, box if gives_way else None)


def _write(
    draw: ImageDraw,
    x: float,
    y: float,
    text: str,
    anchor: str = "mm",
    pixels: int = _FONT_PIXELS,
    colour: tuple[int, int, int] = TEXT,
) -> None:
    """Write in Pillow's own font, which has no Greek letters and no signs but the degree."""
    from PIL import ImageFont

    font = ImageFont.load_default(pixels)
    for right in (0.0, _THICKER):
        draw.text((x + right, y), text, (*colour, 255), font, anchor)


def _angles(height: int, width: int) -> list[tuple[tuple[float, float], str]]:
    """Return x and y of labels, rot along the equator and tilt along the middle meridian, and their texts."""

    def place(rot: float, tilt: float) -> tuple[float, float]:
        around, down = np.radians(rot), np.radians(tilt)
        direction = (np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down))
        row, column = mollweide_position(direction, height, width)
        return float(column) + 4, float(row) + 4

    (x, y), middle = place(0, 0), place(0, 90)
    rots = [(place(rot, 90), f"{rot}°") for rot in (-120, -60, 60, 120)]
    tilts = [(place(0, tilt), f"{tilt}°") for tilt in (30, 60, 120, 150)]
    return [*rots, *tilts, ((x, y + 2), "tilt 0°"), (middle, "rot 0°, tilt 90°")]


def _write_angle(draw: ImageDraw, at: tuple[float, float], text: str) -> None:
    _write(draw, *at, text, "lt", colour=_INSIDE)


def _draw_bar(draw: ImageDraw, height: int) -> None:
    """Draw the scale of brightness into the lower left corner."""
    top = height - _BAR_UP
    colours = density_colours(np.geomspace(LOWEST, HIGHEST, _BAR_WIDTH), np.radians(60))[0]
    for step, colour in enumerate(colours):
        x = _BAR_LEFT + step
        draw.line([(x, top), (x, top + _BAR_HEIGHT)], tuple(map(int, colour)))
    for density, text in _TICKS.items():
        share = np.log(density / LOWEST) / np.log(HIGHEST / LOWEST)
        x = _BAR_LEFT + share * (_BAR_WIDTH - 1)
        draw.line([(x, top + _BAR_HEIGHT), (x, top + _BAR_HEIGHT + 3)], (*TEXT, 255))
        anchor = "lt" if density == LOWEST else "mt"
        at = _BAR_LEFT if density == LOWEST else x
        _write(draw, at, top + _BAR_HEIGHT + 5, text, anchor, _SMALL_PIXELS)
    _write(draw, _BAR_LEFT, top - 4, "x uniform", "lb", _SMALL_PIXELS)


def _draw_wheel(draw: ImageDraw, height: int, width: int) -> None:
    """Draw the wheel of in-plane angles into the lower right corner; 0 is on the right."""
    x, y = width - _WHEEL_IN, height - _WHEEL_UP
    outer = _WHEEL_RADIUS + _WHEEL_THICKNESS / 2
    box = [x - outer, y - outer, x + outer, y + outer]
    for angle, colour in enumerate(255 * in_plane_colours(360)):
        # Pillow's angles run clockwise, in-plane angles the other way
        draw.arc(box, -angle - 1.5, -angle + 1.5, (*map(int, colour), 255), _WHEEL_THICKNESS)
    _write(draw, x, y, "psi", pixels=_SMALL_PIXELS)
    _write(draw, x + outer + 3, y, "0°", "lm", _SMALL_PIXELS)
    _write(draw, x, y - outer - 3, "90°", "mb", _SMALL_PIXELS)
