"""The dock that trains on what is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cryosphere.widgets.docks.kit.footer import Footer
from napari_cryosphere.widgets.docks.kit.seated_dock import SeatedDock, scrolled
from napari_cryosphere.widgets.docks.kit.style import dock_style
from napari_cryosphere.widgets.docks.training.panel import TrainingPanel

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.widgets.docks.kit.workers import Runner

__all__ = ["TrainingDock"]


class TrainingDock(SeatedDock):
    """Train, pause, stop, resume, and follow runs that go on elsewhere.

    Parameters are those of `SeatedDock`.
    """

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self.panel = TrainingPanel(self._seat)
        self.footer = Footer(self._seat)
        outer = self._column()
        outer.addWidget(scrolled(self.panel), 1)
        outer.addWidget(self.footer)
        self._seat.connect(viewer.events.theme, self._on_theme)
        self._on_theme()

    def _on_theme(self, event: Any = None) -> None:
        self.setStyleSheet(dock_style(self._viewer.theme))
        self.panel.plot.set_theme(self._viewer.theme)
