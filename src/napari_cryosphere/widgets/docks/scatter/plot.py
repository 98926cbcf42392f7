"""A plot of particles by two quantities, to be picked from with a lasso."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, QPoint, QPointF, QRect, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import QWidget

from napari_cryosphere.widgets.docks.kit.flags import FLAG_COLOURS
from napari_cryosphere.widgets.docks.kit.plots import ThemedPlot
from napari_cryosphere.widgets.docks.kit.style import theme_colours
from napari_cryosphere.widgets.state.particle_choices import Flag
from napari_cryosphere.widgets.state.scatter import (
    Frame,
    Pixels,
    frame_around,
    in_lasso,
    nearest_point,
    paint_points,
    pixels_of,
)

__all__ = ["SELECTED", "ScatterPlot"]

SELECTED = max(Flag) + 1
"""Class of selected points; that of others is their flag."""
_NEAR_PIXELS = 8.0  # of a click from a point
_NONE = np.empty((0, 2))


_ADDING = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
_LEAST_DRAG = 5  # pixels; less is a click


class _Lasso(QWidget):
    """A line drawn with the left button over a plot; wheel and middle button stay the plot's.

    While it is drawn a picture of the plot is below it: a move paints a piece of line and no points again,
    and the plot, which would look for what is under the mouse, is not asked.

    Parameters
    ----------
    plot
        The plot that is drawn over.
    """

    drawn = Signal(object, bool)
    """Sent with the outline, ``(k, 2)`` pixels of the plot's viewport, and whether Ctrl or Shift was held."""
    clicked = Signal(QPoint)
    double_clicked = Signal(QPoint)

    def __init__(self, plot: pg.PlotWidget) -> None:
        super().__init__(plot.parentWidget())
        self.colour = QColor("white")
        self._viewport = plot.viewport()
        self._pressed: QPointF | None = None
        self._path = QPolygonF()
        self._behind = QPixmap()
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.hide()
        self._viewport.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Take what the left button does."""
        kind = event.type()
        if not isinstance(event, QMouseEvent):
            return False
        if kind == QEvent.Type.MouseMove:
            self._move(event.position())
            return self._pressed is not None
        if event.button() != Qt.MouseButton.LeftButton:
            return False
        if kind == QEvent.Type.MouseButtonPress:
            self._pressed = event.position()
            self._path = QPolygonF([self._pressed])
        elif kind == QEvent.Type.MouseButtonDblClick:
            self.double_clicked.emit(event.position().toPoint())
        elif kind == QEvent.Type.MouseButtonRelease and self._pressed is not None:
            self._end(event.modifiers())
        return True

    def _move(self, to: QPointF) -> None:
        """Draw on to a place; begin where that is no click any more."""
        if self._pressed is None:
            return
        last = self._path.at(self._path.count() - 1)
        self._path.append(to)
        if self.isHidden():
            if (to - self._pressed).manhattanLength() < _LEAST_DRAG:
                return
            self._behind = self._viewport.grab()
            corner = self._viewport.mapTo(self.parentWidget(), QPoint())
            self.setGeometry(QRect(corner, self._viewport.size()))
            self._viewport.setUpdatesEnabled(False)
            self.show()
            self.raise_()
        self.update(QRectF(last, to).normalized().toAlignedRect().adjusted(-3, -3, 3, 3))

    def _end(self, modifiers: Qt.KeyboardModifier) -> None:
        """Uncover the plot and tell what was drawn."""
        pressed, self._pressed = self._pressed, None
        if self.isHidden():
            if pressed is not None:
                self.clicked.emit(pressed.toPoint())
            return
        self.hide()
        self._viewport.setUpdatesEnabled(True)
        self._behind = QPixmap()
        outline = np.array([(point.x(), point.y()) for point in self._path.toList()])
        self.drawn.emit(outline, bool(modifiers & _ADDING))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the plot's picture and the line."""
        painter = QPainter(self)
        painter.setClipRect(event.rect())
        painter.drawPixmap(0, 0, self._behind)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.colour, 2))
        painter.drawPolyline(self._path)
        painter.end()


