"""The dock in a window."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.control import work
from napari_cryosphere.widgets.docks.kit.workers import ThreadRunner
from napari_cryosphere.widgets.docks.main.dock import CryosphereDock


@pytest.fixture
def dock(viewer: Any) -> CryosphereDock:
    dock = CryosphereDock(viewer)
    viewer.window.add_dock_widget(dock, name="CryoSphere")
    return dock


def idle(dock: CryosphereDock) -> bool:
    return not dock.controller.runner.busy


def test_the_plugin_opens_with_nothing_loaded(viewer: Any) -> None:
    _, dock = viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere")
    assert isinstance(dock, CryosphereDock)
    assert not dock.poses.predict.isEnabled()
    assert "Drop" in dock.data.summary.text()
    assert dock.inspector.tiles.text("rot") == "–"


def test_predict_with_a_click(viewer: Any, dock: CryosphereDock, qtbot: Any, sample: Path) -> None:
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    assert dock.data.summary.text() == "80 particles · 64 px · 3 Å/px · CTF · poses known"
    qtbot.mouseClick(dock.poses.predict, Qt.MouseButton.LeftButton)
    assert not dock.poses.predict.isEnabled()
    assert dock.footer.stop.isVisibleTo(dock)
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    assert [layer.name for layer in viewer.layers] == ["particles", "particles poses"]
    before = {
        name: dock.inspector.tiles.text(name) for name in ("rot", "error", "spread", "confidence")
    }
    assert "–" not in before.values()
    viewer.dims.set_point(0, 33)
    assert dock.inspector.particle.text() == "34 of 80"
    assert dock.inspector.tiles.text("error") != before["error"]
    assert "80 predicted" in dock.poses.overall.text()
    assert dock.poses.save.isEnabled()

    viewer.window.resize(1200, 800)
    viewer.show()
    viewer.reset_view()
    picture = viewer.screenshot(flash=False)
    right = picture[:, picture.shape[1] // 2 :, :3].astype(int)
    assert (np.ptp(right, axis=-1) > 20).any()  # the sphere's colours


def test_work_is_stopped_and_keeps_what_it_made(
    dock: CryosphereDock, qtbot: Any, viewer: Any, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = threading.Event()
    original = work.prediction_work

    def slow(*arguments: Any) -> Iterator[object]:
        try:
            yield from list(original(*arguments))
            for count in itertools.count():
                time.sleep(0.01)
                yield Progress(0.5, f"step {count}")
        finally:
            closed.set()

    monkeypatch.setattr(work, "prediction_work", slow)
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    qtbot.mouseClick(dock.poses.predict, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "step" in dock.footer.message.text(), timeout=60_000)
    qtbot.mouseClick(dock.footer.stop, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    assert closed.is_set()
    assert dock.controller.session is not None
    assert dock.controller.session.store.predicted.all()
    assert dock.poses.predict.isEnabled()


def test_steps_are_heard_in_the_main_thread(qtbot: Any, qapp: Any) -> None:
    runner = ThreadRunner()
    threads: list[tuple[bool, bool]] = []
    main = threading.current_thread()

    def work() -> Iterator[object]:
        outside = threading.current_thread() is not main
        yield outside

    with qtbot.waitSignal(_Signals.of(runner).idle, timeout=60_000):
        runner.start(
            "test",
            work,
            lambda event: threads.append((event, threading.current_thread() is main)),
            lambda: None,
        )
    assert threads == [(True, True)]


class _Signals:
    """A psygnal as a Qt signal."""

    @staticmethod
    def of(runner: ThreadRunner) -> Any:
        from qtpy.QtCore import QObject, Signal

        class Relay(QObject):
            idle = Signal()

        relay = Relay()
        runner.busy_changed.connect(lambda busy: None if busy else relay.idle.emit())
        return relay


def test_a_bug_in_the_work_surfaces_as_itself(dock: CryosphereDock, qtbot: Any) -> None:
    def fail() -> Iterator[object]:
        yield Progress(0.0, "starting")
        raise RuntimeError("not foreseen")

    with qtbot.captureExceptions() as caught:
        dock.controller.runner.start("test", fail, lambda _: None, lambda: None)
        qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    assert [str(value) for _, value, _ in caught] == ["not foreseen"]


def test_errors_are_shown_cause_first(dock: CryosphereDock, qtbot: Any) -> None:
    def fail() -> Iterator[object]:
        yield Progress(0.0, "starting")
        raise CryosphereError("/some/where/model.safetensors is no model")

    notification_manager.records.clear()
    dock.controller.runner.start("test", fail, lambda _: None, lambda: None)
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    assert [record.message for record in notification_manager.records] == [
        "model.safetensors is no model"
    ]


def test_closing_the_layer_meanwhile_is_harmless(
    dock: CryosphereDock, qtbot: Any, viewer: Any, sample: Path
) -> None:
    (layer,) = viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    qtbot.mouseClick(dock.poses.predict, Qt.MouseButton.LeftButton)
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    assert len(viewer.layers) == 0
    assert dock.inspector.tiles.text("rot") == "–"


def test_mode_buttons_show_maps_and_particles(
    dock: CryosphereDock, viewer: Any, sample: Path, qtbot: Any
) -> None:
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock.controller.maps.add_map(DensityMap.read(sample / "truth.mrc"), "truth")
    qtbot.mouseClick(dock.maps_button, Qt.MouseButton.LeftButton)
    assert viewer.dims.ndisplay == 3
    assert [layer.name for layer in viewer.layers if layer.visible] == ["3D  truth"]
    qtbot.mouseClick(dock.particles_button, Qt.MouseButton.LeftButton)
    assert viewer.dims.ndisplay == 2
    assert [layer.name for layer in viewer.layers if layer.visible] == ["particles"]
    qtbot.mouseClick(
        dock.maps_button, Qt.MouseButton.LeftButton
    )  # the viewer is closed with maps in it


def test_a_map_dropped_onto_particles_is_shown_in_3d(
    dock: CryosphereDock, viewer: Any, sample: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a drop of its own; one that comes with the particles stays out of their way."""
    monkeypatch.setattr("napari_cryosphere.widgets.state.viewer_context._TOGETHER_SECONDS", -1.0)
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    viewer.open(sample / "truth.mrc", plugin="napari-cryosphere")
    qtbot.waitUntil(lambda: dock.controller.maps.view.active, timeout=60_000)
    assert [layer.name for layer in viewer.layers if layer.visible] == ["3D  truth"]
    assert dock.maps_button.isChecked()
    viewer.layers.remove(viewer.layers["truth"])
    assert dock.particles_button.isChecked()
    assert [layer.name for layer in viewer.layers if layer.visible] == ["particles"]


