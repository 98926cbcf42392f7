"""Where the views of many particles fall."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.rotations import rotation_from_relion_angles
from napari_cryosphere.so3.symmetry import point_group
from napari_cryosphere.widgets.control.view_spikes import spikes
from napari_cryosphere.widgets.docks.orientations.panels import verdict
from napari_cryosphere.widgets.state.predictions import PredictionStore
from napari_cryosphere.widgets.state.view_statistics import ORDER, ViewStatistics, directions

EVERY = np.arange(80)


def filled(stack: ParticleStack, store: PredictionStore, symmetry: str = "C1") -> ViewStatistics:
    statistics = ViewStatistics(stack, store, symmetry)
    statistics.fill(statistics.missing(np.arange(len(stack))))
    return statistics


def turned(stack: ParticleStack, rot: Any, tilt: Any) -> ParticleStack:
    angles = np.stack(np.broadcast_arrays(rot, tilt, np.arange(len(stack)) * 7.0), axis=-1)
    return stack.with_poses(rotation_from_relion_angles(angles))


def test_distributions_count_with_their_marginals(
    stack: ParticleStack, predictions: tuple[Any, Any, Any]
) -> None:
    store = PredictionStore.of(stack)
    store.add(*predictions)
    statistics = filled(stack, store)
    shown = statistics.summarise(np.arange(40))
    assert shown is not None
    expected = predictions[1].view_map(ORDER).mean(axis=0)
    np.testing.assert_allclose(shown.probability, expected, rtol=2e-3, atol=1e-7)
    assert shown.particles == 40
    assert shown.density.mean() == pytest.approx(1)


def test_poses_count_where_there_is_no_distribution(stack: ParticleStack) -> None:
    statistics = filled(turned(stack, 40.0, 70.0), PredictionStore(80))
    shown = statistics.summarise(EVERY)
    assert shown is not None
    assert shown.probability.max() == pytest.approx(1)
    direction = rotation_from_relion_angles([40.0, 70.0, 0.0])[:, 2]
    assert shown.peak @ direction > np.cos(np.radians(5))
    assert shown.near_peak == pytest.approx(1)
    assert shown.compensation_factor == 0


def test_symmetry_is_respected(stack: ParticleStack) -> None:
    statistics = filled(turned(stack, 20.0, 50.0), PredictionStore(80), "D2")
    shown = statistics.summarise(EVERY)
    assert shown is not None
    assert (shown.probability > 0.2).sum() == 4
    assert shown.near_peak == pytest.approx(1, abs=1e-3)
    seen = directions() @ rotation_from_relion_angles([20.0, 50.0, 0.0])[:, 2]
    region = np.zeros(len(seen), dtype=bool)
    region[
        np.argsort(-(directions() @ (point_group("D2")[2] @ directions()[seen.argmax()])))[:4]
    ] = True
    whole = statistics.symmetrised(region)
    assert whole.sum() >= 4 * 3
    assert len(statistics.inside(region, EVERY, 0.5)) == 0  # a quarter of each is there
    assert len(statistics.inside(whole, EVERY, 0.99)) == 80


def test_a_region_finds_its_particles(stack: ParticleStack) -> None:
    tilt = np.where(EVERY < 30, 10.0, 120.0)
    statistics = filled(turned(stack, EVERY * 4.0, tilt), PredictionStore(80))
    above = directions()[:, 2] > 0.5
    assert statistics.inside(above, EVERY, 0.5).tolist() == list(range(30))
    assert statistics.inside(above, EVERY[::2], 0.5).tolist() == list(range(0, 30, 2))
    assert statistics.inside(~above, EVERY, 0.5).tolist() == list(range(30, 80))


def test_work_comes_in_pieces_and_is_forgotten(stack: ParticleStack) -> None:
    statistics = ViewStatistics(stack, PredictionStore(80))
    assert statistics.summarise(EVERY) is None
    statistics.fill(statistics.missing(EVERY)[:50])
    assert statistics.missing(EVERY).tolist() == list(range(50, 80))
    shown = statistics.summarise(EVERY)
    assert shown is not None
    assert shown.particles == 50
    statistics.forget(slice(10, 20))
    assert len(statistics.missing(EVERY)) == 40


def test_without_poses_there_are_no_views(
    stack: ParticleStack, predictions: tuple[Any, Any, Any]
) -> None:
    bare = ParticleStack.read(stack.source)
    bare.particles = bare.particles.drop(columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
    store = PredictionStore.of(bare)
    assert not len(ViewStatistics(bare, store).missing(EVERY))
    store.add(*predictions)
    assert ViewStatistics(bare, store).missing(EVERY).tolist() == list(range(40))


def test_the_verdict_warns_of_preferred_views(stack: ParticleStack) -> None:
    rng = np.random.default_rng(4)
    many = ParticleStack.join([stack, stack])
    even = turned(many, rng.uniform(0, 360, 160), np.degrees(np.arccos(rng.uniform(-1, 1, 160))))
    top = turned(many, rng.uniform(0, 360, 160), rng.uniform(0, 15, 160))
    said, weak = [], []
    for poses in (even, top, top[:20]):
        shown = filled(poses, PredictionStore(len(poses))).summarise(np.arange(len(poses)))
        assert shown is not None
        said.append(verdict(shown))
        weak.append(shown.weak_fraction)
    assert [warning for _, warning in said] == [False, True, False]
    assert said[1][0].startswith("⚠ Preferred orientation: ")
    assert weak[0] == 0
    assert 0.6 < weak[1] < 0.75  # 1 - cos 75 degrees is 0.74, of which a pixel's width is seen
    assert "Too few" in said[2][0]


def test_spikes_stand_around_the_map() -> None:
    density = np.where(directions()[:, 2] > 0.9, 2.0, 0.0)
    density[0] = 4.0
    vectors, shown = spikes(density, 64, 3.0)
    assert len(vectors) == (density > 0).sum() == len(shown)
    assert (vectors[:, 0, 0] > 96 + 0.9 * 0.52 * 192).all()  # z comes first, and they are above
    lengths = np.linalg.norm(vectors[:, 1], axis=1)
    assert lengths.max() == pytest.approx(2 * lengths.min())
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 0] - 96, axis=1), 0.52 * 192)
