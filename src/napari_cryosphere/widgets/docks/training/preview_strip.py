"""A strip of held-out particles whose spheres sharpen while a network learns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_cryosphere.jobs.events import Preview
from napari_cryosphere.widgets.docks.kit.style import caption
from napari_cryosphere.widgets.state.sphere_layer import CROSS_COLOUR

__all__ = ["MOST_PICTURES", "PreviewStrip", "preview_pictures"]

_COLUMNS = 3

MOST_PICTURES = 6


class PreviewStrip(QWidget):
    """Up to six small spheres, with a cross at the known view; hidden while there is nothing to show."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown: Preview | None = None
        self.labels = [QLabel() for _ in range(MOST_PICTURES)]
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        grid.addWidget(
            caption("Held-out particles; crosses mark their known views"), 0, 0, 1, _COLUMNS
        )
        for place, label in enumerate(self.labels):
            label.setScaledContents(True)
            label.setMinimumSize(1, 1)
            label.setFixedHeight(48)
            grid.addWidget(label, 1 + place // _COLUMNS, place % _COLUMNS)
        self.hide()

    def show_preview(self, preview: Preview | None, known: NDArray[np.float64] | None) -> None:
        """Draw what a network says now; None hides the strip."""
        self.setVisible(preview is not None)
        if preview is None or preview is self._shown:
            self._shown = preview
            return
        self._shown = preview
        pictures = preview_pictures(preview, known)
        for place, label in enumerate(self.labels):
            label.setVisible(place < len(pictures))
            if place < len(pictures):
                picture = np.ascontiguousarray(pictures[place])
                height, width = picture.shape[:2]
                image = QImage(
                    picture.data, width, height, 4 * width, QImage.Format.Format_RGBA8888
                )
                label.setPixmap(QPixmap.fromImage(image.copy()))
                label.setToolTip(f"particle {int(preview.rows[place]) + 1:,}, held out")


HEIGHT, WIDTH = 56, 112


def preview_pictures(
    preview: Preview, known: NDArray[np.float64] | None
) -> list[NDArray[np.uint8]]:
    """Draw the first six particles of a preview.

    ``preview``: what the network says now. ``known``: ``(n, 3, 3)`` poses of the whole stack, for
    the crosses; None if they are not known. Returns ``(56, 112, 4)`` uint8 RGBA pictures.
    """
    from napari_cryosphere.widgets.state.sphere_picture import draw_cross, rasterise

    pictures = []
    for place, row in enumerate(preview.rows[:MOST_PICTURES]):
        picture = rasterise(preview.distribution[place].probability_grid(3)[0], HEIGHT, WIDTH)
        if known is not None and row < len(known):
            draw_cross(picture, known[row][:, 2], CROSS_COLOUR, 6)
        pictures.append(picture)
    return pictures
