"""Poses drawn with preferred views, against the density that they are said to have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest

from napari_cryosphere.imaging.orientations import draw_rotations


@pytest.mark.parametrize("preference", [-200.0, -10.0, -1.0, 0.0, 3.0, 10.0, 200.0])
def test_views_have_the_stated_density(preference: float) -> None:
    axis = np.array([1.0, -2.0, 0.5])
    rotations = draw_rotations(20_000, np.random.default_rng(1), preference, axis)
    t = rotations[:, :, 2] @ axis / np.linalg.norm(axis)

    def weight(x: float) -> float:
        return float(np.exp(preference * x**2 - max(preference, 0)))

    whole = quad(weight, -1, 1, points=[0])[0]
    expected = quad(lambda x: x**2 * weight(x), -1, 1, points=[0])[0] / whole
    assert (t**2).mean() == pytest.approx(expected, abs=4 * (t**2).std() / np.sqrt(len(t)))
    assert t.mean() == pytest.approx(0, abs=4 * t.std() / np.sqrt(len(t)))  # both ends alike


def test_the_rest_of_the_pose_is_uniform() -> None:
    axis = np.array([0.0, 0.6, 0.8])
    rotations = draw_rotations(5000, np.random.default_rng(2), 10.0, axis)
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(1, 2), np.tile(np.eye(3), (5000, 1, 1)), atol=1e-12
    )
    assert np.linalg.det(rotations) == pytest.approx(1)
    across = np.cross(axis, [1.0, 0.0, 0.0])
    about_axis = np.arctan2(rotations[:, :, 2] @ across, rotations[:, 0, 2])
    in_plane = np.arctan2(rotations[:, :, 1] @ axis, rotations[:, :, 0] @ axis)
    for angle in (about_axis, in_plane):
        assert kstest(angle / (2 * np.pi) + 0.5, "uniform").pvalue > 1e-3


def test_share_of_views_near_the_axis() -> None:
    """The figures of the documentation."""
    near = np.cos(np.radians(30))
    for preference, share in ((0.0, 0.134), (3.0, 0.444), (10.0, 0.903)):
        rotations = draw_rotations(20_000, np.random.default_rng(3), preference)
        assert (np.abs(rotations[:, 2, 2]) >= near).mean() == pytest.approx(share, abs=0.015)


def test_a_share_of_the_views_is_preferred() -> None:
    rotations = draw_rotations(20_000, np.random.default_rng(4), 60.0, (0, 0, 1), share=0.8)
    # within 15 degrees are 98.4 % of those that are preferred, and 3.4 % of the others
    near = np.abs(rotations[:, 2, 2]) >= np.cos(np.radians(15))
    assert near.mean() == pytest.approx(0.8 * 0.984 + 0.2 * 0.034, abs=0.01)


@pytest.mark.parametrize(
    ("preference", "axis"),
    [(1.0, (0, 0, 0)), (1.0, (np.nan, 0, 1)), (1e4, (0, 0, 1)), (np.nan, (0, 0, 1))],
)
def test_no_direction_and_no_strength_are_refused(
    preference: float, axis: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="must be"):
        draw_rotations(3, np.random.default_rng(0), preference, axis)
