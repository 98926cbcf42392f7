"""The dock that reconstructs and compares maps."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QMainWindow, QPushButton, QWidget

from napari_cryosphere.widgets.docks.kit.seated_dock import Footer, SeatedDock, scrolled
from napari_cryosphere.widgets.docks.kit.style import dock_style, enable
from napari_cryosphere.widgets.docks.maps.fsc_plot import FscPlot
from napari_cryosphere.widgets.docks.maps.panel import NO_MAP, MapPanel
from napari_cryosphere.widgets.docks.maps.reconstruct_panel import ReconstructPanel
from napari_cryosphere.widgets.state.layer_data import map_of

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Layer

    from napari_cryosphere.widgets.control.running import Runner

__all__ = ["MapDock"]

_TIPS = {
    "Particles": "Back to the particles, the viewer as it was",
    "Surfaces": "Both maps in 3D, turning together",
    "Slices": "Three orthogonal slices of each map, at one contrast",
}

_CORNERS = {
    Qt.Corner.BottomLeftCorner: Qt.DockWidgetArea.LeftDockWidgetArea,
    Qt.Corner.BottomRightCorner: Qt.DockWidgetArea.RightDockWidgetArea,
}


class MapDock(SeatedDock):
    """Reconstruct, look, compare; works on whatever is loaded, and on nothing."""

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        seat = self._seat
        self.reconstruction, self.maps = ReconstructPanel(seat), MapPanel(seat)
        self.footer = Footer(seat)
        self.fsc: FscPlot | None = None
        self._lay_out(self._mode_buttons())
        maps = self.controller.maps
        for signal, callback in (
            (maps.curves_changed, self._on_curves),
            (maps.mode_changed, self._on_mode),
            (self.controller.layers_changed, self._on_layers),
            (self.controller.dropped, self._on_dropped),
            (viewer.events.theme, self._on_theme),
        ):
            seat.connect(signal, callback)
        self._on_theme()
        self._on_layers()
        self._on_mode(maps.view.active)
        self._on_curves()

    def show_maps(self, slices: bool = False) -> None:
        """Show the chosen maps in 3D, or as slices; nothing without a map."""
        if self.maps.map.layer() is not None:
            self.maps.show_maps(slices)

    def _mode_buttons(self) -> QHBoxLayout:
        row, self._modes = QHBoxLayout(), QButtonGroup(self)
        self.particles_button, self.surfaces_button, self.slices_button = map(QPushButton, _TIPS)
        row.setSpacing(4)
        for button in (self.particles_button, self.surfaces_button, self.slices_button):
            button.setObjectName("mode")
            button.setCheckable(True)
            button.setToolTip(_TIPS[button.text()])
            self._modes.addButton(button)
            row.addWidget(button, 1)
        self.particles_button.clicked.connect(lambda: self.controller.maps.show())
        self.surfaces_button.clicked.connect(lambda: self.maps.show_maps())
        self.slices_button.clicked.connect(lambda: self.maps.show_maps(slices=True))
        return row

    def _lay_out(self, modes: QHBoxLayout) -> None:
        outer = self._column()
        outer.addLayout(modes)
        outer.addWidget(scrolled(self.reconstruction, self.maps), 1)
        outer.addWidget(self.footer)

    def _on_layers(self) -> None:
        for button in (self.surfaces_button, self.slices_button):
            enable(button, (not self.controller.map_layers, NO_MAP))

    def _on_dropped(self, layer: Layer) -> None:
        """Make room for what was dropped; its visual is not ready before the next turn of the event loop."""
        if map_of(layer) is not None and self.controller.maps.view.active:
            QTimer.singleShot(0, partial(self.maps.show_new, layer))
        elif map_of(layer) is not None:
            QTimer.singleShot(0, self.show_maps)
        elif self.controller.maps.view.sliced:
            QTimer.singleShot(0, self.controller.maps.show)

    def _on_mode(self, maps: bool) -> None:
        sliced = self.controller.maps.view.sliced
        chosen = (
            self.slices_button
            if sliced
            else self.surfaces_button
            if maps
            else self.particles_button
        )
        chosen.setChecked(True)

    def _on_theme(self, event: Any = None) -> None:
        theme = self._viewer.theme
        self.setStyleSheet(dock_style(theme))
        if self.fsc is not None:
            self.fsc.set_theme(theme)

    def _on_curves(self) -> None:
        """Draw the curves; the plot opens below the canvas with the first of them."""
        curves = list(self.controller.maps.curves.values())
        if self.fsc is None:
            if not curves:
                return
            self.fsc = _open_fsc_plot(self._viewer, self)
            self.fsc.taken_out.connect(self._on_plot_closed)
        self.fsc.show_curves(curves)

    def _on_plot_closed(self) -> None:
        self.fsc = None


def _open_fsc_plot(viewer: napari.viewer.Viewer, beside: QWidget) -> FscPlot:
    """Open the plot below the canvas only: the docks at the sides keep their height.

    The corners are given to the sides before it comes: below the sides' docks it would make a low window
    grow.
    """
    plot, window = FscPlot(viewer.theme), beside.parentWidget()
    while not (window is None or isinstance(window, QMainWindow)):
        window = window.parentWidget()
    if window is not None:
        corners = {corner: window.corner(corner) for corner in _CORNERS}
        for corner, area in _CORNERS.items():
            window.setCorner(corner, area)
        plot.taken_out.connect(partial(_set_corners, weakref.ref(window), corners))
    viewer.window.add_dock_widget(plot, name="FSC", area="bottom", tabify=True)
    return plot


def _set_corners(
    window: weakref.ref[QMainWindow], corners: dict[Qt.Corner, Qt.DockWidgetArea]
) -> None:
    """Give a window's corners back."""
    present = window()
    if present is not None:
        for corner, area in corners.items():
            present.setCorner(corner, area)
