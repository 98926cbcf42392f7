"""Several maps: which of them each particle belongs to, and with what probability."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import napari_cryosphere as nc
from napari_cryosphere.jobs._states import state_posterior
from napari_cryosphere.jobs.align import align
from napari_cryosphere.jobs.configs import AlignConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.rotations import geodesic_distance_degrees


@dataclass(frozen=True)
class Mixture:
    """Particles of two states, their maps, and what is true of each particle."""

    stack: ParticleStack
    maps: tuple[DensityMap, DensityMap]
    state: np.ndarray
    rotations: np.ndarray


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    """Return 40 particles of a phantom and 20 of the same without the density on one side."""
    first = nc.phantom(box=32, pixel_size_angstrom=5.0)
    along_x = np.arange(32) - 16
    without = DensityMap(first.voxels * (along_x < 4), 5.0)
    stacks = [
        nc.simulate(one, number=number, snr=1.0, seed=seed)
        for one, number, seed in ((first, 40, 1), (without, 20, 2))
    ]
    joined = ParticleStack.join(stacks)
    state = np.repeat([0, 1], [40, 20])
    return Mixture(joined, (first, without), state, joined.rotations())


def test_each_particle_finds_its_state_and_pose(mixture: Mixture) -> None:
    found = nc.align(mixture.stack, mixture.maps)
    assert found.states is not None
    assert found.distribution is not None
    assert np.mean(found.states.best == mixture.state) > 0.95
    assert found.states.shares == pytest.approx([2 / 3, 1 / 3], abs=0.08)
    table = found.particles.particles
    assert list(table["rlnClassNumber"]) == list(found.states.best + 1)
    sums = table["cryosphereStateProbability1"] + table["cryosphereStateProbability2"]
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    errors = geodesic_distance_degrees(found.summary.rotations, mixture.rotations)
    assert np.median(errors) < 4
    density = found.distribution.log_prob(mixture.rotations[:, None])
    assert np.median(density) > 4  # nats over the uniform distribution, at the true poses


def test_a_file_of_states_is_written(mixture: Mixture, tmp_path: Path) -> None:
    mixture.stack[::6].save(tmp_path / "particles.star")
    for name, one in zip(("a.mrc", "b.mrc"), mixture.maps, strict=True):
        one.save(tmp_path / name)
    config = AlignConfig(
        particles=tmp_path / "particles.star",
        map=(tmp_path / "a.mrc", tmp_path / "b.mrc"),
        output=tmp_path / "aligned.star",
        distributions=tmp_path / "posterior.zarr",
    )
    result = follow(align(config), lambda event: None)
    assert result.metrics["share_of_state_1"] == pytest.approx(2 / 3, abs=0.15)
    again = ParticleStack.read(tmp_path / "aligned.star")
    assert np.mean(again.particles["rlnClassNumber"] == mixture.state[::6] + 1) > 0.95
    assert len(nc.read(tmp_path / "posterior.zarr")) == 10


def test_the_same_map_twice_says_nothing_of_states(mixture: Mixture) -> None:
    found = nc.align(mixture.stack[:8], [mixture.maps[0], mixture.maps[0]])
    assert found.states is not None
    np.testing.assert_allclose(found.states.probabilities, 0.5, atol=1e-6)


def test_shares_follow_from_the_evidence_as_bayes_says() -> None:
    """Evidence drawn from two known states: probabilities are right as often as they say."""
    rng = np.random.default_rng(0)
    state = (rng.random(4000) < 0.2).astype(int)
    # of unit variance at -1 and 1: the log-likelihoods differ by 2 x
    drawn = rng.normal(2.0 * state - 1, 1.0)
    evidence = np.zeros((4000, 2, 3))
    evidence[:, :, 0] = 200 + np.stack([-drawn, drawn], axis=1)
    evidence[:, :, 1] = rng.normal(1, 0.02, (4000, 1))
    found = state_posterior(evidence, np.ones((4000, 2)))
    assert found.shares == pytest.approx([0.8, 0.2], abs=0.03)
    said = found.probabilities[:, 1]
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 1.0)):
        chosen = (said >= low) & (said < high)
        assert state[chosen].mean() == pytest.approx(said[chosen].mean(), abs=0.06)
