"""Presence on simulated evidence, and the power that best poses leave over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.alignment.aligner import Aligner
from napari_cryosphere.alignment.observation import NoiseModel
from napari_cryosphere.alignment.presence import presence, reached
from napari_cryosphere.imaging.fourier import from_fourier
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.so3.rotations import random_rotations

BOX = 32


def _set(particles: int, noise: int, clutter: int) -> tuple[np.ndarray, ...]:
    """Return evidence, what is left over, shifts and confidence of particles, noise and clutter."""
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1, 2], [particles, noise, clutter])
    evidence = np.choose(kinds, [40.0, -10.0, 25.0]) + rng.normal(0, 5, len(kinds))
    left = np.choose(kinds, [1.0, 1.0, 2.5]) * rng.gamma(60, 1 / 60, len(kinds))
    shifts = np.abs(rng.normal(0, 2, len(kinds)))
    confidence = np.choose(kinds, [1.0, 0.4, 0.97])
    return evidence, left, shifts, confidence


def test_a_set_of_particles_alone_is_all_present():
    assert presence(*_set(200, 0, 0)).min() > 0.9


def test_noise_and_clutter_are_told_from_particles():
    found = presence(*_set(200, 20, 40))
    assert np.mean(found[:200] > 0.5) > 0.98
    assert np.mean(found[200:] < 0.5) > 0.95


def test_shares_are_those_of_the_set():
    assert presence(*_set(100, 50, 50)).mean() == pytest.approx(0.5, abs=0.02)


def test_a_few_images_without_a_sure_pose_have_an_answer():
    evidence, left, shifts, _ = _set(3, 1, 0)
    found = presence(evidence, left, shifts, np.full(4, 0.2))
    assert np.isfinite(found).all()
    assert found[3] < found[:3].min()


def _reached(right: int, wrong: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what is said of particles whose true pose was compared, and of others, that fit as decoys do."""
    rng = np.random.default_rng(1)
    fits = np.concatenate([rng.normal(40 + gain, 13, right), rng.normal(40, 10, wrong)])
    decoys = rng.normal(40, 10, 64)
    share = np.full(right + wrong, right / (right + wrong))
    found = reached(fits, decoys, share, np.ones(right + wrong))
    return found[:right], found[right:]


@pytest.mark.parametrize("gain", [10.0, 30.0, 100.0])
def test_the_share_of_particles_whose_pose_was_compared_is_right(gain):
    right, wrong = _reached(700, 300, gain)
    assert np.concatenate([right, wrong]).mean() == pytest.approx(0.7, abs=0.04)
    sure = np.concatenate([right, wrong]) > 0.8
    claimed = np.concatenate([right, wrong])[sure].mean()
    assert np.r_[np.ones(700), np.zeros(300)][sure].mean() == pytest.approx(claimed, abs=0.04)


def test_poses_that_fit_far_better_than_wrong_ones_were_compared():
    right, wrong = _reached(700, 300, 100.0)
    assert right.min() > 0.9
    assert np.median(wrong) < 1e-3


def test_a_fit_worse_than_at_wrong_poses_is_no_sign_of_a_right_one():
    rng = np.random.default_rng(2)
    fits = np.concatenate([rng.normal(60, 20, 500), [-100.0]])
    found = reached(fits, rng.normal(40, 10, 64), np.full(501, 0.7), np.ones(501))
    assert found[-1] < 0.7


def test_few_particles_have_an_answer_too():
    found = reached(np.array([80.0, 41.0]), np.array([40.0, 42.0]), np.ones(2), np.ones(2))
    assert np.isfinite(found).all()
    assert found[0] > found[1]


def test_what_a_second_particle_adds_is_left_over():
    """Noise leaves the same for every pose; a second particle on top leaves more."""
    voxels = torch.from_numpy(protein_phantom(BOX, 6.0).voxels.copy())
    rotations = random_rotations(16, np.random.default_rng(1))
    clean = from_fourier(Projector(voxels, 2).slices(rotations))
    contrast = 1.0 / float(clean.std())
    generator = torch.Generator().manual_seed(2)
    images = contrast * clean + torch.randn(clean.shape, generator=generator)
    images[8:] += contrast * torch.roll(clean[:8], (3, -2), (1, 2))
    aligner = Aligner(voxels, "C1", NoiseModel.white(BOX, 1.0, contrast), 12, 2.0)
    left = aligner.search(images, None).presence_evidence[:, 1]
    assert left[:8].mean() == pytest.approx(1.0, abs=0.4)
    assert np.median(left[8:]) > 1.5 * np.median(left[:8])
