"""How to read the sphere: which mark is which pose."""

from __future__ import annotations

import numpy as np
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_cryosphere.widgets.docks.kit.style import caption, wrapped

__all__ = ["HueKey"]

_READING = "lines hold 95 % (in the lens 50 %, too) · M hides lines and marks"


_MARKS = {"ring": "predicted", "cross": "known", "diamond": "refined"}


def _mark(draw: str) -> QPixmap:
    """Return a small picture of one of the sphere's marks."""
    from napari_cryosphere.widgets.state.sphere_layer import (
        CROSS_COLOUR,
        DIAMOND_COLOUR,
        RING_COLOUR,
    )
    from napari_cryosphere.widgets.state.sphere_picture import draw_cross, draw_diamond, draw_ring

    picture = np.zeros((23, 23, 4), dtype=np.uint8)
    # the direction +x is in the middle of the map
    middle = (1.0, 0.0, 0.0)
    if draw == "ring":
        draw_ring(picture, middle, RING_COLOUR, 8)
    elif draw == "cross":
        draw_cross(picture, middle, CROSS_COLOUR, 7)
    else:
        draw_diamond(picture, middle, DIAMOND_COLOUR, 7)
    image = QImage(picture.tobytes(), 23, 23, 92, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image.copy())


class HueKey(QWidget):
    """The legend of marks, on two lines; the scales are on the canvas."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(4)
        grid.setVerticalSpacing(2)
        for place, (draw, text) in enumerate(_MARKS.items()):
            icon = QLabel()
            icon.setPixmap(_mark(draw))
            icon.setFixedWidth(24)
            grid.addWidget(icon, 0, 2 * place)
            grid.addWidget(caption(text), 0, 2 * place + 1)
            grid.setColumnStretch(2 * place + 1, 1)
        grid.addWidget(wrapped(caption(_READING)), 1, 0, 1, 2 * len(_MARKS))
