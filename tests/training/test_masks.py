"""Targets on a grid: against errors computed pixel by pixel, and against the definition of
cross-entropy.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.model.card import Image2SphereConfig
from napari_cryosphere.model.pose_model import build_network
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid, order_of_size
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, random_rotations
from napari_cryosphere.so3.symmetry import point_group
from napari_cryosphere.training.loop import LoopSettings, ValidationSet, train_network
from napari_cryosphere.training.loss import pose_loss
from napari_cryosphere.training.masks import (
    LabelledImages,
    inverse_mse_on_grid,
    label_targets,
    mask_targets,
    one_hot_targets,
    raw_targets,
)
from napari_cryosphere.training.presets import CRYOSPHERE, PRESETS, TrainingPreset
from napari_cryosphere.training.sources import Batch
from napari_cryosphere.training.trainer import Optimisation, Trainer

BOX, ORDER = 16, 1
SMALL = Image2SphereConfig(
    box=BOX, encoder_channels=(8, 16), sphere_channels=16, sphere_order=2, l_max=3, so3_channels=4
)


@pytest.fixture(scope="module")
def scene() -> tuple[torch.Tensor, np.ndarray, Projector]:
    """A map, six poses and its projector at little interpolation error."""
    voxels = torch.from_numpy(protein_phantom(BOX, 12.0).voxels.copy())
    return voxels, random_rotations(6, np.random.default_rng(0)), Projector(voxels, 2)


@pytest.fixture(scope="module")
def errors(scene: tuple[torch.Tensor, np.ndarray, Projector]) -> torch.Tensor:
    voxels, rotations, projector = scene
    return inverse_mse_on_grid(3 * projector.project(rotations), voxels, ORDER, contrast=3.0)


def test_inverse_mse_is_that_of_the_pixels(
    scene: tuple[torch.Tensor, np.ndarray, Projector], errors: torch.Tensor
) -> None:
    """Parseval: over all but the mean and the corners, frequencies and pixels give one error."""
    _, rotations, projector = scene
    band = torch.from_numpy(np.hypot(np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX)) * BOX)
    keep = (band >= 0.5) & (band <= BOX // 2 - 1)

    def filtered(images: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(images) * keep, s=(BOX, BOX))

    images = filtered(projector.project(rotations))
    gallery = filtered(projector.project(SO3Grid(ORDER).rotations()))
    frequencies = (
        int((np.hypot(*np.meshgrid(*[np.fft.fftfreq(BOX) * BOX] * 2)) <= BOX // 2 - 1).sum()) - 1
    )
    squared = 9 * (images[:, None] - gallery).square().sum((2, 3)) * BOX**2  # of coefficients
    expected = 1 / (squared / frequencies / BOX**2)
    torch.testing.assert_close(errors, expected, rtol=1e-3, atol=0)


def test_mask_holds_the_best_poses_and_the_neighbourhood_of_the_truth(
    scene: tuple[torch.Tensor, np.ndarray, Projector], errors: torch.Tensor
) -> None:
    _, rotations, _ = scene
    targets = mask_targets(errors, 0.05)
    number = round(0.05 * SO3Grid(ORDER).size)
    assert (targets > 0).sum(1).tolist() == [number] * len(rotations)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(rotations)))
    assert targets.max() == pytest.approx(1 / number)
    nearest = torch.from_numpy(SO3Grid(ORDER).nearest(rotations))
    assert (targets[torch.arange(len(rotations)), nearest] > 0).all()
    assert (
        errors[targets == 0].reshape(6, -1).amax(1) <= torch.where(targets > 0, errors, 9e9).amin(1)
    ).all()


def test_raw_labels_are_proportional_to_inverse_mse(errors: torch.Tensor) -> None:
    targets = raw_targets(errors)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(errors)))
    torch.testing.assert_close(targets / targets[:, :1], errors / errors[:, :1])


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_one_hot_labels_stand_at_the_nearest_cells(symmetry: str) -> None:
    rotations = random_rotations(5, np.random.default_rng(2))
    targets = one_hot_targets(rotations, ORDER, symmetry)
    torch.testing.assert_close(targets.sum(1), torch.ones(5))
    for row, rotation in zip(targets, rotations, strict=True):
        centres = SO3Grid(ORDER).rotations(np.flatnonzero(row))
        mates = point_group(symmetry) @ rotation
        angles = geodesic_distance_degrees(centres[:, None], mates[None])
        assert len(centres) == len(mates)
        assert angles.min(1).max() < 1.2 * SO3Grid(ORDER).spacing_degrees
    mates = point_group(symmetry)[-1] @ rotations
    torch.testing.assert_close(targets, one_hot_targets(mates, ORDER, symmetry))


def test_label_targets_chooses_the_kind(errors: torch.Tensor) -> None:
    rotations = random_rotations(6, np.random.default_rng(3))
    made = {
        kind: label_targets(kind, errors, rotations, ORDER) for kind in ("mask", "raw", "one-hot")
    }
    assert torch.equal(made["mask"], mask_targets(errors))
    assert torch.equal(made["raw"], raw_targets(errors))
    assert torch.equal(made["one-hot"], one_hot_targets(rotations, ORDER))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_loss_of_targets_is_their_cross_entropy(dtype: torch.dtype) -> None:
    """Against the distribution type's own normalisation, log-density for log-density."""
    coefficients = (build_network(SMALL)(torch.randn(3, BOX, BOX)).detach() * 3).to(dtype)
    targets = torch.rand(3, SO3Grid(ORDER).size, dtype=coefficients.real.dtype)
    targets /= targets.sum(1, keepdim=True)
    weights = torch.tensor([1.0, 0.0, 3.0])
    probability = (
        PoseDistribution.from_coefficients(coefficients).probability_grid(ORDER).reshape(3, -1)
    )
    each = -(targets.numpy() * np.log(probability * SO3Grid(ORDER).size)).sum(1)
    batch = Batch(torch.empty(0), torch.eye(3).expand(3, 3, 3), weights, targets)
    expected = (each[0] + 3 * each[2]) / 4
    assert float(pose_loss(coefficients, batch, "C1")) == pytest.approx(expected, abs=1e-5)


