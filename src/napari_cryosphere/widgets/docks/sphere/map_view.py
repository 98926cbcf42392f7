"""A map that is turned with the mouse, as the particle that is shown would show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_cryosphere.widgets.docks.kit.style import theme_colours
from napari_cryosphere.widgets.state.surface import Surface, draw_surface

__all__ = ["TurnedMap"]

_SIDE_PIXELS = 200
"""Side of the picture, drawn larger: the surface's voxels are some three of them."""
_DEGREES_PER_PIXEL = 0.6  # of a drag; chosen, not tuned


class TurnedMap(QWidget):
    """Shows a map's surface at a pose; a drag turns what is in front along with the mouse."""

    turned = Signal(object)
    """A drag goes on; sent with the pose, ``(3, 3)``."""
    released = Signal(object)
    """A drag has ended; sent with the pose."""

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.pose: NDArray[np.float64] = np.eye(3)
        self._surface: Surface | None = None
        self._text = ""
        self._image: QImage | None = None
        self._pressed: QPointF | None = None
        self._dragged = False
        self.setMinimumSize(120, 120)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName("Map at the particle's view")
        self.set_theme(theme)

    def sizeHint(self) -> QSize:
        """Return a size at which a map's shape is seen."""
        return QSize(300, 300)

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours."""
        self._colour = QColor(theme_colours(theme)["text"])
        self.update()

    @property
    def surface(self) -> Surface | None:
        """What is shown."""
        return self._surface

    @property
    def dragging(self) -> bool:
        """Whether the mouse holds the map."""
        return self._pressed is not None

    def show_surface(self, surface: Surface | None, text: str = "") -> None:
        """Show a surface, or a line where there is none."""
        self._surface, self._text, self._image = surface, text, None
        held = Qt.CursorShape.ArrowCursor if surface is None else Qt.CursorShape.OpenHandCursor
        self.setCursor(held)
        self.update()

    def turn_to(self, pose: NDArray[np.float64]) -> None:
        """Show the map at a pose, ``(3, 3)``; image to map coordinates."""
        self.pose, self._image = pose, None
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the surface, or the line."""
        painter = QPainter(self)
        if self._surface is None:
            painter.setPen(self._colour)
            flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(self.rect().adjusted(12, 12, -12, -12), flags, self._text)
        else:
            if self._image is None:
                data = draw_surface(self._surface, self.pose, _SIDE_PIXELS).tobytes()
                kind = QImage.Format.Format_RGBA8888
                self._image = QImage(
                    data, _SIDE_PIXELS, _SIDE_PIXELS, 4 * _SIDE_PIXELS, kind
                ).copy()
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            side = min(self.width(), self.height())
            left, top = (self.width() - side) / 2, (self.height() - side) / 2
            painter.drawImage(QRectF(left, top, side, side), self._image)
        painter.end()

    # ------------------------------------------------------------------ mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take hold of the map."""
        if event.button() == Qt.MouseButton.LeftButton and self._surface is not None:
            self._pressed, self._dragged = event.position(), False
            self.setCursor(Qt.CursorShape.ClosedHandCursor)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Turn the map with the mouse."""
        if self._pressed is None:
            return
        by = event.position() - self._pressed
        self._pressed, self._dragged = event.position(), True
        self.turn_to(dragged_pose(self.pose, by.x(), by.y()))
        self.turned.emit(self.pose)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let go."""
        if self._pressed is not None:
            self._pressed = None
            self.setCursor(Qt.CursorShape.OpenHandCursor)
            if self._dragged:
                self.released.emit(self.pose)


def dragged_pose(pose: NDArray[np.float64], right: float, down: float) -> NDArray[np.float64]:
    """Return the pose after a drag by pixels: what faces the user, at negative z, goes with the mouse."""
    from napari_cryosphere.so3.rotations import rotation_from_vector

    turn = np.radians(_DEGREES_PER_PIXEL) * np.array([down, -right, 0.0])
    return np.asarray(pose @ rotation_from_vector(turn).T)
