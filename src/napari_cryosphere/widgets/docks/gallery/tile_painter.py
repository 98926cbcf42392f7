"""Painting of a particle's tile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, QRect, QSize, Qt
from qtpy.QtGui import QColor, QFont, QImage, QPainter, QPen, QPixmap

from napari_cryosphere.widgets.docks.gallery.tile_pictures import TilePicture
from napari_cryosphere.widgets.docks.kit.flags import FLAG_COLOURS
from napari_cryosphere.widgets.docks.kit.style import theme_colours
from napari_cryosphere.widgets.state.particle_choices import Flag
from napari_cryosphere.widgets.state.particle_states import ParticleStates

__all__ = ["TilePainter"]

_MARKS = {Flag.KEEP: "✓", Flag.REJECT: "✕", Flag.REVIEW: "?"}
_MARGIN = 4
_LINE = 15  # height of the text
_STRIPE = 4  # height of the state's colour, in pixels
_MOST_PIXMAPS = 600


class TilePainter:
    """Draws tiles: the particle, its sphere below it, a value, the flag and the selection.

    Below the particle is a stripe in the colour of its state, where it has one.

    Parameters
    ----------
    theme
        napari's theme.
    """

    def __init__(self, theme: str) -> None:
        self.edge = 96
        self.spheres = False
        self.picture_of: Callable[[int], TilePicture | None] = lambda row: None
        self.text_of: Callable[[int], str] = lambda row: ""
        self.states: ParticleStates | None = None
        self._pixmaps: OrderedDict[int, tuple[TilePicture, QPixmap | None, QPixmap | None]] = (
            OrderedDict()
        )
        self.set_theme(theme)

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours."""
        self._colours = {name: QColor(colour) for name, colour in theme_colours(theme).items()}

    @property
    def size(self) -> QSize:
        """Size of a tile in pixels."""
        sphere = self.edge // 2 + 2 if self.spheres else 0
        return QSize(self.edge + 2 * _MARGIN, self.edge + sphere + _LINE + 2 * _MARGIN)

    def tip(self, row: int) -> str:
        """Return a tile's tool tip."""
        picture = self.picture_of(row)
        said = f"Particle {row + 1:,}\n{self.text_of(row)}"
        if self.states is not None:
            said = f"{said}\n{self.states.text(row)}"
        return f"{said}\n{picture.problem}" if picture is not None and picture.problem else said

    def paint(
        self, painter: QPainter, rect: QRect, row: int, selected: bool, flag: int, current: bool
    ) -> None:
        """Draw a tile into a rectangle of `size`."""
        if selected:
            painter.fillRect(rect.adjusted(1, 1, -1, -1), self._colours["accent"])
        inner = rect.adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        above = QRect(inner.topLeft(), QSize(self.edge, self.edge))
        below = QRect(above.bottomLeft() + QPoint(0, 3), QSize(self.edge, self.edge // 2))
        picture, image, sphere = self._pixmaps_of(row)
        if image is not None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawPixmap(above, image)
        else:
            painter.fillRect(above, self._colours["line"])
            if picture is not None and picture.problem:
                painter.setPen(self._colours["warning"])
                painter.drawText(above, Qt.AlignmentFlag.AlignCenter, "no image")
        if self.spheres and sphere is not None:
            painter.drawPixmap(below, sphere)
        if flag == Flag.REJECT:
            veil = QColor(self._colours["background"])
            veil.setAlpha(140)
            painter.fillRect(above if not self.spheres else above.united(below), veil)
        if self.states is not None:
            stripe = QRect(above.bottomLeft() + QPoint(0, 1 - _STRIPE), QSize(self.edge, _STRIPE))
            painter.fillRect(stripe, QColor(*self.states.colour(row)))
        self._paint_text(painter, rect, row, selected)
        if flag:
            self._paint_flag(painter, above, Flag(flag))
        if current:
            painter.setPen(QPen(self._colours["text"], 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(rect.adjusted(1, 1, -2, -2))

    def _paint_text(self, painter: QPainter, rect: QRect, row: int, selected: bool) -> None:
        font = QFont(painter.font())
        font.setPixelSize(11)
        painter.setFont(font)
        painter.setPen(self._colours["on_accent" if selected else "text"])
        line = QRect(
            rect.left() + _MARGIN, rect.bottom() - _LINE - 1, rect.width() - 2 * _MARGIN, _LINE
        )
        painter.drawText(
            line, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, self.text_of(row)
        )
        if not selected:
            painter.setPen(self._colours["faint"])
        painter.drawText(
            line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, f"{row + 1}"
        )

    def _paint_flag(self, painter: QPainter, above: QRect, flag: Flag) -> None:
        badge = QRect(above.topLeft() + QPoint(3, 3), QSize(18, 18))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(FLAG_COLOURS[flag]))
        painter.drawEllipse(badge)
        painter.setPen(QColor("white"))
        font = QFont(painter.font())
        font.setPixelSize(12)
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(badge, Qt.AlignmentFlag.AlignCenter, _MARKS[flag])
        font.setBold(False)
        painter.setFont(font)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)

    def paint_band(self, painter: QPainter, rect: QRect) -> None:
        """Draw a rubber band."""
        fill = QColor(self._colours["accent"])
        fill.setAlpha(60)
        painter.setPen(self._colours["accent"])
        painter.setBrush(fill)
        painter.drawRect(rect)

    def _pixmaps_of(self, row: int) -> tuple[TilePicture | None, QPixmap | None, QPixmap | None]:
        """Return a particle's picture as Qt draws it; the last ones are kept."""
        picture = self.picture_of(row)
        if picture is None:
            return None, None, None
        kept = self._pixmaps.get(row)
        if kept is None or kept[0] is not picture:
            kept = (picture, _pixmap(picture.image), _pixmap(picture.sphere))
            self._pixmaps[row] = kept
            while len(self._pixmaps) > _MOST_PIXMAPS:
                self._pixmaps.popitem(last=False)
        self._pixmaps.move_to_end(row)
        return kept


def _pixmap(pixels: NDArray[np.uint8] | None) -> QPixmap | None:
    """Return grey values, or RGBA, as Qt draws them."""
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    kind: Any = (
        QImage.Format.Format_Grayscale8 if pixels.ndim == 2 else QImage.Format.Format_RGBA8888
    )
    data = pixels.tobytes()  # which Qt reads from, and does not own
    return QPixmap.fromImage(QImage(data, width, height, pixels.strides[0], kind))
