"""A sphere of view directions that is turned with the mouse.

Drawn in memory, some 10 ms a picture: it needs no OpenGL, whose contexts a dock loses when it
becomes a window of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QWheelEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_cryosphere.widgets.docks.kit.style import theme_colours

__all__ = ["Mark", "SphereView", "paint_mark", "sphere_picture"]

_EMPTY = (38.0, 40.0, 46.0)
_LINES = 0.35  # of the graticule, towards the rim's grey
_RIM = 130.0
_SHADE = 0.35  # how much darker the limb is
_RADIUS = 0.44  # of the shorter side
_MARK = 16.0  # pixels around a view that marks leave free
_ZOOM = (1.0, 8.0)
_DEGREES_A_PIXEL = 0.5
_CLICK_PIXELS = 4.0  # a mouse that moves farther drags


@dataclass(frozen=True)
class Mark:
    """A view direction to be marked: ``(3,)``, the shape (ring, cross, diamond, point), and sRGB 0-255."""

    direction: NDArray[np.float64]
    shape: str
    colour: tuple[int, int, int]


@lru_cache(maxsize=4)
def _disc(size: int, radius: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which pixels of a square show the sphere, and ``(k, 3)`` where: right, up, towards the user."""
    axis = np.arange(size) - (size - 1) / 2
    right, up = axis[None] / radius, -axis[:, None] / radius
    squared = right**2 + up**2
    inside = squared <= 1
    towards = np.sqrt(1 - squared[inside])
    both = np.broadcast_arrays(right, up)
    return inside, np.stack([both[0][inside], both[1][inside], towards], axis=-1)


def sphere_picture(
    colours: NDArray[np.uint8] | None, camera: NDArray[np.float64], size: int, radius: float
) -> NDArray[np.uint8]:
    """Draw the sphere as seen from afar.

    ``colours``: ``(n_views, 3)`` sRGB, 0-255; HEALPix pixels in RING order. None for an empty
    sphere. ``camera``, ``(3, 3)``: its rows are the directions right, up and towards the user, in
    the map's frame. ``size``, ``radius``: side of the picture, and the sphere's radius, in pixels.
    Returns ``(size, size, 4)`` uint8 RGBA, transparent around the sphere.
    """
    from napari_cryosphere.so3.healpix import ang2pix

    inside, seen = _disc(size, radius)
    x, y, z = (seen @ camera).T
    polar, longitude = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    painted = np.empty((len(seen), 3))
    if colours is None:
        painted[:] = _EMPTY
    else:
        painted[:] = colours[ang2pix(round((len(colours) / 12) ** 0.5), polar, longitude)]
    parallel = np.abs((polar / np.radians(30) + 0.5) % 1 - 0.5) * np.radians(30)
    meridian = np.abs((longitude / np.radians(60) + 0.5) % 1 - 0.5) * np.radians(60) * np.sin(polar)
    line = np.minimum(parallel, meridian) < 0.7 / radius
    painted[line] = (1 - _LINES) * painted[line] + _LINES * _RIM
    painted *= (1 - _SHADE + _SHADE * seen[:, 2])[:, None]
    picture = np.zeros((size, size, 4), dtype=np.uint8)
    picture[inside, :3] = painted
    picture[inside, 3] = 255
    return picture


