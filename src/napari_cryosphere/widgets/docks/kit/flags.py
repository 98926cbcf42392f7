"""Flags as the docks name, colour and key them; the key of a flag is the same everywhere."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap

from napari_cryosphere.widgets.state.particle_choices import Flag

__all__ = ["FLAG_COLOURS", "FLAG_KEYS", "UNCERTAIN_KEYS", "flag_icon"]

FLAG_KEYS = {
    Flag.KEEP: ("Keep", "K"),
    Flag.REJECT: ("Reject", "X"),
    Flag.REVIEW: ("Review", "V"),
    Flag.NONE: ("Clear", "N"),
}
"""What gives a flag is called, and its key."""

UNCERTAIN_KEYS = {"U": 1, "Shift-U": -1}
"""Keys to the next most uncertain particle, and back."""

FLAG_COLOURS = {Flag.KEEP: "#3fa66b", Flag.REJECT: "#d4504f", Flag.REVIEW: "#d99a2b"}


def flag_icon(flag: Flag) -> QIcon:
    """Return a flag's colour as an icon; an empty one where it has none."""
    if flag not in FLAG_COLOURS:
        return QIcon()
    pixmap = QPixmap(QSize(12, 12))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(FLAG_COLOURS[flag]))
    painter.drawEllipse(1, 1, 10, 10)
    painter.end()
    return QIcon(pixmap)
