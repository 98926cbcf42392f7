"""States in training: a network learns them beside poses, and their probabilities are calibrated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import napari_cryosphere as nc
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.model.card import PolarConfig
from napari_cryosphere.model.pose_model import build_network
from napari_cryosphere.model.pose_network import PoseNetwork, state_shares
from napari_cryosphere.particles import DensityMap, ImageGrid
from napari_cryosphere.so3.distributions import HarmonicDistribution
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.training.calibration import calibrate_states
from napari_cryosphere.training.loop import LoopSettings, ValidationSet, train_network
from napari_cryosphere.training.loss import state_loss
from napari_cryosphere.training.sources import (
    Batch,
    LoadedParticles,
    SimulatedProjections,
    turn_and_shift,
)
from napari_cryosphere.training.trainer import Optimisation, Trainer

NETWORK = PolarConfig(
    box=16, l_max=2, ring_channels=8, ring_blocks=0, channels=16, blocks=1, features=16, states=2
)


@pytest.fixture(scope="module")
def network() -> PoseNetwork:
    torch.manual_seed(0)
    return build_network(NETWORK).eval()


def shares_of(network: PoseNetwork, images: Tensor) -> Tensor:
    with torch.no_grad():
        said = network.answers(images)
        assert said.states is not None
        return state_shares(said.states * 100, said.coefficients, torch.ones(1))[0]


def test_neither_a_quarter_turn_nor_the_mirror_changes_a_state(network: PoseNetwork) -> None:
    images = torch.randn(6, 16, 16, generator=torch.Generator().manual_seed(1))
    still = shares_of(network, images)
    torch.testing.assert_close(still.sum(1), torch.ones(6))
    assert still.std(0).min() > 2e-3  # images differ
    turned = turn_and_shift(images, torch.full((6,), torch.pi / 2), torch.zeros(6, 2))
    torch.testing.assert_close(shares_of(network, turned), still, rtol=0, atol=2e-4)
    mirrored = torch.roll(images.flip(1), 1, 1)  # y to -y about pixel n // 2
    torch.testing.assert_close(shares_of(network, mirrored), still, rtol=0, atol=2e-4)


def test_poses_are_those_of_the_network_of_one_state(network: PoseNetwork) -> None:
    plain = build_network(NETWORK.model_copy(update={"states": 1})).eval()
    plain.load_state_dict(
        {k: v for k, v in network.state_dict().items() if not k.startswith("state_head")}
    )
    images = torch.randn(3, 16, 16)
    with torch.no_grad():
        assert torch.equal(plain(images), network.answers(images).coefficients)
        assert plain.answers(images).states is None


def constant(values: list[list[float]]) -> Tensor:
    """Return the coefficients of functions that are these values everywhere, ``(b, k, 3, 5, 3)``."""
    given = torch.zeros(len(values), len(values[0]), 3, 5, 3, dtype=torch.complex64)
    given[:, :, 0, 2, 0] = torch.tensor(values, dtype=torch.complex64)
    return given


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_the_loss_is_the_cross_entropy_at_the_known_pose(symmetry: str) -> None:
    poses = torch.from_numpy(random_rotations(2, np.random.default_rng(0))).float()
    batch = Batch(
        torch.empty(2, 0),
        poses,
        torch.tensor([1.0, 3.0]),
        states=torch.tensor([[1.0, 0.0], [0.75, 0.25]]),
    )
    expected = np.log(2) / 4 - 3 / 4 * (0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    states = constant([[0, 0], [np.log(3), 0]])
    assert float(state_loss(states, batch, symmetry)) == pytest.approx(expected, abs=1e-6)


def test_states_are_averaged_over_the_poses() -> None:
    """Of a pose density with one peak, and states told apart by the tilt alone: those at the peak's tilt."""
    poses, states = constant([[0.0]])[:, 0], constant([[0.0, 0.0]])
    states[0, 1, 1, 2, 0] = 1.0  # cos(tilt)
    evenly = state_shares(states, poses, torch.ones(1))[0, 0]
    assert evenly.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    poses[0, 1, 2, 0] = 200.0  # tilt 0
    peaked = state_shares(states, poses, torch.tensor([1.0, 2.0]))[:, 0, 1]
    assert peaked.tolist() == pytest.approx(
        [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-0.5))], abs=0.01
    )


