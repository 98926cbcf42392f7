"""What is done to the selected particles: flags, undo, saving; as buttons, keys and a menu of a view."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QAction, QKeyEvent, QKeySequence
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_cryosphere.jobs.events import Note
from napari_cryosphere.widgets.control.export import (
    Which,
    export_work,
    number_to_export,
    rows_to_export,
)
from napari_cryosphere.widgets.docks.kit.flags import FLAG_KEYS, UNCERTAIN_KEYS, flag_icon
from napari_cryosphere.widgets.docks.kit.style import BUSY, enable
from napari_cryosphere.widgets.state.notices import tell_note
from napari_cryosphere.widgets.state.particle_choices import Flag

if TYPE_CHECKING:
    from napari_cryosphere.widgets.control.controller import Controller
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["ChoiceActions"]

_NO_DATA = "No particles are loaded: drop a STAR or .cs file into the viewer"
_NONE_SELECTED = "No particles are selected: click some, or draw around them"


class ChoiceActions(QWidget):
    """Buttons for what is done to the selected particles.

    ``view``: gets the actions' keys and shows them in its context menu. ``controller``: the
    viewer's. ``more``: one more button, at the end.
    """

    def __init__(
        self,
        view: QWidget,
        controller: Controller,
        more: QPushButton,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._view = view
        self._controller = controller
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self._keys = _ActionKeys(view)
        self.flags = {flag: self._flag_button(flag) for flag in FLAG_KEYS}
        self.undo = self._button("↶", "Undo", _standard(QKeySequence.StandardKey.Undo), self._undo)
        self.redo = self._button("↷", "Redo", _standard(QKeySequence.StandardKey.Redo), self._redo)
        for button in (self.undo, self.redo):
            button.setStyleSheet("QToolButton { font-size: 17px; }")
        self.only = self._button(
            "Only", "Show only the selected particles", QKeySequence(), self._show_only
        )
        for key, by in UNCERTAIN_KEYS.items():
            name = "Next most uncertain" if by > 0 else "Back to the more uncertain"
            sequence = QKeySequence(key.replace("-", "+"))
            self._action(name, name, sequence, partial(controller.inspector.step_uncertain, by))
        self.which = QComboBox()
        self.which.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.which.addItems([which.value for which in Which])
        self.which.setToolTip("Which particles go into the new file")
        self.save = QPushButton("Save…")
        self.save.setToolTip(
            "Write these particles to a STAR or .cs file, with all columns that their file has"
        )
        self.save.clicked.connect(self._ask_save)
        self._by_hand = False
        self.which.activated.connect(self._on_which)
        self._lay_out(more)

    def _lay_out(self, more: QPushButton) -> None:
        first, second = QHBoxLayout(), QHBoxLayout()
        for (
            button
        ) in self.flags.values():  # each as wide as its name asks for, in a narrow dock too
            first.addWidget(button, button.sizeHint().width())
        for button in (self.undo, self.redo):
            first.addWidget(button)
        for widget, share in ((self.which, 9), (self.save, 0), (self.only, 3), (more, 0)):
            second.addWidget(widget, share)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for row in (first, second):
            row.setSpacing(4)
            column.addLayout(row)

    def _flag_button(self, flag: Flag) -> QToolButton:
        text, key = FLAG_KEYS[flag]
        button = self._button(
            text, f"{text} the selected particles", QKeySequence(key), partial(self._flag, flag)
        )
        icon = flag_icon(flag)
        if not icon.isNull():
            button.defaultAction().setIcon(icon)
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        return button

    def _button(
        self, text: str, tip: str, key: QKeySequence, call: Callable[[], object]
    ) -> QToolButton:
        """Return a button whose action is also in the view's menu and has a key there."""
        action = self._action(text if len(text) > 1 else tip, tip, key, call)
        action.setIconText(text)
        button = QToolButton()
        button.setDefaultAction(action)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        if len(text) > 1:
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        return button

    def _action(
        self, text: str, tip: str, key: QKeySequence, call: Callable[[], object]
    ) -> QAction:
        action = QAction(text, self._view)
        action.setShortcut(key)
        action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        keyed = key.toString(QKeySequence.SequenceFormat.NativeText)
        action.setToolTip(f"{tip} ({keyed})" if keyed else tip)
        action.triggered.connect(lambda _=False: call())
        self._view.addAction(action)
        return action

    # ------------------------------------------------------------------ what is done

    @property
    def _session(self) -> Session | None:
        return self._controller.session

    def _flag(self, flag: Flag) -> None:
        if self._session is not None:
            self._session.choices.flag_selected(flag)

    def _undo(self) -> None:
        if self._session is not None:
            self._session.choices.undo()

    def _redo(self) -> None:
        if self._session is not None:
            self._session.choices.redo()

    def _show_only(self) -> None:
        if self._session is not None:
            self._session.filter.show_only(self._session.choices.selected)

    @property
    def chosen(self) -> Which:
        """Which particles are to be saved."""
        return list(Which)[self.which.currentIndex()]

    def update_enabled(self) -> None:
        """Enable what can be done, say why not else, and how many particles it would be done to."""
        session = self._session
        selected = session is not None and bool(session.choices.selected.any())
        hindrances = (session is None, _NO_DATA), (not selected, _NONE_SELECTED)
        for button in (*self.flags.values(), self.only):
            enable(button.defaultAction(), *hindrances)
        for button, verb, name in (
            (self.undo, "Undo", "" if session is None else session.choices.undo_name),
            (self.redo, "Redo", "" if session is None else session.choices.redo_name),
        ):
            enable(button.defaultAction(), (not name, f"Nothing to {verb.lower()}"))
            button.defaultAction().setText(f"{verb} {name}".strip())
        for at, which in enumerate(Which):
            number = 0 if session is None else number_to_export(session, which)
            self.which.setItemText(at, f"{which.value} ({number:,})")

        self._propose()
        self._update_save()

    def _propose(self) -> None:
        """Choose what a person has picked out to be saved, unless another choice was made by hand."""
        session = self._session
        if session is None or self._by_hand:
            return
        counts = session.choices.counts()
        picked = {
            Which.SELECTED: session.choices.selected.any(),
            Which.SHOWN: session.filter.active,
            Which.KEPT: counts[Flag.KEEP],
            Which.NOT_REJECTED: counts[Flag.REJECT],
        }
        first = next((which for which, there in picked.items() if there), Which.SELECTED)
        self.which.setCurrentIndex(list(Which).index(first))

    def _on_which(self) -> None:
        self._by_hand = True
        self._update_save()

    def _update_save(self) -> None:
        session = self._session
        some = session is not None and number_to_export(session, self.chosen) > 0
        enable(
            self.save,
            (session is None, _NO_DATA),
            (not some, f"No particles are {self.chosen.value}: choose others on the left"),
            (self._controller.runner.busy, BUSY),
        )

    # ------------------------------------------------------------------ files

    def _ask_save(self) -> None:
        session, which = self._session, self.chosen
        if session is None or self._controller.runner.busy:
            return
        source = session.stack.source
        name = f"{source.name.split('.')[0]}_{which.value.replace(' ', '_')}.star"
        path, _ = QFileDialog.getSaveFileName(
            self,
            f"Save {which.value} particles",
            str(source.with_name(name)),
            "Particles (*.star *.cs)",
        )
        if path:
            self.save_particles(which, Path(path))

    def save_particles(self, which: Which, path: Path) -> None:
        """Write some particles to a STAR or .cs file, in the background."""
        session = self._session
        if session is None:
            return
        rows = rows_to_export(session, which)

        def take(event: object) -> None:
            if isinstance(event, Note):
                self._controller.note_saved(session)
                tell_note(event.text)

        self._controller.runner.start(
            f"Saving {path.name}",
            lambda: export_work(session, rows, path),
            take,
            lambda: None,
            whole=True,
        )


class _ActionKeys(QObject):
    """Gives a view the keys of its actions before the window's shortcuts have them.

    ``view``: its actions' shortcuts are looked up at every key.
    """

    def __init__(self, view: QWidget) -> None:
        super().__init__(view)
        self._view = view
        view.installEventFilter(self)

    def _action_of(self, event: QKeyEvent) -> QAction | None:
        """Return the view's action of a key."""
        pressed = QKeySequence(event.keyCombination())
        return next((one for one in self._view.actions() if one.shortcut() == pressed), None)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Claim the keys of the view's actions, and do them."""
        kind = event.type()
        if not isinstance(event, QKeyEvent) or kind == QEvent.Type.KeyRelease:
            return False
        action = self._action_of(event)
        if action is None:
            return False
        event.accept()
        if kind == QEvent.Type.KeyPress:
            action.trigger()
        return True


def _standard(key: QKeySequence.StandardKey) -> QKeySequence:
    return QKeySequence(key)
