"""A widget as a picture in a file."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QWidget

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError

__all__ = ["save_picture"]

_SCALE = 2  # sharp enough for print


def save_picture(widget: QWidget, path: Path, background: str) -> None:
    """Write what a widget shows as a PNG file on a colour, at twice the screen's resolution.

    Raises
    ------
    CryosphereError
        If the file cannot be written.
    """
    pixels = QPixmap(widget.size() * _SCALE)
    pixels.setDevicePixelRatio(_SCALE)
    pixels.fill(QColor(background))
    widget.render(pixels)
    with atomic_path(path, overwrite=True) as temporary:
        if not pixels.save(str(temporary), "PNG"):
            raise CryosphereError(f"{path}: the picture could not be written; is the disk full?")
