"""The dock that trains on what is loaded."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_cryosphere.widgets.footer import Footer
from napari_cryosphere.widgets.style import DockContent, dock_style
from napari_cryosphere.widgets.training_panel import TrainingPanel
from napari_cryosphere.widgets.workbench import take_seat

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.widgets.workers import Runner

__all__ = ["TrainingDock"]


class TrainingDock(DockContent):
    """Train, pause, stop, resume, and follow runs that go on elsewhere.

    Parameters
    ----------
    viewer
        The viewer, given by napari.
    runner
        Runs long work; None for threads. The viewer's first dock's counts.
    """

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__()
        self._viewer = viewer
        self._seat = take_seat(viewer, runner)
        self.controller = self._seat.controller
        self.panel = TrainingPanel(self._seat)
        self.footer = Footer(self._seat)
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 6, 0)
        column.addWidget(self.panel)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(8, 8, 4, 8)
        outer.addWidget(scroll, 1)
        outer.addWidget(self.footer)
        self.setMinimumWidth(300)
        self._seat.connect(viewer.events.theme, self._on_theme)
        self.taken_out.connect(self._seat.leave)
        self.destroyed.connect(partial(self._seat.leave, False))
        self._on_theme()

    def sizeHint(self) -> QSize:
        """Return a width that leaves the canvas room on a small screen."""
        return QSize(340, 560)

    def _on_theme(self, event: Any = None) -> None:
        self.setStyleSheet(dock_style(self._viewer.theme))
        self.panel.plot.set_theme(self._viewer.theme)
