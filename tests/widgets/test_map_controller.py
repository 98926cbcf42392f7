"""Maps made, compared, subtracted, aligned and sharpened, without buttons or a window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from scipy.ndimage import rotate
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import DensityMap, ParticleStack, network_column
from napari_cryosphere.reconstruction import resampled_map
from napari_cryosphere.reconstruction.filters import low_passed
from napari_cryosphere.reconstruction.map_alignment import mirrored
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.widgets.control import map_work
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.map_sources import Poses, Subset, recipe
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.state.display_map import RESOLUTION, UNIT
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.particle_choices import Flag

Predictions = tuple[slice, PoseDistribution, PoseSummary]


@pytest.fixture
def controller(viewer_model: ViewerModel) -> Controller:
    return Controller(viewer_model, SynchronousRunner())


@pytest.fixture
def said(controller: Controller) -> list[str]:
    lines: list[str] = []
    controller.maps.reported.connect(lines.append)
    return lines


@pytest.fixture
def predicted(
    controller: Controller, stack: ParticleStack, add_particles: Any, predictions: Predictions
) -> Controller:
    """Particles of which the first 40 are predicted."""
    add_particles(controller.viewer, stack)
    assert controller.session is not None
    controller.session.store.add(*predictions)
    return controller


@pytest.fixture
def pair(controller: Controller, truth: DensityMap, add_map: Any) -> Any:
    """The true map, and itself with noise."""
    noise = np.random.default_rng(0).normal(
        scale=float(truth.voxels.std()), size=truth.voxels.shape
    )
    noisy = DensityMap((truth.voxels + noise).astype(np.float32), truth.pixel_size_angstrom)
    return add_map(controller.viewer, noisy, "noisy", False), add_map(
        controller.viewer, truth, "truth", False
    )


def test_a_recipe_takes_the_poses_and_particles_that_are_chosen(
    predicted: Controller, predictions: Predictions
) -> None:
    session = predicted.session
    assert session is not None
    _, distribution, summary = predictions
    made = recipe(session, Poses.PREDICTED)
    assert len(made.stack) == 40
    np.testing.assert_array_equal(made.rotations, summary.rotations)
    assert made.distributions is None
    assert made.name == "map, predicted"
    given = recipe(session, Poses.INPUT, weigh=True)
    np.testing.assert_array_equal(given.rotations, session.stack.rotations())
    assert given.distributions is None  # poses of a file have none

    session.choices.select([3, 30, 70])
    session.choices.flag([0, 1, 50], Flag.REJECT)
    selected = recipe(session, Poses.PREDICTED, Subset.SELECTED, weigh=True)
    np.testing.assert_array_equal(selected.rotations, summary.rotations[[3, 30]])
    np.testing.assert_array_equal(selected.stack.images(), session.stack[[3, 30]].images())
    assert selected.distributions is not None
    (batch,) = selected.distributions()
    poses = summary.rotations[[3, 30]]
    np.testing.assert_allclose(
        np.asarray(batch.log_prob(poses[:, None])),
        np.asarray(distribution[[3, 30]].log_prob(poses[:, None])),
    )
    assert len(recipe(session, Poses.PREDICTED, Subset.NOT_REJECTED).stack) == 38
    assert len(recipe(session, Poses.INPUT, Subset.NOT_REJECTED).stack) == len(session.stack) - 3
    with pytest.raises(CryosphereError, match="no particle is left among flagged keep"):
        recipe(session, Poses.INPUT, Subset.KEPT)
    assert session.choices.selected.sum() == 3  # choosing has not changed the choice


def test_a_recipe_wants_particles_poses_and_a_point_group(
    controller: Controller, stack: ParticleStack, add_particles: Any
) -> None:
    with pytest.raises(CryosphereError, match="no particles are loaded"):
        recipe(None)
    add_particles(controller.viewer, stack)
    with pytest.raises(CryosphereError, match="nothing is predicted"):
        recipe(controller.session)
    with pytest.raises(CryosphereError, match="Q3"):
        recipe(controller.session, Poses.INPUT, symmetry="Q3")
    with pytest.raises(CryosphereError, match="nothing is refined yet"):
        recipe(controller.session, Poses.REFINED)


def test_refined_poses_of_a_file_are_taken(
    controller: Controller, stack: ParticleStack, add_particles: Any, predictions: Predictions
) -> None:
    """A file of `infer --refine`: its own poses are the refined ones, others stand beside them."""
    _, _, summary = predictions
    network = stack[:40].with_summary(summary, "C1").particles
    kept = {
        network_column(name): network[name].to_numpy()
        for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    }
    turned = Rotation.from_euler("Z", 5, degrees=True).as_matrix() @ stack[:40].rotations()
    posed = stack[:40].with_summary(replace(summary, rotations=turned), "C1")
    refined = posed.with_columns(kept)
    add_particles(controller.viewer, refined)
    session = controller.session
    np.testing.assert_allclose(
        recipe(session, Poses.REFINED).rotations, refined.rotations(), atol=1e-6
    )
    np.testing.assert_allclose(
        recipe(session, Poses.PREDICTED).rotations, summary.rotations, atol=1e-4
    )
    np.testing.assert_allclose(
        recipe(session, Poses.INPUT).rotations, stack[:40].rotations(), atol=1e-4
    )
    with pytest.raises(CryosphereError, match="only 0 of 40 particles have their distribution"):
        controller.maps.reconstruct(recipe(session, Poses.PREDICTED, weigh=True))


def test_reconstruction_adds_maps_and_curves(
    controller: Controller,
    stack: ParticleStack,
    truth: DensityMap,
    add_particles: Any,
    said: list[str],
) -> None:
    add_particles(controller.viewer, stack)
    made: list[Any] = []
    controller.maps.reconstructed.connect(made.append)
    controller.maps.reconstruct(recipe(controller.session, Poses.INPUT, cones=True))
    names = [layer.name for layer in controller.viewer.layers]
    name = "map, input"
    assert names == ["particles", f"{name}, half 1", f"{name}, half 2", name]
    density = map_of(made[0])
    assert density is not None
    coarse = [low_passed(voxels, 3.0, 25.0).ravel() for voxels in (density.voxels, truth.voxels)]
    assert np.corrcoef(coarse)[0, 1] > 0.6
    assert list(controller.maps.curves) == [
        f"half-maps of {name}, {kind}" for kind in ("corrected", "masked", "unmasked")
    ]
    corrected, masked, _ = controller.maps.curves.values()
    assert made[0].metadata[RESOLUTION] == corrected.fsc.resolution_angstrom(0.143)
    assert masked.band is not None
    assert (masked.band[0].values <= masked.band[1].values).all()
    assert "by direction" in said[-1]
    controller.viewer.layers.remove(made[0])
    assert not controller.maps.curves


def test_distributions_weigh(predicted: Controller, truth: DensityMap) -> None:
    """Samples of distributions that are 10 degrees off blur the map that the best poses make."""
    maps = []
    for weigh in (False, True):
        predicted.maps.reconstruct(recipe(predicted.session, weigh=weigh, half_maps=False))
        maps.append(map_of(predicted.viewer.layers[-1]))
    assert predicted.viewer.layers[-1].name == "map, distributions"
    sharp, blurred = maps
    assert sharp is not None
    assert blurred is not None
    assert not np.allclose(sharp.voxels, blurred.voxels)
    assert (
        np.corrcoef(low_passed(blurred.voxels, 3.0, 30.0).ravel(), truth.voxels.ravel())[0, 1] > 0.3
    )


def test_the_map_shows_while_it_grows(
    controller: Controller,
    stack: ParticleStack,
    add_particles: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One layer from the first snapshot to the end; its contour, once moved, stays."""
    monkeypatch.setattr(map_work, "_SNAPSHOT_SECONDS", 1e-9)
    add_particles(controller.viewer, stack)
    made: list[Any] = []
    grown: list[Any] = []

    def watch(layer: Any) -> None:
        made.append(layer)
        controller.maps.show(layer)
        layer.iso_threshold = 3.5
        layer.events.data.connect(lambda: grown.append(map_of(layer)))

    controller.maps.reconstructed.connect(watch)
    controller.maps.reconstruct(recipe(controller.session, Poses.INPUT, half_maps=False))
    assert len(made) == 1
    assert [layer.name for layer in controller.viewer.layers] == [
        "particles",
        made[0].name,
        f"3D  {made[0].name}",
    ]
    assert made[0].iso_threshold == pytest.approx(3.5)
    assert len({id(density) for density in grown}) > 0


