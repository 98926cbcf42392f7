"""Whether the predictions can be believed: confidence against the observed share, where poses are known."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from qtpy.QtWidgets import QWidget

from napari_cryosphere.widgets.docks.kit.plots import CURVE_COLOURS, ThemedPlot
from napari_cryosphere.widgets.docks.kit.seated_dock import single_shot
from napari_cryosphere.widgets.docks.kit.style import Panel, caption, wrapped
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.state.reliability import Reliability, reliability_of

__all__ = ["CalibrationPanel", "in_words"]

_HIGH_PX = 150
_LATER_MS = 300  # so that batches that come in are not drawn one by one


class CalibrationPanel(Panel):
    """A plot and a line; hidden where no poses are known, or nothing is predicted."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__("Calibration", parent)
        self._controller = controller = seat.controller
        self.plot = ThemedPlot()
        self.plot.setFixedHeight(_HIGH_PX)
        self.plot.plot.setLabel("left", "within 30°, %")
        self.plot.plot.setLabel("bottom", "confidence, %")
        self.plot.plot.setRange(xRange=(0, 100), yRange=(0, 100))
        self.plot.plot.addItem(pg.InfiniteLine((0, 0), angle=45, pen=pg.mkPen("#888888", width=1)))
        self._points = pg.PlotDataItem(
            pen=CURVE_COLOURS[0], symbol="o", symbolSize=7, symbolBrush=CURVE_COLOURS[0]
        )
        self.plot.plot.addItem(self._points)
        self.text = wrapped(caption())
        self.body.addWidget(self.plot)
        self.body.addWidget(self.text)
        self._later = single_shot(self, _LATER_MS, self.update_values)
        for signal in (controller.predictions_changed, controller.session_changed):
            seat.connect(signal, self._ask)
        self.update_values()

    def _ask(self, *_: object) -> None:
        self._later.start()

    def update_values(self) -> None:
        """Compare the chosen particles' predictions with their known poses."""
        session = self._controller.session
        summary = None if session is None else session.store.summary()
        found = None
        if session is not None and summary is not None:
            errors = session.store.errors_degrees[session.store.predicted]
            found = reliability_of(summary.confidence, summary.spread_degrees, errors)
        self.setVisible(found is not None)
        if found is not None:
            self._points.setData(100 * found.confidence, 100 * found.observed)
            self.text.setText(in_words(found))


def in_words(found: Reliability) -> str:
    """Return a line that compares what was said with what was observed."""
    said, seen = 100 * found.mean_confidence, 100 * found.within
    line = f"mean confidence {said:.0f} %, within 30°: {seen:.0f} %"
    if np.isfinite(found.mean_spread_degrees):
        line += f" · mean spread {found.mean_spread_degrees:.1f}°, mean error {found.mean_error_degrees:.1f}°"
    return line
