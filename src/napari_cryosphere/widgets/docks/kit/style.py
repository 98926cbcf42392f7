"""Colours and small pieces that the dock's panels share."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

__all__ = [
    "BUSY",
    "DockContent",
    "Panel",
    "Tiles",
    "caption",
    "check_box",
    "dock_style",
    "enable",
    "enable_all",
    "folded",
    "in_row",
    "mark",
    "push_button",
    "restyle",
    "theme_colours",
    "wrapped",
]

BUSY = "Other work is going on: wait for it, or stop it"
"""Why what starts work is disabled meanwhile."""

_WRONG = "wrong"  # property of a field, which the style sheet looks for
_TIP = "cryosphere_tip"  # property of a control: what it does


def theme_colours(theme: str) -> dict[str, str]:
    """Return a napari theme's colours as ``#rrggbb``: background, canvas, text, faint, line ..."""
    from napari.utils.theme import get_theme

    chosen = get_theme(theme)
    text, background = chosen.text.as_rgb_tuple()[:3], chosen.background.as_rgb_tuple()[:3]
    mixed = [round(0.62 * a + 0.38 * b) for a, b in zip(text, background, strict=True)]
    return {
        "background": chosen.background.as_hex(format="long"),
        "canvas": chosen.canvas.as_hex(format="long"),
        "text": chosen.text.as_hex(format="long"),
        "faint": "#{:02x}{:02x}{:02x}".format(*mixed),
        "line": chosen.primary.as_hex(format="long"),
        "accent": chosen.current.as_hex(format="long"),
        "on_accent": "#ffffff" if sum(chosen.current.as_rgb_tuple()[:3]) < 450 else "#1c1c1c",
        # napari's yellow cannot be read on a light background
        "warning": "#8a5a00" if sum(background) > 450 else chosen.warning.as_hex(format="long"),
    }


def dock_style(theme: str) -> str:
    """Return the style sheet of the dock in a napari theme."""
    colour = theme_colours(theme)
    return f"""
        QLabel#heading {{
            font-weight: 700; padding: 4px 0px 1px 0px; border-bottom: 1px solid {colour["line"]};
        }}
        QLabel#caption {{ color: {colour["faint"]}; font-size: 11px; padding: 0px; }}
        QLabel#cell {{ font-size: 11px; padding: 0px; }}
        QLabel#value {{ font-size: 15px; font-weight: 600; padding: 0px; }}
        QLabel#verdict {{ font-size: 15px; font-weight: 600; padding: 0px; }}
        QPushButton#row {{ text-align: left; padding: 3px 6px; font-size: 11px; }}
        QToolButton#fold {{ border: none; background: transparent; padding: 0px; font-size: 11px; }}
        QLabel#warning {{ color: {colour["warning"]}; font-size: 11px; padding: 0px; }}
        QFrame#question {{ border: 2px solid {colour["warning"]}; border-radius: 4px; }}
        QFrame#said {{ border: 1px solid {colour["line"]}; border-radius: 4px; }}
        QPushButton#step {{ padding: 3px 1px; min-width: 0px; font-size: 11px; }}
        QPushButton#next {{
            background: {colour["accent"]}; color: {colour["on_accent"]}; font-weight: 600;
            padding: 3px 1px; min-width: 0px; font-size: 11px;
        }}
        QLabel#asked {{ font-weight: 600; padding: 0px; }}
        QPushButton#primary {{
            background: {colour["accent"]}; color: {colour["on_accent"]}; font-weight: 600;
        }}
        QPushButton#primary:disabled {{ background: {colour["line"]}; color: {colour["faint"]}; }}
        QLineEdit[wrong="true"], QComboBox[wrong="true"] {{ border: 2px solid {colour["warning"]}; }}
        QPushButton#mode {{ padding: 3px 2px; min-width: 0px; }}
        QCheckBox#tight {{ spacing: 2px; }}
        QPushButton#mode:checked {{ background: {colour["accent"]}; color: {colour["on_accent"]}; }}
    """


class DockContent(QWidget):
    """A widget that notices when napari takes it out of its dock, which it does not delete."""

    taken_out = Signal()

    def event(self, event: QEvent) -> bool:
        """Look out for the loss of the parent."""
        done = bool(super().event(event))
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.taken_out.emit()
        return done


