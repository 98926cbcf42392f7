"""How to read the sphere: which hue is which in-plane angle, which mark is which pose."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import (
    QBrush,
    QColor,
    QConicalGradient,
    QImage,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
)
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QWidget

from napari_cryosphere.widgets.docks.kit.style import caption, wrapped

__all__ = ["HueKey"]

_STEPS = 36
_READING = "place: view direction\nlightness: probability\nhue: in-plane angle ψ"


class _HueWheel(QWidget):
    """A ring of the hues, with the in-plane angles in degrees around it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        from napari_cryosphere.widgets.state.sphere_picture import in_plane_colours

        self._colours = [QColor.fromRgbF(*map(float, rgb)) for rgb in in_plane_colours(_STEPS)]
        self.setFixedSize(QSize(112, 92))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the ring; 0 is on the right and angles run counter-clockwise."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        centre, radius, thickness = QPointF(self.width() / 2, self.height() / 2), 23.0, 11.0
        gradient = QConicalGradient(centre, 0)
        for step in range(_STEPS + 1):
            gradient.setColorAt(step / _STEPS, self._colours[step % _STEPS])
        painter.setPen(QPen(QBrush(gradient), thickness))
        painter.drawEllipse(centre, radius, radius)
        painter.setPen(self.palette().color(self.foregroundRole()))
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
        for angle in (0, 90, 180, 270):
            x = centre.x() + 42 * np.cos(np.radians(angle))
            y = centre.y() - 37 * np.sin(np.radians(angle))
            painter.drawText(
                QRectF(x - 18, y - 8, 36, 16), Qt.AlignmentFlag.AlignCenter, f"{angle}°"
            )
        font.setItalic(True)
        font.setPixelSize(13)
        painter.setFont(font)
        painter.drawText(
            QRectF(centre.x() - 12, centre.y() - 10, 24, 20), Qt.AlignmentFlag.AlignCenter, "ψ"
        )
        painter.end()


_MARKS = {"ring": "predicted view", "cross": "known view", "diamond": "refined view"}


def _mark(draw: str) -> QPixmap:
    """Return a small picture of one of the sphere's marks."""
    from napari_cryosphere.widgets.state.sphere_layer import (
        CROSS_COLOUR,
        DIAMOND_COLOUR,
        RING_COLOUR,
    )
    from napari_cryosphere.widgets.state.sphere_picture import draw_cross, draw_diamond, draw_ring

    picture = np.zeros((21, 21, 4), dtype=np.uint8)
    # the direction +x is in the middle of the map
    middle = (1.0, 0.0, 0.0)
    if draw == "ring":
        draw_ring(picture, middle, RING_COLOUR, 7)
    elif draw == "cross":
        draw_cross(picture, middle, CROSS_COLOUR, 8)
    else:
        draw_diamond(picture, middle, DIAMOND_COLOUR, 8)
    image = QImage(picture.tobytes(), 21, 21, 84, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image.copy())


class HueKey(QWidget):
    """The colour wheel and the legend of marks."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(_HueWheel())
        lines = QGridLayout()
        lines.setVerticalSpacing(4)
        for place, (draw, text) in enumerate(_MARKS.items()):
            icon = QLabel()
            icon.setPixmap(_mark(draw))
            icon.setFixedWidth(22)
            lines.addWidget(icon, place, 0)
            lines.addWidget(QLabel(text), place, 1)
        lines.addWidget(
            wrapped(caption(_READING)),
            len(_MARKS),
            0,
            1,
            2,
        )
        lines.setColumnStretch(1, 1)
        row.addLayout(lines, 1)
