"""What stands on every sphere: angles along the graticule, the scale of brightness, the wheel of hues.

Drawn once per size of picture, with Pillow, which napari brings along, and blended into each picture.
"""

from __future__ import annotations

from functools import lru_cache
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

__all__ = ["add_frame"]

_TEXT = (138, 142, 150)
"""Legible on napari's black canvas and on the white one: contrasts of 6.4 and 3.3."""
_FONT_PIXELS, _SMALL_PIXELS = 13, 11
_BAR_LEFT, _BAR_WIDTH, _BAR_HEIGHT = 4, 120, 9
_BAR_UP = 32  # pixels from the bottom to the bar
_WHEEL_RADIUS, _WHEEL_THICKNESS = 19, 8
_WHEEL_IN = 48  # pixels from the right and the bottom to the wheel's centre
_TICKS = {0.1: "0.1", 1.0: "1", 10.0: "10", 100.0: "100", 1000.0: "1000"}


def add_frame(picture: NDArray[np.uint8]) -> None:
    """Blend labels and scales into a large picture, ``(height, width, 4)`` uint8, in place."""
    places, opacity, premultiplied = _frame(*picture.shape[:2])
    flat = picture.reshape(-1, 4)
    flat[places] = flat[places] * (1 - opacity) + premultiplied


@lru_cache(maxsize=4)
def _frame(
    height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Return the pixels that are drawn on, their opacity ``(n, 1)``, and what is added to them ``(n, 4)``."""
    from PIL import Image, ImageDraw

    image = Image.new("RGBA", (width, height), (*_TEXT, 0))
    draw = ImageDraw.Draw(image)
    _draw_angles(draw, height, width)
    _draw_bar(draw, height)
    _draw_wheel(draw, height, width)
    drawn = np.asarray(image, dtype=np.float32).reshape(-1, 4)
    places = np.flatnonzero(drawn[:, 3])
    opacity = (drawn[places, 3:] / 255).astype(np.float32)
    colours = np.concatenate([drawn[places, :3], np.full((len(places), 1), 255)], axis=1)
    return places, opacity, (opacity * colours).astype(np.float32)


def _write(
    draw: ImageDraw, x: float, y: float, text: str, anchor: str = "mm", pixels: int = _FONT_PIXELS
) -> None:
    """Write in Pillow's own font, which has no Greek letters and no signs but the degree."""
    from PIL import ImageFont

    draw.text((x, y), text, (*_TEXT, 255), ImageFont.load_default(pixels), anchor)


def _draw_angles(draw: ImageDraw, height: int, width: int) -> None:
    """Write rot along the equator and tilt along the middle meridian."""

    def place(rot: float, tilt: float) -> tuple[float, float]:
        around, down = np.radians(rot), np.radians(tilt)
        direction = (np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down))
        row, column = mollweide_position(direction, height, width)
        return float(column), float(row)

    for rot in (-120, -60, 60, 120):
        x, y = place(rot, 90)
        _write(draw, x + 3, y + 4, f"{rot}°", "lt")
    for tilt in (30, 60, 120, 150):
        x, y = place(0, tilt)
        _write(draw, x + 4, y + 4, f"{tilt}°", "lt")
    x, y = place(0, 0)
    _write(draw, x + 4, y + 6, "tilt 0°", "lt")
    x, y = place(0, 90)
    _write(draw, x + 4, y + 4, "rot 0°, tilt 90°", "lt")


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
        draw.line([(x, top + _BAR_HEIGHT), (x, top + _BAR_HEIGHT + 3)], (*_TEXT, 255))
        anchor = "lt" if density == LOWEST else "mt"
        at = _BAR_LEFT if density == LOWEST else x
        _write(draw, at, top + _BAR_HEIGHT + 6, text, anchor, _SMALL_PIXELS)
    _write(draw, _BAR_LEFT, top - 5, "x uniform", "lb")


def _draw_wheel(draw: ImageDraw, height: int, width: int) -> None:
    """Draw the wheel of in-plane angles into the lower right corner; 0 is on the right."""
    x, y = width - _WHEEL_IN, height - _WHEEL_IN
    outer = _WHEEL_RADIUS + _WHEEL_THICKNESS / 2
    box = [x - outer, y - outer, x + outer, y + outer]
    for angle, colour in enumerate(255 * in_plane_colours(360)):
        # Pillow's angles run clockwise, in-plane angles the other way
        draw.arc(box, -angle - 1.5, -angle + 1.5, (*map(int, colour), 255), _WHEEL_THICKNESS)
    _write(draw, x, y, "psi", pixels=_SMALL_PIXELS)
    _write(draw, x + outer + 3, y, "0°", "lm", _SMALL_PIXELS)
    _write(draw, x, y - outer - 2, "90°", "mb", _SMALL_PIXELS)
    _write(draw, x, y + outer + 3, "-90°", "mt", _SMALL_PIXELS)
