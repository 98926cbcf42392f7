"""The PyTorch data set, used as the CESPED paper's listings do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import DataLoader

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.dataset import ParticleDataset
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.imaging.simulate import draw_parameters
from napari_cryosphere.particles import ImageGrid, ParticleStack, write_stack, write_star
from napari_cryosphere.so3.asymmetric_unit import inside_asymmetric_unit
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.symmetry import angular_error_degrees

NUMBER = 24
STEPS = Preprocessing(grid=ImageGrid(8, 6.0))


@pytest.fixture
def stack(tmp_path: Path) -> ParticleStack:
    images = np.random.default_rng(1).normal(size=(NUMBER, 16, 16)).astype(np.float32)
    write_stack(images, tmp_path / "p.mrcs", 3.0)
    write_star(draw_parameters(NUMBER, 2).tables("p.mrcs", 16, 3.0), tmp_path / "p.star")
    return ParticleStack.read(tmp_path / "p.star")


def without_poses(stack: ParticleStack) -> ParticleStack:
    return stack._with(stack.particles.drop(columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]))


def test_a_batch_is_what_listing_1_says(stack: ParticleStack) -> None:
    dataset = ParticleDataset(stack, STEPS)
    batches = list(DataLoader(dataset, batch_size=10))
    ids, images, (rotations, shifts, confidence), metadata = batches[0]
    assert ids[0] == "000001@p.mrcs"
    assert images.shape == (10, 1, 8, 8)
    assert images.dtype == rotations.dtype == shifts.dtype == confidence.dtype == torch.float32
    assert (rotations.shape, shifts.shape, confidence.shape) == ((10, 3, 3), (10, 2), (10, 1))
    assert_allclose(rotations, stack.rotations()[:10], atol=1e-6)
    assert_allclose(shifts, stack.shifts_angstrom()[:10], atol=1e-5)
    assert (confidence == 1).all()
    assert_allclose(metadata["rlnDefocusU"], stack.particles["rlnDefocusU"][:10], rtol=1e-6)
    assert (metadata["rlnVoltage"] == 300).all()
    assert metadata["rlnMicrographName"][0] == stack.particles["rlnMicrographName"][0]
    everything = torch.cat([batch[1] for batch in batches])
    torch.testing.assert_close(everything[:, 0], PreparedImages(stack, STEPS).load())


def test_shuffled_batches_keep_things_together(stack: ParticleStack) -> None:
    dataset = ParticleDataset(stack, STEPS)
    generator = torch.Generator().manual_seed(3)
    for ids, images, (rotations, _, _), _ in DataLoader(
        dataset, 7, shuffle=True, generator=generator
    ):
        for name, image, rotation in zip(ids, images, rotations, strict=True):
            row = int(name.split("@")[0]) - 1
            torch.testing.assert_close(image, dataset[row][1])
            assert_allclose(rotation, stack.rotations()[row], atol=1e-6)
    assert dataset[-1][0] == dataset[NUMBER - 1][0]
    with pytest.raises(IndexError):
        dataset[NUMBER]


def test_workers_give_the_same(stack: ParticleStack) -> None:
    dataset = ParticleDataset(stack, STEPS)
    alone = torch.cat([batch[1] for batch in DataLoader(dataset, 6)])
    with_workers = torch.cat([batch[1] for batch in DataLoader(dataset, 6, num_workers=2)])
    torch.testing.assert_close(alone, with_workers)


def test_predictions_are_saved_as_listing_2_says(stack: ParticleStack, tmp_path: Path) -> None:
    dataset = ParticleDataset(without_poses(stack), STEPS)
    assert dataset[0][2][2] == 0
    truth = random_rotations(NUMBER, np.random.default_rng(4))
    for ids, _, _, _ in DataLoader(dataset, 5, shuffle=True):
        rows = [int(name.split("@")[0]) - 1 for name in ids]
        dataset.update_poses(
            ids,
            torch.from_numpy(truth[rows]).float(),
            torch.zeros(len(rows), 2),
            torch.tensor(rows)[:, None] / NUMBER,
        )
    dataset.save(tmp_path / "predictions.star")
    saved = ParticleStack.read(tmp_path / "predictions.star")
    assert angular_error_degrees(truth, saved.rotations()).max() < 1e-4
    assert_array_equal(saved.shifts_angstrom(), np.zeros((NUMBER, 2)))
    assert_allclose(
        saved.particles["rlnMaxValueProbDistribution"], np.arange(NUMBER) / NUMBER, atol=1e-7
    )
    assert_array_equal(saved.images(), stack.images())
    _, _, (rotation, _, confidence), _ = ParticleDataset(saved, STEPS)[7]
    assert_allclose(rotation, truth[7], atol=1e-6)
    assert float(confidence) == pytest.approx(7 / NUMBER)


@pytest.mark.parametrize("symmetry", ["C4", "D2", "T", "O", "I"])
def test_saved_poses_are_in_relions_asymmetric_unit(symmetry: str, stack: ParticleStack) -> None:
    dataset = ParticleDataset(stack, STEPS, symmetry)
    poses = random_rotations(NUMBER, np.random.default_rng(5))
    dataset.update_poses(list(stack.image_names()), poses)
    saved = dataset.stack()
    assert inside_asymmetric_unit(saved.rotations()[:, :, 2], symmetry).all()
    assert angular_error_degrees(poses, saved.rotations(), symmetry).max() < 1e-6
    assert not inside_asymmetric_unit(poses[:, :, 2], symmetry).all()


def test_what_is_not_updated_keeps_its_pose(stack: ParticleStack) -> None:
    dataset = ParticleDataset(stack, STEPS)
    dataset.update_poses(["000003@p.mrcs"], np.eye(3)[None])
    saved = dataset.stack()
    others = np.arange(NUMBER) != 2
    assert_allclose(saved.rotations()[others], stack.rotations()[others], atol=1e-9)
    assert_allclose(saved.rotations()[2], np.eye(3), atol=1e-9)
    assert_allclose(saved.shifts_angstrom(), stack.shifts_angstrom())
    assert "cryosphereInputAngleRot" in saved.particles


def test_what_is_refused(stack: ParticleStack) -> None:
    dataset = ParticleDataset(without_poses(stack), STEPS)
    names = ["000001@p.mrcs", "000002@p.mrcs"]
    good = np.tile(np.eye(3), (2, 1, 1))
    with pytest.raises(MetadataError, match="no particle 'x@y'"):
        dataset.update_poses(["x@y"], good[:1])
    with pytest.raises(MetadataError, match="no rotation matrix"):
        dataset.update_poses(names, 2 * good)
    with pytest.raises(MetadataError, match=r"shape \(2, 3, 3\)"):
        dataset.update_poses(names, good[:1])
    with pytest.raises(MetadataError, match="2 numbers from 0 to 1"):
        dataset.update_poses(names, good, confidence=[0.5, np.nan])
    with pytest.raises(MetadataError, match="24 of 24 particles have no pose yet"):
        dataset.stack()
    with pytest.raises(MetadataError, match="1 rows with the image of an earlier row"):
        ParticleDataset(stack[[0, 1, 0]], STEPS)


def test_half_sets(stack: ParticleStack) -> None:
    first, second = (ParticleDataset(half, STEPS) for half in stack.halves())
    assert len(first) == len(second) == NUMBER // 2
    assert {sample[0] for sample in first}.isdisjoint({sample[0] for sample in second})