class ScatterPlot(ThemedPlot):
    """Points with their flags and their selection.

    Parameters
    ----------
    theme
        napari's theme.
    """

    picked = Signal(object, bool)
    """Sent with which points, ``(n,)`` bool, a lasso holds, and whether they are added to the selection."""
    point_clicked = Signal(int)
    """Sent with the point that was clicked."""
    emptied = Signal()
    """Sent when the selection was taken away by a double click."""

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        self._points, self._classes = _NONE, np.zeros(0, np.uint8)
        self._own: NDArray[np.uint8] | None = None
        self._pixels: tuple[Frame, Pixels] | None = None
        super().__init__(None, parent, pg.PlotWidget())
        self._box = self.plot.getViewBox()
        self._box.setMouseEnabled(x=True, y=True)
        self._box.disableAutoRange()
        self.plot.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.plot.setAccessibleName("Scatter of particles")
        self.plot.setMinimumHeight(160)
        self._image = pg.ImageItem(axisOrder="row-major")
        self._lasso = _Lasso(self.plot)
        self._lasso.drawn.connect(self._on_drawn)
        self._lasso.clicked.connect(self._on_clicked)
        self._lasso.double_clicked.connect(self._on_double_clicked)
        self._current = pg.ScatterPlotItem(size=15, symbol="o")
        for item in (self._image, self._current):
            self.plot.addItem(item, ignoreBounds=True)
        self._box.sigRangeChanged.connect(self._on_view)
        self._box.sigResized.connect(self._on_view)
        self.set_theme(theme)

    def sizeHint(self) -> QSize:
        """Return a size that leaves the buttons in sight on a small screen."""
        return QSize(240, 200)

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours."""
        super().set_theme(theme)
        colours = theme_colours(theme)
        self._lasso.colour = QColor(colours["accent"])
        self._current.setPen(pg.mkPen(colours["text"], width=2))
        self._current.setBrush(None)
        flags = (FLAG_COLOURS[flag] for flag in list(Flag)[1:])
        named = [QColor(name) for name in (colours["faint"], *flags, colours["accent"])]
        self._colours = np.array([(one.red(), one.green(), one.blue()) for one in named], np.uint8)
        self._draw()

    # ------------------------------------------------------------------ what is shown

    def show_points(
        self, points: NDArray[np.float64], labels: tuple[str, str], fit: bool = True
    ) -> None:
        """Show points, ``(n, 2)`` finite values of the two quantities, and the quantities' names.

        ``fit`` fits the view to them.
        """
        self._points, self._pixels = points, None
        self._classes, self._own = np.zeros(len(points), dtype=np.uint8), None
        self.plot.setLabel("bottom", labels[0])
        self.plot.setLabel("left", labels[1])
        if fit:
            self.fit()
        self._draw()

    def show_classes(
        self, classes: NDArray[np.uint8], own: NDArray[np.uint8] | None = None
    ) -> None:
        """Show each point's flag, or that it is selected (`SELECTED`), ``(n,)``.

        Others have their own colour, ``(n, 3)``, where that is given.
        """
        self._classes, self._own = classes, own
        self._draw()

    def show_current(self, point: int | None) -> None:
        """Put a ring around a point."""
        at = _NONE if point is None else self._points[point : point + 1]
        self._current.setData(pos=at)

    def fit(self) -> None:
        """Show all points."""
        along, up = frame_around(self._points)
        self._box.setRange(xRange=along, yRange=up, padding=0)

    def frame(self) -> Frame:
        """Return what is seen, in pixels of the screen."""
        (left, right), (bottom, top) = self._box.viewRange()
        ratio = self.devicePixelRatioF()
        width, height = self._box.width() * ratio, self._box.height() * ratio
        return Frame(left, right, bottom, top, max(1, round(width)), max(1, round(height)))

    def place_of(self, point: int) -> QPoint:
        """Return where a point is in the plot's viewport."""
        return self._shown_at(self._points[point])

    def _on_view(self, *_: object) -> None:
        """Draw the points again if other ones are seen, or at another size."""
        if self._pixels is not None and self._pixels[0] != self.frame():
            self._draw()

    def _draw(self) -> None:
        """Draw the points in the colours of their classes."""
        frame = self.frame()
        if self._pixels is None or self._pixels[0] != frame:
            self._pixels = frame, pixels_of(self._points, frame)
        picture = paint_points(self._pixels[1], self._classes, self._colours, self._own)
        self._image.setImage(picture, autoLevels=False, levels=None)
        width, height = frame.right - frame.left, frame.top - frame.bottom
        self._image.setRect(QRectF(frame.left, frame.bottom, width, height))

    # ------------------------------------------------------------------ the mouse

    def _on_drawn(self, outline: NDArray[np.float64], adding: bool) -> None:
        """Tell which points are inside of what was drawn."""
        frame = self.frame()
        path = np.array([self._values_at(QPointF(*corner)) for corner in outline.tolist()])
        self.picked.emit(in_lasso(frame.places(self._points), frame.places(path)), adding)

    def _on_clicked(self, at: QPoint) -> None:
        """Tell which point is there."""
        found = self._point_at(at)
        if found is not None:
            self.point_clicked.emit(found)

    def _on_double_clicked(self, at: QPoint) -> None:
        """Take the selection away, unless a point was meant."""
        if self._point_at(at) is None:
            self.emptied.emit()

    def _point_at(self, at: QPoint) -> int | None:
        near = _NEAR_PIXELS * self.devicePixelRatioF()
        return nearest_point(self._points, self._values_at(QPointF(at)), self.frame(), near)

    def _values_at(self, place: QPointF) -> tuple[float, float]:
        """Return the quantities at a place of the plot's viewport."""
        scene = self.plot.viewportTransform().inverted()[0].map(place)
        values = self._box.mapSceneToView(scene)
        return values.x(), values.y()

    def _shown_at(self, values: tuple[float, float]) -> QPoint:
        """Return where values of the quantities are in the plot's viewport."""
        scene = self._box.mapViewToScene(pg.Point(*values))
        return QPoint(self.plot.mapFromScene(scene))
