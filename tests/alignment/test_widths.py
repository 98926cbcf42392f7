"""Widths of modes against integrals of the likelihood itself, sampled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import NoiseModel, observe
from napari_cryosphere.alignment.refine import Climb, RefinedPoses
from napari_cryosphere.alignment.widths import integrated
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.rotations import random_rotations, rotation_from_vector

BOX, NUMBER, SAMPLES = 32, 8, 3000


def modes_of(signal: float):
    """Climb from the truth of a few images; return what `integrated` takes."""
    voxels = torch.from_numpy(protein_phantom(BOX, 6.0).voxels.copy())
    rng = np.random.default_rng(2)
    rotations, shifts = random_rotations(NUMBER, rng), rng.uniform(-1, 1, (NUMBER, 2))
    slices = Projector(voxels, 2).slices(rotations) * shift_phases(torch.from_numpy(shifts), BOX)
    clean = from_fourier(slices)
    contrast = signal / float(clean.std())
    images = clean * contrast + torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    sampler = SliceSampler(voxels, 13, moments=True)
    observation = observe(images, None, NoiseModel.white(BOX, 1.0, contrast), FourierBand(BOX, 13))
    image = torch.arange(NUMBER)
    climb = Climb(
        sampler,
        observation,
        image,
        torch.from_numpy(rotations).float(),
        torch.from_numpy(shifts).float(),
    )
    climb.step(12)
    return sampler, observation, image, climb.poses()


def sampled_covariance(sampler, observation, row: int, poses: RefinedPoses) -> np.ndarray:
    """Return the second moment of rotations about a mode by importance sampling in all five dimensions."""
    rng = np.random.default_rng(3)
    covariance = np.linalg.inv(poses.information[row].double().numpy())
    normal, freedom = rng.standard_normal((SAMPLES, 5)), 6
    points = normal / np.sqrt(rng.chisquare(freedom, (SAMPLES, 1)) / freedom)
    proposal = -(freedom + 5) / 2 * np.log1p((points**2).sum(1) / freedom)
    points = points @ np.linalg.cholesky(1.5 * covariance).T
    turns = torch.from_numpy(rotation_from_vector(points[:, :3])).float()
    shifts = poses.shifts_px[row] + torch.from_numpy(points[:, 3:]).float()
    model = sampler.values(poses.rotations[row] @ turns, observation.band.frequencies)
    model = model * observation.filters[row] * observation.band.phases(shifts)
    logs = -0.5 * (observation.data[row] - model).abs().square().sum(1).double().numpy() - proposal
    weights = np.exp(logs - logs.max())
    return np.einsum("k,ki,kj->ij", weights / weights.sum(), points[:, :3], points[:, :3])


def test_widths_are_those_of_the_sampled_likelihood():
    sampler, observation, image, poses = modes_of(1.0)
    found = integrated(sampler, observation, image, poses).rotation_covariance().numpy()
    laplace = poses.rotation_covariance().numpy()
    wanted = np.stack(
        [sampled_covariance(sampler, observation, row, poses) for row in range(NUMBER)]
    )

    def off(covariance: np.ndarray) -> np.ndarray:
        """Return by how much the variance along each axis is wrong, relative to the sampled."""
        axes = np.einsum("nii->ni", covariance) / np.einsum("nii->ni", wanted)
        return np.abs(np.log(axes)).mean()

    assert off(found) < 0.06
    assert off(laplace) > 0.1


def test_shifts_given_the_rotation_are_as_well_known_as_before():
    sampler, observation, image, poses = modes_of(0.5)
    found = integrated(sampler, observation, image, poses)
    torch.testing.assert_close(found.information[:, 3:, 3:], poses.information[:, 3:, 3:])
    assert torch.equal(found.rotations, poses.rotations)


def test_modes_wider_than_the_spheres_reach_stay_as_they_are():
    sampler, observation, image, poses = modes_of(0.5)
    blurred = replace(poses, information=poses.information * 1e-3)
    found = integrated(sampler, observation, image, blurred)
    assert torch.equal(found.information, blurred.information)
