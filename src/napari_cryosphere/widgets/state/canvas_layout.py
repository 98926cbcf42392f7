"""Where particle, lens, sphere, projection and residual are on the canvas: as large as fits.

On a tall canvas particle and lens are above the sphere, on a wide one to the left of it. Projection and
residual are small, next to the particle, each below a line that names it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ASPECT", "LINE", "Place", "arrange"]

ASPECT = 2.0
"""Width of the sphere's picture over its height."""

LINE = 0.09
"""Height of the line that names a picture, over the particle's side."""

_GAP = 0.06
"""Between pictures, over the particle's side."""


@dataclass(frozen=True)
class Place:
    """A rectangle in units of the particle's side, whose upper left corner is the origin; y points down."""

    top: float
    left: float
    height: float
    width: float


def arrange(canvas_width: float, canvas_height: float, compared: bool = False) -> dict[str, Place]:
    """Return the places that are largest on a canvas.

    Parameters
    ----------
    canvas_width, canvas_height
        In any unit.
    compared
        Whether room is needed for projection and residual, and for names above them and the particle.

    Returns
    -------
    Places of ``particle``, ``lens`` and ``sphere``, and of ``projection`` and ``residual``.
    """
    above = LINE if compared else 0.0

    def drawn_size(places: dict[str, Place]) -> float:
        """Return the sphere's width times the root of the particle's, as they are drawn."""
        height = max(place.top + place.height for place in places.values()) + above
        width = max(place.left + place.width for place in places.values())
        side = min(canvas_width / width, canvas_height / height)
        return places["sphere"].width * side * side**0.5

    return max((_tall(compared), _wide(compared)), key=drawn_size)


def _tall(compared: bool) -> dict[str, Place]:
    """Return the places with the sphere below the others."""
    next_to = 1 + _GAP
    places = {"particle": Place(0, 0, 1, 1), "lens": Place(0, next_to, 1, 1)}
    width = 1 + next_to
    if compared:
        small, left = (1 - LINE) / 2, width + _GAP
        places["projection"] = Place(0, left, small, small)
        places["residual"] = Place(1 - small, left, small, small)
        width = left + small
    return places | {"sphere": Place(next_to, 0, width / ASPECT, width)}


def _wide(compared: bool) -> dict[str, Place]:
    """Return the places with the sphere to the right of the others."""
    places = {"particle": Place(0, 0, 1, 1)}
    below = 1.0
    if compared:
        small, top = (1 - _GAP) / 2, 1 + LINE
        places["projection"] = Place(top, 0, small, small)
        places["residual"] = Place(top, 1 - small, small, small)
        below = top + small
    places["lens"] = Place(below + _GAP, 0, 1, 1)
    height = below + _GAP + 1
    return places | {"sphere": Place(0, 1 + _GAP, height, height * ASPECT)}
