"""Layout of tiles of one size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, QRect, QSize, Qt

__all__ = ["TileLayout"]


class TileLayout:
    """Tiles of one size in rows, the rows spread over a width; places count from 0, row by row.

    Parameters
    ----------
    size
        Size of a tile in pixels.
    columns
        Tiles in a row.
    number
        Tiles in all.
    width
        Width to spread the columns over; None for no gaps.
    """

    def __init__(self, size: QSize, columns: int, number: int, width: int | None = None) -> None:
        self.size = size
        self.columns = columns
        self.number = number
        self._stride = max(size.width(), (width or 0) // columns)

    @property
    def height(self) -> int:
        """Height of all rows in pixels."""
        return -(-self.number // self.columns) * self.size.height()

    def rect(self, place: int) -> QRect:
        """Return where a tile is."""
        line, column = divmod(place, self.columns)
        gap = (self._stride - self.size.width()) // 2
        return QRect(QPoint(column * self._stride + gap, line * self.size.height()), self.size)

    def first_place(self, top: int) -> int:
        """Return the first tile of the row at a height."""
        return top // self.size.height() * self.columns

    def places_between(self, top: int, bottom: int) -> NDArray[np.int64]:
        """Return the tiles of the rows that reach into [top, bottom)."""
        first = max(0, top // self.size.height()) * self.columns
        last = max(0, -(-bottom // self.size.height())) * self.columns
        return np.arange(min(first, self.number), min(last, self.number))

    def places_in(self, rect: QRect) -> NDArray[np.int64]:
        """Return the tiles that a rectangle touches."""
        places = self.places_between(rect.top(), rect.bottom() + 1)
        left, right = rect.left() // self._stride, rect.right() // self._stride
        column = places % self.columns
        return places[(column >= left) & (column <= right)]

    def place_at(self, point: QPoint) -> int | None:
        """Return the tile at a point; None between tiles and after the last."""
        if point.x() < 0 or point.y() < 0:
            return None
        column = point.x() // self._stride
        place = point.y() // self.size.height() * self.columns + column
        inside = column < self.columns and place < self.number and self.rect(place).contains(point)
        return place if inside else None

    def target(self, key: Qt.Key, place: int, page: int) -> int | None:
        """Return where a key leads from a place, in a window of ``page`` pixels; None for other keys."""
        lines = max(1, page // self.size.height()) * self.columns
        steps = {
            Qt.Key.Key_Left: -1,
            Qt.Key.Key_Right: 1,
            Qt.Key.Key_Up: -self.columns,
            Qt.Key.Key_Down: self.columns,
            Qt.Key.Key_PageUp: -lines,
            Qt.Key.Key_PageDown: lines,
            Qt.Key.Key_Home: -self.number,
            Qt.Key.Key_End: self.number,
        }
        if key not in steps or not self.number:
            return None
        if place < 0:
            return self.number - 1 if key == Qt.Key.Key_End else 0
        target = place + steps[key]
        if key in (Qt.Key.Key_Up, Qt.Key.Key_Down) and not 0 <= target < self.number:
            return place
        return min(max(target, 0), self.number - 1)
