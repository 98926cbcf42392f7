"""The choices of a training run."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QLineEdit,
    QToolButton,
    QWidget,
)

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.configs.fields import fields_of
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.training.presets import PRESETS
from napari_cryosphere.widgets.control.training_run import new_run_folder
from napari_cryosphere.widgets.docks.kit.forms import ConfigForm
from napari_cryosphere.widgets.docks.kit.layer_combo import LayerCombo
from napari_cryosphere.widgets.docks.kit.style import caption, check_box, enable, enable_all, in_row
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.notices import tell_error
from napari_cryosphere.widgets.state.training_choices import (
    LOADED,
    TrainingChoices,
    can_resume,
    source_of,
    sources,
)

__all__ = ["TrainingForm"]

_TIPS = {
    "source": "Learn from projections of a map with the particles' CTFs and noise, the particles, or both",
    "map": "The map that is projected",
    "into": "Run folder: the model, its settings and the log are written there",
}
_FIRST = ("preset", "minutes", "symmetry", "device")
"""Settings that are always shown; the others are behind a button."""
_ELSEWHERE = {"particles", "output", "data_dir", "select", "invert", "source", "map", "resume"}
_ELSEWHERE |= {"map_pixel_size_angstrom", "mask", "overwrite"}
"""Fields that the loaded layers and the other rows of the form give."""
_RUNNING = "The run goes on with these choices: stop it to change them"
_GOING_ON = "The run in the folder goes on with its own choices"
_MINUTES = 10.0
"""Time that is proposed: enough for a small set on two processor cores."""


class TrainingForm(QWidget):
    """What to learn from, the settings of the job's config, the run folder."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller = seat.controller
        self._locked = False
        self.choose = QToolButton()
        self.source = QComboBox()
        self.source.addItems(sources())
        known = {spec.key: spec for spec in fields_of(TrainConfig) if spec.kind != "nested"}
        others = [spec for key, spec in known.items() if key not in _ELSEWHERE.union(_FIRST)]
        self.settings = ConfigForm(TrainConfig, [known[key] for key in _FIRST])
        self.others = ConfigForm(TrainConfig, others)
        self.settings.fill("minutes", _MINUTES)
        self.settings.fill("symmetry", controller.symmetry)
        self.more = QToolButton()
        self.more.setText("more settings")
        self.more.setToolTip("What is not changed is the preset's")
        self.more.setCheckable(True)
        self.others.native.setVisible(False)
        self.map = LayerCombo("the particles' own")
        tip = "Project the map that the training particles give: no other data are looked at"
        self.own_map = check_box("map from the particles' poses", tip, True)
        self.folder = QLineEdit()
        tip = "Continue it where it was stopped, with the settings it was started with"
        self.resume = check_box("resume the run in this folder", tip)
        self._lay_out()
        self.source.currentIndexChanged.connect(self._update)
        self.folder.textChanged.connect(self._update)
        self.own_map.toggled.connect(self._update)
        self.resume.toggled.connect(self._on_resume)
        self.settings.widgets["preset"].changed.connect(
            lambda name: self.others.show_defaults(PRESETS[name])
        )
        self.more.toggled.connect(self.others.native.setVisible)
        self.settings.widgets["symmetry"].changed.connect(
            lambda text: controller.choose_symmetry(text.strip())
        )
        seat.connect(controller.symmetry_changed, self._on_symmetry)
        seat.connect(controller.layers_changed, self._on_layers)
        seat.connect(controller.session_changed, self.take_next_folder)
        self._on_layers()
        self.take_next_folder()

    def value(self) -> TrainingChoices:
        """Return what is chosen. Raises `CryosphereError` if no run folder is given."""
        folder = self.folder.text().strip()
        if not folder:
            raise CryosphereError("no run folder is given; choose one")
        return TrainingChoices(
            folder=Path(folder).expanduser(),
            settings={**self.settings.given(), **self.others.given()},
            source=self.source.currentText(),
            density=None if self.own_map.isChecked() else map_of(self.map.layer()),
            resume=self.resuming,
        )

    @property
    def resuming(self) -> bool:
        """Whether the run in the folder is to go on: it then keeps its choices."""
        return self.resume.isVisibleTo(self) and self.resume.isChecked()

    def lock(self, locked: bool) -> None:
        """Leave the form as it is while a run goes on."""
        if locked != self._locked:
            self._locked = locked
            self._update()

    def take_run(self, folder: Path) -> None:
        """Set the form to go on with the run in a folder."""
        self.folder.setText(str(folder))
        self.resume.setChecked(True)

    def take_next_folder(self) -> None:
        """Propose a run folder that does not exist yet."""
        session = self._controller.session
        self.folder.setText("" if session is None else str(new_run_folder(session.stack.source)))

    def _lay_out(self) -> None:
        choose = self.choose
        choose.setText("…")
        choose.setToolTip("Choose the folder")
        choose.clicked.connect(self._ask_folder)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        self._add(grid, "source", self.source, 0)
        grid.addWidget(self.own_map, 1, 1)
        self._add(grid, "map", self.map, 2)
        grid.addWidget(self.settings.native, 3, 0, 1, 2)
        grid.addWidget(self.more, 4, 1)
        grid.addWidget(self.others.native, 5, 0, 1, 2)
        grid.addWidget(caption("into"), 6, 0)
        grid.addLayout(in_row(self.folder, choose), 6, 1)
        grid.addWidget(self.resume, 7, 1)
        grid.setColumnStretch(1, 1)
        self.folder.setToolTip(_TIPS["into"])

    @staticmethod
    def _add(grid: QGridLayout, name: str, widget: QWidget, line: int) -> None:
        grid.addWidget(caption(name), line, 0)
        grid.addWidget(widget, line, 1)
        widget.setToolTip(_TIPS[name])

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Run folder", self.folder.text())
        if path:
            self.folder.setText(path)

    def _on_symmetry(self, name: str) -> None:
        if self.settings.shown("symmetry") != name:
            self.settings.fill("symmetry", name)

    def _on_resume(self) -> None:
        """Show the choices of the run that is to go on."""
        if self.resuming:
            try:
                self._show_run(Path(self.folder.text().strip()).expanduser())
            except CryosphereError as error:
                self.resume.setChecked(False)
                tell_error(error)
        self._update()

    def _show_run(self, folder: Path) -> None:
        config = TrainConfig.of_run(folder)
        self.source.setCurrentText(source_of(config))
        self.settings.fill("preset", config.preset)
        self.settings.fill("minutes", config.minutes)
        self._controller.choose_symmetry(config.symmetry)

    def _on_layers(self) -> None:
        self.map.set_layers(self._controller.map_layers)
        self._update()

    def _update(self, *_: object) -> None:
        text = self.folder.text().strip()
        self.resume.setVisible(bool(text) and can_resume(Path(text).expanduser()))
        resumed = self._locked, _RUNNING
        going_on = self.resuming, _GOING_ON
        enable_all(self.others.native, resumed, going_on)
        for key, widget in self.settings.widgets.items():
            enable(widget.native, resumed, *([] if key == "device" else [going_on]))
        for control in (self.resume, self.folder, self.choose):
            enable(control, resumed)
        enable(self.source, resumed, going_on)
        projected, loaded = self.source.currentText() != LOADED, self.map.layer() is not None
        self.own_map.setVisible(projected)
        enable(self.own_map, resumed, going_on, (not loaded, "No other map is loaded"))
        if not loaded:
            self.own_map.setChecked(True)
        enable(
            self.map,
            resumed,
            going_on,
            (not projected, "Only projections are made from a map"),
            (not loaded, "No map is loaded"),
            (self.own_map.isChecked(), "Untick the box above to choose another map"),
        )
