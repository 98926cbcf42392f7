"""Walk through docs/tutorials/napari.md with real clicks, in a window, and write its pictures and
times.

Needs a display; without one, on a virtual one::

    xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python scripts/tutorial.py sample OUTPUT
    xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python scripts/tutorial.py train OUTPUT
    --data DATA

The first story uses the sample of the menu; the second ribo70S_train.star and ribo70S_test.star in
the folder DATA. Buttons are pressed with the mouse, lists are opened and clicked, files are named
in their dialogs: what is not in sight cannot be clicked. Pictures are those of the whole screen.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDialogButtonBox,
    QLineEdit,
    QScrollArea,
    QWidget,
)

logger = logging.getLogger("tutorial")
_LEFT = Qt.MouseButton.LeftButton
_PATIENCE = 900.0
_AREA = 5_000  # square pixels that are surely more than one widget's border


class Walk:
    """A window, hands to use it, and a log of what took how long.

    Parameters
    ----------
    output
        Where pictures and the log go.
    """

    def __init__(self, output: Path, size: tuple[int, int], theme: str) -> None:
        import napari

        output.mkdir(parents=True, exist_ok=True)
        self.output = output
        self.log: list[dict[str, Any]] = []
        self._started = time.perf_counter()
        self.viewer = napari.Viewer(title="napari", show=True)
        self.viewer.theme = theme
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

    def picture(self, name: str) -> None:
        """Take a picture of the screen."""
        self.rest(0.6)
        QApplication.primaryScreen().grabWindow(0).save(str(self.output / f"{name}.png"))

    def both_themes(self, name: str) -> None:
        """Take a picture in napari's dark and in its light theme."""
        for theme in ("light", "dark"):
            self.viewer.theme = theme
            self.picture(f"{name}_{theme}")

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

    def drag(self, widget: QWidget, start: QPoint, end: QPoint) -> None:
        """Drag from one point to another."""
        QTest.mousePress(widget, _LEFT, pos=start)
        for part in np.linspace(0, 1, 8):
            QTest.mouseMove(widget, start + (end - start) * float(part))
            self.rest(0.03)
        QTest.mouseRelease(widget, _LEFT, pos=end)
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
        """Do what opens a dialog for a file, and name the file in it."""

        def answer() -> None:
            dialog = QApplication.activeModalWidget()
            if dialog is None:
                QTimer.singleShot(100, answer)
                return
            line = dialog.findChild(QLineEdit)
            line.selectAll()
            QTest.keyClicks(line, str(path))
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

        QTimer.singleShot(300, answer)
        act()
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


def open_dock(walk: Walk, name: str) -> Any:
    """Open a dock from the Plugins menu, or go to its tab, and return what it holds."""
    docks = walk.viewer.window.dock_widgets
    title = f"{name} (CryoSphere)"
    if title not in docks:
        walk.menu("Plugins", "CryoSphere", name)
        walk.rest(0.3)
    docks[title].parent().raise_()
    walk.rest(0.3)
    return docks[title]


def idle(dock: Any) -> Callable[[], bool]:
    """Return what tells whether no work is going on."""
    return lambda: not dock.controller.runner.busy


def sample_story(walk: Walk, _: argparse.Namespace) -> None:
    """Sample, predict, the uncertain ones, reject, reconstruct both, compare, export."""
    from napari_cryosphere.widgets.state.layer_data import map_of

    walk.step(
        "open the sample",
        lambda: walk.menu("File", "Open Sample", "CryoSphere", "Simulated protein"),
    )
    dock = open_dock(walk, "CryoSphere")
    walk.picture("tutorial_opened")
    walk.step("predict", lambda: walk.click(dock.poses.predict), idle(dock))
    walk.note("all particles", dock.poses.overall.text())
    walk.picture("tutorial_predicted")
    walk.step("go to the most uncertain particle", lambda: walk.click(dock.inspector.next))
    walk.rest(1.0)
    walk.picture("tutorial_uncertain")
    gallery = open_dock(walk, "CryoSphere gallery")
    walk.step("reject those of a spread above 6 degrees", lambda: reject(walk, gallery, 6.0))
    walk.picture("tutorial_rejected")
    walk.note("gallery", gallery.status.text())
    maps = open_dock(walk, "CryoSphere maps")
    truth = map_of(next(layer for layer in walk.viewer.layers if layer.name == "true map"))
    for subset in ("all particles", "all but rejected"):
        map_and_comparison(walk, maps, subset, "predicted", "true map", truth)
    walk.note("resolutions", resolutions(maps))
    walk.picture("tutorial_maps")
    walk.step("slices", lambda: walk.click(maps.slices_button))
    walk.picture("tutorial_slices")
    gallery = open_dock(walk, "CryoSphere gallery")
    star = walk.output / "cleaned.star"
    walk.choose(gallery.actions_bar.which, "not rejected")
    walk.step(
        "export",
        lambda: walk.name_file(lambda: walk.click(gallery.actions_bar.save), star),
        lambda: star.exists() and idle(gallery)(),
    )
    walk.note("exported", gallery.status.text())
    walk.picture("tutorial_exported")


