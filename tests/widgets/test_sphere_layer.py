"""Predictions as they arrive, and the sphere that shows them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, relion_angles_from_rotation
from napari_cryosphere.widgets.control.arrangement import Arrangement
from napari_cryosphere.widgets.control.data_sets import add_sphere_layer
from napari_cryosphere.widgets.state.canvas_layout import arrange, particle_side
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
    store = PredictionStore(40, turn @ stack.rotations()[:40], "C2")
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
        upper = picture[: 3 * HEIGHT // 4, :, :3]  # above the scales in the corners
        return int((np.ptp(upper, axis=-1) > 15).sum())

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


def test_the_number_of_torchs_threads_is_never_touched(
    store: PredictionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    changed = list[int]()
    monkeypatch.setattr(torch, "set_num_threads", changed.append)
    SphereFrames(store)[3]
    assert not changed


@pytest.mark.parametrize("size", [(700, 830), (1400, 800), (2000, 500), (500, 900)])
def test_without_a_sphere_the_particle_has_its_room(size: tuple[float, float]) -> None:
    places = arrange(*size, compared=True, sphere=False)
    assert set(places) == {"particle", "projection", "residual"}
    side = particle_side(places, *size)
    assert side > 0.55 * min(size)
    assert side > 1.1 * particle_side(arrange(*size, compared=True), *size)
    for place in places.values():
        assert (place.left + place.width) * side < size[0] + 1e-6
        assert (place.top + place.height) * side < size[1]


def extent(layer: Any) -> np.ndarray:
    """Return first and last row and column of a layer's pixels, their edges, in world units."""
    (top, left), (bottom, right) = layer.extent.world[:, -2:]
    half = layer.scale[-2:] / 2
    return np.array([[top - half[0], left - half[1]], [bottom + half[0], right + half[1]]])


@pytest.mark.parametrize(("size", "below"), [((900, 500), True), ((600, 1500), False)])
def test_the_sphere_is_where_the_canvas_has_room(
    viewer_model: ViewerModel,
    stack: ParticleStack,
    store: PredictionStore,
    add_particles: Any,
    size: tuple[int, int],
    below: bool,
) -> None:
    viewer_model.canvas.size = size
    particles = add_particles(viewer_model, stack)
    arrangement = Arrangement(viewer_model)
    arrangement.choose(particles)
    sphere = add_sphere_layer(viewer_model, particles, SphereFrames(store))
    arrangement.put(sphere=sphere)
    of_particle, of_sphere = extent(particles), extent(sphere)
    assert bool(of_sphere[0, 0] > of_particle[1, 0]) == below
    assert bool(of_sphere[0, 1] > of_particle[1, 1]) != below
    height, width = of_sphere[1] - of_sphere[0]
    assert width == pytest.approx(2 * height)
    assert sphere.units == particles.units
    assert viewer_model.layers.selection.active is particles
    whole = np.maximum(of_sphere[1], of_particle[1]) - np.minimum(of_sphere[0], of_particle[0])
    zoomed = whole * viewer_model.scene.camera.zoom
    assert (zoomed <= size).all()
    assert (zoomed / size).max() > 0.93

    camera = viewer_model.scene.camera
    viewer_model.canvas.size = size[::-1]  # the view follows, until it is moved
    moved = extent(sphere)
    assert bool(moved[0, 0] > of_particle[1, 0]) != below
    camera.zoom *= 2
    viewer_model.canvas.size = size
    np.testing.assert_array_equal(extent(sphere), moved)


@pytest.mark.parametrize("size", [(700, 830), (700, 600), (1400, 800), (2000, 500), (500, 900)])
@pytest.mark.parametrize("compared", [False, True])
def test_places_do_not_overlap_and_the_sphere_is_large(
    size: tuple[float, float], compared: bool
) -> None:
    places = arrange(*size, compared)
    assert len(places) == (5 if compared else 3)
    boxes = list(places.values())
    for first, second in combinations(boxes, 2):
        apart = (
            first.top + first.height <= second.top
            or second.top + second.height <= first.top
            or first.left + first.width <= second.left
            or second.left + second.width <= first.left
        )
        assert apart
    whole = (
        max(box.left + box.width for box in boxes),
        max(box.top + box.height for box in boxes),
    )
    fit = min(size[0] / whole[0], size[1] / whole[1])
    least = 0.5 if compared else 0.7
    assert places["sphere"].width * fit > least * min(size[0], 2 * size[1])
