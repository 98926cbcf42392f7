"""Pose distributions of known shape: what is reported must be what was put in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from napari_cryosphere.so3.asymmetric_unit import expand
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.gauss_legendre import gauss_legendre_grid
from napari_cryosphere.so3.igso3 import igso3_angle_cdf, igso3_log_density, sample_igso3
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    nearest_rotation,
    random_rotations,
    rotation_from_relion_angles,
)
from napari_cryosphere.so3.symmetry import angular_error_degrees, point_group

L_MAX = 6


def fisher(centres: np.ndarray, kappa: float, symmetry: str = "C1") -> PoseDistribution:
    """Matrix Fisher distributions, log p = kappa tr(C^T R) + const, or mixtures over a point group.

    Projected on the band limit; a single one is of degree 1, so that it is represented exactly.
    """
    grid = gauss_legendre_grid(L_MAX, dtype=torch.float64)
    n_tilt, n_angles, _ = grid.shape
    tilt = np.degrees(np.arccos(np.polynomial.legendre.leggauss(n_tilt)[0]))
    angles = 360 * np.arange(n_angles) / n_angles
    mesh = np.stack(np.meshgrid(tilt, angles, angles, indexing="ij"), -1)[..., [1, 0, 2]]
    rotations = rotation_from_relion_angles(mesh)
    peaks = point_group(symmetry)[:, None] @ centres
    logs = kappa * np.einsum("tapij,gbij->gbtap", rotations, peaks)
    values = np.logaddexp.reduce(logs, axis=0)
    return PoseDistribution.from_coefficients(grid.from_grid(torch.from_numpy(values)), symmetry)


@pytest.fixture(scope="module")
def centres() -> np.ndarray:
    return random_rotations(12, np.random.default_rng(8))


def test_uniform_knows_nothing() -> None:
    distribution = PoseDistribution.from_coefficients(
        torch.zeros(2, L_MAX + 1, 2 * L_MAX + 1, L_MAX + 1, dtype=torch.complex64)
    )
    summary = distribution.summary()
    np.testing.assert_allclose(summary.entropy, 0, atol=1e-5)
    np.testing.assert_allclose(summary.max_probability, 1 / 36864, rtol=1e-4)
    # the mean angle of a uniform rotation is pi/2 + 2/pi; the share within 30 degrees (a - sin a) /
    # pi
    np.testing.assert_allclose(summary.spread_degrees, np.degrees(np.pi / 2 + 2 / np.pi), rtol=1e-3)
    share = (np.pi / 6 - np.sin(np.pi / 6)) / np.pi
    np.testing.assert_allclose(summary.confidence, share, rtol=0.1)  # the grid counts whole cells


def test_mode_is_found_below_the_grid_spacing(centres: np.ndarray) -> None:
    summary = fisher(centres, kappa=20.0).summary()
    assert geodesic_distance_degrees(summary.rotations, centres).max() < 1e-3


@pytest.mark.parametrize("kappa", [5.0, 12.0, 20.0])
def test_entropy_spread_and_confidence_of_a_fisher_peak(centres: np.ndarray, kappa: float) -> None:
    """Against one-dimensional integrals over the angle w, whose density is (1 - cos w) exp(2 kappa
    cos w).
    """
    w = (np.arange(200_000) + 0.5) * np.pi / 200_000
    haar = (1 - np.cos(w)) / np.pi * (np.pi / len(w))
    log_density = 2 * kappa * np.cos(w)
    density = np.exp(log_density - log_density.max())
    density /= (density * haar).sum()
    summary = fisher(centres, kappa).summary()
    np.testing.assert_allclose(
        summary.entropy, -(haar * density * np.log(density)).sum(), atol=0.03
    )
    np.testing.assert_allclose(
        summary.spread_degrees, np.degrees((haar * density * w).sum()), rtol=0.02
    )
    expected = (haar * density)[w <= np.pi / 6].sum()
    np.testing.assert_allclose(summary.confidence, expected, atol=0.015)


def test_log_density_is_normalised_and_relative_to_uniform(centres: np.ndarray) -> None:
    distribution = fisher(centres[:3], kappa=2.0)
    rotations = random_rotations(4000, np.random.default_rng(9))
    density = np.exp(distribution.log_prob(rotations[None]))
    np.testing.assert_allclose(density.mean(1), 1, atol=0.1)  # Monte Carlo over the group
    assert np.abs(distribution.probability_grid().sum((1, 2)) - 1).max() < 1e-9


def test_equal_peaks_of_a_symmetric_particle_are_certain(centres: np.ndarray) -> None:
    symmetric = fisher(centres, 18.0, "D2")
    ignorant = PoseDistribution.from_coefficients(symmetric.coefficients, "C1").summary()
    aware = symmetric.summary()
    assert (aware.confidence > ignorant.confidence + 0.5).all()
    assert (aware.spread_degrees < 30).all()
    assert (ignorant.spread_degrees > 60).all()


def test_view_map_points_along_the_third_column(centres: np.ndarray) -> None:
    import healpy

    marginal = fisher(centres, 20.0).view_map()
    directions = np.array(healpy.pix2vec(8, np.arange(768))).T
    mean = marginal @ directions
    cosine = (mean / np.linalg.norm(mean, axis=1, keepdims=True) * centres[:, :, 2]).sum(1)
    assert cosine.min() > np.cos(np.radians(2))


def test_selection_keeps_particles_apart(centres: np.ndarray) -> None:
    distribution = fisher(centres, 10.0)
    whole = distribution.summary()
    for pick in (3, slice(2, 5), np.array([7, 1])):
        part = distribution[pick].summary()
        np.testing.assert_allclose(part.entropy, np.atleast_1d(whole.entropy[pick]), rtol=1e-9)
    joined = PoseSummary.concatenate([distribution[:5].summary(), distribution[5:].summary()])
    np.testing.assert_allclose(joined.rotations, whole.rotations)


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match="must be"):
        PoseDistribution.from_coefficients(torch.zeros(1, 3, 4, 3, dtype=torch.complex64))


KNOWN_GROUPS = ["C1", "C2", "C5", "D1", "D2", "D7", "T", "O", "I1", "I2", "I3", "I4"]


def igso3(
    symmetry: str, width: float, number: int = 2, seed: int = 0
) -> tuple[PoseDistribution, np.ndarray]:
    """IGSO(3) distributions and their centres."""
    poses = random_rotations(number, np.random.default_rng(seed))
    return PoseDistribution.from_poses(
        poses[:, None], np.zeros((number, 1)), width, symmetry
    ), poses


@pytest.mark.parametrize("width", [1.0, 3.0])
@pytest.mark.parametrize("symmetry", KNOWN_GROUPS)
def test_known_width_in_every_point_group(symmetry: str, width: float) -> None:
    """One peak a particle modulo symmetry: entropy, spread and mass by integrals over the angle.

    Peaks much narrower than the order-3 grid are seen, since cells are refined; with equivalents
    that do not overlap, the density at each is 1/|G| of a lone peak's.
    """
    distribution, poses = igso3(symmetry, width)
    group = point_group(symmetry)
    angle, cumulative = igso3_angle_cdf(np.radians(width))
    middle, mass = (angle[1:] + angle[:-1]) / 2, np.diff(cumulative)
    logs = igso3_log_density(middle, np.radians(width)) - np.log(len(group))
    summary = distribution.summary()
    np.testing.assert_allclose(summary.entropy, -(mass * logs).sum(), atol=0.04)
    np.testing.assert_allclose(summary.spread_degrees, np.degrees((mass * middle).sum()), rtol=0.02)
    assert angular_error_degrees(poses, summary.rotations, symmetry).max() < 1e-3
    assert angular_error_degrees(poses, distribution.mean(), symmetry).max() < 0.05 * width
    # the set of level 0.9 is the ball that holds 0.9, at every equivalent
    radius = np.interp(0.9, cumulative, angle)
    ball = len(group) * (radius - np.sin(radius)) / np.pi
    credible = distribution.credible_set(0.9)
    np.testing.assert_allclose(credible.volume, ball, rtol=0.1)
    rng = np.random.default_rng(1)
    truths = poses[:, None] @ sample_igso3(4000, np.radians(width), rng).reshape(2, 2000, 3, 3)
    mates = group[rng.integers(len(group), size=(2, 2000))] @ truths
    assert credible.contains(mates).mean() == pytest.approx(0.9, abs=0.02)
    levels = np.sort(distribution.credible_level(mates).ravel())
    assert np.abs(levels - (np.arange(4000) + 0.5) / 4000).max() < 0.04


def test_four_equal_peaks_of_d2_are_one() -> None:
    peaks = expand(random_rotations(1, np.random.default_rng(2)), "D2")
    blind = PoseDistribution.from_poses(peaks, np.zeros((1, 4)), 3.0)
    aware = PoseDistribution.from_poses(peaks, np.zeros((1, 4)), 3.0, "D2")
    single = PoseDistribution.from_poses(peaks[:, :1], np.zeros((1, 1)), 3.0)
    four = single.entropy() + np.log(4)  # volumes are shares of what is different modulo D2
    np.testing.assert_allclose(aware.entropy(), four, atol=0.03)
    np.testing.assert_allclose(blind.entropy(), four, atol=0.03)
    assert aware.summary().confidence[0] > 0.999
    assert blind.summary().confidence[0] < 0.3
    assert np.isfinite(aware.mode(3).log_prob).sum() == 1


def test_two_peaks() -> None:
    """Weights 0.7 and 0.3: both are modes, and entropy is that of one peak plus that of the choice."""
    poses = random_rotations(2, np.random.default_rng(3))[None]
    weights = np.log([[0.7, 0.3]])
    distribution = PoseDistribution.from_poses(poses, weights, 4.0)
    one, _ = igso3("C1", 4.0, 1)
    choice = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    np.testing.assert_allclose(distribution.entropy(), one.entropy() + choice, atol=0.03)
    modes = distribution.mode(2)
    assert geodesic_distance_degrees(modes.rotations[0], poses[0]).max() < 1e-3
    np.testing.assert_allclose(
        np.exp(modes.log_prob[0, 0] - modes.log_prob[0, 1]), 7 / 3, rtol=1e-6
    )
    assert np.exp(distribution.mode(3).log_prob[0, 2]) < 1e-3
    # above the low peak's density lies the middle of the high one: r^2 < 2 log(7 / 3) deviations
    # squared
    levels = distribution.credible_level(poses)[0]
    assert levels[0] == pytest.approx(0, abs=1e-6)
    assert levels[1] == pytest.approx(0.7 * chi2(3).cdf(2 * np.log(7 / 3)), abs=0.02)
    joined = one.mixture(PoseDistribution.from_poses(poses[:, 1:], np.zeros((1, 1)), 4.0), 0.25)
    np.testing.assert_allclose(
        joined.entropy(), one.entropy() - 0.75 * np.log(0.75) - 0.25 * np.log(0.25), atol=0.03
    )


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_a_peak_sharper_than_the_grid_is_normalised(symmetry: str) -> None:
    """Coefficients so strong that a whole peak falls between the points of the order-3 grid."""
    centre = random_rotations(4, np.random.default_rng(4))
    coefficients = fisher(centre, 2000.0, "C1").coefficients  # about 0.9 degrees wide
    distribution = PoseDistribution.from_coefficients(coefficients, symmetry)
    rng = np.random.default_rng(5)
    sigma = np.radians(1.5)
    drawn = centre[:, None] @ sample_igso3(4000, sigma, rng).reshape(1, 4000, 3, 3)
    angles = geodesic_distance_degrees(drawn, centre[:, None])
    proposal = np.exp(igso3_log_density(np.radians(angles), sigma))
    total = len(point_group(symmetry)) * (np.exp(distribution.log_prob(drawn)) / proposal).mean(1)
    np.testing.assert_allclose(total, 1, rtol=0.05)


def test_harmonic_peaks_know_their_symmetry(centres: np.ndarray) -> None:
    """Unequal equivalents are averaged: log_prob is the same at all, and so is what cells say."""
    distribution = PoseDistribution.from_coefficients(fisher(centres[:2], 2.0).coefficients, "D2")
    mates = expand(random_rotations(10, np.random.default_rng(6)), "D2")
    logs = distribution.log_prob(mates.reshape(1, -1, 3, 3)).reshape(2, 10, 4)
    np.testing.assert_allclose(logs, logs[..., :1].repeat(4, 2), atol=1e-9)
    cells = distribution.cells()
    np.testing.assert_allclose(
        cells.log_prob(cells.centres[:1, 100:110].repeat(2, 0)),
        distribution.log_prob(cells.centres[:1, 100:110].repeat(2, 0)),
        atol=1e-6,
    )
    probability = distribution.probability_grid(2)
    np.testing.assert_allclose(probability.sum((1, 2)), 1, atol=1e-9)


def test_samples_are_seeded_and_follow_the_distribution() -> None:
    distribution, poses = igso3("D2", 5.0)
    drawn = distribution.sample(3000, np.random.default_rng(7))
    np.testing.assert_array_equal(drawn, distribution.sample(3000, np.random.default_rng(7)))
    assert (drawn[:, :, 2, 2] >= -1e-9).all()  # in RELION's unit
    for row in range(2):
        angles = angular_error_degrees(np.broadcast_to(poses[row], (3000, 3, 3)), drawn[row], "D2")
        assert angles.mean() == pytest.approx(float(distribution.spread_degrees()[row]), rel=0.05)


def test_mean_of_a_skewed_distribution() -> None:
    """Squared chordal error asks for the projected mean matrix, not the mode."""
    poses = random_rotations(1, np.random.default_rng(9)) @ sample_igso3(
        3, 0.3, np.random.default_rng(10)
    )
    weights = np.array([0.5, 0.3, 0.2])
    distribution = PoseDistribution.from_poses(poses[None], np.log(weights)[None], 2.0)
    expected = nearest_rotation(np.einsum("k,kij->ij", weights, poses))
    assert geodesic_distance_degrees(distribution.mean()[0], expected) < 0.1


def test_shapes_of_rotations_are_checked(centres: np.ndarray) -> None:
    distribution = fisher(centres[:3], 5.0)
    assert distribution.log_prob(centres[:3]).shape == (3,)
    assert distribution.log_prob(centres[None, :5]).shape == (3, 5)
    with pytest.raises(ValueError, match=r"\(3, 3, 3\) or \(3, k, 3, 3\)"):
        distribution.log_prob(centres[:2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        distribution.credible_set(1.5)


def test_kernels_that_no_grid_resolves_are_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        PoseDistribution.from_poses(np.eye(3)[None, None], [[0.0]], 0.01)


def test_poses_and_weights_of_a_kernel_must_fit() -> None:
    with pytest.raises(
        ValueError, match=r"\(n, k, 3, 3\) and log-weights \(n, k\), not .* \(1, 2\)"
    ):
        PoseDistribution.from_poses(np.eye(3)[None, None], [[0.0, 0.0]], 5.0)
    with pytest.raises(ValueError, match="a pose of finite log-weight"):
        PoseDistribution.from_poses(np.eye(3)[None, None], [[-np.inf]], 5.0)


def test_levels_of_a_uniform_distribution_are_uniform() -> None:
    """Where no pose is more probable than another, the cells' own order decides."""
    level = PoseDistribution.from_coefficients(torch.zeros(1, 5, 9, 5, dtype=torch.complex64))
    found = level.credible_level(random_rotations(2000, np.random.default_rng(3))[None])[0]
    assert kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_density_in_one_thread(centres: np.ndarray, symmetry: str) -> None:
    distribution = fisher(centres[:1], 3.0, symmetry)
    alone = distribution.density_alone(2)
    np.testing.assert_allclose(
        alone / alone.sum(), distribution.probability_grid(2)[0], rtol=1e-3, atol=1e-9
    )