class Panel(QWidget):
    """A part of the dock: a heading and what is added to ``body``."""

    def __init__(self, heading: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(0, 0, 0, 0)
        self.body.setSpacing(6)
        title = QLabel(heading)
        title.setObjectName("heading")
        title.setIndent(0)
        self.body.addWidget(title)

    def add(self, *parts: QWidget | QLayout) -> None:
        """Add widgets and rows, one below the other."""
        for part in parts:
            if isinstance(part, QLayout):
                self.body.addLayout(part)
            else:
                self.body.addWidget(part)


def in_row(*widgets: QWidget, wide: int = 0) -> QHBoxLayout:
    """Return a row of widgets; the one at place ``wide`` takes the room that is left."""
    row = QHBoxLayout()
    for place, widget in enumerate(widgets):
        row.addWidget(widget, int(place == wide))
    return row


def push_button(
    text: str, tip: str = "", press: Callable[..., object] | None = None, look: str = ""
) -> QPushButton:
    """Return a button; ``look`` is the name that the dock's style sheet has for it."""
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setObjectName(look)
    if press is not None:
        button.clicked.connect(press)
    return button


def check_box(text: str, tip: str, checked: bool = False) -> QCheckBox:
    """Return a box with a tool tip."""
    box = QCheckBox(text)
    box.setToolTip(tip)
    box.setChecked(checked)
    return box


def enable(control: QWidget | QAction, *hindrances: tuple[bool, str]) -> None:
    """Enable a control unless something is in the way, which its tool tip then says.

    ``control``: its tool tip while nothing is in the way is remembered at the first call.
    ``hindrances``: whether it is there, and what to do about it; the first one that is counts.
    """
    if control.property(_TIP) is None:
        control.setProperty(_TIP, control.toolTip())
    reason = next((text for there, text in hindrances if there), "")
    control.setEnabled(not reason)
    control.setToolTip(reason or control.property(_TIP))


def enable_all(holder: QWidget, *hindrances: tuple[bool, str]) -> None:
    """Enable all controls in a widget unless something is in the way, see `enable`."""
    for kind in (QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox):
        for control in holder.findChildren(kind):
            if not isinstance(control.parent(), (QComboBox, QAbstractSpinBox)):
                enable(control, *hindrances)


def restyle(widget: QWidget, name: str) -> None:
    """Give a widget the look that the dock's style sheet has for a name."""
    if widget.objectName() != name:
        widget.setObjectName(name)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def mark(field: QWidget, problem: str) -> None:
    """Mark a field whose content is wrong and say why in its tool tip; no problem, no mark."""
    if field.property(_TIP) is None:
        field.setProperty(_TIP, field.toolTip())
    field.setToolTip(problem or field.property(_TIP))
    if bool(problem) != bool(field.property(_WRONG)):
        field.setProperty(_WRONG, bool(problem))
        field.style().unpolish(field)
        field.style().polish(field)


def caption(text: str = "", parent: QWidget | None = None) -> QLabel:
    """Return a small, faint label."""
    label = QLabel(text, parent)
    label.setObjectName("caption")
    return label


def wrapped(label: QLabel) -> QLabel:
    """Let a label break its lines instead of widening the dock."""
    label.setWordWrap(True)
    label.setMinimumWidth(0)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def folded(heading: str, content: QWidget) -> QWidget:
    """Return a widget that is shown below its heading when that is pressed, and hidden at first."""
    holder, button = QWidget(), QToolButton()
    button.setObjectName("fold")
    button.setText(heading)
    button.setCheckable(True)
    button.setArrowType(Qt.ArrowType.RightArrow)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)

    def on_toggled(shown: bool) -> None:
        button.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)
        content.setVisible(shown)

    button.toggled.connect(on_toggled)
    column = QVBoxLayout(holder)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(2)
    column.addWidget(button)
    column.addWidget(content)
    content.hide()
    return holder


class Tiles(QWidget):
    """Values with their captions above them, four in a row."""

    def __init__(self, captions: dict[str, str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 2, 0, 2)
        grid.setHorizontalSpacing(4)
        grid.setVerticalSpacing(1)
        self._values: dict[str, QLabel] = {}
        for place, (name, tip) in enumerate(captions.items()):
            row, column = divmod(place, 4)
            above, value = caption(name), QLabel()
            value.setObjectName("value")
            value.setContentsMargins(0, 0, 0, 5)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            for label in (above, value):
                label.setToolTip(tip)
            grid.addWidget(above, 2 * row, column)
            grid.addWidget(value, 2 * row + 1, column)
            grid.setColumnStretch(column, 1)
            self._values[name] = value

    def set(self, values: dict[str, str]) -> None:
        """Show values by caption; those that are missing get a dash."""
        for name, label in self._values.items():
            label.setText(values.get(name, "–"))

    def text(self, name: str) -> str:
        """Return the value under a caption."""
        return str(self._values[name].text())
