"""Training on the particles that are loaded."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QToolButton,
    QWidget,
)

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.controller import Controller
from napari_cryosphere.widgets.notices import tell_error
from napari_cryosphere.widgets.plots import LossPlot
from napari_cryosphere.widgets.style import Panel, caption, wrapped
from napari_cryosphere.widgets.training_run import new_run_folder

__all__ = ["TrainingPanel"]


class TrainingPanel(Panel):
    """Time budget, run folder, start and stop, and the loss as it falls."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__("Train on these particles", parent)
        self._controller = controller
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.05, 24 * 60)
        self.minutes.setDecimals(2)
        self.minutes.setValue(10)
        self.minutes.setSuffix(" min")
        self.button = QPushButton("Train")
        self.button.clicked.connect(self._on_button)
        self.folder = QLineEdit()
        self.folder.setToolTip("Run folder: the model, its settings and the log are written there")
        choose = QToolButton()
        choose.setText("…")
        choose.clicked.connect(self._ask_folder)
        first, second = QHBoxLayout(), QHBoxLayout()
        first.addWidget(self.minutes)
        first.addWidget(self.button, 1)
        second.addWidget(caption("into"))
        second.addWidget(self.folder, 1)
        second.addWidget(choose)
        self.plot = LossPlot(controller.viewer.theme)
        self.text = wrapped(caption())
        self.body.addLayout(first)
        self.body.addLayout(second)
        self.body.addWidget(self.plot)
        self.body.addWidget(self.text)
        controller.session_changed.connect(self._on_session)
        controller.runner.busy_changed.connect(self._update)
        controller.training.changed.connect(self._update)
        controller.training.finished.connect(self._on_finished)
        self._on_session()

    def _on_session(self) -> None:
        session = self._controller.session
        self.folder.setText("" if session is None else str(new_run_folder(session.stack.source)))
        self._update()

    def _on_finished(self, folder: Path) -> None:
        self.text.setText(f"{self.text.text()} Model in {folder.name}, chosen above.")
        session = self._controller.session
        self.folder.setText(str(new_run_folder(None if session is None else session.stack.source)))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Run folder", self.folder.text())
        if path:
            self.folder.setText(path)

    def _on_button(self) -> None:
        if self._controller.training.active:
            self.button.setEnabled(False)
            self.button.setText("Stopping…")
            self._controller.runner.stop()
            return
        try:
            folder = self.folder.text().strip()
            if not folder:
                raise CryosphereError("no run folder is given; choose one")
            self._controller.train(self.minutes.value(), Path(folder))
        except CryosphereError as error:
            tell_error(error)

    def _update(self) -> None:
        """Set the button, the plot and the line below it."""
        run, busy = self._controller.training, self._controller.runner.busy
        trainable = self._controller.session is not None and self._controller.session.stack.has_poses
        if run.active and self.button.text() == "Stopping…":
            pass
        else:
            self.button.setText("Stop" if run.active else "Train")
            self.button.setEnabled(run.active or (trainable and not busy))
        self.button.setToolTip("" if trainable else "Training needs particles with poses")
        self.plot.setVisible(bool(run.losses))
        self.plot.show_losses(run.fractions, run.losses)
        self.text.setVisible(run.active or bool(run.losses))
        parts = ["Preparing…" if run.active and not run.losses else ""]
        if run.losses:
            parts = [f"Loss {run.losses[-1]:.2f} nats (0 knows nothing)"]
        if run.validation_median_degrees is not None:
            parts.append(f"held-out error {run.validation_median_degrees:.1f}° (median)")
        if run.active and run.remaining_seconds is not None:
            parts.append(f"{max(1, round(run.remaining_seconds / 60))} min left")
        self.text.setText(" · ".join(part for part in parts if part))
