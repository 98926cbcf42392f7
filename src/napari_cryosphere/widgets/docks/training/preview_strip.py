"""A strip of held-out particles whose spheres sharpen while a network learns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_cryosphere.jobs.events import Preview
from napari_cryosphere.widgets.docks.kit.style import caption
from napari_cryosphere.widgets.docks.training.preview_pictures import (
    MOST_PICTURES,
    preview_pictures,
)

__all__ = ["PreviewStrip"]

_COLUMNS = 3


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
            caption("Held-out particles; crosses are their known views"), 0, 0, 1, _COLUMNS
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
