"""Projection and residual next to the particle, whenever the slider rests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt

from napari_cryosphere.imaging.comparison import ProjectionMatcher
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.projection_view import REFINED
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock
from napari_cryosphere.widgets.state.lazy_frames import low_passed_images
from napari_cryosphere.widgets.state.posteriors import Posterior

PICTURES = ("particles projection", "particles residual", "names")


@pytest.fixture
def held(
    viewer_model: ViewerModel,
    stack: ParticleStack,
    predictions: Any,
    add_particles: Any,
    add_map: Any,
    truth: DensityMap,
    held_background: Any,
) -> Controller:
    """A controller on predicted particles and their map, whose short work is held."""
    controller = Controller(viewer_model, SynchronousRunner(), held_background)
    add_particles(viewer_model, stack)
    assert controller.session is not None
    controller.session.store.add(*predictions)
    controller.show_sphere(controller.session)
    controller.inspector.choose_map(add_map(viewer_model, truth, visible=False))
    return controller


def visible(controller: Controller) -> list[bool]:
    layers = controller.viewer.layers
    return [name in layers and layers[name].visible for name in PICTURES]


def test_a_projection_comes_when_the_slider_rests_and_goes_with_the_particle(
    held: Controller, held_background: Any
) -> None:
    held.show_particle(3)
    held.inspector.settle()
    assert visible(held) == [False] * 3  # the slider does not wait for it
    held_background.advance()
    assert visible(held) == [True] * 3
    match = held.projection.match
    assert match is not None
    assert match.what == "predicted view"
    room = held.viewer.layers["particles poses"].extent.world

    held.show_particle(4)
    assert visible(held) == [False] * 3
    assert held.projection.match is None
    held.inspector.settle()
    held.show_particle(5)
    held_background.advance()  # late: another particle is shown
    assert visible(held) == [False] * 3
    np.testing.assert_array_equal(held.viewer.layers["particles poses"].extent.world, room)
    held.inspector.settle()
    held.maps.view.show([held.inspector.map_layer], slices=True)
    held_background.advance()  # late: a map is shown
    held.maps.view.leave()
    assert visible(held) == [False] * 3

    held.projection.compare(False)
    assert not set(PICTURES) & {layer.name for layer in held.viewer.layers}
    held.inspector.settle()
    held_background.advance()
    assert held.projection.match is None


def test_the_residual_is_what_is_left_of_the_particle_as_it_is_shown(
    held: Controller, held_background: Any
) -> None:
    session = held.session
    assert session is not None
    held.inspector.show_steps(None, 20.0)
    held.show_particle(3)
    held.inspector.settle()
    held_background.advance()
    projection, residual = (held.viewer.layers[name] for name in PICTURES[:2])
    np.testing.assert_allclose(projection.data + residual.data, session.layer.data[3], atol=1e-4)
    raw = session.stack.images([3])[0]
    size = session.stack.pixel_size_angstrom
    np.testing.assert_allclose(
        projection.data + residual.data, low_passed_images(raw[None], size, 20.0)[0], atol=1e-4
    )
    assert residual.contrast_limits == session.layer.contrast_limits


def test_the_best_known_pose_is_compared_and_a_candidate_where_one_goes_there(
    held: Controller, held_background: Any, stack: ParticleStack
) -> None:
    session = held.session
    assert session is not None
    held.show_particle(3)
    pose = stack.rotations()[3]
    other = pose @ np.diag([1.0, -1.0, -1.0])
    both = PoseDistribution.from_poses(np.stack([pose, other])[None], np.log([[0.7, 0.3]]), 6.0)
    session.posteriors.add(3, Posterior(both, pose))
    held.inspector.show_source("map")
    held.inspector.settle()
    held_background.advance()
    assert held.projection.match is not None
    assert held.projection.match.what == REFINED
    best = held.projection.match.correlation
    held.inspector.go_to(1)
    held_background.advance()
    assert held.projection.match.what == "candidate"
    assert held.projection.match.correlation < best


def test_candidates_have_thumbnails_of_their_projections(
    held: Controller, held_background: Any, stack: ParticleStack, truth: DensityMap
) -> None:
    session = held.session
    assert session is not None
    pose = stack.rotations()[3]
    turned = pose @ np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    both = PoseDistribution.from_poses(np.stack([pose, turned])[None], np.log([[0.7, 0.3]]), 6.0)
    held.show_particle(3)
    session.posteriors.add(3, Posterior(both, pose))
    held.inspector.show_source("map")
    held.inspector.settle()
    held_background.advance()
    assert held.projection.thumbnails is None  # of what has been read just now
    held_background.advance()
    pictures = held.projection.thumbnails
    assert pictures is not None
    assert held.inspector.reading is not None
    assert len(pictures) == len(held.inspector.reading.candidates)
    rotation = held.inspector.reading.candidates[0].rotation
    expected = ProjectionMatcher(truth, stack.grid).projections(rotation[None])[0]
    assert np.corrcoef(pictures[0].ravel(), expected.ravel())[0, 1] > 0.98
    assert np.corrcoef(pictures[0].ravel(), pictures[1].ravel())[0, 1] < 0.9

    held.inspector.settle()
    held_background.advance()  # read again
    held.show_particle(4)
    held_background.advance()  # the thumbnails are late
    assert held.projection.thumbnails is None


def test_the_models_own_map_is_projected_where_none_is_loaded(
    held: Controller, held_background: Any, truth: DensityMap, tmp_path: Path
) -> None:
    held.inspector.choose_map(None)
    held.show_particle(3)
    held.inspector.settle()
    held_background.advance()
    assert held.projection.match is None
    truth.save(tmp_path / "map.mrc")
    held.choose_model(tmp_path / "model.safetensors")
    held.inspector.settle()
    held_background.advance()
    assert held.projection.match is not None
    assert held.projection.reference == tmp_path / "map.mrc"


def test_names_do_not_run_into_each_other_on_a_wide_low_canvas(
    held: Controller, held_background: Any
) -> None:
    held.show_particle(3)
    held.inspector.settle()
    held_background.advance()
    names, zoom = held.viewer.layers["names"], held.viewer.scene.camera
    for size in ((900, 700), (340, 900)):  # of the canvas, height and width
        held.viewer.canvas.size = size
        _, left, right = names.data[:, 1] * zoom.zoom
        written = len("projection") * 0.9 * names.text.size  # pixels, as it is seen
        assert written < right - left
    assert names.text.size < 10


def test_a_key_and_a_check_box_take_the_projection_away(
    viewer: Any,
    qtbot: Any,
    stack: ParticleStack,
    predictions: Any,
    add_particles: Any,
    add_map: Any,
    truth: DensityMap,
) -> None:
    add_particles(viewer, stack)
    dock = open_dock(viewer, MAIN)
    controller = dock.controller
    box = dock.inspector.compare
    assert not box.isEnabled()
    assert "No map" in box.toolTip()
    controller.session.store.add(*predictions)
    controller.show_sphere(controller.session)
    add_map(viewer, truth, visible=False)
    controller.show_particle(3)
    qtbot.waitUntil(lambda: all(visible(controller)), timeout=60_000)
    assert "predicted view: correlation" in dock.inspector.match.text()
    first = dock.inspector.verdict.candidates[0]
    qtbot.waitUntil(lambda: not first.icon().isNull(), timeout=60_000)
    assert box.isEnabled()
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_P)
    assert not box.isChecked()
    assert PICTURES[0] not in viewer.layers
    box.click()
    qtbot.waitUntil(lambda: all(visible(controller)), timeout=60_000)