def test_a_temperature_makes_probabilities_of_states_frequencies() -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(size=2000)
    second = rng.random(2000) < 1 / (1 + np.exp(-true_logits))
    said = constant([[0.0, value] for value in 2.5 * true_logits])
    anywhere = HarmonicDistribution(torch.zeros(2000, 3, 5, 3, dtype=torch.complex64), "C1")
    card = calibrate_states(said, anywhere, np.eye(2)[second.astype(int)])
    assert card.temperature == pytest.approx(2.5, rel=0.2)
    assert card.agreement == pytest.approx(np.mean((true_logits > 0) == second))


def rings(number: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Return blobs in noise, of 1.5 px in state 1 and of 3 px in state 2, and their states as 0 and 1."""
    rng = np.random.default_rng(seed)
    states = rng.integers(2, size=number)
    pixel = np.arange(16) - 8
    width = np.where(states == 0, 1.5, 3.0)[:, None, None]
    images = np.exp(-(pixel[:, None] ** 2 + pixel**2) / (2 * width**2))
    return torch.from_numpy(images + 0.1 * rng.standard_normal(images.shape)).float(), states


def test_a_network_learns_the_states_of_images_it_has_not_seen() -> None:
    (images, states), (held_out, there) = rings(400, 0), rings(40, 1)
    rotations = random_rotations(400, np.random.default_rng(2))
    source = LoadedParticles(images, rotations, np.ones(400), states=np.eye(2)[states])
    validation = ValidationSet(held_out, rotations[:40], states=np.eye(2)[there])
    torch.manual_seed(0)
    trainer = Trainer(build_network(NETWORK), "C1", Optimisation(3e-3, 0.0, loss_order=0))
    settings = LoopSettings(batch_size=40, total_images=2400, validations=1)
    *_, last = train_network(trainer, source, validation, "C1", settings)
    assert last.predicted_states is not None
    assert last.predicted is not None
    shares = state_shares(last.predicted_states, last.predicted.coefficients, torch.ones(1))[0]
    assert np.mean(shares.argmax(1).numpy() == there) > 0.95


def test_projections_are_of_the_map_of_their_state() -> None:
    """Against the projections of each map alone, at the same poses; shares as the particles have them."""
    grid = ImageGrid(16, 10.0)
    first = nc.phantom(box=16, pixel_size_angstrom=10.0)
    other = DensityMap(np.ascontiguousarray(first.voxels[::-1]) * 2, 10.0)
    stack = nc.simulate(first, number=60, snr=1.0, seed=1)
    images = PreparedImages(stack, Preprocessing(grid=grid)).load(np.arange(60))
    states = np.tile([0.25, 0.75], (60, 1))
    sources = [
        SimulatedProjections(maps, stack, images, grid, 5, probabilities)
        for maps, probabilities in (([first, other], states), ([first], None), ([other], None))
    ]
    for each in sources:
        each.contrast, each.noise_amplitude = 1.0, torch.zeros(16, 9)
    mixed, *alone = (each.batch(0, 400, 1.0) for each in sources)
    assert mixed.states is not None
    second = mixed.states[:, 1] == 1
    assert float(second.float().mean()) == pytest.approx(0.75, abs=0.08)
    for rows, one in zip((~second, second), alone, strict=True):
        assert torch.equal(mixed.rotations[rows], one.rotations[rows])
        torch.testing.assert_close(mixed.images[rows], one.images[rows])
    part = sources[0].batch(0, 400, 1.0, slice(3, 11))
    assert part.states is not None
    assert torch.equal(part.states, mixed.states[3:11])
    torch.testing.assert_close(part.images, mixed.images[3:11])
