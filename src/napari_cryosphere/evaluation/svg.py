"""Plots as SVG files, written directly: curves in panels with axes, thresholds and a key.

The command line has no plotting library among its dependencies, and FSC curves and histograms need
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path

__all__ = ["Curve", "Panel", "histogram", "write_svg"]

_COLOURS = ("#0b6e99", "#c2571a", "#4d7c3a", "#7a4fa3", "#8a6d1f", "#5b6270")
_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 46
_STYLE = "font-family='Helvetica, Arial, sans-serif' font-size='12' fill='#22262e'"


@dataclass(frozen=True, eq=False)
class Curve:
    """A named line of points ``(n,)``."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    title, x_label, y_label
        What is written at it.
    curves
        The lines.
    levels
        Heights of dashed lines.
    x_ticks
        Places and their labels; None for round numbers.
    y_range
        Lowest and highest y; None for those of the curves, from 0.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    levels: Sequence[float] = ()
    x_ticks: Sequence[tuple[float, str]] | None = None
    y_range: tuple[float, float] | None = None


def histogram(name: str, values: NDArray[np.float64], edges: NDArray[np.float64]) -> Curve:
    """Return the share of values in each bin, in percent, as a line of steps."""
    share = 100 * np.histogram(values, edges)[0] / max(1, len(values))
    return Curve(name, np.repeat(edges, 2)[1:-1], np.repeat(share, 2))


def write_svg(panels: Sequence[Panel], path: Path, *, overwrite: bool) -> None:
    """Write panels side by side."""
    width = _WIDTH * len(panels)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {_HEIGHT}' width='{width}' {_STYLE}>",
        f"<rect width='{width}' height='{_HEIGHT}' fill='white'/>",
    ]
    for number, panel in enumerate(panels):
        parts.append(f"<g transform='translate({number * _WIDTH} 0)'>")
        parts += _drawn(panel)
        parts.append("</g>")
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


class _Axes:
    """Where data go on the page."""

    def __init__(self, panel: Panel) -> None:
        x = np.concatenate([curve.x for curve in panel.curves])
        y = np.concatenate([curve.y for curve in panel.curves])
        self.x_range = (float(x.min()), float(max(x.max(), x.min() + 1e-9)))
        self.y_range = panel.y_range or (0.0, float(max(1.05 * y.max(), 1e-9)))

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        part = (min(max(value, low), high) - low) / (high - low)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def _drawn(panel: Panel) -> list[str]:
    axes = _Axes(panel)
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    frame = f"<rect x='{left}' y='{top}' width='{right - left}' height='{bottom - top}'"
    parts = [
        f"<text x='{left}' y='{top - 12}' font-weight='bold'>{escape(panel.title)}</text>",
        f"{frame} fill='none' stroke='#9aa1ad'/>",
        f"<text x='{(left + right) / 2}' y='{_HEIGHT - 8}' text-anchor='middle'>"
        f"{escape(panel.x_label)}</text>",
        f"<text transform='translate(14 {(top + bottom) / 2}) rotate(-90)' text-anchor='middle'>"
        f"{escape(panel.y_label)}</text>",
    ]
    for place, label in panel.x_ticks or _round_ticks(*axes.x_range):
        x = axes.x(place)
        parts.append(f"<path d='M{x:.1f} {bottom}v4' stroke='#9aa1ad'/>")
        parts.append(
            f"<text x='{x:.1f}' y='{bottom + 17}' text-anchor='middle'>{escape(label)}</text>"
        )
    for place, label in _round_ticks(*axes.y_range):
        y = axes.y(place)
        parts.append(f"<path d='M{left} {y:.1f}h-4' stroke='#9aa1ad'/>")
        parts.append(
            f"<text x='{left - 7}' y='{y + 4:.1f}' text-anchor='end'>{escape(label)}</text>"
        )
    for level in panel.levels:
        y = axes.y(level)
        parts.append(f"<path d='M{left} {y:.1f}H{right}' stroke='#9aa1ad' stroke-dasharray='4 3'/>")
    for number, curve in enumerate(panel.curves):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True)
        )
        parts.append(
            f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='1.6'/>"
        )
        y = top + 16 + 16 * number
        parts.append(f"<path d='M{right - 128} {y - 4}h18' stroke='{colour}' stroke-width='2'/>")
        parts.append(f"<text x='{right - 105}' y='{y}'>{escape(curve.name)}</text>")
    return parts


def _round_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return some five round numbers between two values."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(
        next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    )
    first = np.ceil(low / step - 1e-9) * step
    places = np.arange(first, high + step * 1e-6, step)
    return [(float(place), f"{place:.6g}") for place in np.round(places, 10)]