def test_closing_the_growing_map_stops_the_work(
    viewer_model: ViewerModel,
    stack: ParticleStack,
    add_particles: Any,
    held_runner: Any,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(map_work, "_SNAPSHOT_SECONDS", 1e-9)
    controller = Controller(viewer_model, held_runner)
    add_particles(viewer_model, stack)
    controller.maps.reconstruct(recipe(controller.session, Poses.INPUT))
    while len(controller.map_layers) == 0:
        held_runner.advance()
    viewer_model.layers.remove(controller.map_layers[0])
    while not held_runner.stopped:
        held_runner.advance()
    assert controller.map_layers == []
    assert not controller.maps.curves


def test_comparison_of_a_map_with_itself(
    controller: Controller, truth: DensityMap, add_map: Any, said: list[str]
) -> None:
    first, second = add_map(controller.viewer, truth, "a"), add_map(controller.viewer, truth, "b")
    controller.maps.compare(first, second)
    assert said == ["FSC 0.5 at 6.0 Å in the mask (6.0 Å without), correlation 1.000"]
    shown = {label: curve.shown for label, curve in controller.maps.curves.items()}
    assert shown == {"a / b, masked": True, "a / b, unmasked": False, "a / b, corrected": False}
    np.testing.assert_allclose(controller.maps.curves["a / b, masked"].fsc.values, 1)
    with pytest.raises(CryosphereError, match="different"):
        controller.maps.compare(first, first)
    with pytest.raises(CryosphereError, match="two maps"):
        controller.maps.compare(first, None)


def test_maps_on_different_grids_are_compared_on_the_first_ones(
    controller: Controller, truth: DensityMap, add_map: Any, said: list[str]
) -> None:
    finer = resampled_map(truth, 96, 2.0)
    first, second = (
        add_map(controller.viewer, truth, "a"),
        add_map(controller.viewer, finer, "finer"),
    )
    controller.maps.compare(first, second)
    assert "reference resampled from 96 px of 2 Å to 64 px of 3 Å" in said[-1]
    assert controller.maps.curves["a / finer, masked"].fsc.values[:28].min() > 0.999
    controller.maps.subtract(first, second)
    difference = map_of(controller.viewer.layers["a − finer"])
    assert difference is not None
    assert difference.box == 64


def test_a_result_for_a_layer_that_is_gone_is_dropped(
    viewer_model: ViewerModel, truth: DensityMap, add_map: Any, held_runner: Any
) -> None:
    controller = Controller(viewer_model, held_runner)
    first, second = add_map(viewer_model, truth, "a"), add_map(viewer_model, truth, "b")
    controller.maps.compare(first, second)
    viewer_model.layers.remove(second)
    for _ in range(3):
        held_runner.advance()
    assert not controller.maps.curves


def test_the_difference_is_what_differs(
    controller: Controller, truth: DensityMap, add_map: Any
) -> None:
    """A ball is taken out of the map; its difference to the whole is that ball."""
    z, y, x = np.indices(truth.voxels.shape) - 32
    where = np.unravel_index(np.argmax(truth.voxels), truth.voxels.shape)
    ball = (z + 32 - where[0]) ** 2 + (y + 32 - where[1]) ** 2 + (x + 32 - where[2]) ** 2 < 25
    less = DensityMap(np.where(ball, 0, truth.voxels).astype(np.float32), 3.0)
    whole, other = (
        add_map(controller.viewer, truth, "whole", False),
        add_map(controller.viewer, less, "less", False),
    )
    shown: list[Any] = []
    controller.maps.reconstructed.connect(shown.append)
    controller.maps.subtract(whole, other)
    layer = controller.viewer.layers["whole − less"]
    names = [one.name for one in controller.viewer.layers]
    assert names == ["whole", "whole − less", "less"]  # directly above its map
    assert layer.metadata[UNIT] == pytest.approx(float(truth.voxels.std()))
    assert layer not in controller.map_layers
    difference = map_of(layer)
    assert difference is not None
    assert difference.voxels[ball].mean() > 5 * np.abs(difference.voxels[~ball]).mean()
    assert shown == [whole]
    controller.maps.show(whole, other)
    assert controller.maps.view.layers == (other, whole, layer)
    controller.maps.subtract(whole, other)  # once more: one difference, not two
    names = [one.name for one in controller.viewer.layers if map_of(one) is not None]
    assert names == ["whole", "whole − less", "less"]
    controller.viewer.layers.remove(other)
    controller.maps.show(whole)
    assert controller.maps.view.layers == (whole,)


def test_alignment_is_told_in_words(
    controller: Controller, truth: DensityMap, add_map: Any, said: list[str]
) -> None:
    """A mirrored, turned map is laid on the one that it came from; small, since both hands are
    searched.
    """
    small = resampled_map(truth, 32, 6.0)
    turned = rotate(small.voxels, 40, axes=(1, 2), reshape=False, order=3)
    first = add_map(controller.viewer, DensityMap(mirrored(turned).copy(), 6.0), "turned", False)
    second = add_map(controller.viewer, small, "truth", False)
    controller.maps.align(first, second)
    aligned = controller.viewer.layers["turned, aligned"]
    density = map_of(aligned)
    assert density is not None
    assert np.corrcoef(density.voxels.ravel(), small.voxels.ravel())[0, 1] > 0.95
    assert said[-1].startswith("The hand is the other one")


def test_sharpening_wants_half_maps_and_finds_them(
    controller: Controller, truth: DensityMap, add_map: Any, said: list[str]
) -> None:
    rng = np.random.default_rng(1)
    halves = [
        DensityMap(
            (
                truth.voxels + rng.normal(scale=0.3 * truth.voxels.std(), size=truth.voxels.shape)
            ).astype(np.float32),
            3.0,
        )
        for _ in range(2)
    ]
    whole = add_map(controller.viewer, truth, "run", False)
    with pytest.raises(CryosphereError, match="half-maps are needed"):
        controller.maps.sharpen(whole)
    for number, half in enumerate(halves, start=1):
        add_map(controller.viewer, half, f"run_half{number}_class001_unfil", False)
    controller.maps.sharpen(controller.viewer.layers[-1], b_factor=-50.0)
    sharp = controller.viewer.layers[-1]
    assert sharp.name.endswith("sharpened")
    assert said[-1].startswith("Sharpened with B = -50 Å²")
    controller.maps.sharpen(whole)
    assert "B = " in said[-1]
    coarse = [
        DensityMap(low_passed(half.voxels, 3.0, 25.0) + np.float32(1e-3) * half.voxels, 3.0)
        for half in halves
    ]
    for number, half in enumerate(coarse, start=1):
        add_map(controller.viewer, half, f"coarse_half{number}", False)
    layers = len(controller.viewer.layers)
    controller.maps.sharpen(controller.viewer.layers[-1])
    assert said[-1].startswith("Not sharpened: the half-maps agree to ")
    assert len(controller.viewer.layers) == layers
    controller.maps.sharpen(sharp)  # a sharpened map knows its halves
