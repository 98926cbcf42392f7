"""Where particle, lens, sphere, projection and residual are on the canvas: as large as fits.

On a tall canvas particle and lens are above the sphere, on a wide one to the left of it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ASPECT", "Place", "arrange"]

ASPECT = 2.0
"""Width of the sphere's picture over its height."""

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
    """Return the places that leave the sphere largest on a canvas.

    Parameters
    ----------
    canvas_width, canvas_height
        In any unit.
    compared
        Whether room is needed for projection and residual.

    Returns
    -------
    Places of ``particle``, ``lens`` and ``sphere``, and of ``projection`` and ``residual``.
    """
    both = 2 + _GAP
    below, right = 1 + _GAP, 1 + _GAP
    tall = {
        "particle": Place(0, 0, 1, 1),
        "lens": Place(0, right, 1, 1),
        "sphere": Place(below, 0, both / ASPECT, both),
    }
    under = below + both / ASPECT + _GAP
    wide = {
        "particle": Place(0, 0, 1, 1),
        "lens": Place(below, 0, 1, 1),
        "sphere": Place(0, right, both, both * ASPECT),
    }
    beyond = right + both * ASPECT + _GAP
    if compared:
        tall |= {"projection": Place(under, 0, 1, 1), "residual": Place(under, right, 1, 1)}
        wide |= {"projection": Place(0, beyond, 1, 1), "residual": Place(below, beyond, 1, 1)}

    def drawn_width(places: dict[str, Place]) -> float:
        height = max(place.top + place.height for place in places.values())
        width = max(place.left + place.width for place in places.values())
        return places["sphere"].width * min(canvas_width / width, canvas_height / height)

    return max((tall, wide), key=drawn_width)
