"""Choosing a model, predicting poses with it, and saving them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFrame,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.widgets.control.work import SAMPLE_MODEL, model_name, own_map
from napari_cryosphere.widgets.docks.kit.layer_combo import LayerCombo
from napari_cryosphere.widgets.docks.kit.style import (
    BUSY,
    Panel,
    caption,
    enable,
    in_row,
    push_button,
    restyle,
    wrapped,
)
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.plugin.open_docks import COMMANDS, open_dock
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.notices import tell_error, tell_note
from napari_cryosphere.widgets.state.predictions import PredictionStore

__all__ = ["PosePanel", "overall_lines"]

_REFINE_TIP = (
    "Turn and move each particle to where it fits a map best, from the most probable predicted poses: finds "
    "shifts too, about 25 ms per particle"
)
_FINDING = "abinitio"
_BUSY = "Other work is going on: wait for it, or stop it below"
_NO_POSES = "Predict poses first"
_OWN_MAP = "the model's own map"


class PosePanel(Panel):
    """The model, the buttons, and a line on all particles."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__("Poses", parent)
        self._controller = controller = seat.controller
        self.models = QComboBox()
        self.models.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.models.addItem("choose a model…", None)
        self.models.addItem(model_name(SAMPLE_MODEL), str(SAMPLE_MODEL))
        self.models.setItemData(
            1, "Trained on the sample particles: it knows no others", 3
        )  # tool tip
        self.models.currentIndexChanged.connect(self._on_model)
        other = push_button("Open", "Take another model")
        menu = QMenu(other)
        menu.addAction("Model file…", self._ask_file)
        menu.addAction("Run folder…", self._ask_folder)
        other.setMenu(menu)
        self.predict = push_button("Predict poses", press=lambda: controller.poses.predict())
        tip = "Train a model of these particles, in a dock of its own"
        self.train = push_button(
            "Train on loaded data", tip, lambda: controller.training_wanted.emit()
        )
        tip = (
            "Find a coarse map and poses with neither poses nor a map: give the molecule's diameter"
        )
        self.find_poses = push_button("Find poses from the images", tip, self._on_find)
        seat.connect(controller.finding_wanted, self._on_find)
        self.question = QuestionBar(seat)
        tip = "Write the poses, refined where they are, and their uncertainty as a STAR file"
        self.save = push_button("Save STAR…", tip, self.ask_save)
        self.refine = push_button("Refine", _REFINE_TIP, self._on_refine)
        self.reference = LayerCombo("no map loaded")
        self.reference.setToolTip("The map that poses are refined against")
        self.overall = wrapped(caption())
        self.add(in_row(self.models, other), self.find_poses, self.train, self.question)
        self.add(in_row(self.predict, self.save))
        self.add(in_row(self.refine, caption("against"), self.reference, wide=2), self.overall)
        for signal, callback in (
            (controller.predictions_changed, self._update),
            (controller.session_changed, self._update),
            (controller.runner.busy_changed, self._update),
            (controller.layers_changed, self._on_maps),
            (controller.model_changed, self._on_model_changed),
        ):
            seat.connect(signal, callback)
        self._on_model_changed(controller.model_path)
        self._update()

    def add_model(self, path: Path) -> None:
        """Offer a model file or a run folder, and choose it."""
        at = self.models.findData(str(path))
        if at < 0:
            self.models.addItem(model_name(path), str(path))
            at = self.models.count() - 1
            self.models.setItemData(at, str(path), 3)  # tool tip
        self.models.setCurrentIndex(at)

    def _on_model(self) -> None:
        chosen = self.models.currentData()
        path = None if chosen is None else Path(chosen)
        if path != self._controller.model_path:
            self._controller.choose_model(path)

    def _on_model_changed(self, path: Path | None) -> None:
        if path is None:
            self.models.setCurrentIndex(0)
        else:
            self.add_model(path)
        self._on_maps()
        if self._has_own_map():
            self.reference.choose(None)
        self._update()

    def _has_own_map(self) -> bool:
        """Return whether the model's run left its map next to it."""
        return own_map(self._controller.model_path) is not None

    def _on_maps(self) -> None:
        """Offer the maps to refine against."""
        own = _OWN_MAP if self._has_own_map() else ""
        self.reference.set_layers(self._controller.map_layers, own)
        self._update()

    def _on_find(self) -> None:
        """Open the form of the command that finds poses, filled with what is known of the particles."""
        open_dock(self._controller.viewer, COMMANDS).choose(_FINDING)

    def _on_refine(self) -> None:
        self._controller.poses.refine(map_of(self.reference.layer()))

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Model file", "", "Models (*.safetensors)")
        if path:
            self.add_model(Path(path))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Run folder")
        if path:
            self.add_model(Path(path))

    def ask_save(self) -> None:
        """Ask for a file and save the predicted particles."""
        try:
            stack, session = self._controller.poses.stack(), self._controller.session
            assert session is not None
            default = str(stack.source.with_name(f"{stack.source.stem}_predicted.star"))
            path, _ = QFileDialog.getSaveFileName(
                self, "Save predicted poses", default, "STAR files (*.star)"
            )
            if path:
                target = Path(path if path.endswith(".star") else f"{path}.star")
                stack.save(target, overwrite=True)
                self._controller.note_saved(session)
                tell_note(f"{len(stack):,} particles in {target}")
        except (CryosphereError, OSError) as error:
            tell_error(error)

    def _update(self) -> None:
        """Set buttons, the read-outs and the line on all particles."""
        session, busy = self._controller.session, self._controller.runner.busy
        done = 0 if session is None else int(session.store.predicted.sum())
        path = self._controller.model_path
        enable(
            self.predict,
            (session is None, "Open particles first"),
            (path is None, "Choose a model first, or train one on these particles"),
            (busy, _BUSY),
        )
        enable(self.find_poses, (session is None, "Open particles first"), (busy, _BUSY))
        posed = session is not None and session.stack.has_poses
        first = None if done else self.train if posed else self.find_poses
        wanted = first if path is None else self.predict
        for button in (self.predict, self.train, self.find_poses):
            restyle(button, "primary" if button is wanted else "")
        enable(self.train, (not posed, "Training needs particles with poses: find them first"))
        enable(self.save, (done == 0, _NO_POSES), (busy, _BUSY))
        enable(
            self.refine,
            (done == 0, _NO_POSES),
            (path is None, "Choose the model whose poses are refined"),
            (not self.reference.chosen, "Open a map to refine against, or reconstruct one"),
            (busy, _BUSY),
        )
        self.overall.setVisible(done > 0)
        if session is not None and done:
            self.overall.setText("\n".join(overall_lines(session.store)))


