"""Base of the plugin's docks: their hold on the viewer's controller, scrolling panels, and a footer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QSize, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from napari_cryosphere.widgets.docks.kit.style import DockContent, caption, enable, wrapped
from napari_cryosphere.widgets.docks.kit.workbench import Seat, take_seat
from napari_cryosphere.widgets.state.viewer_context import unwrapped

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.widgets.control.running import Runner

__all__ = ["Footer", "SeatedDock", "scrolled", "single_shot"]

_LEAST_WIDTH = 312  # pixels: the widest row, margins and a scroll bar
_SIDES = (Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea)


class SeatedDock(DockContent):
    """A dock that shares the viewer's controller; closed, it lets go of it.

    ``viewer``: napari's viewer, or its proxy, which napari gives to docks opened from its menu.
    ``runner``: runs long work; None for napari's threads. The viewer's first dock's counts.
    """

    wide, high = 340, 560
    """Size that the dock asks for, in pixels: it leaves the canvas room on a small screen."""

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__()
        viewer = unwrapped(viewer)
        self._viewer: napari.viewer.Viewer = viewer
        self._placed = False
        self._seat = take_seat(viewer, runner)
        self.controller = self._seat.controller
        self.setMinimumWidth(_LEAST_WIDTH)
        self.taken_out.connect(self._leave)
        self.destroyed.connect(partial(self._seat.leave, False))

    def sizeHint(self) -> QSize:
        """Return the size that the dock asks for."""
        return QSize(self.wide, self.high)

    def showEvent(self, event: QShowEvent) -> None:
        """When first shown, share the place of a dock that leaves no room for both, as one of its tabs."""
        super().showEvent(event)
        if not self._placed:
            self._placed = True
            QTimer.singleShot(0, self, self._make_tab)

    def _make_tab(self) -> None:
        """Take a short title, which a tab has room for, and become a tab where there is no room."""
        container = self.parent()
        if not isinstance(container, QDockWidget):
            return
        title = container.windowTitle().partition(" (")[0]
        short = title.removeprefix("CryoSphere ").capitalize() if " " in title else title
        container.setWindowTitle(short)
        _shorten_bar(container, short)
        container.topLevelChanged.connect(lambda _: _shorten_bar(container, short))
        if container.isFloating():
            return
        window = container.parent()
        if not isinstance(window, QMainWindow):
            return
        area, beside = window.dockWidgetArea(container), window.tabifiedDockWidgets(container)
        others = [
            dock
            for dock in window.findChildren(QDockWidget)
            if dock is not container
            and dock not in beside
            and isinstance(dock.widget(), SeatedDock)
            and dock.isVisible()
            and not dock.isFloating()
            and window.dockWidgetArea(dock) == area
        ]
        wanted = (
            sum(dock.widget().sizeHint().height() for dock in others) + self.sizeHint().height()
        )
        if others and area in _SIDES and wanted > window.height():
            window.tabifyDockWidget(others[-1], container)
            container.raise_()
        QTimer.singleShot(0, self, partial(_scroll_tabs, window))  # Qt makes them when it lays out

    def _leave(self) -> None:
        """Let go of what outlives the dock; it has been taken out of the window."""
        self._seat.leave()

    def _column(self) -> QVBoxLayout:
        """Return the dock's own layout, with its margins."""
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 8, 4, 8)
        return column


def _scroll_tabs(window: QMainWindow) -> None:
    """Let titles of docks that have no room be scrolled to, instead of being cut to two letters."""
    direct = Qt.FindChildOption.FindDirectChildrenOnly
    for tabs in window.findChildren(QTabBar, options=direct):
        tabs.setElideMode(Qt.TextElideMode.ElideNone)
        tabs.setUsesScrollButtons(True)


def _shorten_bar(container: QDockWidget, title: str) -> None:
    """Let napari's bar over a dock say its title without the plugin's name again."""
    bar = container.titleBarWidget()
    for label in [] if bar is None else bar.findChildren(QLabel):
        if label.text():
            label.setText(title)


def scrolled(*panels: QWidget) -> QScrollArea:
    """Return panels one below the other that scroll where they are higher than the dock."""
    content = QWidget()
    column = QVBoxLayout(content)
    column.setContentsMargins(0, 0, 6, 0)
    column.setSpacing(10)
    for panel in panels:
        column.addWidget(panel)
    column.addStretch(1)
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(content)
    return area


def single_shot(parent: QObject, milliseconds: int, callback: Callable[[], object]) -> QTimer:
    """Return a timer that calls back once, so long after it was last started."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(callback)
    return timer


class Footer(QWidget):
    """Shown while work goes on."""

    def __init__(self, seat: Seat, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._runner = seat.controller.runner
        self.progress, self.stop = QProgressBar(), QPushButton("Stop")
        self.progress.setRange(0, 100)
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(8)
        self.message = wrapped(caption())
        self.stop.setToolTip("Stop after the present step; what is made so far is kept")
        self.stop.clicked.connect(self._on_stop)
        lines, row = QVBoxLayout(), QHBoxLayout(self)
        lines.addWidget(self.message)
        lines.addWidget(self.progress)
        row.setContentsMargins(0, 0, 0, 0)
        row.addLayout(lines, 1)
        row.addWidget(self.stop)
        seat.connect(self._runner.busy_changed, self._on_busy)
        seat.connect(self._runner.progressed, self._on_progress)
        self._on_busy()

    def _on_busy(self, busy: bool = False) -> None:
        self.setVisible(self._runner.busy)
        enable(self.stop)
        self.stop.setText("Stop")
        if not self._runner.busy:
            self.progress.setValue(0)
            self.message.setText("")

    def _on_progress(self, fraction: float, message: str) -> None:
        self.progress.setUpdatesEnabled(False)  # Qt would paint the whole window before it goes on
        self.progress.setValue(round(100 * fraction))
        self.progress.setUpdatesEnabled(True)
        self.message.setText(message)

    def _on_stop(self) -> None:
        enable(self.stop, (True, "The work ends after the present step"))
        self.stop.setText("Stopping…")
        self._runner.stop()
