"""The dock that trains on what is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QFileDialog, QGridLayout, QLabel, QWidget

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.events import Preview
from napari_cryosphere.widgets.control.training_run import TrainingRun
from napari_cryosphere.widgets.docks.kit.plots import LossPlot
from napari_cryosphere.widgets.docks.kit.seated_dock import Footer, SeatedDock, scrolled
from napari_cryosphere.widgets.docks.kit.style import (
    BUSY,
    Panel,
    caption,
    dock_style,
    enable,
    in_row,
    push_button,
    wrapped,
)
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.docks.training.form import TrainingForm
from napari_cryosphere.widgets.state.notices import tell_error
from napari_cryosphere.widgets.state.sphere_layer import CROSS_COLOUR
from napari_cryosphere.widgets.state.training_choices import can_resume

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.widgets.control.running import Runner

__all__ = ["TrainingDock", "TrainingPanel", "duration", "preview_pictures", "run_line"]

_COLUMNS, MOST_PICTURES = 3, 6

_POLL_MS = 1000
_STOPPING = "Stopping…"


class TrainingDock(SeatedDock):
    """Train, pause, stop, resume, and follow runs that go on elsewhere."""

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self.panel = TrainingPanel(self._seat)
        self.footer = Footer(self._seat)
        outer = self._column()
        outer.addWidget(scrolled(self.panel), 1)
        outer.addWidget(self.footer)
        self._seat.connect(viewer.events.theme, self._on_theme)
        self._on_theme()

    def _on_theme(self, event: Any = None) -> None:
        self.setStyleSheet(dock_style(self._viewer.theme))
        self.panel.plot.set_theme(self._viewer.theme)


class TrainingPanel(Panel):
    """The form; start, pause and stop; the curves; held-out particles; and what to do with the result."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__("Train on these particles", parent)
        self._controller = controller = seat.controller
        self.form = TrainingForm(seat)
        self.button = push_button("Train on loaded data", "", self._on_button, "primary")
        tip = "Hold the training after its present report; the time budget waits too"
        self.pause = push_button("Pause", tip, self._on_pause)
        self.headline = wrapped(QLabel())
        self.headline.setObjectName("value")
        self.plot = LossPlot(controller.viewer.theme)
        self.strip = PreviewStrip()
        self.text = wrapped(caption())
        self.predict = push_button("Predict with this model", press=self._on_predict)
        tip = "Go on with the run where it was stopped, as it was begun"
        self.again = push_button("Resume", tip, self._on_again)
        self.form.resume.toggled.connect(self._update)
        tip = "Show the curves of a run folder that is trained elsewhere, and follow them"
        self.other = push_button("Follow a run…", tip, self._ask_run)
        self.add(self.form, in_row(self.button, self.again, self.pause), self.headline, self.text)
        self.add(self.plot, self.strip, in_row(self.predict, self.other))
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
            enable(self.button, (True, "The run ends after the present step"))
            self.button.setText(_STOPPING)
            self._controller.runner.stop()
            return
        try:
            self._controller.train(self.form.value())
        except (CryosphereError, OSError) as error:
            tell_error(error)

    def _on_again(self) -> None:
        folder = self._controller.training.folder
        if folder is not None:
            self.form.take_run(folder)
            self._on_button()

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
        """Show the values of a run folder, and go on looking while it is trained."""
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
            start = "Resume" if self.form.resuming else "Train on loaded data"
            self.button.setText("Stop" if run.active else start)
            enable(
                self.button,
                (not (run.active or trainable), "Training needs particles with poses"),
                (runner.busy and not run.active, BUSY),
            )
            if run.active:
                self.button.setToolTip("Stop and keep the model learnt so far")
        self.form.lock(run.active)
        self.pause.setVisible(run.active)
        stopped = not run.active and run.folder is not None and can_resume(run.folder)
        self.again.setVisible(stopped)
        enable(
            self.again, (not trainable, "Open the particles of the run first"), (runner.busy, BUSY)
        )
        self.pause.setText("Resume" if runner.paused else "Pause")
        self.plot.setVisible(bool(run.losses))
        self.plot.show_losses(run.fractions, run.losses, run.errors_degrees)
        known = None if session is None else session.store.known
        self.strip.show_preview(run.preview, known)
        model = run.folder is not None and (run.folder / "model.safetensors").is_file()
        self.predict.setVisible(model and not run.active)
        nothing = "Open particles first"
        enable(self.predict, (session is None, nothing), (runner.busy, BUSY))
        median = run.validation_median_degrees
        self.headline.setVisible(median is not None)
        if median is not None:
            whose = "" if run.folder is None else f" · {run.folder.name}"
            self.headline.setText(f"held-out error {median:.1f}°{whose}")
        self.text.setText(run_line(run, runner.paused))
        self.text.setVisible(bool(self.text.text()))


