"""Where particle, lens, sphere, projection and residual are on the canvas: as large as fits.

On a tall canvas particle and lens are above the sphere, on a wide one to the left of it. Projection and
residual are small, each below a line that names it: next to the lens, or where there is height for it
below a smaller lens, so that the particle is larger.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ASPECT", "LINE", "Place", "arrange", "particle_side"]

ASPECT = 2.0
"""Width of the sphere's picture over its height."""

LINE = 0.09
"""Height of the line that names a picture, over the particle's side."""

_GAP = 0.06
"""Between pictures, over the particle's side."""

_LEAST_LENS = 0.65
"""Side of the lens over the particle's, at least, where height is left for a larger particle; chosen."""


@dataclass(frozen=True)
class Place:
    """A rectangle in units of the particle's side, whose upper left corner is the origin; y points down."""

    top: float
    left: float
    height: float
    width: float


def arrange(
    canvas_width: float, canvas_height: float, compared: bool = False, sphere: bool = True
) -> dict[str, Place]:
    """Return the places that are largest on a canvas.

    ``canvas_width``, ``canvas_height``: in any unit. ``compared``: whether room is needed for
    projection and residual, and for names above them and the particle. ``sphere``: whether room is
    needed for sphere and lens. Returns places of ``particle``, ``lens`` and ``sphere``, and of
    ``projection`` and ``residual``.
    """
    if not sphere:
        return max(
            (_next_to_particle(), _below_particle()),
            key=lambda places: particle_side(places, canvas_width, canvas_height),
        )

    def drawn_size(places: dict[str, Place]) -> float:
        """Return the sphere's width times the root of the particle's, as they are drawn."""
        side = particle_side(places, canvas_width, canvas_height)
        return places["sphere"].width * side**1.5

    tall = (
        [_in_one_row(), _in_two_rows()]
        if compared
        else [_particle_and_lens(canvas_height / canvas_width)]
    )
    return max(*tall, _wide(compared), key=drawn_size)


def particle_side(places: dict[str, Place], canvas_width: float, canvas_height: float) -> float:
    """Return the particle's side where the places fill a canvas, in the canvas's unit."""
    above = LINE if "projection" in places else 0.0
    height = max(place.top + place.height for place in places.values()) + above
    width = max(place.left + place.width for place in places.values())
    return min(canvas_width / width, canvas_height / height)


def _next_to_particle() -> dict[str, Place]:
    """Return the places of projection and residual, one below the other."""
    small, left = (1 - LINE) / 2, 1 + _GAP
    return {
        "particle": Place(0, 0, 1, 1),
        "projection": Place(0, left, small, small),
        "residual": Place(1 - small, left, small, small),
    }


def _below_particle() -> dict[str, Place]:
    """Return the places of projection and residual, next to each other."""
    small, top = (1 - _GAP) / 2, 1 + LINE
    return {
        "particle": Place(0, 0, 1, 1),
        "projection": Place(top, 0, small, small),
        "residual": Place(top, 1 - small, small, small),
    }


def _with_sphere_below(width: float, **places: Place) -> dict[str, Place]:
    """Return places with that of a sphere below the particle, as wide as all of them."""
    return places | {"sphere": Place(1 + _GAP, 0, width / ASPECT, width)}


def _particle_and_lens(height_over_width: float) -> dict[str, Place]:
    """Return the places with the sphere below; a narrower lens lets the particle fill a tall canvas."""
    left = 1 + _GAP
    wanted = left / max(height_over_width - 1 / ASPECT, 1e-6) - left
    lens = min(max(wanted, _LEAST_LENS), 1)
    return _with_sphere_below(
        left + lens, particle=Place(0, 0, 1, 1), lens=Place((1 - lens) / 2, left, lens, lens)
    )


def _in_one_row() -> dict[str, Place]:
    """Return the places with projection and residual to the right of the lens."""
    small, left = (1 - LINE) / 2, 2 * (1 + _GAP)
    return _with_sphere_below(
        left + small,
        particle=Place(0, 0, 1, 1),
        lens=Place(0, 1 + _GAP, 1, 1),
        projection=Place(0, left, small, small),
        residual=Place(1 - small, left, small, small),
    )


def _in_two_rows() -> dict[str, Place]:
    """Return the places with projection and residual below the lens, all three as high as the particle."""
    left = 1 + _GAP
    lens = (1 - LINE) / 1.5
    small = (lens - _GAP) / 2
    return _with_sphere_below(
        left + lens,
        particle=Place(0, 0, 1, 1),
        lens=Place(0, left, lens, lens),
        projection=Place(1 - small, left, small, small),
        residual=Place(1 - small, left + lens - small, small, small),
    )


def _wide(compared: bool) -> dict[str, Place]:
    """Return the places with the sphere to the right of the others."""
    places = _below_particle() if compared else {"particle": Place(0, 0, 1, 1)}
    below = max(place.top + place.height for place in places.values())
    places["lens"] = Place(below + _GAP, 0, 1, 1)
    height = below + _GAP + 1
    return places | {"sphere": Place(0, 1 + _GAP, height, height * ASPECT)}
