"""The place in a dock where the last error, or what was done, can be read whole and copied."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QToolButton, QWidget

from napari_cryosphere.widgets.docks.kit.style import restyle, wrapped
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.state.notices import NOTICES
from napari_cryosphere.widgets.state.viewer_context import Drop, context_of

__all__ = ["MessageBar"]


class MessageBar(QFrame):
    """The last message; hidden while there is none, once closed, and when other files have come since."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = wrapped(QLabel())
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.copy, self.close_button = QToolButton(), QToolButton()
        self.copy.setText("Copy")
        self.copy.clicked.connect(self._on_copy)
        self.close_button.setText("✕")
        self.close_button.setToolTip("Hide this message")
        self.close_button.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 4, 4, 4)
        row.addWidget(self.text, 1)
        for button in (self.copy, self.close_button):
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        self.hide()
        self._context = context_of(seat.controller.viewer)
        self._drop: Drop | None = None
        seat.connect(NOTICES.said, self._show)
        seat.connect(seat.controller.dropped, self._on_dropped)

    def _show(self, text: str, error: bool) -> None:
        restyle(self, "question" if error else "said")
        self.text.setText(text)
        self.copy.setVisible(error)
        self._drop = self._context.drop
        self.show()

    def _on_dropped(self, layer: object) -> None:
        """Hide what was said before these files came; of those that came together it stays."""
        if self._context.drop is not self._drop:
            self.hide()

    def _on_copy(self) -> None:
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.text.text())
