"""The FSC plot and the small plot of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_cryosphere.widgets.style import DockContent, theme_colours

if TYPE_CHECKING:
    from napari_cryosphere.widgets.map_controller import Curve

__all__ = ["FscPlot", "LossPlot", "ThemedPlot"]

_CURVE_COLOURS = (
    "#4aa3df",
    "#f0a04b",
    "#5cc489",
    "#d678c9",
    "#e06c75",
    "#b5a642",
)
_NICE_ANGSTROM = (100, 50, 30, 20, 15, 12, 10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.8, 1.6, 1.4, 1.2, 1)


class _ResolutionAxis(pg.AxisItem):  # type: ignore[misc]
    """An axis of spatial frequency that is labelled with the resolution in angstrom."""

    def tickValues(self, minimum: float, maximum: float, size: float) -> list[tuple[None, list[float]]]:
        """Return frequencies of round resolutions, some 42 pixels apart at least."""
        least = 42 * (maximum - minimum) / max(size, 1)
        chosen: list[float] = []
        for resolution in _NICE_ANGSTROM:
            frequency = 1 / resolution
            if minimum <= frequency <= maximum and (not chosen or frequency - chosen[-1] >= least):
                chosen.append(frequency)
        return [(None, chosen)]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: Any) -> list[str]:
        """Return the resolutions of frequencies."""
        return [f"{1 / value:.3g}" for value in values]


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


class FscPlot(ThemedPlot):
    """Fourier shell correlation against resolution, with the thresholds 0.5 and 0.143."""

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__({"bottom": _ResolutionAxis("bottom")}, parent)
        self.setMinimumHeight(190)
        self._curves: Mapping[str, Curve] = {}
        self._colours = theme_colours(theme)
        self._legend = self.plot.addLegend(offset=(-12, 6), labelTextSize="9pt", verSpacing=-2)
        self.set_theme(theme)

    def sizeHint(self) -> QSize:
        """Return a height that leaves the canvas most of the window."""
        return QSize(500, 230)

    @property
    def labels(self) -> list[str]:
        """What the legend says, a line a curve."""
        return [_described(label, curve) for label, curve in self._curves.items()]

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours and draw anew."""
        super().set_theme(theme)
        self._colours = theme_colours(theme)
        self.show_curves(self._curves)

    def show_curves(self, curves: Mapping[str, Curve]) -> None:
        """Draw these curves and no others."""
        self._curves = dict(curves)
        self.plot.clear()
        self._legend.clear()
        self._legend.setLabelTextColor(self._colours["text"])
        self.plot.setLabel("bottom", "resolution (Å)", color=self._colours["text"])
        self.plot.setLabel("left", "FSC", color=self._colours["text"])
        highest = max((curve.fsc.frequencies[-1] for curve in curves.values()), default=0.2)
        self.plot.setXRange(0, highest, padding=0.01)
        self.plot.setYRange(-0.05, 1.05, padding=0)
        self.plot.getAxis("left").setTicks([[(value, f"{value:g}") for value in (0, 0.5, 1)], []])
        for threshold in (0.5, 0.143):
            self._draw_threshold(threshold)
        for (label, curve), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
            self.plot.plot(
                curve.fsc.frequencies,
                curve.fsc.values,
                pen=pg.mkPen(colour, width=2),
                name=_described(label, curve),
            )

    def _draw_threshold(self, threshold: float) -> None:
        pen = pg.mkPen(self._colours["faint"], width=1, style=Qt.PenStyle.DashLine)
        options = {"position": 0.02, "color": self._colours["faint"], "anchors": [(0, 1), (0, 1)]}
        line = pg.InfiniteLine(threshold, angle=0, pen=pen, label=f"{threshold:g}", labelOpts=options)
        self.plot.addItem(line, ignoreBounds=True)


def _described(label: str, curve: Curve) -> str:
    resolution = curve.fsc.resolution_angstrom(curve.threshold)
    return f"{label}: {resolution:.1f} Å at {curve.threshold:g}"


def _cycle(number: int) -> list[str]:
    return [_CURVE_COLOURS[i % len(_CURVE_COLOURS)] for i in range(number)]


class LossPlot(ThemedPlot):
    """The loss of a training run against its progress."""

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(None, parent)
        self.setFixedHeight(96)
        self.plot.setXRange(0, 100, padding=0.01)
        self.plot.getAxis("left").setWidth(30)
        self.plot.getAxis("bottom").setTicks([[(value, f"{value} %") for value in (0, 25, 50, 75, 100)], []])
        self._line = self.plot.plot(pen=pg.mkPen(_CURVE_COLOURS[0], width=2))
        self.set_theme(theme)

    def show_losses(self, fractions: Sequence[float], losses: Sequence[float]) -> None:
        """Draw the losses so far."""
        self._line.setData(100 * np.asarray(fractions, dtype=float), np.asarray(losses, dtype=float))