def docks_story(walk: Walk, _: argparse.Namespace) -> None:
    """Every dock with something in it, in both themes."""
    walk.menu("File", "Open Sample", "CryoSphere", "Simulated protein")
    dock = open_dock(walk, "CryoSphere")
    walk.step("predict", lambda: walk.click(dock.poses.predict), idle(dock))
    walk.click(dock.inspector.next)
    walk.click(dock.inspector.turn)
    walk.rest(1.5)
    walk.both_themes("dock_sphere")
    sphere = walk.viewer.window.dock_widgets["CryoSphere sphere (CryoSphere)"]
    walk.viewer.window.remove_dock_widget(sphere.parent())
    compare_particle(walk, dock)
    walk.both_themes("inspector")
    views = open_dock(walk, "CryoSphere orientations")
    walk.rest(1.0)
    walk.wait(lambda: " of " not in views.evenness.number.text(), "the views of all particles")
    for name in ("orientations", "gallery", "scatter", "training"):
        open_dock(walk, f"CryoSphere {name}")
        walk.rest(2.5)
        walk.both_themes(f"dock_{name}")
    maps = open_dock(walk, "CryoSphere maps")
    reconstruct(walk, maps, "all particles")
    walk.step("FSC", lambda: compare(walk, maps), idle(maps))
    walk.both_themes("dock_maps")


def maps_story(walk: Walk, _: argparse.Namespace) -> None:
    """A map at the input poses, its reference and their difference, as surfaces and as slices."""
    walk.menu("File", "Open Sample", "CryoSphere", "Simulated protein")
    maps = open_dock(walk, "CryoSphere maps")
    reconstruct(walk, maps, "all particles", "input")
    walk.step("FSC", lambda: compare(walk, maps), idle(maps))
    walk.picture("maps_surfaces")
    walk.step("difference", lambda: walk.click(maps.maps.subtract), idle(maps))
    walk.step("slices", lambda: walk.click(maps.slices_button))
    walk.picture("maps_slices")


def compare_particle(walk: Walk, dock: Any) -> None:
    """Show what map and network say of a particle, and the map's projection from the known view."""
    inspector, controller = dock.inspector, dock.controller
    walk.step("posterior", lambda: walk.click(inspector.sources["both"]))
    walk.rest(2.0)
    walk.wait(lambda: not controller.inspector.waiting, "the posterior")
    controller.projection.show(controller.session.store.known[controller.index][:, 2])
    walk.wait(lambda: controller.projection.match is not None, "the projection")
    walk.rest(1.0)


def training_story(walk: Walk, arguments: argparse.Namespace) -> None:
    """Train on one set, predict and refine another, reconstruct, compare."""
    from napari_cryosphere.particles import DensityMap

    data = arguments.data
    walk.step("drop ribo70S_train.star", lambda: walk.drop(data / "ribo70S_train.star"))
    training = open_dock(walk, "CryoSphere training")
    form = training.panel.form
    form.folder.setText(str(walk.output / "run"))
    form.settings.fill("minutes", arguments.minutes)
    busy = walk.lateness()
    walk.step(
        "train",
        lambda: walk.click(training.panel.button),
        lambda: bool(training.controller.training.losses),
    )
    walk.wait(lambda: training.controller.training.fractions[-1] > 0.6, "training")
    walk.picture("tutorial_training")
    walk.step("the rest of the training", lambda: None, idle(training))
    walk.note("UI lateness while training, ms", busy())
    walk.note("trained", training.panel.text.text())
    walk.picture("tutorial_trained")
    walk.step("drop ribo70S_test.star", lambda: walk.drop(data / "ribo70S_test.star"))
    dock = open_dock(walk, "CryoSphere")
    walk.note("model", dock.poses.models.currentText())
    walk.step("predict", lambda: walk.click(dock.poses.predict), idle(dock))
    walk.note("all particles", dock.poses.overall.text())
    walk.step("go to the most uncertain particle", lambda: walk.click(dock.inspector.next))
    walk.rest(1.0)
    walk.picture("tutorial_ribosome")
    walk.step("refine", lambda: walk.click(dock.poses.refine), idle(dock))
    walk.note("all particles", dock.poses.overall.text())
    walk.picture("tutorial_refined")
    gallery = open_dock(walk, "CryoSphere gallery")
    spreads = gallery._session.store.summary().spread_degrees
    least = float(np.quantile(spreads, 0.8))
    walk.note("the widest fifth begins at a spread of, degrees", round(least, 1))
    walk.step("reject the widest fifth", lambda: reject(walk, gallery, least))
    walk.note("gallery", gallery.status.text())
    walk.picture("tutorial_ribosome_gallery")
    walk.step("drop the true map", lambda: walk.drop(data / "ribo70S_truth.mrc"))
    truth = DensityMap.read(data / "ribo70S_truth.mrc")
    maps = open_dock(walk, "CryoSphere maps")
    for poses in ("predicted", "refined"):
        for subset in ("all particles", "all but rejected"):
            map_and_comparison(walk, maps, subset, poses, "ribo70S_truth", truth)
    walk.picture("tutorial_ribosome_maps")
    walk.step("slices", lambda: walk.click(maps.slices_button))
    walk.picture("tutorial_ribosome_slices")


