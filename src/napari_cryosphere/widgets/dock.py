"""The CryoSphere dock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_cryosphere.widgets.data_panel import DataPanel
from napari_cryosphere.widgets.docks import MAPS, open_dock
from napari_cryosphere.widgets.footer import Footer
from napari_cryosphere.widgets.inspector_panel import InspectorPanel
from napari_cryosphere.widgets.layer_data import map_of
from napari_cryosphere.widgets.notices import tell_error
from napari_cryosphere.widgets.pose_panel import PosePanel
from napari_cryosphere.widgets.style import DockContent, dock_style
from napari_cryosphere.widgets.workbench import take_seat
from napari_cryosphere.widgets.workers import Runner

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Layer

__all__ = ["CryosphereDock"]

_WIDTH = 340


class CryosphereDock(DockContent):
    """Predict and inspect; works on whatever is loaded, and on nothing.

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
        self.setAcceptDrops(True)
        self._seat = take_seat(viewer, runner)
        self.controller = self._seat.controller
        self.data = DataPanel(self.controller)
        self.poses = PosePanel(self.controller)
        self.inspector = InspectorPanel(self._seat)
        self.footer = Footer(self._seat)
        self._make_mode_buttons()
        self._lay_out()
        controller = self.controller
        for signal, callback in (
            (controller.maps.mode_changed, self._on_mode),
            (controller.layers_changed, self._update),
            (controller.dropped, self._on_dropped),
            (viewer.events.theme, self._on_theme),
        ):
            self._seat.connect(signal, callback)
        self.taken_out.connect(self.inspector.leave)
        self.taken_out.connect(self._seat.leave)
        self.destroyed.connect(partial(self._seat.leave, False))
        self._on_theme()
        self._update()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files and folders: here they are the plugin's, without a question which reader to use."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what is dropped."""
        for url in event.mimeData().urls():
            try:
                self._viewer.open(url.toLocalFile(), plugin="napari-cryosphere")
            except ValueError:  # of napari: no reader takes it
                tell_error(f"{url.fileName()} is nothing that CryoSphere opens")

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
        self.maps_button.clicked.connect(self._on_maps)

    def _lay_out(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 6, 0)
        column.setSpacing(10)
        for panel in (self.data, self.poses, self.inspector):
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
        outer.addWidget(self.footer)
        self.setMinimumWidth(300)

    def _update(self) -> None:
        has_maps = bool(self.controller.map_layers)
        self.maps_button.setToolTip("Show the maps" if has_maps else "Reconstruct a map, or open one")

    def _on_dropped(self, layer: Layer) -> None:
        """Show a map that was dropped onto particles beside its reference: it would lie over them."""
        if map_of(layer) is not None:
            QTimer.singleShot(0, self._on_maps)

    def _on_maps(self) -> None:
        """Open the dock of the maps, and show them if there are any."""
        open_dock(self._viewer, MAPS).show_maps()
        self._on_mode(self.controller.maps.view.active)

    def _on_mode(self, maps: bool) -> None:
        (self.maps_button if maps else self.particles_button).setChecked(True)

    def _on_theme(self, event: Any = None) -> None:
        theme = self._viewer.theme
        self.setStyleSheet(dock_style(theme))
