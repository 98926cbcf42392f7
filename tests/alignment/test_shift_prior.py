"""The prior on shifts: what it learns from a set, that it is a density, and what it decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from napari_cryosphere.alignment.aligner import Aligner, Alignment
from napari_cryosphere.alignment.observation import NoiseModel
from napari_cryosphere.alignment.shift_prior import ShiftPrior
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, random_rotations

BOX = 32


def _distances(number: int, deviation: float, far: int, seed: int) -> np.ndarray:
    """Return distances of normal shifts, and of some that are anywhere within 12 px."""
    rng = np.random.default_rng(seed)
    near = np.hypot(*rng.normal(0, deviation, (2, number)))
    return np.concatenate([near, 12 * np.sqrt(rng.uniform(size=far))])


@pytest.mark.parametrize("deviation", [0.8, 1.7, 3.0])
def test_it_learns_the_deviation_whatever_a_few_far_ones_do(deviation):
    distances = _distances(400, deviation, far=20, seed=3)
    found = ShiftPrior.fitted(distances, np.ones(len(distances)), 12.0)
    assert found.deviation_px == pytest.approx(deviation, rel=0.08)


def test_shifts_of_doubtful_poses_count_less():
    distances = _distances(100, 1.0, far=60, seed=4)
    weight = np.repeat([1.0, 0.05], [100, 60])
    sure = ShiftPrior.fitted(distances, weight, 12.0).deviation_px
    assert sure == pytest.approx(1.0, rel=0.15)


def test_without_particles_it_is_wide():
    found = ShiftPrior.fitted(np.zeros(0), np.zeros(0), 8.0)
    assert found.deviation_px == pytest.approx(4.0)


def test_it_is_a_density():
    prior = ShiftPrior(1.5, 6.0)
    axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    squared = x.square() + y.square()
    inside = squared <= 36
    mass = float(prior.log_density(squared)[inside].exp().sum()) * 0.02**2
    assert mass == pytest.approx(1.0, abs=2e-3)


@dataclass(frozen=True)
class Searched:
    """Images so faint that several poses fit each about as well, searched without and with a prior."""

    rotations: np.ndarray
    without: Alignment
    informed: Alignment

    def lost(self, found: Alignment) -> float:
        return float(np.mean(geodesic_distance_degrees(found.rotations, self.rotations) > 30))


@pytest.fixture(scope="module")
def faint():
    voxels = torch.from_numpy(protein_phantom(BOX, 6.0).voxels.copy())
    rng = np.random.default_rng(8)
    rotations, shifts = random_rotations(100, rng), rng.normal(0, 0.5, (100, 2))
    slices = Projector(voxels, 2).slices(rotations) * shift_phases(torch.from_numpy(shifts), BOX)
    clean = from_fourier(slices)
    contrast = 0.3 / float(clean.std())
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    images = clean * contrast + noise
    aligner = Aligner(voxels, "C1", NoiseModel.white(BOX, 1.0, contrast), 8, shift_reach_px=8.0)
    without = aligner.search(images, None)
    return Searched(rotations, without, aligner.with_shift_prior(without).search(images, None))


def test_fewer_poses_are_lost(faint):
    assert faint.lost(faint.informed) < 0.85 * faint.lost(faint.without)


def test_confidence_says_how_many(faint):
    right = 1 - faint.lost(faint.informed)
    assert faint.informed.summary.confidence.mean() == pytest.approx(right, abs=0.12)


def test_the_evidence_by_which_presence_judges_leaves_the_prior_out(faint):
    informed, without = faint.informed, faint.without
    same = geodesic_distance_degrees(informed.rotations, without.rotations) < 1
    apart = (informed.presence_evidence - without.presence_evidence)[same, 0]
    assert same.mean() > 0.4
    assert np.median(np.abs(apart)) < 0.2  # nats; the prior itself has some 4