def overall_lines(store: PredictionStore) -> list[str]:
    """Return a line on all predicted poses, and one on the refined ones, each with its own values."""
    summary, done = store.summary(), int(store.predicted.sum())
    of_all = "" if done == store.number else f" of {store.number:,}"
    errors = store.errors_degrees[store.predicted] if store.known is not None else None
    lines = (
        []
        if summary is None or store.only_refined
        else [f"{done:,}{of_all} predicted{_medians(summary, errors)}"]
    )
    if store.refined is not None:
        refined = _medians(store.refined, store.refined_errors_degrees())
        named = "poses in the file" if store.only_refined else "refined"
        lines.append(f"{len(store.refined):,} {named}{refined}")
    return lines


def _medians(summary: PoseSummary, errors_degrees: NDArray[np.float64] | None) -> str:
    """Return median spread and error of poses as far as they are known."""
    parts = []
    if np.isfinite(summary.spread_degrees).any():
        parts.append(f"spread {np.nanmedian(summary.spread_degrees):.1f}°")
    if errors_degrees is not None and np.isfinite(errors_degrees).any():
        parts.append(f"error {np.nanmedian(errors_degrees):.1f}°")
    return f": median {', '.join(parts)}" if parts else ""


class QuestionBar(QFrame):
    """The question about the chosen particles; hidden while there is none."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("question")
        self._controller = seat.controller
        self.text = wrapped(QLabel())
        self.text.setObjectName("asked")
        self.buttons: list[QPushButton] = []
        self._column = QVBoxLayout()
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.addWidget(self.text)
        column.addLayout(self._column)
        for signal in (self._controller.question_changed, self._controller.runner.busy_changed):
            seat.connect(signal, self._show)
        self._show()

    def _show(self, *_: object) -> None:
        session = self._controller.session
        question = None if session is None else session.question
        for button in self.buttons:
            self._column.removeWidget(button)
            button.hide()
            button.deleteLater()
        self.buttons = []
        self.setVisible(question is not None)
        if question is None:
            return
        self.text.setText(question.text)
        for place, answer in enumerate(question.answers):
            look = "primary" if place == 0 else ""
            button = push_button(answer.text, answer.tip, lambda _=False, do=answer.do: do(), look)
            enable(button, (self._controller.runner.busy, BUSY))
            self._column.addWidget(button)
            self.buttons.append(button)
