"""Plots in a napari theme's colours; that of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_cryosphere.widgets.docks.kit.style import DockContent, theme_colours

__all__ = ["CURVE_COLOURS", "LossPlot", "ThemedPlot"]

CURVE_COLOURS = ("#4aa3df", "#f0a04b", "#5cc489", "#d678c9", "#e06c75", "#b5a642")


class ThemedPlot(DockContent):
    """A plot in a napari theme's colours."""

    def __init__(
        self,
        axes: dict[str, Any] | None = None,
        parent: QWidget | None = None,
        plot: pg.PlotWidget | None = None,
    ) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.plot = plot or pg.PlotWidget(axisItems=axes or {})
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        self.plot.setMouseEnabled(x=False, y=False)
        for side in ("left", "bottom"):
            self.plot.getAxis(side).enableAutoSIPrefix(False)
        self.plot.setMinimumSize(0, 0)
        layout.addWidget(self.plot)

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours."""
        colours = theme_colours(theme)
        self.plot.setBackground(colours["background"])
        for side in ("left", "bottom"):
            axis = self.plot.getAxis(side)
            axis.setPen(colours["faint"])
            axis.setTextPen(colours["text"])


class LossPlot(ThemedPlot):
    """Loss (left) and median error of held-out particles (right) of a training run against its progress."""

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(None, parent)
        self.setFixedHeight(120)
        self.plot.setXRange(0, 100, padding=0.01)
        self.plot.getAxis("bottom").setTicks(
            [[(value, f"{value} %") for value in (0, 25, 50, 75, 100)], []]
        )
        self._line = self.plot.plot(pen=pg.mkPen(CURVE_COLOURS[0], width=2))
        self._right = pg.ViewBox(enableMenu=False, enableMouse=False)
        self.plot.showAxis("right")
        self.plot.scene().addItem(self._right)
        self.plot.getAxis("right").linkToView(self._right)
        self.plot.getAxis("right").enableAutoSIPrefix(False)
        self._right.setXLink(self.plot.getViewBox())
        self._errors = pg.PlotDataItem(
            pen=pg.mkPen(CURVE_COLOURS[1], width=2),
            symbol="o",
            symbolSize=5,
            symbolBrush=CURVE_COLOURS[1],
        )
        self._right.addItem(self._errors)
        for side in ("left", "right"):
            self.plot.getAxis(side).setWidth(40)
        self.plot.getViewBox().sigResized.connect(self._on_resized)
        self.set_theme(theme)

    def _on_resized(self) -> None:
        self._right.setGeometry(self.plot.getViewBox().sceneBoundingRect())

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours; each axis has that of its curve."""
        super().set_theme(theme)
        for side, colour, label in (("left", 0, "loss (nats)"), ("right", 1, "error (°)")):
            axis = self.plot.getAxis(side)
            axis.setTextPen(CURVE_COLOURS[colour])
            axis.setPen(theme_colours(theme)["faint"])
            axis.setLabel(label, color=CURVE_COLOURS[colour])

    def show_losses(
        self,
        fractions: Sequence[float],
        losses: Sequence[float],
        errors_degrees: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Draw the losses so far, and the errors as (fraction, degrees)."""
        self._line.setData(
            100 * np.asarray(fractions, dtype=float), np.asarray(losses, dtype=float)
        )
        at, values = (
            np.reshape(errors_degrees, (-1, 2)).T if len(errors_degrees) else (np.empty(0),) * 2
        )
        self._errors.setData(100 * at, values)
        if len(values):
            self._right.setYRange(0, float(max(values)) * 1.1, padding=0)
