"""Looking at one particle, without a window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.particles import DensityMap, ParticleStack, network_column
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.mollweide import mollweide_position
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, rotation_from_relion_angles
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.projection_view import REFINED
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.docks.main.inspector_panel import match_line
from napari_cryosphere.widgets.docks.main.pose_panel import overall_lines
from napari_cryosphere.widgets.state.posteriors import MapAligner, Posterior, Posteriors
from napari_cryosphere.widgets.state.reading import (
    SphereProbe,
    most_probable_pose,
    read_distribution,
    tile_texts,
    view_angles,
)
from napari_cryosphere.widgets.state.sphere_layer import HEIGHT, WIDTH, SphereFrames
from napari_cryosphere.widgets.state.stored_poses import StoredPoses


@pytest.fixture
def controller(viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any) -> Controller:
    controller = Controller(viewer_model, SynchronousRunner())
    add_particles(viewer_model, stack)
    return controller


@pytest.fixture
def predicted(controller: Controller, predictions: Any) -> Controller:
    assert controller.session is not None
    controller.session.store.add(*predictions)
    controller.show_sphere(controller.session)
    controller.show_particle(3)
    return controller


@pytest.fixture(scope="module")
def posterior(stack: ParticleStack, truth: DensityMap) -> Posterior:
    """Of particle 3."""
    return MapAligner(stack, truth, "C1")(3)


UP = rotation_from_relion_angles(np.array([30.0, 50.0, 70.0]))
DOWN = UP @ np.diag([1.0, -1.0, -1.0])


def bimodal() -> PoseDistribution:
    return PoseDistribution.from_poses(np.stack([UP, DOWN])[None], np.log([[0.75, 0.25]]), 8.0)


# ---------------------------------------------------------------------- figures


def test_both_modes_are_read() -> None:
    reading = read_distribution(bimodal(), UP)
    first, second = reading.candidates
    assert second.apart_degrees == pytest.approx(180, abs=2)
    assert second.probability / first.probability == pytest.approx(1 / 3, rel=0.1)
    assert reading.error_degrees == pytest.approx(0, abs=1)
    assert 0 < reading.credible_share < 0.05
    assert reading.verdict.words == "two candidates, 180° apart"
    assert tile_texts(None, reading)["95 % set"].endswith("%")
    assert tile_texts(None, read_distribution(bimodal()))["error"] == "–"


def test_the_probe_knows_probability_and_angle_of_a_place() -> None:
    probe = SphereProbe(bimodal())
    up, down, across = UP[:, 2], DOWN[:, 2], UP[:, 0]
    assert probe.probability_near(up) == pytest.approx(3 * probe.probability_near(down), rel=0.1)
    assert probe.probability_near(across) < 1e-3
    tilted = np.cos(0.1) * up + np.sin(0.1) * across
    found = most_probable_pose(probe, tilted)
    np.testing.assert_allclose(found[:, 2], tilted, atol=1e-9)
    assert geodesic_distance_degrees(found, UP) < 10
    assert view_angles(up) == pytest.approx((30, 50))


def test_next_to_a_pole_the_pose_is_turned_the_shortest_way() -> None:
    probe = SphereProbe(PoseDistribution.from_poses(np.eye(3)[None, None], np.zeros((1, 1)), 8.0))
    for x, y in ((0.1, 0.0), (0.0, 0.1), (-0.07, -0.07)):
        direction = np.array([x, y, np.sqrt(1 - x * x - y * y)])
        assert geodesic_distance_degrees(probe.pose(direction), np.eye(3)) < 10


# ---------------------------------------------------------------------- what a file brings


def test_predictions_in_a_file_are_shown_without_predicting(
    viewer_model: ViewerModel, stack: ParticleStack, predictions: Any, add_particles: Any
) -> None:
    some, (_, _, summary) = stack[:40], predictions
    controller = Controller(viewer_model, SynchronousRunner())
    add_particles(viewer_model, some.with_summary(summary, "C1"))
    session = controller.session
    assert session is not None
    assert session.store.predicted.all()
    np.testing.assert_allclose(session.store.known, some.rotations(), atol=1e-5)
    assert np.nanmedian(session.store.errors_degrees) == pytest.approx(10, abs=3)
    assert [layer.name for layer in viewer_model.layers] == ["particles", "particles poses"]


def test_refined_poses_are_told_from_the_networks(stack: ParticleStack, predictions: Any) -> None:
    summary = predictions[2]
    network = stack[:40].with_summary(summary, "C1").particles
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "cryosphereSpread")
    kept = {network_column(name): network[name].to_numpy() for name in names}
    sure = replace(summary, rotations=stack.rotations()[:40], spread_degrees=np.full(40, 1.6))
    stored = StoredPoses.of(stack[:40].with_summary(sure, "C3").with_columns(kept))
    assert stored.predicted is not None
    assert stored.refined is not None
    assert stored.symmetry == "C3"
    np.testing.assert_allclose(stored.predicted.rotations, summary.rotations, atol=1e-5)
    np.testing.assert_allclose(stored.predicted.spread_degrees, summary.spread_degrees)
    assert np.isnan(stored.predicted.confidence).all()  # not in the file, and not the refined one's
    np.testing.assert_allclose(stored.refined.spread_degrees, 1.6)
    errors = angular_error_degrees(stack.rotations()[:40], stored.refined.rotations, "C3")
    assert errors.max() < 1e-4
    assert StoredPoses.of(stack).predicted is None


# ---------------------------------------------------------------------- image and sphere


def test_the_preview_treats_what_is_shown(predicted: Controller, stack: ParticleStack) -> None:
    session = predicted.session
    assert session is not None
    raw, limits = session.layer.data[3].copy(), tuple(session.layer.contrast_limits)
    predicted.inspector.show_steps(Preprocessing(mask=False), 25)
    smooth = session.layer.data[3]
    assert np.abs(np.diff(smooth)).mean() < 0.6 * np.abs(np.diff(raw)).mean()
    assert tuple(session.layer.contrast_limits) != limits
    predicted.inspector.show_steps(None)
    np.testing.assert_array_equal(session.layer.data[3], raw)


def test_sources_change_what_is_drawn(predicted: Controller, posterior: Posterior) -> None:
    session = predicted.session
    assert session is not None
    network = session.frames[3].copy()
    session.posteriors.add(3, posterior)
    predicted.inspector.show_source("map")
    given_map = session.frames[3].copy()
    predicted.inspector.show_source("both")
    both = session.frames[3].copy()
    assert (network != given_map).any()
    assert (both != network).any()
    assert (both != given_map).any()


def test_a_posterior_is_computed_when_it_is_looked_at(
    predicted: Controller, add_map: Any, truth: DensityMap, stack: ParticleStack
) -> None:
    layer = add_map(predicted.viewer, truth, visible=False)
    inspector, session = predicted.inspector, predicted.session
    assert session is not None
    inspector.choose_map(layer)
    inspector.settle()
    assert session.posteriors.get(3) is None  # the network's is looked at
    inspector.show_source("map")
    inspector.settle()
    found = session.posteriors.get(3)
    assert found is not None
    assert geodesic_distance_degrees(found.rotation, stack.rotations()[3]) < 12
    assert inspector.reading is not None
    assert inspector.reading.error_degrees is not None
    assert inspector.reading.error_degrees < 12
    inspector.choose_map(None)
    assert session.posteriors.get(3) is None


def test_posteriors_come_from_a_folder_row_by_row(tmp_path: Path, posterior: Posterior) -> None:
    from napari_cryosphere.so3.distributions.store import DistributionStore, write_distributions

    with write_distributions(tmp_path / "posterior.zarr") as writer:
        for _ in range(3):
            writer.append(posterior.distribution)
    posteriors = Posteriors()
    posteriors.read_from(DistributionStore(tmp_path / "posterior.zarr"))
    found = posteriors.get(2)
    assert found is not None
    assert geodesic_distance_degrees(found.rotation, posterior.rotation) < 6
    assert posteriors.get(3) is None


def test_particles_that_no_network_has_predicted_show_what_the_map_says(
    viewer_model: ViewerModel,
    add_particles: Any,
    add_map: Any,
    truth: DensityMap,
    stack: ParticleStack,
    predictions: Any,
) -> None:
    rows, _, summary = predictions
    made = stack[rows].with_summary(summary, "C1")
    aligned = made.with_columns({"rlnLogLikeliContribution": np.zeros(len(made))})
    controller = Controller(viewer_model, SynchronousRunner())
    for particles, source in ((made, "network"), (aligned, "map")):
        add_particles(viewer_model, particles)
        controller.inspector.choose_map(add_map(viewer_model, truth, visible=False))
        assert controller.inspector.source == source
    assert [line.partition(":")[0] for line in overall_lines(controller.session.store)] == [
        "40 poses in the file"
    ]
    controller.inspector.settle()
    assert controller.session.posteriors.get(controller.index) is not None
    assert controller.inspector.agreement() == ""


# ---------------------------------------------------------------------- projections


def test_a_projection_is_shown_next_to_the_particle(
    predicted: Controller, add_map: Any, truth: DensityMap, stack: ParticleStack
) -> None:
    inspector = predicted.inspector
    with pytest.raises(CryosphereError, match="no map"):
        predicted.projection.show(np.array([1.0, 0, 0]))
    inspector.choose_map(add_map(predicted.viewer, truth, visible=False))
    predicted.projection.show(stack.rotations()[3][:, 2])
    match = predicted.projection.match
    assert match is not None
    assert match.what in ("known view", "predicted view")
    correlation = match.correlation
    names = [layer.name for layer in predicted.viewer.layers]
    assert names[-3:] == ["particles projection", "particles residual", "names"]
    assert predicted.viewer.layers["names"].blending == "translucent_no_depth"
    particle = predicted.viewer.layers["particles"]
    (top, _), (bottom, right) = particle.extent.world[:, 1:]
    for picture in predicted.viewer.layers[-3:-1]:
        first, last = picture.extent.world
        assert first[0] > bottom or first[1] > right
        height, width = last - first
        assert 0.25 * (bottom - top) < height < 0.5 * (bottom - top)
        assert width == pytest.approx(height)
    camera = predicted.viewer.scene.camera
    predicted.arrangement.fit()
    fitted = camera.zoom
    predicted.projection.layers.hide()  # as at every step: its place, and the names', stay in view
    predicted.arrangement.fit()
    assert camera.zoom == fitted
    predicted.projection.show(stack.rotations()[3][:, 0])
    assert predicted.projection.match is not None
    assert predicted.projection.match.what == "this view"
    assert predicted.projection.match.correlation < correlation
    assert f"{predicted.projection.match.correlation:.3f}" in match_line(
        predicted.projection.match, True
    )
    predicted.viewer.dims.set_point(0, 4)
    assert predicted.projection.match is None
    assert not any(layer.visible for layer in predicted.viewer.layers[-3:])
    predicted.projection.compare(False)
    assert "particles projection" not in predicted.viewer.layers


def test_a_click_near_a_mark_takes_the_mark(
    predicted: Controller, posterior: Posterior, add_map: Any, truth: DensityMap
) -> None:
    session, inspector = predicted.session, predicted.inspector
    assert session is not None
    session.posteriors.add(3, posterior)
    session.store.known = None
    inspector.choose_map(add_map(predicted.viewer, truth, visible=False))
    session.posteriors.add(3, posterior)
    predicted.projection.show(posterior.rotation[:, 2])
    assert predicted.projection.match is not None
    assert predicted.projection.match.what == REFINED
    np.testing.assert_array_equal(predicted.projection.match.rotation, posterior.rotation)


def test_results_for_another_particle_are_not_shown(
    viewer_model: ViewerModel,
    stack: ParticleStack,
    add_particles: Any,
    predictions: Any,
    held_background: Any,
) -> None:
    controller = Controller(viewer_model, SynchronousRunner(), held_background)
    add_particles(viewer_model, stack)
    assert controller.session is not None
    controller.session.store.add(*predictions)
    controller.show_particle(3)
    controller.inspector.settle()
    controller.show_particle(5)
    held_background.advance()
    assert controller.inspector.reading is None


@pytest.mark.parametrize(
    ("suffix", "first"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_the_sphere_becomes_a_figure(
    predicted: Controller, tmp_path: Path, suffix: str, first: bytes
) -> None:
    path = tmp_path / f"sphere.{suffix}"
    predicted.inspector.draw_figure(path)
    assert path.read_bytes().startswith(first)
    predicted.show_particle(60)
    with pytest.raises(CryosphereError, match="nothing is predicted"):
        predicted.inspector.draw_figure(path)


def test_a_candidate_is_gone_to(predicted: Controller) -> None:
    session, inspector = predicted.session, predicted.inspector
    assert session is not None
    session.posteriors.add(3, Posterior(bimodal(), UP))
    inspector.show_source("map")
    inspector.settle()
    assert inspector.lens is not None
    assert geodesic_distance_degrees(inspector.lens.centre, UP) < 1
    before = session.frames[3].copy()
    inspector.go_to(1)
    assert inspector.lens is not None
    assert geodesic_distance_degrees(inspector.lens.centre, DOWN) < 1
    assert (session.frames[3] != before).any()
    inspector.go_to(4)  # there is none
    assert inspector.agreement().startswith("network and map")
    predicted.show_particle(4)
    assert inspector.lens is None
    assert inspector.agreement() == ""


# ---------------------------------------------------------------------- walking


def test_walking_goes_by_falling_spread(predicted: Controller) -> None:
    session, inspector = predicted.session, predicted.inspector
    assert session is not None
    order = session.store.uncertain_order()
    summary = session.store.summary()
    assert summary is not None
    assert (np.diff(summary.spread_degrees[order]) <= 0).all()
    predicted.show_particle(int(order[0]))
    inspector.step_uncertain(1)
    assert predicted.index == order[1]
    inspector.step_uncertain(-1)
    inspector.step_uncertain(-1)
    assert predicted.index == order[-1]
    predicted.show_particle(60)  # not predicted
    inspector.step_uncertain(1)
    assert predicted.index == order[0]


def test_a_steady_slider_has_the_next_sphere_drawn_ahead(predicted: Controller) -> None:
    session = predicted.session
    assert session is not None
    frames = session.frames
    for index in (7, 20, 9):  # jumps
        predicted.show_particle(index)
    made = frames.frames_made
    predicted.show_particle(11)
    assert frames.frames_made == made + 1
    predicted.show_particle(13)  # as far again
    assert frames.frames_made == made + 3
    predicted.show_particle(15)  # that one is there, and the next one is drawn
    assert frames.frames_made == made + 4
    assert session.sphere is not None
    np.testing.assert_array_equal(session.sphere.data[15], frames._make(np.array([15]))[0])


def test_a_place_on_the_sphere_is_described(predicted: Controller) -> None:
    session = predicted.session
    assert session is not None
    rotation = session.store.rotation(3)
    assert rotation is not None
    line = predicted.inspector.describe(rotation[:, 2])
    assert "% within 10°" in line
    predicted.show_particle(60)
    assert "nothing predicted" in predicted.inspector.describe(rotation[:, 2])


def test_a_click_is_marked_on_its_own_particle_alone(
    stack: ParticleStack, predicted: Controller
) -> None:
    assert predicted.session is not None
    frames = predicted.session.frames
    assert isinstance(frames, SphereFrames)
    before, other = frames[3].copy(), frames[4].copy()
    frames.point_at(3, np.array([1.0, 0, 0]))
    changed = (frames[3] != before).any(-1)
    row, column = mollweide_position([1.0, 0, 0], HEIGHT, WIDTH)
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - row) < 2.5
    assert abs(columns.mean() - column) < 2.5
    np.testing.assert_array_equal(frames[4], other)


def test_leaving_shows_the_particles_as_they_were(predicted: Controller) -> None:
    predicted.inspector.show_steps(Preprocessing(mask=False))
    predicted.close()
    assert predicted.inspector.steps is None
