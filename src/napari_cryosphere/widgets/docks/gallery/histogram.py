"""A histogram to brush."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

from napari_cryosphere.widgets.docks.kit.plots import ThemedPlot
from napari_cryosphere.widgets.docks.kit.style import theme_colours

__all__ = ["Histogram"]

_BINS = 60
_TIP = """Drag to choose a range; double-click to take it away.
Heights are logarithmic: single particles can be seen."""
_HEIGHT = 84


class _BrushBox(pg.ViewBox):  # type: ignore[misc]
    """A view box where dragging brushes a range and a double click takes it away."""

    def __init__(self, brush: Any) -> None:
        super().__init__(enableMouse=False, enableMenu=False)
        self._brush = brush

    def mouseDragEvent(self, event: Any, axis: Any = None) -> None:
        """Brush from where the button went down to here."""
        event.accept()
        ends = (event.buttonDownPos(), event.pos())
        low, high = sorted(self.mapToView(end).x() for end in ends)
        self._brush(low, high, event.isFinish())

    def mouseDoubleClickEvent(self, event: Any) -> None:
        """Take the range away."""
        event.accept()
        self._brush(None, None, True)


class Histogram(ThemedPlot):
    """How a quantity is distributed, over all particles and over the selected ones, with a range to brush."""

    brushed = Signal(object)
    """Sent with the limits ``(low, high)`` when a range was brushed or moved; None when it was
    taken away.
    """

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(None, parent, pg.PlotWidget(viewBox=_BrushBox(self._on_brush)))
        self.setFixedHeight(_HEIGHT)
        self.plot.hideAxis("left")
        self.plot.setToolTip(_TIP)
        none = pg.mkPen(None)
        self._all = self.plot.plot(stepMode="center", fillLevel=0, pen=none)
        self._selected = self.plot.plot(stepMode="center", fillLevel=0, pen=none)
        self._region = pg.LinearRegionItem(movable=True)
        self._region.hide()
        self._region.sigRegionChangeFinished.connect(self._on_moved)
        self.plot.addItem(self._region, ignoreBounds=True)
        self.set_theme(theme)

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours."""
        super().set_theme(theme)
        colours = theme_colours(theme)
        self._all.setBrush(colours["faint"])
        self._selected.setBrush(colours["accent"])
        wash, edge = QColor(colours["accent"]), pg.mkPen(colours["accent"], width=2)
        wash.setAlpha(50)
        self._region.setBrush(wash)
        self._region.setHoverBrush(wash)
        for line in self._region.lines:
            line.setPen(edge)
            line.setHoverPen(edge)

    @property
    def limits(self) -> tuple[float, float] | None:
        """The brushed range; None if there is none."""
        low, high = self._region.getRegion()
        return (float(low), float(high)) if self._region.isVisible() else None

    def show_values(
        self,
        values: NDArray[np.float64],
        selected: NDArray[np.float64],
        limits: tuple[float, float] | None,
    ) -> None:
        """Draw the values of all particles, those of the selected ones, and the range."""
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if high <= low:
            low, high = low - 0.5, high + 0.5
        counts, edges = np.histogram(finite, bins=_BINS, range=(low, high))
        chosen = np.histogram(selected[np.isfinite(selected)], bins=edges)[0]
        self._all.setData(edges, np.log1p(counts))
        self._selected.setData(edges, np.log1p(chosen))
        self.plot.setXRange(low, high, padding=0.02)
        self.plot.setYRange(0, float(np.log1p(max(1, counts.max()))), padding=0.04)
        self._show_limits(limits)

    def _show_limits(self, limits: tuple[float, float] | None) -> None:
        self._region.blockSignals(True)
        self._region.setVisible(limits is not None)
        if limits is not None:
            self._region.setRegion(limits)
        self._region.blockSignals(False)

    def _on_brush(self, low: float | None, high: float | None, finished: bool) -> None:
        limits = None if low is None or high is None else (low, high)
        self._show_limits(limits)
        if finished:
            self.brushed.emit(limits)

    def _on_moved(self) -> None:
        if self._region.isVisible():
            self.brushed.emit(self.limits)
