"""The CryoSphere dock."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QMainWindow,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_cryosphere.widgets.data_panel import DataPanel
from napari_cryosphere.widgets.inspector_panel import InspectorPanel
from napari_cryosphere.widgets.map_panel import MapPanel
from napari_cryosphere.widgets.plots import FscPlot
from napari_cryosphere.widgets.pose_panel import PosePanel
from napari_cryosphere.widgets.style import DockContent, caption, dock_style, wrapped
from napari_cryosphere.widgets.training_panel import TrainingPanel
from napari_cryosphere.widgets.workbench import take_seat
from napari_cryosphere.widgets.workers import Runner

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["CryosphereDock"]

_WIDTH = 340
_CORNERS = {
    Qt.Corner.BottomLeftCorner: Qt.DockWidgetArea.LeftDockWidgetArea,
    Qt.Corner.BottomRightCorner: Qt.DockWidgetArea.RightDockWidgetArea,
}


class CryosphereDock(DockContent):
    """Predict, inspect, train, reconstruct and compare; works on whatever is loaded, and on nothing.

    Parameters
    ----------
    viewer
        napari's viewer, given by napari.
    runner
        Runs long work; None for napari's threads. The viewer's first dock's counts.
    """

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__()
        self._viewer = viewer
        self._seat = take_seat(viewer, runner)
        self.controller = self._seat.controller
        self.data = DataPanel(self.controller)
        self.poses = PosePanel(self.controller)
        self.inspector = InspectorPanel(self.controller)
        self.training = TrainingPanel(self.controller)
        self.maps = MapPanel(self.controller)
        self.fsc: FscPlot | None = None
        self._make_mode_buttons()
        self._make_footer()
        self._lay_out()
        controller = self.controller
        for signal, callback in (
            (controller.maps.curves_changed, self._on_curves),
            (controller.maps.mode_changed, self._on_mode),
            (controller.layers_changed, self._update),
            (controller.runner.busy_changed, self._update),
            (controller.runner.progressed, self._on_progress),
            (viewer.events.theme, self._on_theme),
        ):
            self._seat.connect(signal, callback)
        self.taken_out.connect(self.inspector.leave)
        self.taken_out.connect(self._seat.leave)
        self.destroyed.connect(partial(self._seat.leave, False))
        self._on_theme()
        self._update()

    def sizeHint(self) -> QSize:
        """Return a width that leaves the canvas room on a small screen."""
        return QSize(_WIDTH, 640)

    def _make_mode_buttons(self) -> None:
        self.particles_button, self.maps_button = QPushButton("Particles"), QPushButton("Maps")
        self._modes = QButtonGroup(self)
        for button in (self.particles_button, self.maps_button):
            button.setObjectName("mode")
            button.setCheckable(True)
            self._modes.addButton(button)
        self.particles_button.setChecked(True)
        self.particles_button.clicked.connect(lambda: self.controller.maps.show())
        self.maps_button.clicked.connect(lambda: self.maps.show_maps())

    def _make_footer(self) -> None:
        self._footer = QWidget()
        self.progress, self.stop = QProgressBar(), QPushButton("Stop")
        self.progress.setRange(0, 100)
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(8)
        self.message = wrapped(caption())
        self.stop.clicked.connect(self._on_stop)
        lines, row = QVBoxLayout(), QHBoxLayout(self._footer)
        lines.addWidget(self.message)
        lines.addWidget(self.progress)
        row.setContentsMargins(0, 0, 0, 0)
        row.addLayout(lines, 1)
        row.addWidget(self.stop)

    def _lay_out(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 6, 0)
        column.setSpacing(10)
        for panel in (self.data, self.poses, self.inspector, self.training, self.maps):
            column.addWidget(panel)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        modes = QHBoxLayout()
        modes.setSpacing(4)
        modes.addWidget(self.particles_button, 1)
        modes.addWidget(self.maps_button, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(8, 8, 4, 8)
        outer.addLayout(modes)
        outer.addWidget(scroll, 1)
        outer.addWidget(self._footer)
        self.setMinimumWidth(300)

    def _update(self) -> None:
        busy = self.controller.runner.busy
        self._footer.setVisible(busy)
        self.stop.setEnabled(True)
        self.stop.setText("Stop")
        if not busy:
            self.progress.setValue(0)
            self.message.setText("")
        self.maps_button.setEnabled(bool(self.controller.map_layers))
        self.maps_button.setToolTip("" if self.controller.map_layers else "No map is loaded yet")

    def _on_progress(self, fraction: float, message: str) -> None:
        self.progress.setValue(round(100 * fraction))
        self.message.setText(message)

    def _on_stop(self) -> None:
        self.stop.setEnabled(False)
        self.stop.setText("Stopping…")
        self.controller.runner.stop()

    def _on_mode(self, maps: bool) -> None:
        (self.maps_button if maps else self.particles_button).setChecked(True)

    def _on_theme(self, event: Any = None) -> None:
        theme = self._viewer.theme
        self.setStyleSheet(dock_style(theme))
        self.training.plot.set_theme(theme)
        if self.fsc is not None:
            self.fsc.set_theme(theme)

    def _on_curves(self) -> None:
        """Draw the curves; the plot's dock opens below the canvas with the first of them."""
        curves = self.controller.maps.curves
        if self.fsc is None:
            if not curves:
                return
            self.fsc = self._open_plot()
        self.fsc.show_curves(curves)

    def _open_plot(self) -> FscPlot:
        """Open the plot below the canvas only: the docks at the sides keep their height."""
        plot = FscPlot(self._viewer.theme)
        self._viewer.window.add_dock_widget(plot, name="FSC", area="bottom", tabify=True)
        window = plot.window()
        if isinstance(window, QMainWindow):
            corners = {corner: window.corner(corner) for corner in _CORNERS}
            for corner, area in _CORNERS.items():
                window.setCorner(corner, area)
            plot.taken_out.connect(partial(_set_corners, weakref.ref(window), corners))
        plot.taken_out.connect(self._on_plot_closed)
        return plot

    def _on_plot_closed(self) -> None:
        self.fsc = None


def _set_corners(window: weakref.ref[QMainWindow], corners: dict[Qt.Corner, Qt.DockWidgetArea]) -> None:
    """Give a window's corners back."""
    present = window()
    if present is not None:
        for corner, area in corners.items():
            present.setCorner(corner, area)
