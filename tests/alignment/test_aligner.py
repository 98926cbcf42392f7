"""Search, refinement and posteriors on simulated particles whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from napari_cryosphere.alignment.aligner import Aligner
from napari_cryosphere.alignment.modes import distinct_poses, local_maxima
from napari_cryosphere.alignment.noise import particle_radius_px
from napari_cryosphere.alignment.observation import NoiseModel, Observation
from napari_cryosphere.alignment.refine import Climb, RefinedPoses
from napari_cryosphere.alignment.search import shells_for_spacing
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    random_rotations,
    rotation_from_vector,
)
from napari_cryosphere.so3.symmetry import angular_error_degrees, point_group

BOX, NUMBER = 32, 24
SIGNAL = {"C1": 1.0, "D2": 2.0}


@dataclass(frozen=True)
class Particles:
    voxels: torch.Tensor
    symmetry: str
    rotations: np.ndarray
    shifts_px: np.ndarray
    images: torch.Tensor
    contrast: float

    @property
    def noise(self) -> NoiseModel:
        return NoiseModel.white(BOX, 1.0, self.contrast)

    def aligner(self, max_shell: int = 13) -> Aligner:
        return Aligner(self.voxels, self.symmetry, self.noise, max_shell, shift_reach_px=2.0)


def _particles(symmetry: str, signal: float) -> Particles:
    voxels = torch.from_numpy(protein_phantom(BOX, 6.0).voxels.copy())
    if symmetry == "D2":  # on the lattice D2's operators are flips about voxel n // 2
        flipped = [
            torch.roll(voxels.flip(axes), [1] * len(axes), axes)
            for axes in ((0, 1), (0, 2), (1, 2))
        ]
        voxels = (voxels + sum(flipped)) / 4
    rng = np.random.default_rng(4)
    rotations, shifts = random_rotations(NUMBER, rng), rng.uniform(-1.5, 1.5, (NUMBER, 2))
    slices = Projector(voxels, 2).slices(rotations) * shift_phases(torch.from_numpy(shifts), BOX)
    clean = from_fourier(slices)
    contrast = signal / float(clean.std())
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    return Particles(voxels, symmetry, rotations, shifts, clean * contrast + noise, contrast)


def refine_poses(
    sampler: SliceSampler,
    observation: Observation,
    rotations: torch.Tensor,
    shifts: torch.Tensor,
    iterations: int,
) -> RefinedPoses:
    """Climb from one pose an image, in so many steps at most."""
    climb = Climb(sampler, observation, torch.arange(len(rotations)), rotations, shifts)
    climb.step(iterations)
    return climb.poses()


@pytest.fixture(scope="module", params=["C1", "D2"])
def particles(request):
    return _particles(request.param, SIGNAL[request.param])


@pytest.fixture(scope="module")
def searched(particles):
    return particles.aligner().search(particles.images, None, with_distribution=True)


def test_search_finds_poses_and_shifts(particles, searched):
    errors = angular_error_degrees(particles.rotations, searched.rotations, particles.symmetry)
    assert np.median(errors) < 3
    assert np.mean(errors > 30) <= 0.1
    right = errors < 15
    assert np.median(np.linalg.norm(searched.shifts_px - particles.shifts_px, axis=1)[right]) < 0.3


def test_true_poses_lie_in_credible_sets_as_often_as_these_say(particles, searched):
    levels = searched.distribution.credible_level(particles.rotations)
    assert np.mean(levels <= 0.5) == pytest.approx(
        0.5, abs=0.31
    )  # 3 standard deviations of 24 particles
    assert np.mean(levels <= 0.9) >= 0.74


def test_summary_expects_the_errors_that_are_made(particles, searched):
    errors = angular_error_degrees(particles.rotations, searched.rotations, particles.symmetry)
    small = errors < 15
    assert np.median(searched.summary.spread_degrees[small]) == pytest.approx(
        np.median(errors[small]), rel=0.5
    )
    exact = searched.distribution.summary()
    sure = (searched.summary.confidence > 0.99) & (exact.confidence > 0.99)
    assert sure.mean() > 0.6
    assert searched.summary.entropy[sure] == pytest.approx(exact.entropy[sure], abs=0.7)


def test_equivalent_poses_are_equally_probable(particles, searched):
    group = point_group(particles.symmetry)
    images = np.einsum("gij,njk->ngik", group, searched.rotations)
    logs = searched.distribution.log_prob(images)
    assert np.ptp(logs, axis=1).max() < 1e-6


def test_search_is_the_same_twice(particles):
    first, second = (particles.aligner().search(particles.images[:4], None) for _ in range(2))
    assert np.array_equal(first.rotations, second.rotations)
    assert np.array_equal(first.shifts_px, second.shifts_px)


def test_a_batch_is_its_particles(particles, searched):
    alone = particles.aligner().search(particles.images[7:8], None)
    assert geodesic_distance_degrees(alone.rotations, searched.rotations[7:8])[0] < 0.05


def test_local_refinement_recovers_disturbed_poses(particles):
    rng = np.random.default_rng(8)
    starts = particles.rotations @ rotation_from_vector(
        rng.normal(scale=np.radians(5), size=(NUMBER, 3))
    )
    found = particles.aligner().refine(
        particles.images,
        None,
        starts,
        particles.shifts_px + rng.normal(scale=0.5, size=(NUMBER, 2)),
        12.0,
    )
    before = angular_error_degrees(particles.rotations, starts, particles.symmetry)
    errors = angular_error_degrees(particles.rotations, found.rotations, particles.symmetry)
    assert np.median(errors) < 0.5 * np.median(before)
    assert errors.max() < 30


def test_local_refinement_chooses_among_several_modes(particles):
    rng = np.random.default_rng(9)
    wrong = random_rotations(NUMBER, rng)
    near = particles.rotations @ rotation_from_vector(
        rng.normal(scale=np.radians(3), size=(NUMBER, 3))
    )
    found = particles.aligner().refine(
        particles.images, None, np.stack([wrong, near], axis=1), particles.shifts_px, 8.0
    )
    errors = angular_error_degrees(particles.rotations, found.rotations, particles.symmetry)
    assert np.mean(errors < 15) > 0.9


def test_an_image_without_a_start_is_named(particles):
    starts = particles.rotations[:3].copy()
    starts[1] = np.nan
    with pytest.raises(ValueError, match=r"image 1 of 3 \(from 0\) has no pose"):
        particles.aligner().refine(particles.images[:3], None, starts, np.zeros((3, 2)), 5.0)


def test_a_prior_decides_where_the_likelihood_cannot():
    # in C1 the four equivalent poses of a D2 particle fit alike
    tetramer = _particles("D2", SIGNAL["D2"])
    aligner = Aligner(tetramer.voxels, "C1", tetramer.noise, 13, shift_reach_px=2.0)
    mates = point_group("D2") @ tetramer.rotations[:, None]
    asked = []

    def log_prior(image, poses):
        asked.append((image, poses))
        wanted = mates[image, 2]
        return np.where(geodesic_distance_degrees(poses, wanted) < 20, 3.0, 0.0)

    given = (tetramer.images, None, mates, tetramer.shifts_px, 8.0)
    plain, weighed = aligner.refine(*given), aligner.refine(*given, log_prior=log_prior)
    assert (np.diff(asked[0][0]) >= 0).all()
    near = geodesic_distance_degrees(weighed.rotations, mates[:, 2]) < 20
    assert near.mean() > 0.9
    assert (geodesic_distance_degrees(plain.rotations, mates[:, 2]) < 20).mean() < 0.6
    # one of four with e^3 times the others' probability
    expected = np.exp(3) / (np.exp(3) + 3)
    assert np.median(weighed.summary.confidence) == pytest.approx(expected, abs=0.05)
    assert np.median(plain.summary.confidence) == pytest.approx(0.25, abs=0.05)
    # what tells particles from noise does not ask the prior
    change = weighed.presence_evidence[:, 0] - plain.presence_evidence[:, 0]
    assert np.abs(change).max() < 0.5  # of 3 that the prior adds; other modes' widths are measured


def test_climbing_from_fewer_places_never_beats_the_best_of_all(particles):
    rng = np.random.default_rng(9)
    starts = random_rotations(6 * NUMBER, rng).reshape(NUMBER, 6, 3, 3)
    one, all_six = (
        particles.aligner().refine(
            particles.images, None, starts, particles.shifts_px, 8.0, climbed=climbed
        )
        for climbed in (1, 6)
    )
    # evidence chooses, not likelihood: a peak twice as wide in each of five directions makes up for
    # 3.5 nats
    assert (all_six.log_likelihood >= one.log_likelihood - 5 * np.log(2.5)).all()
    assert np.mean(all_six.log_likelihood > one.log_likelihood + 0.1) > 0.1
    assert np.mean(np.isclose(all_six.log_likelihood, one.log_likelihood, atol=0.1)) > 0.3


def test_refinement_is_never_worse_than_any_start_by_its_score(particles):
    rng = np.random.default_rng(11)
    starts = random_rotations(5 * NUMBER, rng).reshape(NUMBER, 5, 3, 3)
    starts[:, 3] = particles.rotations
    aligner = particles.aligner()
    found = aligner.refine(particles.images, None, starts, particles.shifts_px, 8.0)
    observation = aligner.observe(particles.images, None)
    sampler = SliceSampler(particles.voxels, 13, moments=True)
    shifts = torch.from_numpy(particles.shifts_px).float()
    for mode in range(5):
        poses = torch.from_numpy(starts[:, mode]).float()
        there = refine_poses(sampler, observation, poses, shifts, iterations=0)
        assert (found.log_likelihood >= there.log_likelihood.numpy() - 0.05).all()


def test_poses_that_have_arrived_stay(particles):
    aligner = particles.aligner()
    observation = aligner.observe(particles.images, None)
    sampler = SliceSampler(particles.voxels, 13, moments=True)
    poses = torch.from_numpy(particles.rotations).float()
    shifts = torch.from_numpy(particles.shifts_px).float()
    few, many = (refine_poses(sampler, observation, poses, shifts, number) for number in (15, 30))
    assert geodesic_distance_degrees(few.rotations, many.rotations).max() < 0.2
    assert torch.allclose(few.log_likelihood, many.log_likelihood, atol=0.05)


def test_images_may_have_fewer_modes_than_others(particles):
    starts = np.full((4, 3, 3, 3), np.nan)
    starts[:, 0] = particles.rotations[:4]
    starts[1, 1] = particles.rotations[0]
    found = particles.aligner().refine(
        particles.images[:4], None, starts, particles.shifts_px[:4], 8.0
    )
    alone = particles.aligner().refine(
        particles.images[2:4], None, particles.rotations[2:4], particles.shifts_px[2:4], 8.0
    )
    assert np.isfinite(found.rotations).all()
    assert geodesic_distance_degrees(found.rotations[2:], alone.rotations).max() < 0.05


def test_refined_poses_are_never_worse_than_the_start(particles):
    aligner = particles.aligner()
    observation = aligner.observe(particles.images, None)
    sampler = SliceSampler(particles.voxels, 13, moments=True)
    starts = torch.from_numpy(random_rotations(NUMBER, np.random.default_rng(1))).float()
    shifts = torch.zeros(NUMBER, 2)
    before = refine_poses(sampler, observation, starts, shifts, iterations=0).log_likelihood
    after = refine_poses(sampler, observation, starts, shifts, iterations=4).log_likelihood
    assert (after >= before).all()
    assert float((after - before).median()) > 5


def test_information_is_the_likelihoods_curvature(particles):
    """Against second differences of the log-likelihood, in expectation: on clean images."""
    projector = Projector(particles.voxels, 2)
    clean = projector.project(particles.rotations[:3]) * particles.contrast
    observation = particles.aligner().observe(clean, None)
    sampler = SliceSampler(particles.voxels, 13, moments=True)
    poses, shifts = torch.from_numpy(particles.rotations[:3]).float(), torch.zeros(3, 2)
    peak = refine_poses(sampler, observation, poses, shifts, iterations=0)
    step = 0.03
    for axis in range(3):
        turn = np.zeros(3)
        turn[axis] = step
        moved = poses @ torch.from_numpy(rotation_from_vector(turn)).float()
        back = poses @ torch.from_numpy(rotation_from_vector(-turn)).float()
        both = [
            refine_poses(sampler, observation, p, shifts, 0).log_likelihood for p in (moved, back)
        ]
        curvature = (2 * peak.log_likelihood - both[0] - both[1]) / step**2
        assert curvature.numpy() == pytest.approx(peak.information[:, axis, axis].numpy(), rel=0.15)


def test_estimated_noise_and_contrast_are_near_the_truth():
    particles = _particles("C1", 0.5)
    many = particles.images
    aligner = Aligner.estimated(particles.voxels, "C1", many, None, shift_reach_px=2.0)
    assert aligner.noise.contrast == pytest.approx(particles.contrast, rel=0.1)
    assert aligner.noise.spectrum[4:14].mean() == pytest.approx(BOX**2, rel=0.1)
    found = aligner.search(many, None)
    refitted = aligner.refitted(many, None, found)
    # at its lowest shells the map's gain is that of white noise behind a B-factor
    assert float(refitted.noise.gain[1:8].mean()) == pytest.approx(particles.contrast, rel=0.1)


def test_inverted_particles_have_a_negative_contrast():
    particles = _particles("C1", 1.0)
    aligner = particles.aligner()
    found = aligner.search(particles.images, None)
    assert aligner.refitted(-particles.images, None, found).noise.contrast < 0


def test_answers_at_the_rim_widen_the_search():
    """Particles farther off than the first reach are found if no reach was asked for."""
    particles = _particles("C1", 1.0)
    far = torch.roll(particles.images, 5, dims=-1)  # beyond the 4 px that a box of 32 starts with
    aligner = Aligner(particles.voxels, "C1", particles.noise, 13)
    found = aligner.search(far[:12], None)
    errors = angular_error_degrees(particles.rotations[:12], found.rotations, "C1")
    moved = particles.shifts_px[:12] + np.array([5.0, 0.0])
    right = errors < 15
    assert right.mean() > 0.7
    assert np.linalg.norm(found.shifts_px - moved, axis=1)[right].max() < 1.0


def test_radius_holds_the_power_of_a_ball():
    axis = torch.arange(BOX) - BOX // 2
    ball = ((axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() <= 9).float()
    assert particle_radius_px(ball) == pytest.approx(9, abs=1)


def test_finer_grids_support_more_shells():
    assert shells_for_spacing(15, 26, 64) < shells_for_spacing(7.5, 26, 64)


def test_local_maxima_stand_apart_and_come_best_first():
    turns = rotation_from_vector(
        np.radians([[0, 0, 0], [5, 0, 0], [0, 40, 0], [0, 43, 0], [90, 0, 0]])
    )
    scores = torch.tensor([5.0, 6.0, 8.0, 7.0, -9.0])
    poses, one = torch.from_numpy(turns).float(), torch.zeros(5, dtype=torch.int64)
    apart = torch.tensor([15.0, 4.0])
    low, lower = torch.tensor([-4.0, -7.0]), torch.tensor([-12.0, -12.0])
    assert local_maxima(one, poses, scores, 4, apart, low).tolist() == [2, 1]
    assert local_maxima(one, poses, scores, 1, apart, low).tolist() == [2]
    assert local_maxima(one, poses, scores, 4, apart, lower).tolist() == [2, 1, 4]
    assert local_maxima(1 - one, poses, scores, 4, apart.flip(0), low).tolist() == [2, 1]
    several = torch.tensor([1, 0, 1, 0, 0])
    assert local_maxima(several, poses, scores, 4, apart, low).tolist() == [3, 1, 2, 0]
    assert local_maxima(1 + one, poses, scores, 5, apart, lower).tolist() == [2, 1, 0, 4]


def test_distinct_poses_know_symmetry():
    rotation = random_rotations(1, np.random.default_rng(0))
    equal = np.concatenate(
        [rotation, point_group("D2")[1] @ rotation, rotation @ rotation_from_vector([[0, 0, 0.5]])]
    )
    poses = torch.from_numpy(equal).float()
    assert distinct_poses(poses, torch.tensor([1.0, 2.0, 0.0]), 2.0, "D2").tolist() == [1, 2]
    assert distinct_poses(poses, torch.tensor([1.0, 2.0, 0.0]), 2.0, "C1").tolist() == [1, 0, 2]


def test_noise_free_images_are_the_easiest():
    particles = _particles("C1", 1.0)
    slices = Projector(particles.voxels, 2).slices(particles.rotations)
    clean = from_fourier(slices * shift_phases(torch.from_numpy(particles.shifts_px), BOX))
    aligner = Aligner.estimated(particles.voxels, "C1", clean, None)
    found = aligner.search(clean, None)
    found = aligner.refitted(clean, None, found).search(clean, None)
    errors = angular_error_degrees(particles.rotations, found.rotations, "C1")
    assert np.median(errors) < 0.3
    assert errors.max() < 30


def test_a_search_about_known_shifts_finds_what_a_search_of_all_finds(particles, searched):
    """Far from the middle the first reach would not do; images whose shift is known wrongly widen it."""
    aligner = Aligner(particles.voxels, particles.symmetry, particles.noise, 13)
    wrong = searched.shifts_px.copy()
    wrong[0] += 3
    found = aligner.search(particles.images, None, centres_px=wrong)
    angles = angular_error_degrees(searched.rotations, found.rotations, particles.symmetry)
    assert np.median(angles) < 0.1
    np.testing.assert_allclose(
        np.median(np.abs(found.shifts_px - searched.shifts_px)), 0, atol=0.01
    )
    assert np.abs(found.shifts_px[0] - searched.shifts_px[0]).max() < 0.5


def test_images_that_are_the_opposite_of_the_map_have_finite_answers(particles):
    """At every pose their contrast is 0: nothing tells any of these from another."""
    noise = NoiseModel.white(BOX, 1.0, particles.contrast)
    aligner = Aligner(particles.voxels, particles.symmetry, replace(noise, contrast_spread=0.2), 8)
    opposite = -(particles.images[:3].mean(0) + 40 * particles.voxels.sum(0)).expand(3, -1, -1)
    found = aligner.search(opposite, None)
    assert np.isfinite(found.presence_evidence).all()
    assert np.isfinite(found.summary.spread_degrees).all()
    assert (found.summary.confidence < 0.5).all()
