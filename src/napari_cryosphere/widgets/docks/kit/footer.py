"""The foot of a dock: what runs, how far it is, and a button to stop it."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_cryosphere.widgets.docks.kit.style import caption, wrapped
from napari_cryosphere.widgets.docks.kit.workbench import Seat

__all__ = ["Footer"]


class Footer(QWidget):
    """Shown while work goes on.

    Parameters
    ----------
    seat
        The dock's hold on the viewer's controller.
    """

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._runner = seat.controller.runner
        self.progress, self.stop = QProgressBar(), QPushButton("Stop")
        self.progress.setRange(0, 100)
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(8)
        self.message = wrapped(caption())
        self.stop.setToolTip("Stop after the present step; what is made so far is kept")
        self.stop.clicked.connect(self._on_stop)
        lines, row = QVBoxLayout(), QHBoxLayout(self)
        lines.addWidget(self.message)
        lines.addWidget(self.progress)
        row.setContentsMargins(0, 0, 0, 0)
        row.addLayout(lines, 1)
        row.addWidget(self.stop)
        seat.connect(self._runner.busy_changed, self._on_busy)
        seat.connect(self._runner.progressed, self._on_progress)
        self._on_busy()

    def _on_busy(self, busy: bool = False) -> None:
        self.setVisible(self._runner.busy)
        self.stop.setEnabled(True)
        self.stop.setText("Stop")
        if not self._runner.busy:
            self.progress.setValue(0)
            self.message.setText("")

    def _on_progress(self, fraction: float, message: str) -> None:
        self.progress.setValue(round(100 * fraction))
        self.message.setText(message)

    def _on_stop(self) -> None:
        self.stop.setEnabled(False)
        self.stop.setText("Stopping…")
        self._runner.stop()
