"""What a particle's distribution says: a few words, and the poses that come into question."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_cryosphere.widgets.docks.kit.style import caption, wrapped

if TYPE_CHECKING:
    from napari_cryosphere.widgets.state.reading import Reading
    from napari_cryosphere.widgets.state.verdict import Candidate

__all__ = ["VerdictPanel"]

_MOST = 5
_SIDE, _MARGIN = 36, 6  # pixels of a candidate's picture, and above and below it together


class VerdictPanel(QWidget):
    """The verdict, whether network and map agree, and a button with a picture per candidate.

    ``go_to``: called with the place of a candidate whose button is pressed.
    """

    def __init__(self, go_to: Callable[[int], None], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words, self.reason, self.agreement = QLabel(), wrapped(caption()), wrapped(QLabel())
        self.words.setObjectName("verdict")
        self.words.setWordWrap(True)
        for label in (self.words, self.agreement):
            label.setIndent(0)
        self.candidates = [QPushButton() for _ in range(_MOST)]
        self._thumbnails: NDArray[np.uint8] | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        for widget in (self.words, self.reason, self.agreement, *self.candidates):
            column.addWidget(widget)
        for place, button in enumerate(self.candidates):
            button.setObjectName("row")
            button.setIconSize(QSize(_SIDE, _SIDE))
            button.setToolTip("Mark this pose on the sphere, and look at it through the lens")
            button.clicked.connect(partial(self._on_click, go_to, place))

    @staticmethod
    def _on_click(go_to: Callable[[int], None], place: int, checked: bool = False) -> None:
        go_to(place)

    def show_reading(
        self, reading: Reading | None, agreement: str, thumbnails: NDArray[np.uint8] | None = None
    ) -> None:
        """Show what a distribution says; None where none has been read.

        ``reading``, ``agreement``: what was read, and whether network and map agree.
        ``thumbnails``: ``(k, box, box)`` grey values, a picture per candidate.
        """
        verdict = None if reading is None else reading.verdict
        self.words.setText("" if verdict is None else verdict.words)
        self.reason.setText("" if verdict is None else verdict.reason)
        self.agreement.setText(agreement)
        for label in (self.words, self.reason):
            label.setVisible(verdict is not None)
        self.agreement.setVisible(bool(agreement))
        shown = () if reading is None else reading.candidates
        for place, button in enumerate(self.candidates):
            button.setVisible(place < len(shown))
            if place < len(shown):
                button.setText(candidate_line(shown[place]))
        if thumbnails is not self._thumbnails:
            self._thumbnails = thumbnails
            pictures = () if thumbnails is None else thumbnails
            icons = [_icon(picture) for picture in pictures]
            for place, button in enumerate(self.candidates):
                button.setIcon(icons[place] if place < len(icons) else QIcon())
                button.setMinimumHeight(_SIDE + _MARGIN if icons else 0)


def _icon(picture: NDArray[np.uint8]) -> QIcon:
    """Return a square picture as an icon."""
    rows, columns = picture.shape
    data = picture.tobytes()
    image = QImage(data, columns, rows, columns, QImage.Format.Format_Grayscale8)
    return QIcon(QPixmap.fromImage(image.copy()))


def candidate_line(candidate: Candidate) -> str:
    """Return a line on a candidate: its probability, its angles, how far it is from the first."""
    rot, tilt, psi = candidate.angles
    apart = f" · {candidate.apart_degrees:.0f}° apart" if candidate.apart_degrees > 1 else ""
    return f"{100 * candidate.probability:.0f} %   {rot:.0f}°, {tilt:.0f}°, {psi:.0f}°{apart}"
