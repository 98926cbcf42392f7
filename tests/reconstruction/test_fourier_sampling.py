"""The evenness of views against formulas."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cryosphere.reconstruction.fourier_sampling import fourier_sampling
from napari_cryosphere.so3.healpix import pix2vec
from napari_cryosphere.so3.symmetry import point_group

ORDER = 4
N_SIDE, N_VIEWS = 2**ORDER, 12 * 4**ORDER


@pytest.fixture(scope="module")
def directions() -> np.ndarray:
    return pix2vec(N_SIDE, np.arange(N_VIEWS))


def test_even_views_are_even() -> None:
    sampled = fourier_sampling(np.full(N_VIEWS, 3.0))
    np.testing.assert_allclose(sampled.sampling, 1)
    assert sampled.compensation_factor == pytest.approx(1)
    assert sampled.weak_fraction == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_belt_of_side_views(directions: np.ndarray, dtype: type) -> None:
    """By formula: of the circle around a direction at tilt t, z = sin t cos u, a part lies in the
    belt.
    """
    sine = np.sin(np.radians(10))
    sampled = fourier_sampling((np.abs(directions[:, 2]) < sine).astype(dtype))
    tilt = np.radians(np.linspace(0, 180, 20_001)[1:-1])
    expected = (1 - 2 / np.pi * np.arccos(np.minimum(1, sine / np.sin(tilt)))) / sine
    harmonic = np.trapezoid(np.sin(tilt) / 2 / expected, tilt)
    assert sampled.compensation_factor == pytest.approx(1 / harmonic, abs=0.02)
    # an infinitely narrow belt
    assert sampled.compensation_factor == pytest.approx(8 / np.pi**2, abs=0.03)


def test_sampling_of_an_axial_density_follows_the_funk_transform(directions: np.ndarray) -> None:
    """1 + a P2(d.z) becomes 1 - a / 2 P2(q.z): P2(0) is -1/2."""
    p2 = (3 * directions[:, 2] ** 2 - 1) / 2
    sampled = fourier_sampling(1 + 0.8 * p2)
    np.testing.assert_allclose(sampled.sampling, 1 - 0.4 * p2, atol=0.02)


def test_views_from_above_leave_a_cone_unseen(directions: np.ndarray) -> None:
    """Views within 20 degrees of z never see Fourier directions within 70 degrees of z."""
    sampled = fourier_sampling(directions[:, 2] > np.cos(np.radians(20)))
    assert sampled.compensation_factor == 0
    # a circle's width, and a pixel's
    least, most = (1 - np.cos(np.radians(70 - width)) for width in (6, 0))
    assert least < np.mean(sampled.sampling == 0) < most
    assert least < sampled.weak_fraction < most


def test_opposite_views_count_alike(directions: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    there = np.exp(4 * (directions @ axis))
    back = np.exp(-4 * (directions @ axis))
    np.testing.assert_allclose(
        fourier_sampling(there).sampling, fourier_sampling(back).sampling, atol=0.06, rtol=0.06
    )


def test_symmetry_evens_views_out(directions: np.ndarray) -> None:
    axis = np.array([0.3, 0.5, 0.81])
    one = np.exp(8 * (directions @ axis - 1))
    all_of_them = sum(np.exp(8 * (directions @ (g @ axis) - 1)) for g in point_group("O"))
    factors = [fourier_sampling(views).compensation_factor for views in (one, all_of_them)]
    assert factors[0] < 0.7 < 0.95 < factors[1]


@pytest.mark.parametrize(
    "views", [np.ones(13), np.ones((2, 12)), np.zeros(12), -np.ones(12), np.full(12, np.nan)]
)
def test_what_is_no_map_of_views_is_refused(views: np.ndarray) -> None:
    with pytest.raises(ValueError, match="views"):
        fourier_sampling(views)
