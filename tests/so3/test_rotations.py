"""Rotations against scipy, RELION's written-out matrix and e3nn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    nearest_rotation,
    quaternion_from_rotation,
    random_rotations,
    relion_angles_from_rotation,
    rotation_from_quaternion,
    rotation_from_relion_angles,
    rotation_from_vector,
    to_e3nn_frame,
    vector_from_rotation,
    zyz_angles,
)


def test_relion_matrix_written_out() -> None:
    """The inverse of RELION's own matrix, spelled out as its documentation gives it."""
    rot, tilt, psi = np.radians([33.0, 71.0, -125.0])
    cr, sr, ct, st, cp, sp = (
        np.cos(rot),
        np.sin(rot),
        np.cos(tilt),
        np.sin(tilt),
        np.cos(psi),
        np.sin(psi),
    )
    relion = np.array(
        [
            [cp * ct * cr - sp * sr, cp * ct * sr + sp * cr, -cp * st],
            [-sp * ct * cr - cp * sr, -sp * ct * sr + cp * cr, sp * st],
            [st * cr, st * sr, ct],
        ]
    )
    np.testing.assert_allclose(
        rotation_from_relion_angles([33.0, 71.0, -125.0]), relion.T, atol=1e-12
    )


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
    assert geodesic_distance_degrees(first, second) == pytest.approx(
        angle, abs=2e-6 if angle > 170 else 1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_function_for_the_angles_of_arrays_and_tensors(dtype: torch.dtype) -> None:
    rotations = np.concatenate(
        [
            random_rotations(100, np.random.default_rng(3)),
            rotation_from_relion_angles([[7, 0, 9], [7, 180, 9]]),
        ]
    )
    expected = zyz_angles(rotations)
    found = zyz_angles(torch.from_numpy(rotations).to(dtype))
    for ours, tensor in zip(expected, found, strict=True):
        assert tensor.dtype == dtype
        np.testing.assert_allclose(
            tensor.numpy(), ours, atol=1e-9 if dtype == torch.float64 else 2e-5
        )


def test_quaternions_and_vectors_equal_scipy() -> None:
    rotations = random_rotations(50, np.random.default_rng(4)).reshape(5, 10, 3, 3)
    quaternions = quaternion_from_rotation(rotations)
    theirs = Rotation.from_matrix(rotations.reshape(-1, 3, 3))
    np.testing.assert_allclose(
        np.abs(
            (quaternions[..., 1:].reshape(-1, 3) * theirs.as_quat()[:, :3]).sum(1)
            + quaternions[..., 0].ravel() * theirs.as_quat()[:, 3]
        ),
        1,
        atol=1e-12,
    )
    assert quaternions[..., 0].min() >= 0
    np.testing.assert_allclose(rotation_from_quaternion(-3 * quaternions), rotations, atol=1e-12)
    np.testing.assert_allclose(
        rotation_from_vector(vector_from_rotation(rotations)), rotations, atol=1e-12
    )


def test_the_e3nn_frame_has_the_same_angles() -> None:
    """e3nn writes ``Ry(a) Rx(b) Ry(c)``; its polar axis y is our z."""
    from e3nn import o3

    angles = np.array([0.3, 1.1, -2.0])
    theirs = o3.angles_to_matrix(*torch.from_numpy(angles)).numpy()
    ours = rotation_from_relion_angles(np.degrees(angles))
    np.testing.assert_allclose(to_e3nn_frame(ours), theirs, atol=1e-12)


def test_nearest_rotation_of_a_reflection_is_proper() -> None:
    rotations = random_rotations(20, np.random.default_rng(5))
    np.testing.assert_allclose(nearest_rotation(3 * rotations), rotations, atol=1e-12)
    projected = nearest_rotation(np.diag([1.0, 0.9, -0.1]) @ rotations)
    np.testing.assert_allclose(np.linalg.det(projected), 1, atol=1e-12)
