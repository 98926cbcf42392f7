"""What the window shows belongs together: one data set at a time, and no map over particles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtGui import QGuiApplication

from napari_cryosphere.jobs.running.model_fit import ModelFit
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.widgets.control.session_file import last_session, read_session
from napari_cryosphere.widgets.control.work import SAMPLE_MODEL
from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.notices import tell_error


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
    qtbot.waitUntil(lambda: dock.controller.maps.view.active, timeout=20_000)
    dock.particles_button.click()
    assert not layer.visible
    assert np.abs(pixels(viewer) - before).mean() < 1

    layer.visible = True  # the eye in napari's list: the map is shown by itself
    qtbot.waitUntil(lambda: dock.controller.maps.view.active, timeout=20_000)
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
    (second,) = viewer.open(few, plugin="napari-cryosphere")
    assert [layer.visible for layer in (first, sphere, second)] == [False, False, True]
    assert viewer.dims.range[0].stop == 19
    assert "few · particle" in viewer.canvas.overlays.text.text

    dock.data.layers.setCurrentIndex(dock.data.layers.findText("particles"))
    assert [layer.visible for layer in (first, sphere, second)] == [True, True, False]
    assert viewer.layers.selection.active is first
    assert viewer.dims.range[0].stop == 79
    viewer.dims.set_point(0, 70)
    assert viewer.canvas.overlays.text.text == "particles · particle 71 of 80 · sample model · C1"

    viewer.layers.selection.active = second
    assert dock.controller.session.layer is second
    assert [layer.visible for layer in (first, sphere, second)] == [False, False, True]
    assert dock.controller.index == 19  # the slider ends where the particles end
    viewer.layers.selection.active = sphere
    assert dock.controller.session.layer is first
    assert [layer.visible for layer in (first, sphere, second)] == [True, True, False]


def test_a_prediction_that_goes_on_while_another_data_set_is_shown_stays_hidden(
    viewer: Any, sample: Path, few: Path, held_runner: Any
) -> None:
    from napari_cryosphere.widgets.control.controller import Controller

    (first,) = viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    controller = Controller(viewer, held_runner)
    controller.poses.predict()
    (second,) = viewer.open(few, plugin="napari-cryosphere")
    for _ in range(3):
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


def test_the_way_belongs_to_the_data_set(
    viewer: Any, qtbot: Any, sample: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dock, particle 1 and next step at a drop; model and symmetry of each set; questions; messages."""
    monkeypatch.setattr(
        "napari_cryosphere.widgets.state.session.proposed_model", lambda layer: None
    )
    (first,) = viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    assert "CryoSphere (CryoSphere)" in viewer.window.dock_widgets
    dock = open_dock(viewer, MAIN)
    controller = dock.controller
    assert controller.index == 0
    assert [button.text() for button in dock.way.steps.values()][:2] == ["✓ Data", "✓ Poses"]
    assert dock.way.next == "Inspect"
    assert controller.model_path is None
    assert not dock.poses.predict.isEnabled()
    assert "Choose a model" in dock.poses.predict.toolTip()

    controller.choose_symmetry("C3")
    (second,) = viewer.open(few, plugin="napari-cryosphere")
    assert dock.data.symmetry.text() == "C1"
    controller.choose(first)
    assert dock.data.symmetry.text() == "C3"

    # a C1 model leaves a C3 set as it is, and asks before it predicts
    controller.choose_model(SAMPLE_MODEL)
    predict(dock, qtbot)
    asked = dock.poses.question
    session = controller.session
    assert asked.text.text() == "These particles are set to C3, the model was trained with C1."
    assert not session.store.predicted.any()
    asked.buttons[0].click()
    qtbot.waitUntil(lambda: not controller.runner.busy, timeout=60_000)
    assert session.store.predicted.all()
    assert session.store.symmetry == session.symmetry == "C3"
    assert asked.isHidden()
    expected = angular_error_degrees(session.store.known, session.store.summary().rotations, "C3")
    np.testing.assert_allclose(session.store.errors_degrees, expected)
    qtbot.waitUntil(last_session().is_file, timeout=20_000)
    assert read_session(last_session()).particles[0].symmetry == "C3"

    # a model of something else is not used without a word; the sample model was not proposed here
    controller.choose(second)
    assert controller.model_path is None
    fit = ModelFit(64, ("64 of 64 images are unlike its training's",), (), "C1", None)
    monkeypatch.setattr(
        "napari_cryosphere.jobs.running.model_fit.check_fit", lambda *arguments: fit
    )
    controller.choose_model(SAMPLE_MODEL)
    predict(dock, qtbot)
    assert asked.text.text().startswith("This model was trained on another molecule")
    assert not controller.session.store.predicted.any()
    assert [button.text() for button in asked.buttons] == ["Train on loaded data", "Predict anyway"]
    asked.buttons[1].click()
    qtbot.waitUntil(lambda: not controller.runner.busy, timeout=60_000)
    assert controller.session.store.predicted.all()

    tell_error("/somewhere/else/particles.star, row 3: what came, what is legal, what to do")
    assert dock.message.text.text().startswith("/somewhere/else/particles.star, row 3")
    dock.message.copy.click()
    assert QGuiApplication.clipboard().text() == dock.message.text.text()
