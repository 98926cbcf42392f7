"""Any command of the command line, with a form of its options."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QPushButton, QSizePolicy, QStackedWidget

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.commands import COMMANDS, Command
from napari_cryosphere.widgets.control.command_run import CommandRun, proposed_output
from napari_cryosphere.widgets.docks.kit.forms import ConfigForm
from napari_cryosphere.widgets.docks.kit.seated_dock import Footer, SeatedDock, scrolled
from napari_cryosphere.widgets.docks.kit.style import BUSY, caption, dock_style, enable, wrapped
from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.notices import NOTICES, tell_error

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.jobs.configs.fields import FieldSpec
    from napari_cryosphere.widgets.control.running import Runner

__all__ = ["CommandDock"]

_NOT_HERE = {"demo", "watch"}
"""Commands that open a window of their own, or go on until they are stopped."""


def _place(spec: FieldSpec) -> int:
    """Return where a row comes: inputs, then other required ones, then the rest."""
    if spec.required:
        return int(spec.kind == "path" and spec.file.use != "read" and spec.argument is None)
    return 2


class CommandDock(SeatedDock):
    """Choose a command, fill in its form, run it; its outputs are opened in the viewer."""

    wide, high = 380, 640

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self.run = CommandRun(self._viewer, self.controller.runner)
        self.rows = {row.name: row for row in COMMANDS if row.name not in _NOT_HERE}
        self.forms: dict[str, ConfigForm] = {}
        self._proposed: dict[str, dict[str, Any]] = {}
        self.command, self.stack = QComboBox(), QStackedWidget()
        for at, row in enumerate(self.rows.values()):
            self.command.addItem(row.name)
            self.command.setItemData(at, row.help, Qt.ItemDataRole.ToolTipRole)
        # else napari gives half of the dock's height to nothing
        self.stack.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.button = QPushButton("Run")
        self.button.setObjectName("primary")
        self.help, self.said, self.needed = (wrapped(caption()) for _ in range(3))
        self.said.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.footer = Footer(self._seat)
        column = self._column()
        column.addWidget(self.command)
        column.addWidget(self.help)
        column.addWidget(self.stack, 1)
        for widget in (self.needed, self.button, self.said, self.footer):
            column.addWidget(widget)
        self.command.currentTextChanged.connect(self.choose)
        self.button.clicked.connect(self._on_button)
        self._seat.connect(viewer.events.theme, self._on_theme)
        self._seat.connect(self.run.changed, self._update)
        self._seat.connect(self.run.made_particles, self._on_particles)
        self._seat.connect(self.controller.runner.busy_changed, self._update)
        for signal in (
            self.controller.session_changed,
            self.controller.layers_changed,
            self.controller.runner.busy_changed,
        ):
            self._seat.connect(signal, self._fill)
        self._on_theme()
        self.choose(self.command.currentText())

    @property
    def row(self) -> Command:
        """The command that is chosen."""
        return self.rows[self.command.currentText()]

    @property
    def form(self) -> ConfigForm:
        """The form of the chosen command."""
        return self.forms[self.row.name]

    def choose(self, name: str) -> None:
        """Show the form of a command; it is made when it is first asked for."""
        row = self.rows[name]
        if name not in self.forms:
            fields = sorted(row.fields(), key=_place)
            form = self.forms[name] = ConfigForm(row.load_config(), fields, row.fixed)
            self._proposed[name] = {}
            self.stack.addWidget(scrolled(form.native))
            for widget in form.widgets.values():
                widget.changed.connect(partial(self._on_edit, name))
        self.command.setCurrentText(name)
        self.stack.setCurrentIndex(list(self.forms).index(name))
        self.help.setText(row.help)
        self._fill()
        self._update()

    def _fill(self, *_: object) -> None:
        """Propose what is loaded, and where outputs go, in rows that nobody has filled in."""
        session, symmetry = self.controller.session, self.controller.symmetry
        layers = self.controller.map_layers
        files = [layer.source.path for layer in layers if map_of(layer) is not None]
        known = {
            "particles": None if session is None else session.stack.source,
            "map": next((file for file in files if file), None),
            "model": self.controller.model_path,
        }
        form, proposed = self.form, self._proposed[self.row.name]
        output = form.fields.get("output")
        if session is not None and output is not None:
            known["output"] = proposed_output(self.row.name, session.stack.source, output)
        for key, value in known.items():
            spec = form.fields.get(key)
            if spec is None or not spec.required or not value:
                continue
            if form.shown(key) in (None, proposed.get(key)):
                form.fill(key, value)
                proposed[key] = form.shown(key)
        if "symmetry" in form.fields and symmetry != "C1" and form.shown("symmetry") == "C1":
            form.fill("symmetry", symmetry)

    def _on_edit(self, name: str, *_: object) -> None:
        if name != self.row.name:
            return
        if not self.form.missing():
            # what follows from a value, such as a preset's settings, is shown where it is not chosen
            with suppress(CryosphereError):
                self.form.show_defaults(self.form.value())
        self._update()

    def _on_button(self) -> None:
        try:
            self.run.start(self.row, self.form.value())
        except (CryosphereError, OSError) as error:
            tell_error(error)

    def _on_particles(self) -> None:
        """Go to the dock where the new particles are looked at."""
        open_dock(self._viewer, MAIN)
        NOTICES.said.emit(f"{self.row.name} has ended: what it said is in the dock Commands", False)

    def _on_theme(self, event: Any = None) -> None:
        self.setStyleSheet(dock_style(self._viewer.theme))

    def _update(self, *_: object) -> None:
        """Grey the button while work goes on or a required value is missing; show what was said."""
        missing = self.form.missing()
        busy = self.controller.runner.busy
        needed = f"Still needed: {', '.join(missing)}"
        self.needed.setText(needed)
        self.needed.setVisible(bool(missing))
        enable(self.button, (bool(missing), needed), (busy, BUSY))
        self.said.setText("\n".join(self.run.lines))
        self.said.setVisible(bool(self.run.lines))
