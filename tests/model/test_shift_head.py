"""The network says where the particle lies: turned and mirrored exactly with the image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_cryosphere.model.card import ModelCard, PolarConfig, ShiftCard
from napari_cryosphere.model.pose_model import PoseModel, build_network
from napari_cryosphere.model.pose_network import PoseNetwork, Shifts
from napari_cryosphere.training.sources import turn_and_shift, turned_vectors

CONFIG = PolarConfig(
    box=24,
    l_max=4,
    ring_channels=16,
    ring_blocks=1,
    channels=16,
    blocks=1,
    features=32,
    shifts=True,
)


@pytest.fixture(scope="module")
def network() -> PoseNetwork:
    torch.manual_seed(1)
    made = build_network(CONFIG)
    with torch.no_grad():  # widths that differ from image to image
        made.shift_head.log_sd.weight.mul_(20)
    return made.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Band-limited noise far from the edge, which turning by shears leaves exact."""
    noise = torch.randn(6, 24, 24, generator=torch.Generator().manual_seed(2))
    pixel = torch.arange(24) - 12.0
    radius2 = pixel[:, None] ** 2 + pixel**2
    blurred = torch.fft.ifft2(torch.fft.fft2(noise) * torch.fft.ifftshift(torch.exp(-radius2 / 30)))
    return blurred.real * torch.exp(-radius2 / 40) * 10


def shifts_of(network: PoseNetwork, images: Tensor) -> Shifts:
    with torch.no_grad():
        shifts = network.answers(images).shifts
    assert shifts is not None
    return shifts


@pytest.mark.parametrize(
    ("degrees", "tolerance"), [(90, 1e-4), (180, 1e-4), (270, 1e-4), (30, 0.05), (33, 0.25)]
)
def test_turning_the_image_turns_the_shift(
    network: PoseNetwork, images: Tensor, degrees: float, tolerance: float
) -> None:
    """Quarter turns to rounding, 30 degrees (two angular samples) to interpolation, others to sampling."""
    angles = torch.full((len(images),), math.radians(degrees))
    still = shifts_of(network, images)
    turned = shifts_of(network, turn_and_shift(images, angles, torch.zeros(len(images), 2)))
    size = still.means_px.norm(dim=1).mean()
    assert size > 0
    expected = turned_vectors(still.means_px, angles)
    assert (turned.means_px - expected).abs().max() < tolerance * size
    assert (turned.variances_px2 / still.variances_px2 - 1).abs().max() < tolerance


def test_mirroring_the_image_mirrors_the_shift(network: PoseNetwork, images: Tensor) -> None:
    mirrored = torch.roll(images.flip(1), 1, 1)  # y to -y about pixel n // 2
    still, other = shifts_of(network, images), shifts_of(network, mirrored)
    expected = still.means_px * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(other.means_px, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other.variances_px2, still.variances_px2, rtol=1e-4, atol=1e-6)


def test_poses_are_those_of_the_network_without_shifts(
    network: PoseNetwork, images: Tensor
) -> None:
    plain = build_network(CONFIG.model_copy(update={"shifts": False})).eval()
    own = {k: v for k, v in network.state_dict().items() if not k.startswith("shift_head")}
    plain.load_state_dict(own)
    with torch.no_grad():
        assert torch.equal(plain(images), network.answers(images).coefficients)
        assert plain.answers(images).shifts is None


def test_a_stored_model_gives_origins_in_angstrom(
    network: PoseNetwork, images: Tensor, tmp_path: Path
) -> None:
    """RELION's origins: the particle's centre lies at minus the origin."""
    card = ModelCard(network=CONFIG, pixel_size_angstrom=7.5, shifts=ShiftCard(scale=2.0))
    path = tmp_path / "model.safetensors"
    PoseModel(network, card).save(path)
    found, shifts = PoseModel.load(path).predict_all(images), shifts_of(network, images)
    assert found.origins_angstrom is not None
    assert found.origin_spread_angstrom is not None
    np.testing.assert_allclose(found.origins_angstrom, -7.5 * shifts.means_px.numpy(), rtol=1e-5)
    np.testing.assert_allclose(
        found.origin_spread_angstrom, 15 * shifts.variances_px2.sqrt().numpy(), rtol=1e-5
    )


def test_a_model_whose_training_did_not_know_shifts_says_none(
    network: PoseNetwork, images: Tensor
) -> None:
    model = PoseModel(network, ModelCard(network=CONFIG, pixel_size_angstrom=7.5))
    assert model.predict_all(images).origins_angstrom is None
