"""The place in a dock where what is to be decided stands, with a button for each answer."""

from __future__ import annotations

from qtpy.QtWidgets import QFrame, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_cryosphere.widgets.docks.kit.style import BUSY, enable, push_button, wrapped
from napari_cryosphere.widgets.docks.kit.workbench import Seat

__all__ = ["QuestionBar"]


class QuestionBar(QFrame):
    """The question about the chosen particles; hidden while there is none."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("question")
        self._controller = seat.controller
        self.text = wrapped(QLabel())
        self.text.setObjectName("asked")
        self.buttons: list[QPushButton] = []
        self._column = QVBoxLayout()
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.addWidget(self.text)
        column.addLayout(self._column)
        for signal in (self._controller.question_changed, self._controller.runner.busy_changed):
            seat.connect(signal, self._show)
        self._show()

    def _show(self, *_: object) -> None:
        session = self._controller.session
        question = None if session is None else session.question
        for button in self.buttons:
            self._column.removeWidget(button)
            button.hide()
            button.deleteLater()
        self.buttons = []
        self.setVisible(question is not None)
        if question is None:
            return
        self.text.setText(question.text)
        for place, answer in enumerate(question.answers):
            look = "primary" if place == 0 else ""
            button = push_button(answer.text, answer.tip, lambda _=False, do=answer.do: do(), look)
            enable(button, (self._controller.runner.busy, BUSY))
            self._column.addWidget(button)
            self.buttons.append(button)
