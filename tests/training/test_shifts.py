"""Shifts in training: labels follow the images, the network learns them, and their widths are calibrated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_cryosphere.model.card import PolarConfig
from napari_cryosphere.model.pose_model import build_network
from napari_cryosphere.model.pose_network import Shifts
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.training.augmentation import Augment
from napari_cryosphere.training.calibration import calibrate_shifts
from napari_cryosphere.training.loop import LoopSettings, ValidationSet, train_network
from napari_cryosphere.training.loss import shift_loss
from napari_cryosphere.training.presets import Augmentation
from napari_cryosphere.training.sources import Batch, LoadedParticles
from napari_cryosphere.training.trainer import Optimisation, Trainer

NETWORK = PolarConfig(
    box=16, l_max=2, ring_channels=8, ring_blocks=0, channels=16, blocks=1, features=16, shifts=True
)


def blobs(number: int, box: int, reach: float, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Return Gaussians of 2 px and where they lie, ``(n, 2)`` x and y from pixel n // 2."""
    where = np.random.default_rng(seed).uniform(-reach, reach, (number, 2))
    pixel = np.arange(box) - box // 2
    x, y = (np.exp(-((pixel - where[:, [axis]]) ** 2) / 8) for axis in (0, 1))
    return torch.from_numpy(y[:, :, None] * x[:, None, :]).float(), where


def batch_of(images: Tensor, where: np.ndarray) -> Batch:
    rotations = torch.from_numpy(random_rotations(len(images), np.random.default_rng(3))).float()
    return Batch(
        images, rotations, torch.ones(len(images)), shifts_px=torch.from_numpy(where).float()
    )


@pytest.mark.parametrize("share", [slice(None), slice(3, 11)])
def test_labels_follow_shifts_turns_and_zoom(share: slice) -> None:
    """Against the centroid of what is in the changed images."""
    changes = Augmentation(
        shift_probability=1,
        shift_fraction=0.05,
        turn_probability=1,
        turn_degrees=180,
        quarter_turn_probability=1,
        zoom_probability=0.5,
        zoom_in=0.2,
        zoom_out=0.2,
    )
    images, where = blobs(12, 32, 3.0)
    changed = Augment(changes)(
        batch_of(images, where).part(share), np.random.default_rng(5), 12, share
    )
    pixel = torch.arange(32) - 16.0
    total = changed.images.sum((1, 2))
    x = (changed.images.sum(1) * pixel).sum(1) / total
    y = (changed.images.sum(2) * pixel).sum(1) / total
    assert changed.shifts_px is not None
    assert (changed.shifts_px - torch.from_numpy(where[share])).abs().max() > 1
    torch.testing.assert_close(changed.shifts_px, torch.stack([x, y], 1), atol=0.02, rtol=0)


def test_the_loss_is_least_at_the_truth_and_its_own_width() -> None:
    batch = batch_of(*blobs(50, 16, 2.0))
    assert batch.shifts_px is not None
    noise = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 0.5

    def loss(scale: float, sd: float) -> float:
        assert batch.shifts_px is not None
        means = batch.shifts_px + scale * noise
        return float(shift_loss(Shifts(means, torch.full((50,), sd**2)), batch))

    assert loss(0, 0.5) < loss(1, 0.5) < loss(2, 0.5)
    assert loss(1, 0.5) < min(loss(1, 0.25), loss(1, 1.0))
    gaussian = torch.distributions.Normal(0.0, 0.5)
    expected = -gaussian.log_prob(noise).sum(1).mean() - math.log(2 * math.pi)
    assert loss(1, 0.5) == pytest.approx(float(expected), rel=1e-5)


def test_widths_that_are_half_of_what_they_should_be_are_doubled() -> None:
    """With some particles that lie anywhere, as those whose pose was missed do."""
    rng = np.random.default_rng(1)
    sd = rng.uniform(0.2, 1.0, 4000)
    errors = rng.standard_normal((4000, 2)) * 2 * sd[:, None]
    errors[:100] = rng.uniform(-20, 20, (100, 2))
    told = Shifts(torch.from_numpy(errors), torch.from_numpy(sd**2))
    card = calibrate_shifts(told, np.zeros((4000, 2)), 5.0)
    assert card.scale == pytest.approx(2, rel=0.06)
    assert card.median_angstrom == pytest.approx(5 * np.median(np.linalg.norm(errors, axis=1)))
    for level, share in card.coverage.items():
        assert share == pytest.approx(float(level), abs=0.04)


def trained(known: bool) -> list[float | None]:
    """Train on blobs for a moment; returns the validation's median shift errors."""
    (images, where), (held_out, there) = blobs(400, 16, 2.0), blobs(60, 16, 2.0, seed=9)
    rotations = random_rotations(400, np.random.default_rng(0))
    source = LoadedParticles(images, rotations, np.ones(400), shifts_px=where if known else None)
    validation = ValidationSet(held_out, rotations[:60], there if known else None)
    torch.manual_seed(0)
    network = build_network(NETWORK)
    trainer = Trainer(network, "C1", Optimisation(1e-2, 0, loss_order=2, memory=0.9))
    settings = LoopSettings(20, total_images=1200, validations=2)
    reports = list(train_network(trainer, source, validation, "C1", settings))
    assert reports[-1].predicted_shifts is not None
    return [each.validation_shift_px for each in reports]


def test_shifts_are_learnt() -> None:
    """Nothing known, half of the blobs would lie within 1.6 px of the prediction 0."""
    error = trained(known=True)[-1]
    assert error is not None
    assert error < 0.5


def test_without_labels_there_is_no_error_and_no_gradient() -> None:
    assert trained(known=False)[-1] is None
