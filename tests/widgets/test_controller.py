"""What the dock does, without its buttons or a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets import steps
from napari_cryosphere.widgets.controller import Controller
from napari_cryosphere.widgets.display_map import low_passed
from napari_cryosphere.widgets.layer_data import map_of
from napari_cryosphere.widgets.steps import Step, comparison_steps
from napari_cryosphere.widgets.training_run import new_run_folder
from napari_cryosphere.widgets.workers import SynchronousRunner


class HeldRunner(SynchronousRunner):
    """Runs one step at a time, when told to."""

    def __init__(self) -> None:
        self.busy = False
        self.stopped = False
        self._steps: Iterator[Step] = iter(())

    def start(
        self,
        title: str,
        steps: Callable[[], Iterator[Step]],
        on_step: Callable[[Step], None],
        on_end: Callable[[], None],
    ) -> None:
        self.busy, self._steps, self._on_step = True, steps(), on_step

    def advance(self) -> None:
        self._on_step(next(self._steps))

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def controller(viewer_model: ViewerModel) -> Controller:
    return Controller(viewer_model, SynchronousRunner())


def test_nothing_loaded(controller: Controller) -> None:
    assert controller.session is None
    assert controller.index is None
    controller.predict()
    for action in (controller.predicted_stack, lambda: controller.reconstruct(True, False)):
        with pytest.raises(CryosphereError):
            action()


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


def test_index_follows_the_slider(controller: Controller, stack: ParticleStack, add_particles: Any) -> None:
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
    controller.predict()
    session = controller.session
    assert session is not None
    assert session.store.predicted.all()
    assert [layer.name for layer in controller.viewer.layers] == ["particles", "particles poses"]
    controller.predict()
    assert len(controller.viewer.layers) == 2
    predicted = controller.predicted_stack()
    assert len(predicted) == len(stack)
    assert "cryosphereSpread" in predicted.particles
    controller.viewer.layers.remove(layer)
    assert len(controller.viewer.layers) == 0


def test_results_stay_with_their_layer(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any
) -> None:
    runner = HeldRunner()
    controller = Controller(viewer_model, runner)
    first = add_particles(viewer_model, stack, "first")
    controller.predict()
    session = controller.session
    assert session is not None
    runner.advance()
    add_particles(viewer_model, stack[:70], "second")
    for _ in range(2):
        runner.advance()
    assert session.layer is first
    assert session.store.predicted.all()
    assert controller.session is not None
    assert controller.session is not session
    assert not controller.session.store.predicted.any()


def test_work_on_a_removed_layer_is_stopped(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any
) -> None:
    runner = HeldRunner()
    controller = Controller(viewer_model, runner)
    layer = add_particles(viewer_model, stack)
    controller.predict()
    runner.advance()
    viewer_model.layers.remove(layer)
    runner.advance()
    assert runner.stopped
    assert len(viewer_model.layers) == 0


def test_reconstruction_adds_maps_and_a_curve(
    controller: Controller, stack: ParticleStack, truth: DensityMap, add_particles: Any
) -> None:
    add_particles(controller.viewer, stack)
    made: list[Any] = []
    controller.maps.reconstructed.connect(made.append)
    controller.reconstruct(predicted=False, half_maps=True)
    names = [layer.name for layer in controller.viewer.layers]
    name = "particles map (input poses)"
    assert names == ["particles", f"{name}, half 1", f"{name}, half 2", name]
    density = map_of(made[0])
    assert density is not None
    coarse = [low_passed(voxels, 3.0, 25.0).ravel() for voxels in (density.voxels, truth.voxels)]
    assert np.corrcoef(coarse)[0, 1] > 0.6
    kinds = [f"half-maps of {name}", f"masked, {name}", f"corrected, {name}"]
    assert list(controller.maps.curves) == kinds
    controller.viewer.layers.remove(made[0])
    assert not controller.maps.curves


def test_the_map_shows_while_it_grows(
    controller: Controller, stack: ParticleStack, add_particles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer from the first snapshot to the end; its contour, once moved, stays."""
    monkeypatch.setattr(steps, "_SNAPSHOT_SECONDS", 1e-9)
    add_particles(controller.viewer, stack)
    made: list[Any] = []
    grown: list[Any] = []

    def watch(layer: Any) -> None:
        made.append(layer)
        controller.maps.show(layer)
        layer.iso_threshold = 3.5
        layer.events.data.connect(lambda: grown.append(map_of(layer)))

    controller.maps.reconstructed.connect(watch)
    controller.reconstruct(predicted=False, half_maps=False)
    assert len(made) == 1
    assert [layer.name for layer in controller.viewer.layers] == ["particles", made[0].name]
    assert made[0].iso_threshold == pytest.approx(3.5)
    assert len({id(density) for density in grown}) > 0


def test_reconstruction_wants_poses_and_a_point_group(
    controller: Controller, stack: ParticleStack, add_particles: Any
) -> None:
    add_particles(controller.viewer, stack)
    with pytest.raises(CryosphereError, match="nothing is predicted"):
        controller.reconstruct(predicted=True, half_maps=False)
    controller.symmetry = "Q3"
    with pytest.raises(CryosphereError, match="Q3"):
        controller.reconstruct(predicted=False, half_maps=False)


def test_comparison_of_a_map_with_itself(controller: Controller, truth: DensityMap, add_map: Any) -> None:
    first, second = add_map(controller.viewer, truth, "a"), add_map(controller.viewer, truth, "b")
    said: list[str] = []
    controller.maps.compared.connect(said.append)
    controller.maps.compare(first, second)
    assert said == ["FSC 0.5 at 6.0 Å, correlation 1.000"]
    np.testing.assert_allclose(controller.maps.curves["a / b"].fsc.values, 1)
    with pytest.raises(CryosphereError, match="different"):
        controller.maps.compare(first, first)
    with pytest.raises(CryosphereError, match="two maps"):
        controller.maps.compare(first, None)


def test_maps_of_different_boxes_are_refused(truth: DensityMap) -> None:
    small = DensityMap(truth.voxels[:32, :32, :32], truth.pixel_size_angstrom)
    with pytest.raises(CryosphereError, match="box of 32"):
        list(comparison_steps(truth, small))
    coarse = DensityMap(truth.voxels, 4.0)
    with pytest.raises(CryosphereError, match="pixels of 4 A"):
        list(comparison_steps(truth, coarse))


def test_training_leaves_a_model(
    controller: Controller, stack: ParticleStack, add_particles: Any, tmp_path: Path
) -> None:
    add_particles(controller.viewer, stack)
    finished: list[Path] = []
    controller.training.finished.connect(finished.append)
    controller.train(0.06, tmp_path / "run")
    assert finished == [tmp_path / "run"]
    assert controller.training.losses
    assert controller.training.validation_median_degrees is not None
    with pytest.raises(CryosphereError, match="exists"):
        controller.train(0.06, tmp_path / "run")


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
