"""The CryoSphere dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from qtpy.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QWidget,
)

from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.docks.kit.seated_dock import Footer, SeatedDock, scrolled
from napari_cryosphere.widgets.docks.kit.style import dock_style, restyle, wrapped
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.docks.main.calibration_panel import CalibrationPanel
from napari_cryosphere.widgets.docks.main.data_panel import DataPanel
from napari_cryosphere.widgets.docks.main.inspector_panel import InspectorPanel
from napari_cryosphere.widgets.docks.main.pose_panel import PosePanel
from napari_cryosphere.widgets.docks.main.way import WayBar
from napari_cryosphere.widgets.plugin.open_docks import MAPS, TRAINING, open_dock
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.notices import NOTICES, tell_error
from napari_cryosphere.widgets.state.viewer_context import Drop, context_of

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Layer

__all__ = ["CryosphereDock"]


class CryosphereDock(SeatedDock):
    """Predict and inspect; works on whatever is loaded, and on nothing."""

    high = 640

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self.setAcceptDrops(True)
        self.way = WayBar(self._seat, self._go)
        self.message = MessageBar(self._seat)
        self.data = DataPanel(self._seat)
        self.poses = PosePanel(self._seat)
        self.inspector = InspectorPanel(self._seat)
        self.calibration = CalibrationPanel(self._seat)
        self.footer = Footer(self._seat)
        self._make_mode_buttons()
        self._lay_out()
        controller = self.controller
        for signal, callback in (
            (controller.maps.mode_changed, self._on_mode),
            (controller.layers_changed, self._update),
            (controller.dropped, self._on_dropped),
            (controller.training_wanted, self._on_training),
            (viewer.events.theme, self._on_theme),
        ):
            self._seat.connect(signal, callback)
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
                tell_error(f"CryoSphere cannot open {url.fileName()}")

    def _leave(self) -> None:
        self.inspector.leave()
        super()._leave()

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
        modes = QHBoxLayout()
        modes.setSpacing(4)
        modes.addWidget(self.particles_button, 1)
        modes.addWidget(self.maps_button, 1)
        outer = self._column()
        outer.addWidget(self.way)
        outer.addLayout(modes)
        self.area = scrolled(self.data, self.poses, self.inspector, self.calibration)
        outer.addWidget(self.area, 1)
        outer.addWidget(self.message)
        outer.addWidget(self.footer)

    def _go(self, step: str) -> None:
        """Show where a step of the way is done."""
        panels = {"Data": self.data, "Poses": self.poses, "Inspect": self.inspector}
        if step in panels:
            self.controller.maps.show()
            self.area.ensureWidgetVisible(panels[step], 0, 0)
            self.area.verticalScrollBar().setValue(panels[step].y())
        if step == "Data" and self.controller.session is None:
            self.data.ask_files()
        elif step == "Inspect":
            self.inspector.next.click()
        elif step == "Map":
            self._on_maps()
        elif step == "Export":
            self.poses.ask_save()

    def _update(self) -> None:
        has_maps = bool(self.controller.map_layers)
        self.maps_button.setToolTip(
            "Show the maps" if has_maps else "Reconstruct a map, or open one"
        )

    def _on_dropped(self, layer: Layer) -> None:
        """Show a map by itself, next to its reference: over particles it would cover them."""
        if map_of(layer) is not None:
            QTimer.singleShot(0, self._on_maps)

    def _on_training(self) -> None:
        open_dock(self._viewer, TRAINING)

    def _on_maps(self) -> None:
        """Open the dock of the maps, and show them if there are any."""
        open_dock(self._viewer, MAPS).show_maps()
        self._on_mode(self.controller.maps.view.active)

    def _on_mode(self, maps: bool) -> None:
        (self.maps_button if maps else self.particles_button).setChecked(True)

    def _on_theme(self, event: Any = None) -> None:
        theme = self._viewer.theme
        self.setStyleSheet(dock_style(theme))
        self.calibration.plot.set_theme(theme)


class MessageBar(QFrame):
    """The last message; hidden while there is none, once closed, and when other files have come since."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = wrapped(QLabel())
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.copy, self.close_button = QToolButton(), QToolButton()
        self.copy.setText("Copy")
        self.copy.clicked.connect(self._on_copy)
        self.close_button.setText("✕")
        self.close_button.setToolTip("Hide this message")
        self.close_button.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 4, 4, 4)
        row.addWidget(self.text, 1)
        for button in (self.copy, self.close_button):
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        self.hide()
        self._context = context_of(seat.controller.viewer)
        self._drop: Drop | None = None
        seat.connect(NOTICES.said, self._show)
        seat.connect(seat.controller.dropped, self._on_dropped)

    def _show(self, text: str, error: bool) -> None:
        restyle(self, "question" if error else "said")
        self.text.setText(text)
        self.copy.setVisible(error)
        self._drop = self._context.drop
        self.show()

    def _on_dropped(self, layer: object) -> None:
        """Hide what was said before these files came; of those that came together it stays."""
        if self._context.drop is not self._drop:
            self.hide()

    def _on_copy(self) -> None:
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.text.text())