class SphereView(QWidget):
    """Shows a distribution's views; drag turns the sphere, the wheel brings it nearer, a click chooses.

    The z axis of the map stays upright. Place, lightness and hue mean what they do in the flat
    picture.
    """

    clicked = Signal(object)
    """A place on the sphere was clicked; sent with its direction, ``(3,)``."""

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.azimuth = self.elevation = 0.0
        """Of the direction that faces the user, in degrees: its longitude and latitude."""
        self.zoom = 1.0
        self._colours: NDArray[np.uint8] | None = None
        self._marks: list[Mark] = []
        self._pressed: QPointF | None = None
        self._moved = 0.0
        self._image: QImage | None = None
        self.setMinimumSize(160, 160)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setCursor(Qt.CursorShape.OpenHandCursor)
        self.setAccessibleName("Sphere of view directions")
        self.set_theme(theme)

    def sizeHint(self) -> QSize:
        """Return a size at which single cells can be told apart."""
        return QSize(340, 340)

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours."""
        self._text = QColor(theme_colours(theme)["text"])
        self.update()

    # ------------------------------------------------------------------ what is shown

    def show_views(self, colours: NDArray[np.uint8] | None) -> None:
        """Paint the sphere with a colour per view, see `sphere_picture`; None for an empty one."""
        self._colours, self._image = colours, None
        self.update()

    def show_marks(self, marks: list[Mark]) -> None:
        """Mark these directions and no others; those behind the sphere are faint."""
        self._marks = marks
        self.update()

    def look_from(self, direction: NDArray[np.float64]) -> None:
        """Turn the sphere so that a direction, ``(3,)``, faces the user."""
        x, y, z = (float(value) for value in direction)
        self.turn_to(
            float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arcsin(np.clip(z, -1, 1))))
        )

    def turn_to(self, azimuth: float, elevation: float) -> None:
        """Let the direction of a longitude and a latitude, in degrees, face the user."""
        self.azimuth, self.elevation = (
            (azimuth + 180) % 360 - 180,
            float(np.clip(elevation, -90, 90)),
        )
        self._image = None
        self.update()

    def camera(self) -> NDArray[np.float64]:
        """Return the directions right, up and towards the user, ``(3, 3)``, in the map's frame."""
        around, above = np.radians(self.azimuth), np.radians(self.elevation)
        cosine, sine = np.cos(around), np.sin(around)
        right = [-sine, cosine, 0.0]
        up = [-np.sin(above) * cosine, -np.sin(above) * sine, np.cos(above)]
        towards = [np.cos(above) * cosine, np.cos(above) * sine, np.sin(above)]
        return np.array([right, up, towards])

    def place_of(self, direction: NDArray[np.float64]) -> tuple[QPointF, bool]:
        """Return where a direction is in the widget, and whether it is on the side that is seen."""
        right, up, towards = self.camera() @ direction
        radius = self._radius()
        middle = QPointF(self.width() / 2, self.height() / 2)
        return middle + QPointF(radius * right, -radius * up), bool(towards >= 0)

    def direction_at(self, place: QPointF) -> NDArray[np.float64] | None:
        """Return the direction that is seen at a place of the widget, ``(3,)``; None next to the sphere."""
        off = (place - QPointF(self.width() / 2, self.height() / 2)) / self._radius()
        out = off.x() ** 2 + off.y() ** 2
        if out > 1:
            return None
        return np.array([off.x(), -off.y(), np.sqrt(1 - out)]) @ self.camera()

    def _radius(self) -> float:
        return _RADIUS * self.zoom * min(self.width(), self.height())

    # ------------------------------------------------------------------ painting

    def _draw(self) -> QImage:
        ratio = self.devicePixelRatioF()
        side = round(max(self.width(), self.height()) * ratio)
        data = sphere_picture(self._colours, self.camera(), side, self._radius() * ratio).tobytes()
        image = QImage(data, side, side, 4 * side, QImage.Format.Format_RGBA8888).copy()
        image.setDevicePixelRatio(ratio)
        return image

    def resizeEvent(self, event: object) -> None:
        """Redraw."""
        self._image = None

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the sphere, its poles and the marks."""
        if self._image is None:
            self._image = self._draw()
        side = max(self.width(), self.height())
        painter = QPainter(self)
        painter.drawImage(
            QPointF((self.width() - side) / 2, (self.height() - side) / 2), self._image
        )
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(120, 124, 134), 1.5))
        painter.drawEllipse(
            QPointF(self.width() / 2, self.height() / 2), self._radius(), self._radius()
        )
        painter.setPen(self._text)
        for name, pole in (("+z", 1.0), ("−z", -1.0)):
            place, seen = self.place_of(np.array([0.0, 0.0, 1.09 * pole]))
            painter.setOpacity(1.0 if seen else 0.35)
            painter.drawText(place + QPointF(-8, 5), name)
        for mark in self._marks:
            place, seen = self.place_of(mark.direction)
            painter.setOpacity(1.0 if seen else 0.25)
            for colour, width in ((QColor("black"), 4.0), (QColor(*mark.colour), 2.0)):
                painter.setPen(QPen(colour, width))
                paint_mark(painter, place, mark.shape)
        painter.end()

    # ------------------------------------------------------------------ mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take hold of the sphere."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._pressed, self._moved = event.position(), 0.0
            self.setCursor(Qt.CursorShape.ClosedHandCursor)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Turn the sphere with the mouse."""
        if self._pressed is None:
            return
        self._moved += (event.position() - self._pressed).manhattanLength()
        by = (event.position() - self._pressed) * (_DEGREES_A_PIXEL / self.zoom)
        self._pressed = event.position()
        self.turn_to(self.azimuth - by.x(), self.elevation + by.y())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let go; without a drag the place is chosen."""
        pressed, self._pressed = self._pressed, None
        self.setCursor(Qt.CursorShape.OpenHandCursor)
        if pressed is not None and self._moved < _CLICK_PIXELS:
            direction = self.direction_at(event.position())
            if direction is not None:
                self.clicked.emit(direction)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Bring the sphere nearer, or farther away."""
        self.zoom = float(np.clip(self.zoom * 1.2 ** (event.angleDelta().y() / 120), *_ZOOM))
        self._image = None
        self.update()


def paint_mark(painter: QPainter, place: QPointF, shape: str) -> None:
    """Draw a mark (see `Mark`) around a place with the painter's pen, as the flat picture does."""
    painter.setBrush(Qt.BrushStyle.NoBrush)
    if shape == "point":
        painter.drawEllipse(place, _MARK / 2, _MARK / 2)
        return
    if shape == "ring":
        box = QRectF(place.x() - _MARK, place.y() - _MARK, 2 * _MARK, 2 * _MARK)
        for start in (26, 116, 206, 296):
            painter.drawArc(box, 16 * start, 16 * 38)
        return
    for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        out, side = QPointF(x, y), QPointF(-y, x)
        tip = place + out * (1.5 * _MARK)
        if shape == "cross":
            painter.drawLine(place + out * (0.8 * _MARK), tip)
        else:
            back = 0.3 * _MARK
            painter.drawPolyline([tip - (out + side) * back, tip, tip - (out - side) * back])
