"""What is dropped goes where it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.distributions.store import save_distribution
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock
from napari_cryosphere.widgets.state.kinds import kind_of, outputs_in
from napari_cryosphere.widgets.state.viewer_context import context_of


@pytest.fixture
def controller(viewer_model: ViewerModel) -> Controller:
    notification_manager.records.clear()
    return Controller(viewer_model, SynchronousRunner())


@pytest.fixture
def stored(tmp_path: Path, stack: ParticleStack, predictions: Any) -> tuple[Path, Path]:
    """A STAR file of predictions and its distributions."""
    _, distribution, summary = predictions
    stack[:40].with_summary(summary, "C1").save(tmp_path / "out.star")
    save_distribution(distribution, tmp_path / "out.zarr")
    return tmp_path / "out.star", tmp_path / "out.zarr"


def said() -> list[str]:
    return [record.message for record in notification_manager.records]


def test_kinds(stored: tuple[Path, Path], model_file: Path, tmp_path: Path) -> None:
    star, zarr = stored
    assert kind_of(star) == "images"
    assert kind_of(zarr) == "distributions"
    assert kind_of(model_file) == "model"
    assert kind_of(tmp_path) == "outputs"
    assert kind_of(Path("a.cryosphere.json")) == "session"
    assert kind_of(Path("a.json")) is None
    run = tmp_path / "run"
    run.mkdir()
    assert kind_of(run) is None
    (run / "config.json").write_text(json.dumps({"particles": "a.star", "output": "run"}))
    assert kind_of(run) == "run"
    other = tmp_path / "other.zarr"
    other.mkdir()
    (other / "zarr.json").write_text("{}")
    assert kind_of(other) is None


def test_a_folder_of_outputs_gives_its_newest_table(
    stored: tuple[Path, Path], truth: DensityMap
) -> None:
    folder = stored[0].parent
    for name in ("map.mrc", "map_half1.mrc", "map_mask.mrc"):
        truth.save(folder / name)
    assert outputs_in(folder) == [*stored, folder / "map.mrc"]


def test_the_fsc_of_a_relion_job_is_shown(viewer: Any) -> None:
    """Values as RELION 3.1.3 wrote them; the plot opens with the maps dock."""
    path = Path(__file__).resolve().parents[1] / "data" / "relion" / "run_it007_half1_model.star"
    viewer.open(path, plugin="napari-cryosphere")
    assert len(viewer.layers) == 0
    dock = open_dock(viewer, MAPS)
    (curve,) = dock.controller.maps.curves.values()
    assert curve.label == "relion/run_it007_half1_model.star, gold standard"
    assert curve.fsc.values[:4].tolist() == [1.0, 0.975164, 0.887114, 0.417807]
    assert dock.fsc is not None


def test_a_model_is_chosen_after_a_look(
    controller: Controller, model_file: Path, tmp_path: Path
) -> None:
    context_of(controller.viewer).inbox.put(model_file)
    assert controller.model_path == model_file
    assert said() == [f"{model_file.name} chosen: press Predict poses"]
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no")
    context_of(controller.viewer).inbox.put(broken)
    assert controller.model_path == model_file
    assert said()[-1].startswith("broken.safetensors is not a napari-cryosphere model")


def test_what_came_before_the_dock_waits_for_it(
    viewer_model: ViewerModel, model_file: Path
) -> None:
    context_of(viewer_model).inbox.put(model_file)
    assert Controller(viewer_model, SynchronousRunner()).model_path == model_file
    assert len(context_of(viewer_model).inbox) == 0


@pytest.mark.parametrize("particles_first", [True, False])
def test_a_table_and_its_distributions_pair_up(
    controller: Controller,
    stored: tuple[Path, Path],
    add_particles: Any,
    predictions: Any,
    particles_first: bool,
) -> None:
    star, zarr = stored
    if particles_first:
        add_particles(controller.viewer, ParticleStack.read(star))
    context_of(controller.viewer).inbox.put(zarr)
    if not particles_first:
        add_particles(controller.viewer, ParticleStack.read(star))
    session = controller.session
    assert session is not None
    found = session.store.distribution(7)
    assert found is not None
    expected = predictions[1][7].log_prob(session.store.known[None, 7])
    np.testing.assert_allclose(found.log_prob(session.store.known[None, 7]), expected, atol=0.02)
    assert session.sphere in controller.viewer.layers


def test_distributions_without_a_summary_are_read_through(
    controller: Controller, stored: tuple[Path, Path], add_particles: Any, stack: ParticleStack
) -> None:
    add_particles(controller.viewer, stack[:40])
    context_of(controller.viewer).inbox.put(stored[1])
    assert controller.session is not None
    assert controller.session.store.predicted.all()
    assert np.nanmedian(controller.session.store.errors_degrees) == pytest.approx(10, abs=3)


def test_distributions_of_other_particles_wait(
    controller: Controller, stored: tuple[Path, Path], add_particles: Any, stack: ParticleStack
) -> None:
    add_particles(controller.viewer, stack)
    context_of(controller.viewer).inbox.put(stored[1])
    assert controller.session is not None
    assert not controller.session.store.predicted.any()
    assert "40 distributions, 80 particles" in said()[-1]
    add_particles(controller.viewer, stack[:40], "forty")
    assert controller.session.store.predicted.all()


def test_a_map_that_comes_with_particles_stays_hidden(
    viewer_model: ViewerModel, truth: DensityMap, add_map: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = context_of(viewer_model).drop
    assert context_of(viewer_model).drop is drop
    layer, other = add_map(viewer_model, truth), viewer_model.add_image(np.zeros((4, 4, 4)))
    drop.note_file()
    assert layer.visible
    drop.note_particles()
    assert not layer.visible
    assert other.visible
    assert drop.has_particles
    monkeypatch.setattr("napari_cryosphere.widgets.state.viewer_context._TOGETHER_SECONDS", -1.0)
    assert not context_of(viewer_model).drop.has_particles


def test_a_table_dropped_with_a_map_stays_in_sight(
    viewer: Any, qtbot: Any, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cryosphere.widgets.state.viewer_context._TOGETHER_SECONDS", 60.0)
    viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere")
    for name in ("truth.mrc", "particles.star"):
        viewer.open(sample / name, plugin="napari-cryosphere")
    qtbot.wait(50)
    assert {layer.name: layer.visible for layer in viewer.layers} == {
        "truth": False,
        "particles": True,
    }
    assert viewer.dims.ndisplay == 2


def test_a_model_opens_the_dock(viewer: Any, model_file: Path) -> None:
    viewer.open(model_file, plugin="napari-cryosphere")
    docks = viewer.window.dock_widgets
    (dock,) = [content for name, content in docks.items() if name.startswith("CryoSphere")]
    assert dock.controller.model_path == model_file
    assert dock.poses.models.currentText() == model_file.name
