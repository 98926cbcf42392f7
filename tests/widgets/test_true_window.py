"""What the window shows belongs together: one data set at a time, and no map over particles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.mollweide import mollweide_position
from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.sphere_layer import HEIGHT, WIDTH


@pytest.fixture
def few(sample: Path, tmp_path: Path) -> Path:
    """A second data set, of 20 particles."""
    path = tmp_path / "few.star"
    ParticleStack.read(sample / "particles.star")[40:60].save(path)
    return path


def predict(dock: Any, qtbot: Any) -> None:
    dock.poses.predict.click()
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)


def pixels(viewer: Any) -> np.ndarray:
    return viewer.screenshot(flash=False, canvas_only=True).astype(int)


def test_a_map_never_covers_the_particle(
    viewer: Any, qtbot: Any, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each file is a drop of its own, however fast the machine
    monkeypatch.setattr("napari_cryosphere.widgets.state.viewer_context._TOGETHER_SECONDS", -1.0)
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    predict(dock, qtbot)
    viewer.dims.set_point(0, 5)
    before = pixels(viewer)
    (layer,) = viewer.open(sample / "truth.mrc", plugin="napari-cryosphere")
    assert map_of(layer) is not None
    qtbot.waitUntil(lambda: dock.controller.maps.view.active, timeout=60_000)
    dock.particles_button.click()
    assert not layer.visible
    assert np.abs(pixels(viewer) - before).mean() < 1

    layer.visible = True  # the eye in napari's list: the map is shown by itself
    qtbot.waitUntil(lambda: dock.controller.maps.view.active, timeout=60_000)
    dock.particles_button.click()
    assert not layer.visible


def test_a_map_that_came_first_is_hidden_once_particles_are_shown(
    viewer: Any, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cryosphere.widgets.state.viewer_context._TOGETHER_SECONDS", -1.0)
    (layer,) = viewer.open(sample / "truth.mrc", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    dock.maps_button.click()
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock.particles_button.click()
    assert not dock.controller.maps.view.active
    assert not layer.visible


def test_one_data_set_at_a_time(viewer: Any, qtbot: Any, sample: Path, few: Path) -> None:
    (first,) = viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    predict(dock, qtbot)
    sphere = dock.controller.session.sphere
    assert viewer.canvas.overlays.text.text.startswith("particle 1 of 80")
    (second,) = viewer.open(few, plugin="napari-cryosphere")
    assert [layer.visible for layer in (first, sphere, second)] == [False, False, True]
    assert viewer.dims.range[0].stop == 19
    assert viewer.canvas.overlays.text.text == "few · particle 1 of 20"

    dock.data.layers.setCurrentIndex(dock.data.layers.findText("particles"))
    assert [layer.visible for layer in (first, sphere, second)] == [True, True, False]
    assert viewer.layers.selection.active is first
    assert viewer.dims.range[0].stop == 79
    viewer.dims.set_point(0, 70)
    text = viewer.canvas.overlays.text
    assert text.text == "particles · particle 71 of 80 · sample model · C1"

    viewer.layers.selection.active = second
    assert dock.controller.session.layer is second
    assert [layer.visible for layer in (first, sphere, second)] == [False, False, True]
    assert dock.controller.index == 19  # the slider ends where the particles end
    viewer.layers.selection.active = sphere
    assert dock.controller.session.layer is first
    assert [layer.visible for layer in (first, sphere, second)] == [True, True, False]


def test_a_prediction_that_goes_on_while_another_data_set_is_shown_stays_hidden(
    viewer: Any, sample: Path, few: Path, held_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_cryosphere.widgets.control.controller import Controller
    from napari_cryosphere.widgets.plugin import open_docks

    # a dock would bring a controller of its own
    monkeypatch.setattr(open_docks, "open_main_for_particles", lambda viewer: None)
    (first,) = viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    controller = Controller(viewer, held_runner)
    controller.poses.predict()
    (second,) = viewer.open(few, plugin="napari-cryosphere")
    while not controller.sessions[0].store.predicted.any():  # a look at some particles comes first
        held_runner.advance()
    shown = [layer for layer in viewer.layers if layer.visible]
    assert shown == [second]
    controller.choose(first)
    assert controller.session is not None
    assert controller.session.sphere.visible


def test_a_map_is_offered_only_where_there_is_one(viewer: Any, qtbot: Any, sample: Path) -> None:
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    predict(dock, qtbot)
    buttons = [dock.inspector.sources[source] for source in ("map", "both")]
    assert not any(button.isEnabled() for button in buttons)
    assert all("No map" in button.toolTip() for button in buttons)
    (layer,) = viewer.open(sample / "truth.mrc", plugin="napari-cryosphere")
    dock.particles_button.click()
    assert all(button.isEnabled() for button in buttons)
    dock.inspector.sources["map"].click()
    viewer.layers.remove(layer)
    assert dock.controller.inspector.source == "network"
    assert dock.inspector.sources["network"].isChecked()


@pytest.mark.parametrize("spread", [1.6, 3.0])
def test_a_sure_particle_is_seen_on_its_sphere(
    viewer: Any, stack: ParticleStack, add_particles: Any, spread: float
) -> None:
    """At least 300 lit pixels of the window that no mark covers, with the dock and in 1400 x 900."""
    add_particles(viewer, stack)
    dock = open_dock(viewer, MAIN)
    viewer.show()
    viewer.window.resize(1400, 900)
    for _ in range(5):
        QApplication.processEvents()
    poses = stack.rotations()[:1]
    # the angle of a normal rotation vector has the mean sqrt(8 / pi) standard deviations
    sure = PoseDistribution.from_poses(
        poses[:, None], np.zeros((1, 1)), spread / np.sqrt(8 / np.pi)
    )
    summary = sure.summary()
    assert summary.spread_degrees[0] == pytest.approx(spread, rel=0.05)
    session = dock.controller.session
    session.store.add(slice(0, 1), sure, summary)
    session.frames.refined = stack.rotations()  # all three marks, one around the other
    dock.controller.show_sphere(session)
    viewer.dims.set_point(0, 0)
    QApplication.processEvents()
    marked = pixels(viewer)
    dock.controller.inspector.show_marks(False)
    plain = pixels(viewer)

    sphere, camera = session.sphere, viewer.scene.camera
    place = mollweide_position(poses[0, :, 2], HEIGHT, WIDTH)
    world = sphere.translate[-2:] + place * sphere.scale[-2:]
    ratio = plain.shape[0] / viewer.canvas.size[0]  # of a screen with larger pixels
    at = (world - camera.center[-2:]) * camera.zoom + np.array(viewer.canvas.size) / 2
    row, column = np.rint(at * ratio).astype(int)
    near = slice(row - 60, row + 61), slice(column - 60, column + 61)
    lit = plain[near][..., :3].max(-1) > 150
    assert lit[60, 60]
    seen = lit & (np.abs(marked - plain)[near].max(-1) < 10)
    assert seen.sum() >= 300
    assert (np.abs(marked - plain)[near].max(-1) > 60).sum() > 100  # the marks were there


def test_particles_are_shown_low_passed_and_raw_at_a_key(
    viewer: Any, qtbot: Any, sample: Path
) -> None:
    """Noise goes, grey values fill the picture, and the data stay as they are."""
    (layer,) = viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    viewer.dims.set_point(0, 5)
    stored = dock.controller.session.stack.images([5])[0]
    seen, limits = np.asarray(layer.data[5]), np.ptp(layer.contrast_limits)
    assert np.diff(seen).std() / seen.std() < 0.5 * np.diff(stored).std() / stored.std()
    assert 0.5 * np.ptp(seen) < limits < 1.5 * np.ptp(seen)
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, Qt.Key.Key_R)
    np.testing.assert_array_equal(layer.data[5], stored)
    assert np.ptp(layer.contrast_limits) > limits
    qtbot.keyClick(canvas, Qt.Key.Key_R)
    np.testing.assert_array_equal(layer.data[5], seen)
    np.testing.assert_array_equal(dock.controller.session.stack.images([5])[0], stored)


def test_the_slider_counts_like_the_dock(viewer: Any, qtbot: Any, sample: Path) -> None:
    """One number next to the slider, in the dock and on the canvas; nothing is before the first."""
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    slider = viewer.window._qt_viewer.dims.slider_widgets[0]
    handle = slider.slider

    def numbers() -> tuple[str, str]:
        return slider.curslice_label.text(), slider.totslice_label.text()

    assert numbers() == ("1", "80")
    slider.curslice_label.setText("71")
    qtbot.keyClick(slider.curslice_label, Qt.Key.Key_Return)
    assert dock.controller.index == 70
    assert dock.inspector.particle.text() == "71 of 80"
    assert "particle 71 of 80" in viewer.canvas.overlays.text.text
    assert numbers() == ("71", "80")
    handle.setValue(handle.maximum())
    assert dock.controller.index == 79
    handle.setValue(handle.minimum())
    assert dock.controller.index == 0
    assert (numbers(), handle.value()) == (("1", "80"), 1)
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Left)
    assert dock.controller.index == 0
    dock.controller.close()
    assert numbers() == ("0", "79")  # napari's own