def test_uniform_prediction_has_a_loss_of_zero() -> None:
    coefficients = torch.zeros(2, 4, 7, 4, dtype=torch.complex64)
    targets = mask_targets(torch.rand(2, SO3Grid(2).size))
    batch = Batch(torch.empty(0), torch.eye(3).expand(2, 3, 3), torch.ones(2), targets)
    assert float(pose_loss(coefficients, batch, "C1")) == pytest.approx(0, abs=1e-5)


def test_masks_are_learnt_down_to_their_information(
    scene: tuple[torch.Tensor, np.ndarray, Projector], errors: torch.Tensor
) -> None:
    _, rotations, projector = scene
    images = projector.project(rotations)
    images = images / images.std()
    source = LabelledImages(images, rotations, mask_targets(errors))
    torch.manual_seed(0)
    trainer = Trainer(build_network(SMALL), "C1", Optimisation(1e-2, 0.0))
    settings = LoopSettings(6, total_images=6 * 100, report_seconds=0.0, validations=1)
    reports = list(train_network(trainer, source, ValidationSet(images, rotations), "C1", settings))
    lowest = -math.log(SO3Grid(ORDER).size / round(0.05 * SO3Grid(ORDER).size))
    assert abs(reports[0].loss) < 0.3
    assert lowest < reports[-2].loss < 0.5 * lowest


def test_every_image_is_shown_once_a_pass() -> None:
    images = torch.arange(5.0)[:, None, None].expand(5, BOX, BOX)
    source = LabelledImages(images, random_rotations(5, np.random.default_rng(1)), torch.eye(5))
    batches = [source.batch(step, 4, 0.0) for step in range(5)]
    shown = torch.cat([batch.images[:, 0, 0] for batch in batches])
    assert torch.bincount(shown.long()).tolist() == [4] * 5
    targets = torch.cat([batch.targets for batch in batches if batch.targets is not None])
    assert torch.equal(targets.argmax(1), shown.long())


def test_order_of_size() -> None:
    assert [order_of_size(SO3Grid(order).size) for order in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="power of 8"):
        order_of_size(100)


def test_preset_is_the_posters() -> None:
    assert PRESETS["cryosphere"] is CRYOSPHERE
    assert CRYOSPHERE.network.l_max == 4
    assert (CRYOSPHERE.learning_rate, CRYOSPHERE.epochs) == (1e-3, 200)
    assert (CRYOSPHERE.labels, CRYOSPHERE.label_fraction) == ("mask", 0.05)
    assert TrainingPreset.model_validate_json(CRYOSPHERE.model_dump_json()) == CRYOSPHERE
