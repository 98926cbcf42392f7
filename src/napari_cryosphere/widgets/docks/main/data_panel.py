"""Which particles the dock works on, and what there is to know about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QGridLayout, QLabel, QLineEdit, QWidget

from napari_cryosphere.errors import SymmetryError
from napari_cryosphere.widgets.control.session_file import last_session
from napari_cryosphere.widgets.docks.kit.layer_combo import LayerCombo
from napari_cryosphere.widgets.docks.kit.style import (
    Panel,
    caption,
    enable,
    in_row,
    mark,
    push_button,
    wrapped,
)
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.plugin.commands import open_session, save_session
from napari_cryosphere.widgets.state.notices import cause_first
from napari_cryosphere.widgets.state.session import Session
from napari_cryosphere.widgets.state.viewer_context import context_of

__all__ = ["DataPanel", "described", "halves_described"]

_FILES = "Particles and maps (*.star *.star.gz *.cs *.mrcs *.mrc *.map *.ccp4);;All files (*)"
_EMPTY = "Drop a STAR or .cs file or an MRC stack into the viewer, or take File ▸ Open Sample ▸ CryoSphere."
_FOLDER_TIP = (
    "Where to look for the images of particles whose project has moved; empty: next to their file"
)
_MOST_WARNINGS = 6
_MOST_GROUPS = 6
_GROUP_COLUMNS = {
    "group": "name",
    "particles": "particles",
    "kV": "voltage_kv",
    "px": "box",
    "Å/px": "pixel_size_angstrom",
}


class DataPanel(Panel):
    """The list of particle layers; of the chosen one a summary, its optics groups and its warnings."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__("Particles", parent)
        self._controller = controller = seat.controller
        self.layers = LayerCombo("no particles loaded")
        self.symmetry = QLineEdit(controller.symmetry)
        self.symmetry.setFixedWidth(44)
        self.symmetry.setToolTip(
            "Point group of the molecule, for training and maps: C1, C4, D7, O, I"
        )
        self.symmetry.textEdited.connect(lambda text: controller.choose_symmetry(text.strip()))
        self.symmetry.textChanged.connect(self._mark_symmetry)
        self.summary, self.halves = wrapped(caption()), wrapped(caption())
        self.optics = OpticsTable()
        self.warnings = wrapped(QLabel())
        self.warnings.setObjectName("warning")
        row = in_row(self.layers, caption("symmetry"), self.symmetry)
        self.add(row, self.summary, self.halves, self.optics, self.warnings)
        self._make_session_row()
        self._make_folder_row()
        self.layers.layer_chosen.connect(controller.choose)
        for signal, callback in (
            (controller.symmetry_changed, self._on_symmetry),
            (controller.layers_changed, self._on_layers),
            (controller.session_changed, self._on_session),
            (controller.image_folder.changed, self._on_folder),
        ):
            seat.connect(signal, callback)
        self._on_layers()
        self._on_session()

    def _mark_symmetry(self, text: str) -> None:
        """Mark what is no point group, while it is typed."""
        from napari_cryosphere.so3.symmetry import normalise_group_name

        try:
            normalise_group_name(text.strip())
        except SymmetryError as error:
            mark(self.symmetry, str(error))
        else:
            mark(self.symmetry, "")

    def _make_folder_row(self) -> None:
        self.folder, browse = QLineEdit(), push_button("…", _FOLDER_TIP, self._on_browse)
        self.folder.setPlaceholderText("next to their file")
        self.folder.setToolTip(_FOLDER_TIP)
        self.folder.editingFinished.connect(self._on_folder_edited)
        browse.setFixedWidth(28)
        self.add(in_row(caption("images in"), self.folder, browse, wide=1))
        self._on_folder()

    def _make_session_row(self) -> None:
        viewer = self._controller.viewer
        self.open = push_button("Open files…", press=self.ask_files)
        tip = "Open a session: data, poses, flags, maps and models as they were saved"
        self.restore = push_button("Open…", tip, lambda: open_session(viewer))
        tip = "Save the session: data, poses, flags, maps and models"
        self.keep = push_button("Save…", tip, lambda: save_session(viewer))
        self.last = push_button(
            "Reopen the last session",
            "What was open when the last job ended",
            lambda: context_of(viewer).inbox.put(last_session()),
        )
        self.add(in_row(self.open, caption("session"), self.restore, self.keep), self.last)

    def ask_files(self) -> None:
        """Ask for files and open them."""
        chosen, _ = QFileDialog.getOpenFileNames(self, "Particles or maps", "", _FILES)
        for path in chosen:
            self._controller.viewer.open(path, plugin="napari-cryosphere")

    def _on_symmetry(self, name: str) -> None:
        if self.symmetry.text().strip() != name:
            self.symmetry.setText(name)

    def _on_folder_edited(self) -> None:
        text = self.folder.text().strip()
        chosen = Path(text).expanduser() if text else None
        if chosen != self._controller.image_folder.path:
            self._controller.look_in(chosen)

    def _on_browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of the images", self.folder.text())
        if chosen:
            self._controller.look_in(Path(chosen))

    def _on_folder(self) -> None:
        path = self._controller.image_folder.path
        self.folder.setText("" if path is None else str(path))
        if self._controller.session is None:
            self._show_nothing()

    def _on_layers(self) -> None:
        chosen = self._controller.session
        self.layers.blockSignals(True)
        self.layers.set_layers(self._controller.particle_layers)
        self.layers.blockSignals(False)
        self.layers.choose(None if chosen is None else chosen.layer)

    def _on_session(self) -> None:
        session = self._controller.session
        if session is None:
            self._show_nothing()
            return
        self.last.hide()
        enable(self.symmetry)
        enable(self.keep)
        self.layers.choose(session.layer)
        said = session.stack.summary()
        self.summary.setText(described(said))
        self.summary.show()
        self.summary.setToolTip(str(session.stack.source))
        self.halves.setText(halves_described(said, session.contrast))
        self.halves.setVisible(True)
        self.optics.show_groups(said["optics"])
        self._show_warnings(session)

    def _show_nothing(self) -> None:
        self.last.setVisible(last_session().is_file())
        enable(self.symmetry, (True, "Open particles first"))
        enable(self.keep, (True, "There is nothing to save yet: open particles first"))
        self.layers.choose(None)
        waiting = self._controller.image_folder.waiting
        names = ", ".join(file.name for file in waiting)
        self.summary.setText(_EMPTY)
        self.summary.setToolTip("")
        self.summary.setVisible(not waiting)
        self.warnings.setText(f"⚠ {names}: its images were not found; name their folder here")
        self.warnings.setToolTip("\n".join(map(str, waiting)))
        self.warnings.setVisible(bool(waiting))
        for widget in (self.halves, self.optics):
            widget.hide()

    def _show_warnings(self, session: Session) -> None:
        file = f"{session.stack.source}: "  # the summary's, which every line need not repeat
        lines = [f"⚠ {cause_first(warning.removeprefix(file))}" for warning in session.warnings]
        more = len(lines) - _MOST_WARNINGS
        shown = lines[:_MOST_WARNINGS] + ([f"and {more} more"] if more > 0 else [])
        self.warnings.setText("\n".join(shown))
        self.warnings.setToolTip("\n".join(session.warnings))
        self.warnings.setVisible(bool(lines))


