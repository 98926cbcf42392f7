"""The FSC plot: curves next to their legend, a cross-hair with read-outs, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.docks.kit.plots import CURVE_COLOURS, ThemedPlot
from napari_cryosphere.widgets.docks.kit.style import (
    DockContent,
    dock_style,
    enable,
    push_button,
    theme_colours,
)
from napari_cryosphere.widgets.docks.maps.fsc_legend import FscLegend
from napari_cryosphere.widgets.state.fsc_curves import Curve, described, value_at, write_curves
from napari_cryosphere.widgets.state.notices import tell_error

__all__ = ["FscPlot", "save_picture"]

_NICE_ANGSTROM = (
    100,
    50,
    30,
    20,
    15,
    12,
    10,
    9,
    8,
    7,
    6,
    5,
    4.5,
    4,
    3.5,
    3,
    2.5,
    2,
    1.8,
    1.6,
    1.4,
    1.2,
    1,
)
_THRESHOLDS = (0.5, 0.143)
_LINES = {"masked": Qt.PenStyle.DashLine, "unmasked": Qt.PenStyle.DotLine}
_BAND_ALPHA = 45

_SCALE = 2  # sharp enough for print


class _ResolutionAxis(pg.AxisItem):  # type: ignore[misc]
    """An axis of spatial frequency that is labelled with the resolution in angstrom."""

    def tickValues(
        self, minimum: float, maximum: float, size: float
    ) -> list[tuple[None, list[float]]]:
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


class FscPlot(DockContent):
    """Fourier shell correlation against resolution, with the thresholds 0.5 and 0.143.

    The legend is next to the curves, never over them: for each a box to show it, its resolution
    and its value under the cross-hair.
    """

    def __init__(self, theme: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._curves: list[Curve] = []
        self._colours = theme_colours(theme)
        self._themed = ThemedPlot({"bottom": _ResolutionAxis("bottom")})
        self.plot = self._themed.plot
        self.legend = FscLegend()
        tip = "Save the shown curves as a table: shell, resolution in Å, correlation"
        self.csv = push_button("CSV…", tip, self._ask_csv)
        self.png = push_button("PNG…", "Save the plot and its legend as a picture", self._ask_png)
        self._cross = pg.InfiniteLine(angle=90)
        self._cross.hide()
        self._lay_out()
        self.legend.toggled.connect(self._draw)
        self.plot.scene().sigMouseMoved.connect(self._on_mouse)
        self.set_theme(theme)

    def _lay_out(self) -> None:
        self._buttons = QWidget()
        across, column, buttons = QHBoxLayout(self), QVBoxLayout(), QHBoxLayout(self._buttons)
        for layout in (across, column, buttons):
            layout.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        buttons.addStretch(1)
        for button in (self.csv, self.png):
            buttons.addWidget(button)
        column.addWidget(self.legend, 1)
        column.addWidget(self._buttons)
        across.addWidget(self._themed, 1)
        across.addLayout(column)
        self.setMinimumHeight(170)

    def sizeHint(self) -> QSize:
        """Return a height that leaves the canvas most of the window."""
        return QSize(500, 220)

    @property
    def labels(self) -> list[str]:
        """What the legend says, a line a curve."""
        return [described(curve) for curve in self._curves]

    def set_theme(self, theme: str) -> None:
        """Take a napari theme's colours and redraw."""
        self._colours = theme_colours(theme)
        self.setStyleSheet(dock_style(theme))
        self._themed.set_theme(theme)
        self.show_curves(self._curves)

    def show_curves(self, curves: Sequence[Curve]) -> None:
        """Draw these curves and no others; what was hidden by hand stays hidden."""
        self._curves = list(curves)
        groups = list(dict.fromkeys(curve.group for curve in curves))
        colours = {group: CURVE_COLOURS[i % len(CURVE_COLOURS)] for i, group in enumerate(groups)}
        self.legend.show_curves(self._curves, colours)
        for button in (self.csv, self.png):
            enable(button, (not curves, "There is no curve yet: compare two maps"))
        self._draw()

    def _draw(self) -> None:
        plot, text = self.plot, self._colours["text"]
        plot.clear()
        plot.setLabel("bottom", "resolution (Å)", color=text)
        plot.setLabel("left", "FSC", color=text)
        highest = max((curve.fsc.frequencies[-1] for curve in self._curves), default=0.2)
        plot.setXRange(0, highest, padding=0.01)
        plot.setYRange(-0.05, 1.05, padding=0)
        plot.getAxis("left").setTicks([[(value, f"{value:g}") for value in (0, 0.5, 1)], []])
        for threshold in _THRESHOLDS:
            self._draw_threshold(threshold)
        for curve in self.shown_curves:
            self._draw_curve(curve, self.legend.colour(curve))
        self._cross.setPen(pg.mkPen(self._colours["faint"], width=1))
        plot.addItem(self._cross, ignoreBounds=True)

    @property
    def shown_curves(self) -> list[Curve]:
        """The curves whose boxes are ticked."""
        return [curve for curve in self._curves if self.legend.is_shown(curve)]

    def _draw_curve(self, curve: Curve, colour: str) -> None:
        frequencies = curve.fsc.frequencies
        if curve.band is not None:
            edges = [pg.PlotDataItem(frequencies, edge.values) for edge in curve.band]
            shade = pg.mkColor(colour)
            shade.setAlpha(_BAND_ALPHA)
            self.plot.addItem(pg.FillBetweenItem(*edges, brush=shade))
        pen = pg.mkPen(colour, width=2, style=_LINES.get(curve.kind, Qt.PenStyle.SolidLine))
        self.plot.plot(frequencies, curve.fsc.values, pen=pen)

    def _draw_threshold(self, threshold: float) -> None:
        pen = pg.mkPen(self._colours["faint"], width=1, style=Qt.PenStyle.DashLine)
        options = {"position": 0.02, "color": self._colours["faint"], "anchors": [(0, 1), (0, 1)]}
        line = pg.InfiniteLine(
            threshold, angle=0, pen=pen, label=f"{threshold:g}", labelOpts=options
        )
        self.plot.addItem(line, ignoreBounds=True)

    def _on_mouse(self, position: QPointF) -> None:
        """Move the cross-hair under the mouse, and read the curves there."""
        box = self.plot.getViewBox()
        frequency = box.mapSceneToView(position).x()
        inside = bool(self._curves) and box.sceneBoundingRect().contains(position) and frequency > 0
        self._cross.setVisible(inside)
        if not inside:
            self.legend.read_out(None, {})
            return
        self._cross.setPos(frequency)
        values = {curve.label: value_at(curve, frequency) for curve in self.shown_curves}
        self.legend.read_out(1 / frequency, values)

    def leaveEvent(self, event: Any) -> None:
        """Take the cross-hair away."""
        self._cross.hide()
        self.legend.read_out(None, {})
        super().leaveEvent(event)

    def _ask_csv(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save FSC curves", "fsc.csv", "Tables (*.csv)")
        if path:
            self.save_csv(Path(path).with_suffix(".csv"))

    def _ask_png(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save FSC plot", "fsc.png", "Pictures (*.png)")
        if path:
            self.save_png(Path(path).with_suffix(".png"))

    def save_csv(self, path: Path) -> None:
        """Write the shown curves; an error is shown in napari's corner."""
        try:
            write_curves(self.shown_curves, path)
        except (CryosphereError, OSError) as error:
            tell_error(error)

    def save_png(self, path: Path) -> None:
        """Write the plot with its legend; an error is shown in napari's corner."""
        self._buttons.hide()
        try:
            save_picture(self, path, self._colours["background"])
        except (CryosphereError, OSError) as error:
            tell_error(error)
        finally:
            self._buttons.show()


def save_picture(widget: QWidget, path: Path, background: str) -> None:
    """Write what a widget shows as a PNG file on a colour, at twice the screen's resolution.

    Raises `CryosphereError` if the file cannot be written.
    """
    pixels = QPixmap(widget.size() * _SCALE)
    pixels.setDevicePixelRatio(_SCALE)
    pixels.fill(QColor(background))
    widget.render(pixels)
    with atomic_path(path, overwrite=True) as temporary:
        if not pixels.save(str(temporary), "PNG"):
            raise CryosphereError(f"{path}: the picture could not be written; is the disk full?")