def test_the_sample_opens_and_its_predictions_are_saved(
    dock: CryosphereDock, viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("napari_cryosphere.widgets.plugin.samples._NUMBER", 6)
    viewer.open_sample("napari-cryosphere", "simulated_particles")
    assert [(layer.name, layer.visible) for layer in viewer.layers] == [
        ("simulated particles", True),
        ("true map", False),
    ]
    qtbot.mouseClick(dock.poses.predict, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    monkeypatch.setattr(
        "napari_cryosphere.widgets.docks.main.pose_panel.QFileDialog.getSaveFileName",
        lambda *args: (str(tmp_path / "out"), ""),
    )
    qtbot.mouseClick(dock.poses.save, Qt.MouseButton.LeftButton)
    written = ParticleStack.read(tmp_path / "out.star")
    assert len(written) == 6
    assert {"cryosphereSpread", "cryosphereInputAngleRot"} <= set(written.particles)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_themes(dock: CryosphereDock, viewer: Any, theme: str) -> None:
    viewer.theme = theme
    assert dock.styleSheet()


def test_closing_the_dock_lets_go_of_the_viewer(viewer: Any, sample: Path) -> None:
    container, dock = viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere")
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    viewer.window.remove_dock_widget(container)
    del dock
    viewer.open(sample / "truth.mrc", plugin="napari-cryosphere")
    viewer.dims.set_point(0, 3)
    viewer.theme = "light"
    assert len(viewer.layers) == 2


def test_nothing_is_cut_off_in_a_narrow_dock(
    viewer: Any, stack: ParticleStack, add_particles: Any
) -> None:
    """At the dock's least width, its scroll bar taken off, every panel has the width that it needs."""
    add_particles(viewer, stack)
    dock = CryosphereDock(viewer)
    viewer.window.add_dock_widget(dock, area="right")
    viewer.show()
    dock.resize(dock.minimumWidth(), 400)
    bar = dock.area.verticalScrollBar().sizeHint().width()
    margins = dock.layout().contentsMargins()
    room = dock.minimumWidth() - margins.left() - margins.right() - bar
    inner = dock.area.widget().layout().contentsMargins()
    for panel in (dock.data, dock.poses, dock.inspector, dock.calibration):
        assert panel.minimumSizeHint().width() + inner.right() <= room, panel