class OpticsTable(QWidget):
    """The optics groups of a data set, a row each; hidden where there is only one."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: list[list[str]] = []
        self._labels: list[QLabel] = []
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(1)
        self._grid.setColumnStretch(0, 1)

    def show_groups(self, groups: list[dict[str, Any]]) -> None:
        """Show what is known of each group; see `ParticleStack.summary`."""
        for label in self._labels:
            self._grid.removeWidget(label)
            label.hide()
            label.deleteLater()
        self._labels = []
        every = [[_cell(group[key]) for key in _GROUP_COLUMNS.values()] for group in groups]
        more = len(groups) - _MOST_GROUPS
        self.rows = [*every[:_MOST_GROUPS], *([[f"and {more} more groups"]] if more > 0 else [])]
        for line, cells in enumerate([list(_GROUP_COLUMNS), *self.rows]):
            for column, text in enumerate(cells):
                label = caption(text)
                if line:
                    label.setObjectName("cell")
                side = Qt.AlignmentFlag.AlignLeft if column == 0 else Qt.AlignmentFlag.AlignRight
                label.setAlignment(side | Qt.AlignmentFlag.AlignVCenter)
                self._grid.addWidget(label, line, column)
                self._labels.append(label)
        self.setToolTip("\n".join("   ".join(cells) for cells in [list(_GROUP_COLUMNS), *every]))
        self.setVisible(len(groups) > 1)


def _cell(value: Any) -> str:
    """Return a value of an optics group as the table shows it."""
    if value is None:
        return "–"
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )


def described(summary: dict[str, Any]) -> str:
    """Return a line on a data set: number, box, pixel size, what is known of CTF and poses."""
    return " · ".join(
        [
            f"{summary['particles']:,} particles",
            f"{summary['box']} px",
            f"{summary['pixel_size_angstrom']:.4g} Å/px",
            "CTF" if summary["has_ctf"] else "no CTF",
            "poses known" if summary["has_poses"] else "no poses",
        ]
    )


def halves_described(summary: dict[str, Any], contrast: str) -> str:
    """Return a line on the half sets and the contrast sign."""
    halves = summary["half_sets"]
    made = "" if summary["half_sets_from"] == "rlnRandomSubset" else " (split here)"
    signs = {
        "white": "particles white",
        "black": "particles black",
        "unclear": "contrast sign unclear",
    }
    return f"half sets {halves['1']:,} and {halves['2']:,}{made} · {signs[contrast]}"
