"""Pose distributions of known shape: what is reported must be what was put in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.so3.distribution import PoseDistribution, PoseSummary
from napari_cryosphere.so3.gauss_legendre import gauss_legendre_grid
from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    random_rotations,
    rotation_from_relion_angles,
)
from napari_cryosphere.so3.symmetry import point_group

L_MAX = 6


def fisher(centres: np.ndarray, kappa: float, symmetry: str = "C1") -> PoseDistribution:
    """Matrix Fisher distributions, log p = kappa tr(C^T R) + const, or mixtures over a point group.

    Projected on the band limit; a single one is of degree 1, so that it is represented exactly.
    """
    grid = gauss_legendre_grid(L_MAX, dtype=torch.float64)
    n_angles, n_tilt = grid.rot_synthesis.shape[0], grid.tilt_synthesis.shape[1]
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
    # the mean angle of a uniform rotation is pi/2 + 2/pi; the share within 30 degrees (a - sin a) / pi
    np.testing.assert_allclose(summary.spread_degrees, np.degrees(np.pi / 2 + 2 / np.pi), rtol=1e-3)
    share = (np.pi / 6 - np.sin(np.pi / 6)) / np.pi
    np.testing.assert_allclose(summary.confidence, share, rtol=0.1)  # the grid counts whole cells


def test_mode_is_found_below_the_grid_spacing(centres: np.ndarray) -> None:
    summary = fisher(centres, kappa=20.0).summary()
    assert geodesic_distance_degrees(summary.rotations, centres).max() < 1e-3


@pytest.mark.parametrize("kappa", [5.0, 12.0, 20.0])
def test_entropy_spread_and_confidence_of_a_fisher_peak(centres: np.ndarray, kappa: float) -> None:
    """Against one-dimensional integrals over the angle w, whose density is (1 - cos w) exp(2 kappa cos w)."""
    w = (np.arange(200_000) + 0.5) * np.pi / 200_000
    haar = (1 - np.cos(w)) / np.pi * (np.pi / len(w))
    log_density = 2 * kappa * np.cos(w)
    density = np.exp(log_density - log_density.max())
    density /= (density * haar).sum()
    summary = fisher(centres, kappa).summary()
    np.testing.assert_allclose(summary.entropy, -(haar * density * np.log(density)).sum(), atol=0.03)
    np.testing.assert_allclose(summary.spread_degrees, np.degrees((haar * density * w).sum()), rtol=0.02)
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


def test_view_marginal_points_along_the_third_column(centres: np.ndarray) -> None:
    import healpy

    marginal = fisher(centres, 20.0).view_marginal()
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
