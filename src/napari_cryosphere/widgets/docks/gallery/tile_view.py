"""Tiles of particles, as many as there are: only those in sight are drawn.

Tiles are of one size, so that places follow from arithmetic: nothing is laid out, and 100,000 tiles
sort, filter and resize as fast as ten. The selection is the data set's own (`ParticleChoices`):
Qt's selection models hold ranges, and one that is scattered over a sorted gallery has as many
ranges as particles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, QRect, QSize, Qt, Signal
from qtpy.QtGui import (
    QHelpEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from qtpy.QtWidgets import QAbstractScrollArea, QFrame, QToolTip, QWidget

from napari_cryosphere.widgets.docks.gallery.tile_layout import TileLayout
from napari_cryosphere.widgets.docks.gallery.tile_painter import TilePainter
from napari_cryosphere.widgets.state.particle_choices import ParticleChoices

__all__ = ["TileView"]

_CTRL, _SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
_NONE = Qt.KeyboardModifier.NoModifier


class TileView(QAbstractScrollArea):
    """Shows particles as tiles; click, Ctrl, Shift, a rubber band and the keys select as in a file manager.

    Parameters
    ----------
    painter
        Draws a tile.
    """

    row_chosen = Signal(int)
    """The particle that was clicked or reached with the keys."""
    row_opened = Signal(int)
    """The particle that was double-clicked, or where Enter was pressed."""
    sight_changed = Signal()
    """Other tiles are in sight."""

    def __init__(self, painter: TilePainter, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.painter = painter
        self.rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._choices: ParticleChoices | None = None
        self._layout = TileLayout(painter.size, 1, 0)
        self._place = self._anchor = -1
        self._pressed: QPoint | None = None
        self._band: QRect | None = None
        self._before: NDArray[np.bool_] | None = None
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(
            Qt.ScrollBarPolicy.ScrollBarAlwaysOn
        )  # the width stays as it is
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumHeight(120)
        self.setAccessibleName("Particles")

    # ------------------------------------------------------------------ what is shown

    def set_choices(self, choices: ParticleChoices | None) -> None:
        """Show and change this selection."""
        self._choices = choices
        self._place = self._anchor = -1

    def set_rows(self, rows: NDArray[np.int64], from_top: bool = False) -> None:
        """Show these particles, in this order; the current one stays current where it is among them."""
        if from_top:
            self.verticalScrollBar().setValue(0)
        current = self.current_row
        self.rows = rows
        self._place = self._anchor = -1
        if current is not None:
            self.set_current(current, show=False)
        self._arrange()

    def refresh(self) -> None:
        """Take note that tiles have another size, or that all look different."""
        self._arrange()

    def _arrange(self) -> None:
        former, bar, page = self._layout, self.verticalScrollBar(), self.viewport().height()
        top, size = bar.value(), self.painter.size
        framed = 0 <= self._place < former.number
        framed = framed and top <= former.rect(self._place).top() < top + bar.pageStep()
        columns = max(1, self.viewport().width() // size.width())
        layout = self._layout = TileLayout(size, columns, len(self.rows), self.viewport().width())
        if (former.columns, former.size) != (
            columns,
            size,
        ):  # else what is in sight stays where it is
            first = former.first_place(top)
            top = layout.rect(min(first, max(len(self.rows) - 1, 0))).top()
        bar.setRange(0, max(0, layout.height - page))
        bar.setPageStep(page)
        bar.setSingleStep(size.height() // 4)
        bar.setValue(top)
        if framed and self._place < len(self.rows):
            self._show(self._place)
        self.viewport().update()
        self.sight_changed.emit()

    def rows_in_sight(self, pages: int = 0) -> NDArray[np.int64]:
        """Return the particles whose tiles are in sight, or some pages above or below what is in sight."""
        top, page = self.verticalScrollBar().value(), self.viewport().height()
        return self.rows[self._layout.places_between(top - pages * page, top + (1 + pages) * page)]

    def rect_of(self, row: int) -> QRect | None:
        """Return where a particle's tile is in the viewport; None if it is not among those shown."""
        found = np.flatnonzero(self.rows == row)
        return self._on_screen(int(found[0])) if found.size else None

    def _on_screen(self, place: int) -> QRect:
        return self._layout.rect(place).translated(0, -self.verticalScrollBar().value())

    @property
    def current_row(self) -> int | None:
        """The particle with the frame; None if there is none."""
        return int(self.rows[self._place]) if 0 <= self._place < len(self.rows) else None

    def set_current(self, row: int | None, show: bool = True) -> None:
        """Frame a particle, without selecting it, and bring it in sight."""
        found = np.flatnonzero(self.rows == row) if row is not None else np.empty(0, dtype=int)
        self._place = int(found[0]) if found.size else -1
        if self._anchor < 0:
            self._anchor = self._place
        if show and self._place >= 0:
            self._show(self._place)
        self.viewport().update()

    def _show(self, place: int) -> None:
        bar, rect = self.verticalScrollBar(), self._layout.rect(place)
        if rect.top() < bar.value():
            bar.setValue(rect.top())
        elif rect.bottom() > bar.value() + self.viewport().height():
            bar.setValue(rect.bottom() - self.viewport().height())

    # ------------------------------------------------------------------ painting

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the tiles in sight."""
        painter = QPainter(self.viewport())
        top = self.verticalScrollBar().value()
        selected = None if self._choices is None else self._choices.selected
        flags = None if self._choices is None else self._choices.flags
        exposed = event.rect()
        for place in self._layout.places_between(
            top + exposed.top(), top + exposed.bottom() + 1
        ).tolist():
            row, rect = int(self.rows[place]), self._on_screen(place)
            marked = selected is not None and bool(selected[row])
            flag = 0 if flags is None else int(flags[row])
            self.painter.paint(painter, rect, row, marked, flag, place == self._place)
        if self._band is not None:
            self.painter.paint_band(painter, self._band.translated(0, -top))
        painter.end()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep the first tile in sight where it is."""
        super().resizeEvent(event)
        self._arrange()

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        """Move what is drawn; Qt asks only for what comes in sight."""
        self.viewport().scroll(0, dy)
        self.sight_changed.emit()

    def viewportEvent(self, event: object) -> bool:
        """Answer for tool tips."""
        if isinstance(event, QHelpEvent) and event.type() == QHelpEvent.Type.ToolTip:
            place = self._place_at(event.pos())
            text = "" if place is None else self.painter.tip(int(self.rows[place]))
            QToolTip.showText(event.globalPos(), text, self.viewport())
            return True
        return bool(super().viewportEvent(event))  # type: ignore[arg-type]

    def sizeHint(self) -> QSize:
        """Return room for three tiles next to each other."""
        return QSize(3 * self.painter.size.width() + 20, 3 * self.painter.size.height())

    # ------------------------------------------------------------------ mouse and keys

    def _place_at(self, point: QPoint) -> int | None:
        return self._layout.place_at(point + QPoint(0, self.verticalScrollBar().value()))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select, add (Ctrl) or select up to here (Shift)."""
        if event.button() != Qt.MouseButton.LeftButton or self._choices is None:
            return
        point, modifiers = event.position().toPoint(), event.modifiers()
        self._pressed = point + QPoint(0, self.verticalScrollBar().value())
        self._before = self._choices.selected.copy()
        place = self._place_at(point)
        if place is not None:
            self._go_to(place, modifiers, toggle=bool(modifiers & _CTRL))
        elif not modifiers & (_CTRL | _SHIFT):
            self._choices.select([])

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Draw a rubber band and select what it touches."""
        if self._pressed is None or self._choices is None or self._before is None:
            return
        point = event.position().toPoint() + QPoint(0, self.verticalScrollBar().value())
        if self._band is None and (point - self._pressed).manhattanLength() < 8:
            return
        continues = self._band is not None
        self._band = QRect(self._pressed, point).normalized()
        adding = bool(event.modifiers() & (_CTRL | _SHIFT))
        selected = self._before.copy() if adding else np.zeros_like(self._before)
        selected[self.rows[self._layout.places_in(self._band)]] = True
        self._choices.select(selected, continues)
        self.viewport().update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End the rubber band."""
        self._pressed = self._band = self._before = None
        self.viewport().update()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Open a particle."""
        place = self._place_at(event.position().toPoint())
        if place is not None and event.button() == Qt.MouseButton.LeftButton:
            self.row_opened.emit(int(self.rows[place]))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move, extend (Shift), toggle (space), open (Enter), select all or none."""
        key, modifiers = event.key(), event.modifiers()
        target = self._layout.target(Qt.Key(key), self._place, self.viewport().height())
        if self._choices is None or not len(self.rows):
            super().keyPressEvent(event)
        elif target is not None:
            self._go_to(target, modifiers & _SHIFT)
        elif key == Qt.Key.Key_A and modifiers & _CTRL:
            self._choices.select(self.rows)
        elif key == Qt.Key.Key_Escape:
            self._choices.select([])
        elif key == Qt.Key.Key_Space and self._place >= 0:
            self._go_to(self._place, _CTRL, toggle=True)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.current_row is not None:
            self.row_opened.emit(self.current_row)
        else:
            super().keyPressEvent(event)

    def _go_to(self, place: int, modifiers: Qt.KeyboardModifier, toggle: bool = False) -> None:
        """Make a place current and change the selection as the modifiers say."""
        assert self._choices is not None
        row = int(self.rows[place])
        if modifiers & _SHIFT and self._anchor >= 0:
            low, high = sorted((self._anchor, place))
            chosen = (
                self._choices.selected.copy()
                if toggle
                else np.zeros(self._choices.number, dtype=bool)
            )
            chosen[self.rows[low : high + 1]] = True
        elif toggle:
            chosen = self._choices.selected.copy()
            chosen[row] = not chosen[row]
            self._anchor = place
        else:
            chosen = np.zeros(self._choices.number, dtype=bool)
            chosen[row] = True
            self._anchor = place
        self._place = place
        self._show(place)
        self._choices.select(chosen)
        self.viewport().update()
        self.row_chosen.emit(row)
