"""What the dock does, without its buttons or a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.control.training_run import new_run_folder
from napari_cryosphere.widgets.state.training_choices import TrainingChoices


@pytest.fixture
def controller(viewer_model: ViewerModel) -> Controller:
    return Controller(viewer_model, SynchronousRunner())


def test_nothing_loaded(controller: Controller) -> None:
    assert controller.session is None
    assert controller.index is None
    controller.poses.predict()
    with pytest.raises(CryosphereError):
        controller.poses.stack()


def test_the_newest_particles_are_chosen(
    controller: Controller, stack: ParticleStack, add_particles: Any
) -> None:
    first = add_particles(controller.viewer, stack, "first")
    second = add_particles(controller.viewer, stack, "second")
    assert controller.session is not None
    assert controller.session.layer is second
    controller.choose(first)
    assert controller.session.layer is first
    controller.viewer.layers.remove(first)
    assert controller.session.layer is second
    controller.viewer.layers.remove(second)
    assert controller.session is None


def test_index_follows_the_slider(
    controller: Controller, stack: ParticleStack, add_particles: Any
) -> None:
    add_particles(controller.viewer, stack)
    heard: list[int | None] = []
    controller.particle_changed.connect(lambda: heard.append(controller.index))
    controller.viewer.dims.set_point(0, 12)
    controller.viewer.dims.set_point(0, 12)
    assert controller.index == 12
    assert heard[-1] == 12
    controller.viewer.dims.ndisplay = 3
    assert controller.index is None


def test_prediction_fills_the_store_and_adds_a_sphere(
    controller: Controller, stack: ParticleStack, add_particles: Any
) -> None:
    layer = add_particles(controller.viewer, stack)
    controller.poses.predict()
    session = controller.session
    assert session is not None
    assert session.store.predicted.all()
    assert [layer.name for layer in controller.viewer.layers] == ["particles", "particles poses"]
    controller.poses.predict()
    assert len(controller.viewer.layers) == 2
    predicted = controller.poses.stack()
    assert len(predicted) == len(stack)
    assert "cryosphereSpread" in predicted.particles
    controller.viewer.layers.remove(layer)
    assert len(controller.viewer.layers) == 0


def test_results_stay_with_their_layer(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any, held_runner: Any
) -> None:
    controller = Controller(viewer_model, held_runner)
    first = add_particles(viewer_model, stack, "first")
    controller.poses.predict()
    session = controller.session
    assert session is not None
    held_runner.advance()
    add_particles(viewer_model, stack[:70], "second")
    for _ in range(3):
        held_runner.advance()
    assert session.layer is first
    assert session.store.predicted.all()
    assert controller.session is not None
    assert controller.session is not session
    assert not controller.session.store.predicted.any()


def test_work_on_a_removed_layer_is_stopped(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any, held_runner: Any
) -> None:
    controller = Controller(viewer_model, held_runner)
    layer = add_particles(viewer_model, stack)
    controller.poses.predict()
    held_runner.advance()
    viewer_model.layers.remove(layer)
    held_runner.advance()
    assert held_runner.stopped
    assert len(viewer_model.layers) == 0


def test_training_leaves_a_model(
    controller: Controller, stack: ParticleStack, add_particles: Any, tmp_path: Path
) -> None:
    add_particles(controller.viewer, stack)
    finished: list[Path] = []
    controller.training.finished.connect(finished.append)
    controller.train(TrainingChoices(tmp_path / "run", {"minutes": 0.06}))
    assert finished == [tmp_path / "run"]
    assert controller.training.losses
    assert controller.training.validation_median_degrees is not None
    with pytest.raises(CryosphereError, match="exists"):
        controller.train(TrainingChoices(tmp_path / "run", {"minutes": 0.06}))


def test_run_folders_are_numbered(tmp_path: Path) -> None:
    star = tmp_path / "particles.star"
    assert new_run_folder(star) == tmp_path / "runs" / "run01"
    (tmp_path / "runs" / "run01").mkdir(parents=True)
    assert new_run_folder(star) == tmp_path / "runs" / "run02"


def test_closing_lets_go(controller: Controller, stack: ParticleStack, add_particles: Any) -> None:
    add_particles(controller.viewer, stack, "first")
    controller.close()
    chosen = controller.session
    add_particles(controller.viewer, stack, "second")
    assert controller.session is chosen
