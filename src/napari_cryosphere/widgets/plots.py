"""Plots in a napari theme's colours; that of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_cryosphere.widgets.style import DockContent, theme_colours

__all__ = ["CURVE_COLOURS", "LossPlot", "ThemedPlot"]

CURVE_COLOURS = (
    "#4aa3df",
    "#f0a04b",
    "#5cc489",
    "#d678c9",
    "#e06c75",
    "#b5a642",
)


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
    """The loss of a training run against its progress."""

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(None, parent)
        self.setFixedHeight(96)
        self.plot.setXRange(0, 100, padding=0.01)
        self.plot.getAxis("left").setWidth(30)
        self.plot.getAxis("bottom").setTicks([[(value, f"{value} %") for value in (0, 25, 50, 75, 100)], []])
        self._line = self.plot.plot(pen=pg.mkPen(CURVE_COLOURS[0], width=2))
        self.set_theme(theme)

    def show_losses(self, fractions: Sequence[float], losses: Sequence[float]) -> None:
        """Draw the losses so far."""
        self._line.setData(100 * np.asarray(fractions, dtype=float), np.asarray(losses, dtype=float))
