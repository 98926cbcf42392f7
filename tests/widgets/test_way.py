"""The way from a drop to poses: model and symmetry of each data set, questions, messages."""

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
from napari_cryosphere.widgets.state.notices import tell_error


def predict(dock: Any, qtbot: Any) -> None:
    dock.poses.predict.click()
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)


def test_the_way_belongs_to_the_data_set(
    viewer: Any, qtbot: Any, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    few = tmp_path / "few.star"
    ParticleStack.read(sample / "particles.star")[40:60].save(few)
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
    qtbot.waitUntil(last_session().is_file, timeout=60_000)
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
    assert [button.text() for button in asked.buttons] == [
        "Train on loaded data",
        "Find poses from the images",
        "Predict anyway",
    ]
    asked.buttons[2].click()
    qtbot.waitUntil(lambda: not controller.runner.busy, timeout=60_000)
    assert controller.session.store.predicted.all()

    tell_error("/somewhere/else/particles.star, row 3: what came, what is legal, what to do")
    assert dock.message.text.text().startswith("/somewhere/else/particles.star, row 3")
    dock.message.copy.click()
    assert QGuiApplication.clipboard().text() == dock.message.text.text()
