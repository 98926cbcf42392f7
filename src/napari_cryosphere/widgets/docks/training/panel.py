"""Training on the particles that are loaded: what is chosen, and how it goes."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.docks.kit.plots import LossPlot
from napari_cryosphere.widgets.docks.kit.style import Panel, caption, wrapped
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.docks.training.form import TrainingForm
from napari_cryosphere.widgets.docks.training.preview_strip import PreviewStrip
from napari_cryosphere.widgets.docks.training.words import run_line
from napari_cryosphere.widgets.state.notices import tell_error

__all__ = ["TrainingPanel"]

_POLL_MS = 1000
_STOPPING = "Stopping…"


class TrainingPanel(Panel):
    """The form; start, pause and stop; the curves; held-out particles; and what to do with the result.

    Parameters
    ----------
    seat
        The dock's hold on the viewer's controller.
    """

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__("Train on these particles", parent)
        self._controller = controller = seat.controller
        self.form = TrainingForm(seat)
        self.button, self.pause = QPushButton("Train"), QPushButton("Pause")
        self.button.setObjectName("primary")
        self.button.clicked.connect(self._on_button)
        self.pause.clicked.connect(self._on_pause)
        self.pause.setToolTip(
            "Hold the training after its present report; the time budget waits too"
        )
        self.plot = LossPlot(controller.viewer.theme)
        self.strip = PreviewStrip()
        self.text = wrapped(caption())
        self.predict, self.other = (
            QPushButton("Predict with this model"),
            QPushButton("Follow a run…"),
        )
        self.predict.clicked.connect(self._on_predict)
        self.other.setToolTip(
            "Show the curves of a run folder that is trained elsewhere, and follow them"
        )
        self.other.clicked.connect(self._ask_run)
        buttons, below = QHBoxLayout(), QHBoxLayout()
        buttons.addWidget(self.button, 1)
        buttons.addWidget(self.pause)
        below.addWidget(self.predict, 1)
        below.addWidget(self.other)
        self.body.addWidget(self.form)
        self.body.addLayout(buttons)
        for widget in (self.text, self.plot, self.strip):
            self.body.addWidget(widget)
        self.body.addLayout(below)
        self._poll = QTimer(self)
        self._poll.setInterval(_POLL_MS)
        self._poll.timeout.connect(self._on_poll)
        run = controller.training
        for signal, callback in (
            (controller.session_changed, self._update),
            (controller.runner.busy_changed, self._update),
            (run.changed, self._update),
            (run.finished, self._on_finished),
        ):
            seat.connect(signal, callback)
        self._update()

    # ------------------------------------------------------------------ what the user does

    def _on_button(self) -> None:
        if self._controller.training.active:
            self.button.setEnabled(False)
            self.button.setText(_STOPPING)
            self._controller.runner.stop()
            return
        try:
            self._controller.train(self.form.value())
        except (CryosphereError, OSError) as error:
            tell_error(error)

    def _on_pause(self) -> None:
        runner = self._controller.runner
        runner.pause(not runner.paused)
        self._update()

    def _on_predict(self) -> None:
        folder = self._controller.training.folder
        if folder is not None:
            self._controller.choose_model(folder)
            self._controller.poses.predict()

    def _ask_run(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Run folder", self.form.folder.text())
        if path:
            self.follow(Path(path))

    def follow(self, folder: Path) -> None:
        """Show the figures of a run folder, and go on looking while it is trained."""
        try:
            self._controller.training.follow(folder)
        except (CryosphereError, OSError) as error:
            tell_error(error)

    def _on_poll(self) -> None:
        try:
            self._controller.training.poll()
        except (CryosphereError, OSError) as error:
            self._controller.training.leave()
            tell_error(error)

    # ------------------------------------------------------------------ what has changed

    def _on_finished(self, folder: Path) -> None:
        self.form.take_next_folder()
        self._update()

    def _update(self, *_: object) -> None:
        """Set the buttons, the plot and the line above it."""
        run, runner, session = (
            self._controller.training,
            self._controller.runner,
            self._controller.session,
        )
        if run.following != self._poll.isActive():
            (self._poll.start if run.following else self._poll.stop)()
        trainable = session is not None and session.stack.has_poses
        if not (run.active and self.button.text() == _STOPPING):
            self.button.setText("Stop" if run.active else "Train")
            self.button.setEnabled(run.active or (trainable and not runner.busy))
        tip = "Stop and keep the model learnt so far" if run.active else ""
        self.button.setToolTip(tip if trainable else "Training needs particles with poses")
        self.form.setEnabled(not run.active)
        self.pause.setVisible(run.active)
        self.pause.setText("Go on" if runner.paused else "Pause")
        self.plot.setVisible(bool(run.losses))
        self.plot.show_losses(run.fractions, run.losses, run.errors_degrees)
        known = None if session is None else session.store.known
        self.strip.show_preview(run.preview, known)
        model = run.folder is not None and (run.folder / "model.safetensors").is_file()
        self.predict.setVisible(model and not run.active)
        self.predict.setEnabled(session is not None and not runner.busy)
        self.text.setText(run_line(run, runner.paused))
        self.text.setVisible(bool(self.text.text()))