def map_and_comparison(
    walk: Walk, maps: Any, subset: str, poses: str, reference: str, truth: Any
) -> None:
    """Reconstruct, measure the FSC with another map, and note what is found to more digits than are
    shown.
    """
    from napari_cryosphere.reconstruction import corrected_fsc, masked_correlation, soft_mask
    from napari_cryosphere.widgets.state.layer_data import map_of

    reconstruct(walk, maps, subset, poses)
    name = f"{poses} poses, {subset}"
    walk.step(f"FSC with the true map, {name}", lambda: compare(walk, maps, reference), idle(maps))
    walk.note(f"with the true map, {name}", maps.maps.result.text())
    made = map_of(maps.maps.map.layer())
    mask = soft_mask(truth.voxels, truth.pixel_size_angstrom)
    curve = corrected_fsc(made, truth, mask).masked
    found = {
        "FSC 0.5, A": round(curve.resolution_angstrom(0.5), 3),
        "mean FSC to there": round(float(curve.values[: len(curve.values) // 2].mean()), 5),
        "correlation": round(masked_correlation(made.voxels, truth.voxels, mask), 5),
    }
    walk.note(f"to more digits, {name}", found)


def reject(walk: Walk, gallery: Any, least: float) -> None:
    """Select the particles of a spread above a value in the histogram, and reject them."""
    filters = gallery.filters
    walk.choose(filters.quantity, "spread")
    if not gallery._session.filter.descending:
        walk.click(filters.direction)
    walk.rest(1.5)
    walk.choose(filters.brush, "brush selects")
    plot = filters.histogram.plot
    box = plot.getViewBox()
    high = float(box.viewRange()[0][1])
    ends = [
        plot.mapFromScene(box.mapViewToScene(QPointF(x, box.viewRange()[1][1] / 2)))
        for x in (least, high)
    ]
    walk.drag(plot.viewport(), *ends)
    walk.rest(0.5)
    walk.picture("tutorial_gallery")
    walk.click(
        next(button for flag, button in gallery.actions_bar.flags.items() if flag.name == "REJECT")
    )


def reconstruct(walk: Walk, maps: Any, subset: str, poses: str = "predicted") -> None:
    """Reconstruct some particles."""
    panel = maps.reconstruction
    walk.choose(panel.poses, poses)
    walk.choose(panel.subset, subset)
    walk.step(
        f"reconstruct at {poses} poses, {panel.subset.currentText()}",
        lambda: walk.click(panel.reconstruct),
        idle(maps),
    )
    walk.note(f"half-maps, {poses}, {subset}", maps.maps.result.text())


def compare(walk: Walk, maps: Any, reference: str = "true map") -> None:
    """Measure the FSC of the map with another."""
    walk.choose(maps.maps.reference, reference)
    walk.click(maps.maps.compare)


def resolutions(maps: Any) -> dict[str, str]:
    """Return what the plot's legend says of every curve."""
    from napari_cryosphere.widgets.state.fsc_curves import resolution_of

    return {label: resolution_of(curve) for label, curve in maps.controller.maps.curves.items()}


_STORIES = {
    "sample": sample_story,
    "train": training_story,
    "docks": docks_story,
    "maps": maps_story,
}


def main() -> None:
    """Take a walk."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("story", choices=list(_STORIES))
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--size", default="1400x900")
    parser.add_argument("--theme", default="dark")
    arguments = parser.parse_args()
    os.environ["XDG_STATE_HOME"] = str(arguments.output / "state")
    width, height = map(int, arguments.size.split("x"))
    walk = Walk(arguments.output, (width, height), arguments.theme)
    _STORIES[arguments.story](walk, arguments)
    walk.close()


if __name__ == "__main__":
    main()
