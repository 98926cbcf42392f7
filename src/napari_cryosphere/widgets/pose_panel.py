"""Predicting poses, and what is predicted for the particle that is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.controller import Controller
from napari_cryosphere.widgets.hue_key import HueKey
from napari_cryosphere.widgets.notices import tell_error
from napari_cryosphere.widgets.style import Panel, Tiles, caption, wrapped

__all__ = ["PosePanel"]

_CAPTIONS = {
    "rot": "rlnAngleRot of the most probable pose",
    "tilt": "rlnAngleTilt of the most probable pose",
    "psi": "rlnAnglePsi of the most probable pose",
    "error": "Angle between the predicted pose and the known one, modulo symmetry",
    "spread": "Expected angle between the true pose and the predicted one",
    "confidence": "Probability that the true pose is within 30° of the predicted one",
    "entropy": "Nats relative to the uniform distribution: 0 knows nothing, more negative is sharper",
}


class PosePanel(Panel):
    """The model, the button, the read-outs and the key to the sphere."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__("Poses", parent)
        self._controller = controller
        self.models = QComboBox()
        self.models.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.models.addItem("Sample model (bundled)", None)
        self.models.currentIndexChanged.connect(self._on_model)
        other = QPushButton("Open")
        other.setToolTip("Take another model")
        menu = QMenu(other)
        menu.addAction("Model file…", self._ask_file)
        menu.addAction("Run folder…", self._ask_folder)
        other.setMenu(menu)
        row = QHBoxLayout()
        row.addWidget(self.models, 1)
        row.addWidget(other)
        self.predict = QPushButton("Predict poses")
        self.predict.setObjectName("primary")
        self.predict.clicked.connect(controller.predict)
        self.save = QPushButton("Save STAR…")
        self.save.setToolTip("Write the predicted poses and their uncertainty as a STAR file")
        self.save.clicked.connect(self._ask_save)
        buttons = QHBoxLayout()
        buttons.addWidget(self.predict, 1)
        buttons.addWidget(self.save)
        self.particle = caption()
        self.tiles = Tiles(_CAPTIONS)
        self.overall = wrapped(caption())
        self.body.addLayout(row)
        self.body.addLayout(buttons)
        for widget in (self.particle, self.tiles, self.overall, HueKey()):
            self.body.addWidget(widget)
        controller.particle_changed.connect(self._show_particle)
        controller.predictions_changed.connect(self._update)
        controller.session_changed.connect(self._update)
        controller.runner.busy_changed.connect(self._update)
        controller.training.finished.connect(self.add_model)
        self._update()

    def add_model(self, path: Path) -> None:
        """Offer a model file or a run folder, and choose it."""
        at = self.models.findData(str(path))
        if at < 0:
            name = path.name if path.suffix else f"{path.parent.name}/{path.name}"
            self.models.addItem(name, str(path))
            at = self.models.count() - 1
            self.models.setItemData(at, str(path), 3)  # tool tip
        self.models.setCurrentIndex(at)

    def _on_model(self) -> None:
        chosen = self.models.currentData()
        self._controller.model_path = None if chosen is None else Path(chosen)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Model file", "", "Models (*.safetensors)")
        if path:
            self.add_model(Path(path))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Run folder")
        if path:
            self.add_model(Path(path))

    def _ask_save(self) -> None:
        try:
            stack = self._controller.predicted_stack()
            default = str(stack.source.with_name(f"{stack.source.stem}_predicted.star"))
            path, _ = QFileDialog.getSaveFileName(
                self, "Save predicted poses", default, "STAR files (*.star)"
            )
            if path:
                stack.save(path if path.endswith(".star") else f"{path}.star", overwrite=True)
        except (CryosphereError, OSError) as error:
            tell_error(error)

    def _update(self) -> None:
        """Set buttons, the read-outs and the line on all particles."""
        session, busy = self._controller.session, self._controller.runner.busy
        done = 0 if session is None else int(session.store.predicted.sum())
        self.predict.setEnabled(session is not None and not busy)
        self.save.setEnabled(done > 0 and not busy)
        self.overall.setVisible(done > 0)
        if session is not None and done:
            summary = session.store.summary()
            spread = 0.0 if summary is None else float(np.median(summary.spread_degrees))
            text = f"{done:,} predicted: median spread {spread:.1f}°"
            if done < len(session.stack):
                text = f"{done:,} of {len(session.stack):,} predicted: median spread {spread:.1f}°"
            if session.store.known is not None:
                text += f", error {np.nanmedian(session.store.errors_degrees):.1f}°"
            self.overall.setText(text)
        self._show_particle()

    def _show_particle(self) -> None:
        """Show the predicted pose of the particle under the slider."""
        session, index = self._controller.session, self._controller.index
        pose = None if session is None or index is None else session.store.pose(index)
        if session is None or index is None:
            self.particle.setText("No particle shown")
        elif pose is None:
            self.particle.setText(f"Particle {index + 1:,} · not predicted yet")
        else:
            self.particle.setText(f"Particle {index + 1:,} of {len(session.stack):,}")
        if pose is None:
            self.tiles.set({})
            return
        rot, tilt, psi = pose.angles_degrees
        self.tiles.set(
            {
                "rot": f"{rot:.1f}°",
                "tilt": f"{tilt:.1f}°",
                "psi": f"{psi:.1f}°",
                "error": "–" if pose.error_degrees is None else f"{pose.error_degrees:.1f}°",
                "spread": f"{pose.spread_degrees:.1f}°",
                "confidence": f"{100 * pose.confidence:.0f} %",
                "entropy": f"{pose.entropy:.2f}",
            }
        )
