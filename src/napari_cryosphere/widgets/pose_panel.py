"""Choosing a model, predicting poses with it, and saving them."""

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
from napari_cryosphere.widgets.notices import tell_error
from napari_cryosphere.widgets.style import Panel, caption, wrapped

__all__ = ["PosePanel"]


class PosePanel(Panel):
    """The model, the buttons, and a line on all particles."""

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
        self.overall = wrapped(caption())
        self.body.addLayout(row)
        self.body.addLayout(buttons)
        self.body.addWidget(self.overall)
        controller.predictions_changed.connect(self._update)
        controller.session_changed.connect(self._update)
        controller.runner.busy_changed.connect(self._update)
        controller.model_changed.connect(self._on_model_changed)
        self._on_model_changed(controller.model_path)
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
        path = None if chosen is None else Path(chosen)
        if path != self._controller.model_path:
            self._controller.choose_model(path)

    def _on_model_changed(self, path: Path | None) -> None:
        if path is None:
            self.models.setCurrentIndex(0)
        else:
            self.add_model(path)

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
