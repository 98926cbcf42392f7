"""The choices of a training run."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QToolButton,
    QWidget,
)

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.training_run import new_run_folder
from napari_cryosphere.widgets.docks.kit.layer_combo import LayerCombo
from napari_cryosphere.widgets.docks.kit.style import caption
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.notices import tell_error
from napari_cryosphere.widgets.state.training_choices import (
    LOADED,
    TrainingChoices,
    can_resume,
    legal,
    source_of,
    sources,
)

__all__ = ["TrainingForm"]

_TIPS = {
    "source": "Learn from projections of a map with the particles' CTFs and noise, the particles, or both",
    "map": "The map that is projected",
    "preset": "Network and settings",
    "device": "Where to train: auto takes the GPU if there is one",
    "time": "Time budget; stopping before keeps the model learnt so far",
    "symmetry": "Point group of the molecule: C1, C4, D7, O, I",
    "into": "Run folder: the model, its settings and the log are written there",
}


class TrainingForm(QWidget):
    """Source, map, preset, symmetry, time, device, run folder.

    Parameters
    ----------
    seat
        The dock's hold on the viewer's controller.
    """

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller = seat.controller
        self.source, self.preset, self.device = QComboBox(), QComboBox(), QComboBox()
        self.source.addItems(sources())
        self.preset.addItems(legal("preset"))
        self.device.addItems(legal("device"))
        self.map = LayerCombo("the particles' own")
        self.own_map = QCheckBox("map from the particles' poses")
        self.own_map.setChecked(True)
        self.own_map.setToolTip(
            "Project the map that the training particles give: no other data are looked at"
        )
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 24 * 60)
        self.minutes.setDecimals(1)
        self.minutes.setValue(10)
        self.minutes.setSuffix(" min")
        self.symmetry = QLineEdit(controller.symmetry)
        self.folder = QLineEdit()
        self.resume = QCheckBox("resume the run in this folder")
        self.resume.setToolTip(
            "Continue it where it was stopped, with the settings it was started with"
        )
        self._lay_out()
        self.source.currentIndexChanged.connect(self._update)
        self.folder.textChanged.connect(self._update)
        self.own_map.toggled.connect(self._update)
        self.resume.toggled.connect(self._on_resume)
        self.symmetry.textEdited.connect(lambda text: controller.choose_symmetry(text.strip()))
        seat.connect(controller.symmetry_changed, self._on_symmetry)
        seat.connect(controller.layers_changed, self._on_layers)
        seat.connect(controller.session_changed, self.take_next_folder)
        self._on_layers()
        self.take_next_folder()

    def value(self) -> TrainingChoices:
        """Return what is chosen.

        Raises
        ------
        CryosphereError
            If no run folder is given.
        """
        folder = self.folder.text().strip()
        if not folder:
            raise CryosphereError("no run folder is given; choose one")
        return TrainingChoices(
            folder=Path(folder).expanduser(),
            minutes=self.minutes.value(),
            source=self.source.currentText(),
            density=None if self.own_map.isChecked() else map_of(self.map.layer()),
            preset=self.preset.currentText() or None,
            device=self.device.currentText() or None,
            resume=self._resuming,
        )

    @property
    def _resuming(self) -> bool:
        """Whether the run in the folder is to go on: it then keeps its choices."""
        return self.resume.isVisibleTo(self) and self.resume.isChecked()

    def take_next_folder(self) -> None:
        """Propose a run folder that does not exist yet."""
        session = self._controller.session
        self.folder.setText("" if session is None else str(new_run_folder(session.stack.source)))

    def _lay_out(self) -> None:
        choose = QToolButton()
        choose.setText("…")
        choose.clicked.connect(self._ask_folder)
        into = QHBoxLayout()
        into.addWidget(self.folder, 1)
        into.addWidget(choose)
        self.symmetry.setFixedWidth(52)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        self._add(grid, "source", self.source, 0, 0, 3)
        grid.addWidget(self.own_map, 1, 1, 1, 3)
        self._add(grid, "map", self.map, 2, 0, 3)
        self._add(grid, "preset", self.preset, 3, 0, 3)
        self._add(grid, "time", self.minutes, 4, 0, 3)
        self._add(grid, "symmetry", self.symmetry, 5, 0, 1)
        self._add(grid, "device", self.device, 5, 2, 1)
        grid.addWidget(caption("into"), 6, 0)
        grid.addLayout(into, 6, 1, 1, 3)
        grid.addWidget(self.resume, 7, 1, 1, 3)
        grid.setColumnStretch(1, 1)
        self.folder.setToolTip(_TIPS["into"])

    @staticmethod
    def _add(
        grid: QGridLayout, name: str, widget: QWidget, line: int, column: int, span: int
    ) -> None:
        grid.addWidget(caption(name), line, column)
        grid.addWidget(widget, line, column + 1, 1, span)
        widget.setToolTip(_TIPS[name])

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Run folder", self.folder.text())
        if path:
            self.folder.setText(path)

    def _on_symmetry(self, name: str) -> None:
        if self.symmetry.text().strip() != name:
            self.symmetry.setText(name)

    def _on_resume(self) -> None:
        """Show the choices of the run that is to go on."""
        if self._resuming:
            try:
                self._show_run(Path(self.folder.text().strip()).expanduser())
            except CryosphereError as error:
                self.resume.setChecked(False)
                tell_error(error)
        self._update()

    def _show_run(self, folder: Path) -> None:
        from napari_cryosphere.jobs.training_configs import TrainConfig

        config = TrainConfig.of_run(folder)
        self.source.setCurrentText(source_of(config))
        self.preset.setCurrentText(config.preset)
        if config.minutes is not None:
            self.minutes.setValue(config.minutes)
        self._controller.choose_symmetry(config.symmetry)

    def _on_layers(self) -> None:
        self.map.set_layers(self._controller.map_layers)
        self._update()

    def _update(self, *_: object) -> None:
        text = self.folder.text().strip()
        self.resume.setVisible(bool(text) and can_resume(Path(text).expanduser()))
        free = not self._resuming
        for widget in (self.source, self.preset, self.minutes, self.symmetry):
            widget.setEnabled(free)
        projected, loaded = self.source.currentText() != LOADED, self.map.layer() is not None
        self.own_map.setVisible(projected)
        self.own_map.setEnabled(loaded and free)
        if not loaded:
            self.own_map.setChecked(True)
        self.map.setEnabled(projected and loaded and free and not self.own_map.isChecked())
