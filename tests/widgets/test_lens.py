"""The lens and the verdict against distributions whose answers are known by formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.rotations import (
    relion_angles_from_rotation,
    rotation_from_relion_angles,
    rotation_from_vector,
)
from napari_cryosphere.widgets.state.lens import HALF_DEGREES, LENS_PIXELS, lens_place, look_through
from napari_cryosphere.widgets.state.reading import read_distribution
from napari_cryosphere.widgets.state.sphere_density import contour_density
from napari_cryosphere.widgets.state.verdict import Candidate, agreement, give_verdict

POSE = rotation_from_relion_angles(np.array([30.0, 50.0, 70.0]))


def peak(pose: np.ndarray, sigma_degrees: float, symmetry: str = "C1") -> PoseDistribution:
    return PoseDistribution.from_poses(pose[None, None], np.zeros((1, 1)), sigma_degrees, symmetry)


@pytest.mark.parametrize("sigma", [1.0, 2.5])
@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_contours_are_those_of_a_normal_peak(sigma: float, symmetry: str) -> None:
    """The views are normal in two directions: level q is within sigma sqrt(-2 ln(1 - q))."""
    lens = look_through(peak(POSE, sigma, symmetry), POSE)
    assert lens.share == pytest.approx(1, abs=0.01)
    side = 4 * np.sin(np.radians(HALF_DEGREES) / 2) / LENS_PIXELS
    for level in (0.5, 0.95):
        inside = lens.density > contour_density(lens.density, level)
        radius = np.degrees(np.sqrt(inside.sum() * side**2 / np.pi))
        assert radius == pytest.approx(sigma * np.sqrt(-2 * np.log(1 - level)), rel=0.07)
    assert lens.twist_sigma_degrees == pytest.approx(sigma, rel=0.06)
    rows, columns = np.indices(lens.density.shape)
    for places in (rows, columns):
        middle = (places * lens.density).sum() / lens.density.sum()
        assert middle == pytest.approx((LENS_PIXELS - 1) / 2, abs=2)


def test_the_density_is_over_the_uniform_one() -> None:
    """At the peak of a normal distribution of views it is 2 / sigma^2, sigma in radians."""
    lens = look_through(peak(POSE, 4.0), POSE)
    assert lens.density.max() == pytest.approx(2 / np.radians(4) ** 2, rel=0.12)


def test_z_is_up_rot_grows_to_the_left_and_psi_turns() -> None:
    moved = rotation_from_relion_angles(np.array([30.0, 46.0, 70.0]))
    right, up = np.degrees(lens_place(moved[:, 2], POSE))
    assert (right, up) == pytest.approx((0, 4), abs=0.02)
    moved = rotation_from_relion_angles(np.array([34.0, 50.0, 70.0]))
    right, up = np.degrees(lens_place(moved[:, 2], POSE))
    assert right == pytest.approx(-4 * np.sin(np.radians(50)), abs=0.05)
    turned = rotation_from_relion_angles(np.array([30.0, 50.0, 100.0]))
    lens = look_through(peak(turned, 2.0), POSE)
    assert int(lens.twist.argmax()) == pytest.approx(30, abs=1)
    lens = look_through(peak(POSE, 2.0), POSE @ rotation_from_vector(np.array([0, np.pi, 0])))
    assert lens.share == pytest.approx(0, abs=1e-9)
    assert not lens.twist.any()


def test_a_lens_at_a_pole_is_whole() -> None:
    assert look_through(peak(np.eye(3), 2.0), np.eye(3)).share == pytest.approx(1, abs=0.01)


# ---------------------------------------------------------------------- words


def test_words_for_distributions() -> None:
    sure = read_distribution(peak(POSE, 2.0))
    assert sure.verdict.words == "sure"
    assert len(sure.candidates) == 1
    assert sure.candidates[0].probability == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(sure.best, relion_angles_from_rotation(POSE), atol=0.2)

    behind = POSE @ rotation_from_vector(np.array([0, np.radians(155), 0]))
    both = PoseDistribution.from_poses(np.stack([POSE, behind])[None], np.log([[0.6, 0.4]]), 3.0)
    reading = read_distribution(both)
    assert reading.verdict.words == "two candidates, 155° apart"
    shares = [candidate.probability for candidate in reading.candidates]
    # within 10 degrees of a normal peak of 3: chi with three degrees of freedom, 0.9890
    assert shares == pytest.approx([0.6 * 0.989, 0.4 * 0.989], abs=0.02)

    uniform = PoseDistribution.from_log_values(np.zeros((1, 48, 12)))
    assert read_distribution(uniform).verdict.words == "unknown"
    assert read_distribution(uniform).credible_share == pytest.approx(0.95, abs=0.01)


def candidate(probability: float, apart: float) -> Candidate:
    return Candidate(np.eye(3), (0.0, 0.0, 0.0), probability / 2, probability, apart)


@pytest.mark.parametrize(
    ("shares", "confidence", "spread", "entropy", "words"),
    [
        ([(0.3, 0), (0.3, 170), (0.3, 60)], 0.33, 80, -7, "three candidates, up to 170° apart"),
        ([(0.5, 0), (0.3, 15)], 0.8, 20, -6, "likely"),  # one wide peak
        ([(0.6, 0), (0.05, 170)], 0.75, 40, -6, "likely"),
        ([(0.05, 0)], 0.3, 60, -4, "unsure"),
        ([(0.01, 0)], 0.05, 120, -0.5, "unknown"),
    ],
)
def test_words(
    shares: list[tuple[float, float]],
    confidence: float,
    spread: float,
    entropy: float,
    words: str,
) -> None:
    given = [candidate(*share) for share in shares]
    assert give_verdict(given, confidence, spread, entropy).words == words


def test_network_and_map() -> None:
    assert agreement(3.6) == "network and map agree within 4°"
    assert agreement(0.2) == "network and map agree within 1°"
    assert agreement(17) == "network and map differ by 17°"
    assert agreement(155.2) == "network and map disagree: 155° apart"


# ---------------------------------------------------------------------- the picture


def test_the_picture_of_a_lens(qapp: Any) -> None:
    from napari_cryosphere.widgets.docks.main.lens_layer import paint_lens
    from napari_cryosphere.widgets.docks.sphere.view import Mark

    lens = look_through(peak(POSE, 2.0), POSE)
    plain = paint_lens(lens, None, []).astype(int)
    middle = plain[225:240, 215:230, :3]
    assert (middle.max(-1) > 150).all()
    known = Mark(POSE[:, 2], "cross", (255, 226, 122))
    marked = paint_lens(lens, lens, [known]).astype(int)
    changed = (np.abs(marked - plain).max(-1) > 60).sum()
    assert 100 < changed < 5000
    np.testing.assert_array_equal(marked[225:240, 215:230], plain[225:240, 215:230])
