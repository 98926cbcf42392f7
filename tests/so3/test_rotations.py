"""Rotations against scipy, point groups against RELION's operators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import SymmetryError
from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    random_rotations,
    relion_angles_from_rotation,
    rotation_from_relion_angles,
)
from napari_cryosphere.so3.symmetry import angular_error_degrees, normalise_group_name, point_group

STORED = json.loads((Path(__file__).parents[1] / "data" / "relion" / "symmetry_operators.json").read_text())


def test_relion_matrix_written_out() -> None:
    """The inverse of RELION's own matrix, spelled out as its documentation gives it."""
    rot, tilt, psi = np.radians([33.0, 71.0, -125.0])
    cr, sr, ct, st, cp, sp = np.cos(rot), np.sin(rot), np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
    relion = np.array(
        [
            [cp * ct * cr - sp * sr, cp * ct * sr + sp * cr, -cp * st],
            [-sp * ct * cr - cp * sr, -sp * ct * sr + cp * cr, sp * st],
            [st * cr, st * sr, ct],
        ]
    )
    np.testing.assert_allclose(rotation_from_relion_angles([33.0, 71.0, -125.0]), relion.T, atol=1e-12)


def test_angles_and_back() -> None:
    rotations = random_rotations(500, np.random.default_rng(0))
    angles = relion_angles_from_rotation(rotations)
    assert angles[:, 1].min() >= 0
    assert angles[:, 1].max() <= 180
    np.testing.assert_allclose(rotation_from_relion_angles(angles), rotations, atol=1e-10)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_angles_on_the_poles(tilt: float) -> None:
    rotation = rotation_from_relion_angles([40.0, tilt, 25.0])
    angles = relion_angles_from_rotation(rotation)
    assert angles[0] == 0
    np.testing.assert_allclose(rotation_from_relion_angles(angles), rotation, atol=1e-10)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 1.0, 90.0, 179.0, 180.0])
def test_distance_is_the_angle_of_the_rotation_between(angle: float) -> None:
    first = random_rotations(1, np.random.default_rng(1))[0]
    axis = np.array([0.6, 0.0, 0.8])
    second = first @ Rotation.from_rotvec(np.radians(angle) * axis).as_matrix()
    # matrices of float64 determine an angle near 180 degrees only to about 1e-6
    assert geodesic_distance_degrees(first, second) == pytest.approx(angle, abs=2e-6 if angle > 170 else 1e-9)


@pytest.mark.parametrize("name", sorted(STORED))
def test_operators_equal_relion(name: str) -> None:
    relion, ours = np.array(STORED[name]), point_group(name)
    assert len(ours) == len(relion)
    nearest = np.abs(relion[:, None] - ours[None]).max((-1, -2)).min(1)
    assert nearest.max() < 1e-5  # RELION prints and accumulates six digits


@pytest.mark.parametrize("name", ["C1", "C5", "D2", "D7", "T", "O", "I1", "I3"])
def test_group_closes(name: str) -> None:
    group = point_group(name)
    products = (group[:, None] @ group[None]).reshape(-1, 3, 3)
    assert np.abs(products[:, None] - group[None]).max((-1, -2)).min(1).max() < 1e-7
    np.testing.assert_allclose(group[0], np.eye(3), atol=1e-9)


@pytest.mark.parametrize(
    "name", ["", "C0", "D", "Q7", "T5", "I9", "C1.5", "C1000", "c4;rm", "Ｃ４", "C4 D2", "C-3"]
)
def test_wrong_names_list_the_valid_ones(name: str) -> None:
    with pytest.raises(SymmetryError, match=r"C1, C2.*I4"):
        point_group(name)


def test_names_are_canonical() -> None:
    assert normalise_group_name("d7") == "D7"
    assert normalise_group_name("i") == "I2"


def test_error_ignores_symmetry_mates_and_only_those() -> None:
    rng = np.random.default_rng(2)
    truth = random_rotations(50, rng)
    group = point_group("D3")
    mates = group[rng.integers(len(group), size=50)] @ truth
    assert angular_error_degrees(truth, mates, "D3").max() < 1e-5
    assert np.median(angular_error_degrees(truth, mates, "C1")) > 30
    wrong_side = truth @ group[1]
    assert np.median(angular_error_degrees(truth, wrong_side, "D3")) > 10
