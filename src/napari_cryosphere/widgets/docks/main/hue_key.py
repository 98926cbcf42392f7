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
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_cryosphere.widgets.docks.kit.style import caption, wrapped

__all__ = ["HueKey"]

_STEPS = 36
_READING = "line: 95 % of the views\nhue: in-plane angle ψ\nM hides lines and marks"


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


class _DensityBar(QWidget):
    """The scale of brightness: densities over the uniform one, at one in-plane angle."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(40)
        self.setToolTip(
            "Density of the view direction over that of a particle of which nothing is known: "
            "the same scale for all particles"
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the bar and its ticks."""
        from napari_cryosphere.widgets.state.sphere_picture import (
            HIGHEST,
            LOWEST,
            density_colours,
        )

        bar = QRectF(14, 2, self.width() - 28, 12)
        densities = np.geomspace(LOWEST, HIGHEST, 256)
        colours = np.ascontiguousarray(density_colours(densities, np.radians(60))[0][None])
        image = QImage(colours.tobytes(), 256, 1, 1024, QImage.Format.Format_RGBA8888)
        painter = QPainter(self)
        painter.drawImage(bar, image)
        painter.setPen(self.palette().color(self.foregroundRole()))
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
        for tick in (0.1, 1, 10, 100, 1000):
            x = bar.left() + bar.width() * np.log(tick / LOWEST) / np.log(HIGHEST / LOWEST)
            painter.drawLine(QPointF(x, bar.bottom()), QPointF(x, bar.bottom() + 4))
            text = f"{tick:g}" if tick != 1 else "1 × uniform"
            box = QRectF(x - 40, bar.bottom() + 5, 80, 16)
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
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

    picture = np.zeros((23, 23, 4), dtype=np.uint8)
    # the direction +x is in the middle of the map
    middle = (1.0, 0.0, 0.0)
    if draw == "ring":
        draw_ring(picture, middle, RING_COLOUR, 8)
    elif draw == "cross":
        draw_cross(picture, middle, CROSS_COLOUR, 7)
    else:
        draw_diamond(picture, middle, DIAMOND_COLOUR, 7)
    image = QImage(picture.tobytes(), 23, 23, 92, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image.copy())


class HueKey(QWidget):
    """The scale of brightness, the colour wheel and the legend of marks."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        lines = QGridLayout()
        lines.setVerticalSpacing(4)
        for place, (draw, text) in enumerate(_MARKS.items()):
            icon = QLabel()
            icon.setPixmap(_mark(draw))
            icon.setFixedWidth(24)
            lines.addWidget(icon, place, 0)
            lines.addWidget(QLabel(text), place, 1)
        lines.addWidget(wrapped(caption(_READING)), len(_MARKS), 0, 1, 2)
        lines.setColumnStretch(1, 1)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(_HueWheel())
        row.addLayout(lines, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(_DensityBar())
        column.addLayout(row)