def run_line(run: TrainingRun, paused: bool) -> str:
    """Return how a run goes: loss, speed, time left; empty if there is none."""
    if run.active and not run.losses:
        return "Preparing the particles…"
    if not run.losses:
        return (
            f"{run.folder.name}: no report yet" if run.following and run.folder is not None else ""
        )
    parts = [f"Loss {run.losses[-1]:.2f} nats (0 = uniform)"]
    going = run.active or run.following
    if going and run.images_per_second is not None:
        parts.append(f"{run.images_per_second:.0f} images/s")
    if paused:
        parts.append("paused")
    elif going and run.remaining_seconds is not None:
        parts.append(f"{duration(run.remaining_seconds)} left")
    if run.following and run.folder is not None:
        parts.append(f"following {run.folder.name}")
    elif not run.active and run.folder is not None:
        parts.append(f"model in {run.folder.name}")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Return a time to go: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class PreviewStrip(QWidget):
    """Up to six small spheres, with a cross at the known view; hidden while there is nothing to show."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown: Preview | None = None
        self.labels = [QLabel() for _ in range(MOST_PICTURES)]
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        grid.addWidget(
            caption("Held-out particles; crosses mark their known views"), 0, 0, 1, _COLUMNS
        )
        for place, label in enumerate(self.labels):
            label.setScaledContents(True)
            label.setMinimumSize(1, 1)
            label.setFixedHeight(48)
            grid.addWidget(label, 1 + place // _COLUMNS, place % _COLUMNS)
        self.hide()

    def show_preview(self, preview: Preview | None, known: NDArray[np.float64] | None) -> None:
        """Draw what a network says now; None hides the strip."""
        self.setVisible(preview is not None)
        if preview is None or preview is self._shown:
            self._shown = preview
            return
        self._shown = preview
        pictures = preview_pictures(preview, known)
        for place, label in enumerate(self.labels):
            label.setVisible(place < len(pictures))
            if place < len(pictures):
                picture = np.ascontiguousarray(pictures[place])
                height, width = picture.shape[:2]
                image = QImage(
                    picture.data, width, height, 4 * width, QImage.Format.Format_RGBA8888
                )
                label.setPixmap(QPixmap.fromImage(image.copy()))
                label.setToolTip(f"particle {int(preview.rows[place]) + 1:,}, held out")


HEIGHT, WIDTH = 56, 112


def preview_pictures(
    preview: Preview, known: NDArray[np.float64] | None
) -> list[NDArray[np.uint8]]:
    """Draw the first six particles of a preview.

    ``preview``: what the network says now. ``known``: ``(n, 3, 3)`` poses of the whole stack, for
    the crosses; None if they are not known. Returns ``(56, 112, 4)`` uint8 RGBA pictures.
    """
    from napari_cryosphere.widgets.state.sphere_picture import draw_cross, rasterise

    pictures = []
    for place, row in enumerate(preview.rows[:MOST_PICTURES]):
        picture = rasterise(preview.distribution[place].probability_grid(3)[0], HEIGHT, WIDTH)
        if known is not None and row < len(known):
            draw_cross(picture, known[row][:, 2], CROSS_COLOUR, 6)
        pictures.append(picture)
    return pictures
