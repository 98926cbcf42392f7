"""The gallery's lower part: flags, undo, saving; the same as keys and in the tiles' own menu."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QAction, QColor, QIcon, QKeySequence, QPainter, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QMenu,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_cryosphere.widgets.control.export import Which, rows_to_export
from napari_cryosphere.widgets.docks.gallery.tile_painter import FLAG_COLOURS
from napari_cryosphere.widgets.docks.gallery.tile_view import TileView
from napari_cryosphere.widgets.state.particle_choices import Flag

if TYPE_CHECKING:
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["GalleryActions"]

_FLAGS = {
    Flag.KEEP: ("Keep", "K"),
    Flag.REJECT: ("Reject", "X"),
    Flag.REVIEW: ("Review", "V"),
    Flag.NONE: ("Clear", "U"),
}
_EDGES = {"Small tiles": 64, "Medium tiles": 96, "Large tiles": 144}


class GalleryActions(QWidget):
    """Buttons for what is done to the selected particles.

    Parameters
    ----------
    view
        Gets the actions' keys and shows them in its context menu.
    """

    save_asked = Signal(object)
    low_pass_changed = Signal(bool)
    edge_changed = Signal(int)

    def __init__(self, view: TileView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._view = view
        self._session: Session | None = None
        self._busy = False
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self.flags = {flag: self._flag_button(flag) for flag in _FLAGS}
        self.undo = self._button(
            "↶", "Undo", QKeySequence(QKeySequence.StandardKey.Undo), self._undo
        )
        self.redo = self._button(
            "↷", "Redo", QKeySequence(QKeySequence.StandardKey.Redo), self._redo
        )
        for button in (self.undo, self.redo):
            button.setStyleSheet("QToolButton { font-size: 17px; }")
        self.look = QPushButton("View")
        self.look.setToolTip("How tiles look")
        self.look.setMenu(self._look_menu())
        self.which = QComboBox()
        self.which.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.which.addItems([which.value for which in Which])
        self.which.setToolTip("Which particles go into the new file")
        self.save = QPushButton("Save…")
        self.save.setToolTip(
            "Write these particles to a STAR or .cs file, with all columns that their file has"
        )
        self.save.clicked.connect(lambda: self.save_asked.emit(self.chosen))
        self.which.activated.connect(lambda: self._update_save())
        self._lay_out()

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(4)
        grid.setVerticalSpacing(4)
        for column, button in enumerate(self.flags.values()):
            grid.addWidget(button, 0, column)
            grid.setColumnStretch(column, 1)
        for column, button in enumerate((self.undo, self.redo)):
            grid.addWidget(button, 0, 4 + column)
        grid.addWidget(self.which, 1, 0, 1, 2)
        grid.addWidget(self.save, 1, 2, 1, 2)
        grid.addWidget(self.look, 1, 4, 1, 2)

    def _flag_button(self, flag: Flag) -> QToolButton:
        text, key = _FLAGS[flag]
        button = self._button(
            text, f"{text} the selected particles", QKeySequence(key), lambda: self._flag(flag)
        )
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        if flag in FLAG_COLOURS:
            button.defaultAction().setIcon(_dot(FLAG_COLOURS[flag]))
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        return button

    def _button(self, text: str, tip: str, key: QKeySequence, call: object) -> QToolButton:
        """Return a button whose action is also in the tiles' menu and has a key there."""
        action = QAction(text if len(text) > 1 else tip, self._view)
        action.setIconText(text)
        action.setShortcut(key)
        action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        action.setToolTip(f"{tip} ({key.toString(QKeySequence.SequenceFormat.NativeText)})")
        action.triggered.connect(call)
        self._view.addAction(action)
        button = QToolButton()
        button.setDefaultAction(action)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        return button

    def _flag(self, flag: Flag) -> None:
        if self._session is not None:
            self._session.choices.flag_selected(flag)

    def _undo(self) -> None:
        if self._session is not None:
            self._session.choices.undo()

    def _redo(self) -> None:
        if self._session is not None:
            self._session.choices.redo()

    def _look_menu(self) -> QMenu:
        menu = QMenu(self)
        low_pass = menu.addAction("Low-pass to 20 Å")
        low_pass.setCheckable(True)
        low_pass.setChecked(True)
        low_pass.toggled.connect(self.low_pass_changed)
        menu.addSeparator()
        for name, edge in _EDGES.items():
            menu.addAction(name, partial(self.edge_changed.emit, edge))
        return menu

    @property
    def chosen(self) -> Which:
        """Which particles are to be saved."""
        return list(Which)[self.which.currentIndex()]

    def set_session(self, session: Session | None, busy: bool) -> None:
        """Enable what can be done, and say how many particles it would be done to."""
        self._session, self._busy = session, busy
        selected = session is not None and bool(session.choices.selected.any())
        for button in self.flags.values():
            button.defaultAction().setEnabled(selected)
        for button, verb, name in (
            (self.undo, "Undo", "" if session is None else session.choices.undo_name),
            (self.redo, "Redo", "" if session is None else session.choices.redo_name),
        ):
            button.defaultAction().setEnabled(bool(name))
            button.defaultAction().setText(f"{verb} {name}".strip())
        for at, which in enumerate(Which):
            number = 0 if session is None else len(rows_to_export(session, which))
            self.which.setItemText(at, f"{which.value} ({number:,})")
        self._update_save()

    def _update_save(self) -> None:
        some = self._session is not None and len(rows_to_export(self._session, self.chosen)) > 0
        self.save.setEnabled(some and not self._busy)


def _dot(colour: str) -> QIcon:
    """Return a flag's colour as an icon."""
    pixmap = QPixmap(QSize(12, 12))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(colour))
    painter.drawEllipse(1, 1, 10, 10)
    painter.end()
    return QIcon(pixmap)
