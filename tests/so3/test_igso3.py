"""The IGSO(3) density against its series, its normalisation and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import maxwell

from napari_cryosphere.so3.igso3 import igso3_angle_cdf, igso3_log_density, sample_igso3
from napari_cryosphere.so3.rotations import vector_from_rotation

WIDTHS = [0.02, 0.1, 0.3, 0.59, 0.61, 1.0, 3.0]


@pytest.mark.parametrize("sigma", WIDTHS)
def test_it_is_normalised(sigma: float) -> None:
    w = (np.arange(400_000) + 0.5) * np.pi / 400_000
    haar = (1 - np.cos(w)) / 400_000
    assert (np.exp(igso3_log_density(w, sigma)) * haar).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.59])
def test_the_narrow_formula_equals_the_series(sigma: float) -> None:
    w, degree = np.linspace(0.01, 2.0, 40), np.arange(150)
    terms = (2 * degree + 1) * np.exp(-degree * (degree + 1) * sigma**2 / 2)
    series = np.sin((degree + 0.5) * w[:, None]) @ terms / np.sin(w / 2)
    reliable = series > 1e-8
    np.testing.assert_allclose(
        np.exp(igso3_log_density(w, sigma))[reliable], series[reliable], rtol=1e-5
    )


def test_narrow_is_a_normal_in_three_dimensions() -> None:
    sigma = 0.02
    vectors = vector_from_rotation(sample_igso3(20_000, sigma, np.random.default_rng(1)))
    np.testing.assert_allclose(np.cov(vectors.T) / sigma**2, np.eye(3), atol=0.04)


def test_wide_is_uniform() -> None:
    np.testing.assert_allclose(igso3_log_density(np.linspace(0, np.pi, 9), 5.0), 0, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.1, 0.8])
def test_samples_follow_the_density(sigma: float) -> None:
    angle, cumulative = igso3_angle_cdf(sigma)
    drawn = np.linalg.norm(
        vector_from_rotation(sample_igso3(5000, sigma, np.random.default_rng(2))), axis=1
    )
    empirical = np.searchsorted(np.sort(drawn), angle) / 5000
    assert np.abs(empirical - cumulative).max() < 1.63 / np.sqrt(
        5000
    )  # Kolmogorov-Smirnov, 1 per cent


@pytest.mark.parametrize("sigma", [1e-3, 0.01])
def test_angles_of_a_narrow_kernel_are_maxwells(sigma: float) -> None:
    """Far below a radian it is a normal in three dimensions; the table does not reach far beyond
    it.
    """
    angle, cumulative = igso3_angle_cdf(sigma)
    np.testing.assert_allclose(cumulative, maxwell.cdf(angle / sigma), atol=2e-5)
    assert np.count_nonzero(angle < 4 * sigma) > len(angle) / 3


def test_width_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        igso3_log_density(0.1, 0.0)
