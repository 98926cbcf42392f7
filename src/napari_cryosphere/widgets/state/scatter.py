"""Particles as points of two quantities: their picture, and which of them a lasso holds.

Painted in memory, a pixel at a time: 100,000 points take some milliseconds without a graphics card,
and no OpenGL context, which a dock loses when it becomes a window of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Frame",
    "Pixels",
    "frame_around",
    "in_lasso",
    "nearest_point",
    "paint_points",
    "pixels_of",
]

_MARGIN = 0.03  # of the range, around the points
_FAINTEST = 0.35  # how much of its colour a lone point has; the densest place has all
_FAINTEST_CLASS = 0.85  # the same of a flagged or selected one, which is looked for
_DOTS = ((5_000, 5), (50_000, 3))  # up to so many points are so many pixels wide, for the eye


@dataclass(frozen=True)
class Frame:
    """The part of the plane that is seen, and its size in pixels.

    Attributes
    ----------
    left, right, bottom, top
        Values of the two quantities at its edges.
    width, height
        Pixels.
    """

    left: float
    right: float
    bottom: float
    top: float
    width: int
    height: int

    def places(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points, ``(n, 2)`` values, are, ``(n, 2)`` pixels from the left and the bottom."""
        scale = [self.width / (self.right - self.left), self.height / (self.top - self.bottom)]
        return (points - [self.left, self.bottom]) * scale


@dataclass(frozen=True)
class Pixels:
    """Which pixels of a picture points cover.

    Attributes
    ----------
    places
        ``(m,)``: pixels, row by row; one that several points cover comes as often.
    owners
        ``(m,)``: the points that cover them.
    shape
        Height and width of the picture.
    """

    places: NDArray[np.int64]
    owners: NDArray[np.int64]
    shape: tuple[int, int]


def frame_around(
    points: NDArray[np.float64],
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits of both quantities that show all points, ``(n, 2)``, with a margin."""
    if not len(points):
        return (0.0, 1.0), (0.0, 1.0)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.where(high > low, _MARGIN * (high - low), 0.5)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return (left, right), (bottom, top)


def pixels_of(points: NDArray[np.float64], frame: Frame) -> Pixels:
    """Return which pixels the dots of points, ``(n, 2)`` finite values, cover."""
    columns, rows = np.floor(frame.places(points)).astype(np.int64).T
    seen = (columns >= 0) & (columns < frame.width) & (rows >= 0) & (rows < frame.height)
    size = next((size for most, size in _DOTS if np.count_nonzero(seen) <= most), 1)
    reach = np.arange(size) - size // 2
    owners = np.flatnonzero(seen)
    across = (columns[owners, None] + np.tile(reach, size)).ravel()
    up = (rows[owners, None] + np.repeat(reach, size)).ravel()
    inside = (across >= 0) & (across < frame.width) & (up >= 0) & (up < frame.height)
    places = (up * frame.width + across)[inside]
    return Pixels(places, np.repeat(owners, size**2)[inside], (frame.height, frame.width))


def paint_points(
    pixels: Pixels,
    classes: NDArray[np.uint8],
    colours: NDArray[np.uint8],
    own: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Draw points; where many fall on a pixel it is stronger.

    Parameters
    ----------
    pixels
        Which pixels the points cover.
    classes
        ``(n,)``: rows of `colours`. Higher ones are drawn over lower ones.
    colours
        ``(k, 3)`` sRGB, 0-255.
    own
        ``(n, 3)``: the points' own colours, instead of the first class's; where several fall on a pixel
        they mix.

    Returns
    -------
    ``(height, width, 4)`` uint8 RGBA, transparent where there is no point; the first row is the bottom.
    """
    height, width = pixels.shape
    picture = np.zeros((height * width, 4), dtype=np.uint8)
    shown = classes[pixels.owners]
    densest = 1
    for drawn, colour in enumerate(colours):
        places = pixels.places if drawn == 0 else pixels.places[shown == drawn]
        if not len(places):
            continue
        counts = np.bincount(places, minlength=height * width)
        there = np.flatnonzero(counts)
        densest = max(densest, int(counts.max()))
        faintest = _FAINTEST if drawn == 0 else _FAINTEST_CLASS
        strength = faintest + (1 - faintest) * np.log1p(counts[there]) / np.log1p(densest)
        picture[there, :3] = colour
        if drawn == 0 and own is not None:
            for channel, values in enumerate(own.T):
                sums = np.bincount(places, values[pixels.owners], height * width)
                picture[there, channel] = sums[there] / counts[there]
        picture[there, 3] = 255 * strength
    return picture.reshape(height, width, 4)


def nearest_point(
    points: NDArray[np.float64], at: tuple[float, float], frame: Frame, pixels: float
) -> int | None:
    """Return the point, of ``(n, 2)``, that is nearest to a place of the plane; None if none is so near."""
    if not len(points):
        return None
    away = frame.places(points) - frame.places(np.array([at]))
    squared = (away**2).sum(axis=1)
    found = int(squared.argmin())
    return found if squared[found] <= pixels**2 else None


def in_lasso(places: NDArray[np.float64], outline: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which places lie inside an outline by the even-odd rule, to the pixel.

    The outline is filled in a picture in which every place is looked up: 100,000 places take
    milliseconds however long the outline is.

    Parameters
    ----------
    places
        ``(n, 2)`` in pixels.
    outline
        ``(k, 2)`` in pixels, closed by itself.

    Returns
    -------
    ``(n,)``.
    """
    inside = np.zeros(len(places), dtype=bool)
    origin = np.floor(outline.min(axis=0))
    width, height = (np.ceil(outline.max(axis=0)) - origin + 1).astype(int)
    filled = _filled(outline - origin, width, height)
    columns, rows = np.floor(places - origin).astype(np.int64).T
    near = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    inside[near] = filled[rows[near], columns[near]]
    return inside


def _filled(outline: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Return which pixels' centres, ``(height, width)``, are inside an outline ``(k, 2)``."""
    x1, y1 = outline.T
    x2, y2 = np.roll(outline, -1, axis=0).T
    middles = np.arange(height) + 0.5
    crossed = (y1[:, None] > middles) != (y2[:, None] > middles)
    edges, rows = np.nonzero(crossed)
    slope = (x2 - x1)[edges] / (y2 - y1)[edges]
    crossings = x1[edges] + slope * (middles[rows] - y1[edges])
    first = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
    turns = np.zeros((height, width + 1), dtype=np.int64)
    np.add.at(turns, (rows, first), 1)
    return np.cumsum(turns, axis=1)[:, :width] % 2 == 1
