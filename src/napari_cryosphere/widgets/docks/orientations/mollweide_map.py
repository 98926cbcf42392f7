"""A map of the sphere of views, to brush."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QSize, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QHelpEvent,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
)
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_cryosphere.widgets.docks.kit.style import theme_colours
from napari_cryosphere.widgets.state.view_statistics import directions

__all__ = ["MollweideMap", "colours_of"]

_COLOURS = "inferno"
_DIMMED = 0.35  # what is not in the region
_LEAST_DRAG = 5  # pixels; less is a click


def colours_of(density: NDArray[np.float64], highest: float) -> NDArray[np.float64]:
    """Return colours, ``(n, 3)`` 0-255, of densities from 0 to the highest."""
    table = pg.colormap.get(_COLOURS).getLookupTable(nPts=256)
    return np.asarray(
        table[(density / max(highest, 1e-12) * 255).clip(0, 255).astype(int)], dtype=np.float64
    )


class MollweideMap(QWidget):
    """Densities of view directions; dragging a rectangle or a lasso brushes a region.

    A click takes a single direction, Ctrl or Shift adds to the region, a double click takes it
    away.
    """

    brushed = Signal(object)
    """Sent with the region, ``(n_views,)`` bool, when it was brushed; None when it was taken away."""

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.lasso = False
        self._density: NDArray[np.float64] | None = None
        self._hues: NDArray[np.float64] | None = None
        self._region: NDArray[np.bool_] | None = None
        self._path: list[QPointF] = []
        self._image: QImage | None = None
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setMinimumSize(160, 80)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setAccessibleName("Map of view directions")
        self.set_theme(theme)

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours."""
        self._accent = QColor(theme_colours(theme)["accent"])
        self.update()

    def hasHeightForWidth(self) -> bool:
        """Say that the map is half as tall as wide."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Return half the width."""
        return width // 2

    def sizeHint(self) -> QSize:
        """Return what fits a dock at the side."""
        return QSize(330, 165)

    # ------------------------------------------------------------------ what is shown

    def show_density(
        self, density: NDArray[np.float64] | None, hues: NDArray[np.float64] | None = None
    ) -> None:
        """Show the density of views, ``(n_views,)``, 1 where it is that of even views; None for nothing.

        It is the brightness of ``hues``, ``(n_views, 3)`` sRGB 0-255, where these are given.
        """
        self._density, self._hues, self._image = density, hues, None
        self.update()

    def show_region(self, region: NDArray[np.bool_] | None) -> None:
        """Show a region, ``(n_views,)``, by dimming what is not in it."""
        self._region, self._image = region, None
        self.update()

    @property
    def region(self) -> NDArray[np.bool_] | None:
        """The region; None for none."""
        return self._region

    def place_of(self, view: int) -> QPointF:
        """Return where a view direction is in the widget."""
        row, column = self._places()[view]
        return QPointF(column, row)

    def _places(self) -> NDArray[np.float64]:
        from napari_cryosphere.so3.mollweide import mollweide_position

        return mollweide_position(directions(), self.height(), self.width())

    def _draw(self) -> QImage:
        from napari_cryosphere.widgets.state.sphere_picture import rasterise_views

        density = self._density
        if density is None:
            colours = np.full((len(directions()), 3), 40.0)
        elif self._hues is not None:
            colours = self._hues * (density / max(float(density.max()), 1e-12))[:, None]
        else:
            colours = colours_of(density, float(density.max()))
        if self._region is not None:
            colours = np.where(self._region[:, None], colours, _DIMMED * colours + 25)
        ratio = self.devicePixelRatioF()
        height, width = round(self.height() * ratio), round(self.width() * ratio)
        data = rasterise_views(
            colours, height, width
        ).tobytes()  # which Qt reads from, and does not own
        image = QImage(data, width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()
        image.setDevicePixelRatio(ratio)
        return image

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the map and what is being brushed."""
        if self._image is None or self._image.deviceIndependentSize().toSize() != self.size():
            self._image = self._draw()
        painter = QPainter(self)
        painter.drawImage(0, 0, self._image)
        if len(self._path) > 1:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(QColor("white"), 1.5))
            wash = QColor(self._accent)
            wash.setAlpha(70)
            painter.setBrush(wash)
            painter.drawPolygon(QPolygonF(self._corners()))
        painter.end()

    # ------------------------------------------------------------------ brushing

    def _corners(self) -> list[QPointF]:
        """Return the corners of what has been drawn so far."""
        if self.lasso:
            return self._path
        first, last = self._path[0], self._path[-1]
        return [first, QPointF(last.x(), first.y()), last, QPointF(first.x(), last.y())]

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin to brush."""
        if event.button() == Qt.MouseButton.LeftButton and self._density is not None:
            self._path = [event.position()]

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Brush on."""
        if self._path:
            self._path.append(event.position())
            self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End the brush and tell the region."""
        if not self._path:
            return
        if event.position() != self._path[-1]:
            self._path.append(event.position())
        outline = np.array([(point.x(), point.y()) for point in self._corners()])
        dragged = np.ptp(outline, axis=0).max() >= _LEAST_DRAG
        region = _inside(self._places()[:, ::-1], outline) if dragged else self._clicked(outline[0])
        self._path = []
        adding = event.modifiers() & (
            Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
        )
        if adding and self._region is not None:
            region = region | self._region
        if region.any():
            self.brushed.emit(region)
        self.update()

    def _clicked(self, point: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return the single direction at a point; none outside of the sphere."""
        distances = np.linalg.norm(self._places()[:, ::-1] - point, axis=1)
        region = np.zeros(len(distances), dtype=bool)
        region[distances.argmin()] = distances.min() < self.width() / 24
        return region

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Take the region away."""
        self._path = []
        self.brushed.emit(None)

    def event(self, event: object) -> bool:
        """Say under the mouse which direction it is at, and how dense views are there."""
        if isinstance(event, QHelpEvent) and event.type() == QHelpEvent.Type.ToolTip:
            at = np.flatnonzero(self._clicked(np.array([event.pos().x(), event.pos().y()])))
            QToolTip.showText(event.globalPos(), self.tip(int(at[0])) if at.size else "", self)
            return True
        return bool(super().event(event))  # type: ignore[arg-type]

    def tip(self, view: int) -> str:
        """Return what is known of a view direction."""
        x, y, z = directions()[view]
        rot, tilt = np.degrees(np.arctan2(y, x)), np.degrees(np.arccos(np.clip(z, -1, 1)))
        said = f"rot {rot:.0f}°, tilt {tilt:.0f}°"
        return said if self._density is None else f"{said}: {self._density[view]:.2f} × even"


def _inside(points: NDArray[np.float64], outline: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points ``(n, 2)`` lie inside a polygon ``(k, 2)``, by the even-odd rule."""
    inside = np.zeros(len(points), dtype=bool)
    x, y = points.T
    for (x1, y1), (x2, y2) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        crosses = (y1 > y) != (y2 > y)
        slope = (x2 - x1) / (y2 - y1) if y2 != y1 else 0.0
        inside ^= crosses & (x < x1 + slope * (y - y1))
    return inside
