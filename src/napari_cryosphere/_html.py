"""What notebooks show of a noun: a table of values, pictures as PNG, curves as SVG.

All text is escaped: names of files and columns may hold anything.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["bars", "curve", "grey", "page", "picture"]

_CURVE_WIDTH, _CURVE_HEIGHT = 320, 160  # pixels
_DARK_PERCENT, _LIGHT_PERCENT = 1, 99  # percentiles of grey values that are drawn black and white


def page(title: str, entries: Mapping[str, Any], pictures: Iterable[str] = ()) -> str:
    """Return a heading, a table of values by name, and pictures in one line."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(str(name))}</th>"
        f"<td style='text-align:left'>{escape(_shown(value))}</td></tr>"
        for name, value in entries.items()
    )
    return (
        f"<div><strong>{escape(title)}</strong><table>{rows}</table>"
        f"<div>{'&nbsp;'.join(pictures)}</div></div>"
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def grey(image: ArrayLike, edge: int, label: str = "") -> str:
    """Return an ``<img>`` of a ``(ny, nx)`` image, dark to light between its 1st and 99th percentile."""
    values = np.asarray(image, dtype=np.float64)
    low, high = np.percentile(values, (_DARK_PERCENT, _LIGHT_PERCENT))
    scaled = np.clip((values - low) / max(high - low, 1e-30), 0, 1) * 255
    return picture(scaled.astype(np.uint8), edge, label)


def picture(pixels: NDArray[np.uint8], width: int, label: str = "") -> str:
    """Return an ``<img>`` of ``(ny, nx)`` grey or ``(ny, nx, 4)`` RGBA pixels, ``width`` pixels wide."""
    data = base64.b64encode(_png(pixels)).decode()
    text = escape(label, quote=True)
    return f'<img src="data:image/png;base64,{data}" width="{width}" alt="{text}" title="{text}">'


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file (W3C, second edition): 8 bits a sample, no filter."""
    height, width = pixels.shape[:2]
    kind = 0 if pixels.ndim == 2 else 6  # grey, RGBA
    lines = np.ascontiguousarray(pixels).reshape(height, -1)
    raw = np.pad(lines, ((0, 0), (1, 0))).tobytes()  # filter 0 before each line

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def curve(values: Sequence[float] | NDArray[np.float64], levels: Sequence[float] = ()) -> str:
    """Return an ``<svg>`` of values from 0 to 1 over equal steps, with horizontal lines at levels."""
    width, height = _CURVE_WIDTH, _CURVE_HEIGHT
    x = np.linspace(0, width, len(values))
    y = height * (1 - np.clip(np.asarray(values, dtype=np.float64), 0, 1))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    lines = "".join(
        f'<line x1="0" x2="{width}" y1="{height * (1 - level):.1f}" y2="{height * (1 - level):.1f}" '
        'stroke="grey" stroke-dasharray="4"/>'
        for level in levels
    )
    return (
        f'<svg width="{width}" height="{height}" style="border:1px solid grey">{lines}'
        f'<polyline points="{points}" fill="none" stroke="steelblue" stroke-width="2"/></svg>'
    )


def bars(heights: Sequence[float] | NDArray[Any]) -> str:
    """Return an ``<svg>`` of bars, not negative, the highest of which fills the height."""
    width, values = _CURVE_WIDTH, np.asarray(heights, dtype=np.float64)
    tall = _CURVE_HEIGHT * values / max(float(values.max()), 1e-30)
    step = width / len(values)
    drawn = "".join(
        f'<rect x="{place * step:.1f}" y="{_CURVE_HEIGHT - top:.1f}" width="{0.9 * step:.1f}" '
        f'height="{top:.1f}" fill="steelblue"/>'
        for place, top in enumerate(tall)
    )
    return (
        f'<svg width="{width}" height="{_CURVE_HEIGHT}" style="border:1px solid grey">{drawn}</svg>'
    )
