"""A window, and hands to use it: clicks, keys, drops, menus and dialogs, as a person would."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pictures import shrink
from qtpy.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDialogButtonBox,
    QFileDialog,
    QLineEdit,
    QMessageBox,
    QScrollArea,
    QWidget,
)

__all__ = ["Walk"]

logger = logging.getLogger("walk")
_LEFT = Qt.MouseButton.LeftButton
_PATIENCE = 900.0  # seconds


class Walk:
    """A window, hands to use it, and a log of what took how long.

    Parameters
    ----------
    output
        Where pictures and the log go.
    size
        Of the window, in pixels.
    themes
        In which every picture is taken; the last one is the window's.
    """

    def __init__(self, output: Path, size: tuple[int, int], themes: Sequence[str]) -> None:
        import napari

        output.mkdir(parents=True, exist_ok=True)
        self.output, self._themes = output, themes
        self.log: list[dict[str, Any]] = []
        self._started = time.perf_counter()
        self.viewer = napari.Viewer(title="napari", show=True)
        self.viewer.theme = themes[-1]
        self.window: Any = self.viewer.window._qt_window
        self.window.move(0, 0)
        self.viewer.window.resize(*size)
        self.rest()

    def rest(self, seconds: float = 0.4) -> None:
        """Let the window work."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            self._turn()

    @staticmethod
    def _turn() -> None:
        """Let the window work once, and delete what an event loop would delete: napari's progress
        bars.
        """
        QApplication.processEvents()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        time.sleep(0.005)

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait until something is so, the window working."""
        until = time.perf_counter() + _PATIENCE
        while not done():
            self._turn()
            if time.perf_counter() > until:
                raise TimeoutError(what)

    def step(
        self, what: str, act: Callable[[], Any], done: Callable[[], bool] | None = None
    ) -> None:
        """Do something, wait for its end, and note how long it took."""
        start, cpu = time.perf_counter(), time.process_time()
        act()
        if done is not None:
            self.wait(done, what)
        wall, spent = time.perf_counter() - start, time.process_time() - cpu
        self.log.append({"what": what, "wall s": round(wall, 2), "CPU s": round(spent, 2)})
        logger.info("%6.1f s  %6.1f CPU s  %s", wall, spent, what)
        self.rest()

    def note(self, what: str, value: Any) -> None:
        """Keep a figure."""
        self.log.append({"what": what, "value": value})
        logger.info("                      %s: %s", what, value)

    def picture(self, name: str, caption: str = "") -> None:
        """Take a picture of the screen in each theme; those with a caption are a film's."""
        from napari._qt.dialogs.qt_notification import NapariQtNotification

        for told in self.window.findChildren(NapariQtNotification):
            told.close()  # they fade where a window is active, which this one never is
        for theme in self._themes:
            self.viewer.theme = theme
            self.rest(0.6)
            file = f"{name}_{theme}.png" if len(self._themes) > 1 else f"{name}.png"
            QApplication.primaryScreen().grabWindow(0).save(str(self.output / file))
            shrink(self.output / file)
        if caption:
            self.log.append({"picture": file, "caption": caption})

    def lateness(self) -> Callable[[], dict[str, float]]:
        """Watch how late a timer of 10 ms is from now on; what is returned ends that and tells."""
        late: list[float] = []
        timer, last = QTimer(), [time.perf_counter()]
        timer.setTimerType(Qt.TimerType.PreciseTimer)

        def tick() -> None:
            now = time.perf_counter()
            late.append(1000 * max(0.0, now - last[0] - 0.01))
            last[0] = now

        def told() -> dict[str, float]:
            timer.stop()
            return {
                f"p{part}": round(float(np.percentile(late, part)), 1) for part in (50, 95, 99, 100)
            }

        timer.timeout.connect(tick)
        timer.start(10)
        return told

    def close(self) -> None:
        """Close the window and write the log."""
        self.note("the whole walk, s", round(time.perf_counter() - self._started, 1))
        self.viewer.close()
        (self.output / "walk.json").write_text(json.dumps(self.log, indent=1) + "\n")

    # ------------------------------------------------------------------ hands

    def click(self, widget: QWidget) -> None:
        """Click a button; one that scrolls away is scrolled to."""
        _bring_in_sight(widget)
        self.rest(0.05)
        in_sight = widget.isVisible() and widget.visibleRegion().contains(_middle(widget))
        if not (in_sight and widget.isEnabled()):
            raise RuntimeError(f"{widget} cannot be clicked")
        QTest.mouseClick(widget, _LEFT, pos=_middle(widget))
        self.rest(0.1)

    def type_into(self, field: QWidget, text: str) -> None:
        """Click a field and type in place of what it holds."""
        self.click(field)
        QTest.keyClick(field, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Qt.Key.Key_Tab)
        self.rest(0.2)

    def choose(self, combo: QComboBox, text: str) -> None:
        """Open a list and click the entry that begins with a text."""
        _bring_in_sight(combo)
        if combo.currentText().startswith(text):
            return
        index = next(at for at in range(combo.count()) if combo.itemText(at).startswith(text))
        QTest.mouseClick(combo, _LEFT, pos=_middle(combo))
        self.rest(0.7)  # Qt takes a click that comes sooner for the end of the first
        entries = combo.view()
        place = entries.visualRect(combo.model().index(index, 0)).center()
        QTest.mouseMove(entries.viewport(), place)
        self.rest(0.1)
        QTest.mouseClick(entries.viewport(), _LEFT, pos=place)
        self.wait(lambda: bool(combo.currentIndex() == index), f"{text} in a list")

    def menu(self, *path: str) -> None:
        """Take an entry of the menu bar."""
        actions = self.window.menuBar().actions()
        for name in path:
            action = next(each for each in actions if name in each.text().replace("&", ""))
            if action.menu() is None:
                action.trigger()
                self.rest(0.1)
                return
            action.menu().aboutToShow.emit()
            actions = action.menu().actions()
        raise LookupError(path)

    def drag(self, widget: QWidget, *way: QPoint) -> None:
        """Drag along a way, from its first point to its last."""
        QTest.mousePress(widget, _LEFT, pos=way[0])
        for start, end in pairwise(way):
            for part in np.linspace(0, 1, 8):
                QTest.mouseMove(widget, start + (end - start) * float(part))
                self.rest(0.03)
        QTest.mouseRelease(widget, _LEFT, pos=way[-1])
        self.rest(0.2)

    def drop(self, *files: Path) -> None:
        """Drop files on the canvas."""
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(file)) for file in files])
        event = QDropEvent(
            QPointF(200, 200), Qt.DropAction.CopyAction, data, _LEFT, Qt.KeyboardModifier.NoModifier
        )
        self.viewer.window._qt_viewer.dropEvent(event)
        self.rest(0.1)

    def name_file(self, act: Callable[[], None], path: Path) -> None:
        """Do what opens a dialog for a file, and name the file in it; a file that is there is replaced.

        What is open is looked at again and again until ``act`` returns: on a busy machine a dialog comes
        late, reads its folder while one types, or asks once more.
        """

        def answer() -> None:
            dialog = QApplication.activeModalWidget()
            if isinstance(dialog, QMessageBox):
                QTest.mouseClick(dialog.button(QMessageBox.StandardButton.Yes), _LEFT)
            elif isinstance(dialog, QFileDialog):
                line = dialog.findChild(QLineEdit)
                if line.text() != str(path):
                    line.selectAll()
                    QTest.keyClicks(line, str(path))
                    return
                offered = QApplication.activePopupWidget()
                if offered is not None:  # names that would complete what was typed
                    offered.close()
                buttons = dialog.findChild(QDialogButtonBox)
                accept = next(
                    each
                    for each in buttons.buttons()
                    if buttons.buttonRole(each) == QDialogButtonBox.ButtonRole.AcceptRole
                )
                QTest.mouseClick(accept, _LEFT)

        looking = QTimer()
        looking.timeout.connect(answer)
        looking.start(200)
        act()
        looking.stop()
        self.rest(0.3)

    def keys(
        self, widget: QWidget, key: Qt.Key, modifier: Any = Qt.KeyboardModifier.NoModifier
    ) -> None:
        """Press a key."""
        QTest.keyClick(widget, key, modifier)
        self.rest(0.2)


def _middle(widget: QWidget) -> QPoint:
    return widget.rect().center()


def _bring_in_sight(widget: QWidget) -> None:
    above = widget.parentWidget()
    while above is not None:
        if isinstance(above, QScrollArea):
            above.ensureWidgetVisible(widget)
        above = above.parentWidget()
