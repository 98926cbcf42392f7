"""Where the FSC plot stands in the window."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMainWindow

from napari_cryosphere.widgets.docks.maps.fsc_plot import FscPlot

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["open_fsc_plot"]

_CORNERS = {
    Qt.Corner.BottomLeftCorner: Qt.DockWidgetArea.LeftDockWidgetArea,
    Qt.Corner.BottomRightCorner: Qt.DockWidgetArea.RightDockWidgetArea,
}


def open_fsc_plot(viewer: napari.viewer.Viewer) -> FscPlot:
    """Open the plot below the canvas only: the docks at the sides keep their height."""
    plot = FscPlot(viewer.theme)
    viewer.window.add_dock_widget(plot, name="FSC", area="bottom", tabify=True)
    window = plot.window()
    if isinstance(window, QMainWindow):
        corners = {corner: window.corner(corner) for corner in _CORNERS}
        for corner, area in _CORNERS.items():
            window.setCorner(corner, area)
        plot.taken_out.connect(partial(_set_corners, weakref.ref(window), corners))
    return plot


def _set_corners(
    window: weakref.ref[QMainWindow], corners: dict[Qt.Corner, Qt.DockWidgetArea]
) -> None:
    """Give a window's corners back."""
    present = window()
    if present is not None:
        for corner, area in corners.items():
            present.setCorner(corner, area)
