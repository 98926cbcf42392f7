"""Predictions as they arrive, and the sphere that shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, relion_angles_from_rotation
from napari_cryosphere.widgets.control.data_sets import add_sphere_layer
from napari_cryosphere.widgets.state.predictions import PredictionStore
from napari_cryosphere.widgets.state.sphere_layer import HEIGHT, WIDTH, SphereFrames


@pytest.fixture
def store(stack: ParticleStack, predictions: Any) -> PredictionStore:
    store = PredictionStore.of(stack)
    rows, distribution, summary = predictions
    store.add(
        slice(0, 16), distribution[0:16], type(summary)(*(v[:16] for v in vars(summary).values()))
    )
    store.add(
        slice(16, 40), distribution[16:40], type(summary)(*(v[16:] for v in vars(summary).values()))
    )
    assert rows == slice(0, 40)
    return store


def test_store_answers_for_each_particle(store: PredictionStore, predictions: Any) -> None:
    _, distribution, summary = predictions
    for index in (0, 15, 16, 39):
        found = store.distribution(index)
        assert found is not None
        np.testing.assert_array_equal(found.coefficients[0], distribution.coefficients[index])
        pose = store.pose(index)
        assert pose is not None
        np.testing.assert_allclose(
            pose.angles_degrees, relion_angles_from_rotation(summary.rotations[index])
        )
        assert pose.error_degrees == pytest.approx(10, abs=3)
    assert store.predicted.sum() == 40


@pytest.mark.parametrize("index", [40, 79, 80, -1])
def test_store_has_nothing_where_nothing_is_predicted(store: PredictionStore, index: int) -> None:
    assert store.distribution(index) is None
    assert store.rotation(index) is None
    assert store.pose(index) is None


def test_store_forgets(store: PredictionStore) -> None:
    heard = []
    store.changed.connect(heard.append)
    store.clear()
    assert heard == [slice(0, 80)]
    assert store.summary() is None
    assert not store.predicted.any()


def test_without_known_poses_there_is_no_error(predictions: Any) -> None:
    store = PredictionStore(40)
    store.add(*predictions)
    pose = store.pose(3)
    assert pose is not None
    assert pose.error_degrees is None
    assert store.known_rotation(3) is None


def test_known_pose_is_the_nearest_of_its_equivalents(
    stack: ParticleStack, predictions: Any
) -> None:
    rows, distribution, summary = predictions
    turn = np.diag([-1.0, -1.0, 1.0])
    store = PredictionStore(40, turn @ stack.rotations()[:40])
    store.add(rows, type(distribution)(distribution.coefficients, "C2"), summary)
    known, predicted = store.known_rotation(5), store.rotation(5)
    assert known is not None
    assert predicted is not None
    assert geodesic_distance_degrees(known, predicted) < 15


def test_sphere_is_grey_until_predicted(store: PredictionStore) -> None:
    frames = SphereFrames(store)
    assert frames.shape == (80, HEIGHT, WIDTH, 4)
    drawn, empty = frames[3].astype(int), frames[60].astype(int)
    assert drawn.shape == (HEIGHT, WIDTH, 4)

    def colourful(picture: np.ndarray) -> int:
        return int((np.ptp(picture[..., :3], axis=-1) > 15).sum())

    # the four yellow ticks of the known pose are all the colour of an empty sphere
    assert 0 < colourful(empty) < 500 < colourful(drawn)
    assert (empty[0, 0] == 0).all()


def test_sphere_is_drawn_once_and_anew_with_new_results(
    store: PredictionStore, predictions: Any
) -> None:
    frames = SphereFrames(store)
    before = frames[45]
    frames[45]
    assert frames.frames_made == 1
    _, distribution, summary = predictions
    store.add(slice(40, 80), distribution, summary)
    assert (frames[45] != before).any()


def test_layer_stands_right_of_the_particle_and_is_as_tall(
    viewer_model: ViewerModel, stack: ParticleStack, store: PredictionStore, add_particles: Any
) -> None:
    particles = add_particles(viewer_model, stack)
    sphere = add_sphere_layer(viewer_model, particles, SphereFrames(store))
    (top, left), (bottom, right) = sphere.extent.world[:, 1:]
    (p_top, p_left), (p_bottom, p_right) = particles.extent.world[:, 1:]
    half = 1.5  # extents end at centres of pixels in one layer, of 3 A
    assert top == pytest.approx(p_top, abs=half)
    assert bottom == pytest.approx(p_bottom, abs=half)
    assert p_right < left < p_right + 30
    assert right - left == pytest.approx(2 * (p_bottom - p_top), rel=0.03)
    assert sphere.units == particles.units
    assert viewer_model.layers.selection.active is particles
    assert p_left == 0
