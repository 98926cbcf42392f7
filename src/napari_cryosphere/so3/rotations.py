"""Rotations: the only place where RELION's Euler angles become matrices and back.

The package's pose is a matrix ``R`` that takes image coordinates to map coordinates, ``r_map = R r_img``
(column vectors in x, y, z order). RELION writes the same pose as three angles, intrinsic ZYZ:

    R = Rz(rot) Ry(tilt) Rz(psi)

which is the transpose of the matrix that RELION uses inside. The third column of ``R`` is the view
direction in the map frame, ``(sin tilt cos rot, sin tilt sin rot, cos tilt)``. A symmetry operator ``g``
of the map multiplies from the left: ``g R`` and ``R`` give the same image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

__all__ = [
    "geodesic_distance_degrees",
    "random_rotations",
    "relion_angles_from_rotation",
    "rotation_from_relion_angles",
]

Array = NDArray[np.float64]


def rotation_from_relion_angles(angles_degrees: ArrayLike) -> Array:
    """Turn RELION's (rot, tilt, psi) into rotation matrices.

    Parameters
    ----------
    angles_degrees
        ``(..., 3)``: rlnAngleRot, rlnAngleTilt, rlnAnglePsi in degrees.

    Returns
    -------
    ``(..., 3, 3)`` float64; each matrix takes image coordinates (x, y, z) to map coordinates.
    """
    angles = np.asarray(angles_degrees, dtype=np.float64)
    matrices = Rotation.from_euler("ZYZ", angles.reshape(-1, 3), degrees=True).as_matrix()
    return matrices.reshape(*angles.shape[:-1], 3, 3)


def relion_angles_from_rotation(rotations: ArrayLike) -> Array:
    """Turn rotation matrices into RELION's (rot, tilt, psi).

    Where tilt is 0 or 180 degrees only one combination of rot and psi is determined; rot is 0 there.

    Parameters
    ----------
    rotations
        ``(..., 3, 3)``; image to map coordinates.

    Returns
    -------
    ``(..., 3)`` float64 degrees: rot and psi in [-180, 180], tilt in [0, 180].
    """
    matrices = np.asarray(rotations, dtype=np.float64)
    flat = matrices.reshape(-1, 3, 3)
    # R[:, 2] is the view direction; R[2, :] = (-sin tilt cos psi, sin tilt sin psi, cos tilt).
    sine = np.hypot(flat[:, 0, 2], flat[:, 1, 2])
    tilt = np.arctan2(sine, flat[:, 2, 2])
    rot = np.arctan2(flat[:, 1, 2], flat[:, 0, 2])
    psi = np.arctan2(flat[:, 2, 1], -flat[:, 2, 0])
    polar = sine < 1e-9
    sign = np.sign(flat[:, 2, 2])
    rot = np.where(polar, 0.0, rot)
    # With rot = 0 and tilt = 0 or 180 degrees: R[0, 0] = +-cos psi, R[0, 1] = -+sin psi.
    psi = np.where(polar, np.arctan2(-sign * flat[:, 0, 1], sign * flat[:, 0, 0]), psi)
    return np.degrees(np.stack([rot, tilt, psi], axis=-1)).reshape(*matrices.shape[:-2], 3)


def geodesic_distance_degrees(first: ArrayLike, second: ArrayLike) -> Any:
    """Return the angle of the rotation that takes ``first`` to ``second``.

    Parameters
    ----------
    first, second
        ``(..., 3, 3)``, broadcast against each other.

    Returns
    -------
    ``(...)`` float64, degrees in [0, 180].

    Notes
    -----
    From the Frobenius norm, ``|A - B|_F = 2 sqrt(2) sin(angle / 2)``: unlike the trace's arc cosine it
    keeps its digits at small angles.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    chord = np.sqrt(((a - b) ** 2).sum((-2, -1)) / 8)
    return np.degrees(2 * np.arcsin(np.clip(chord, 0, 1)))


def random_rotations(number: int, rng: np.random.Generator) -> Array:
    """Draw rotations uniformly (Haar measure). Returns ``(number, 3, 3)`` float64."""
    return np.asarray(Rotation.random(number, random_state=rng).as_matrix(), dtype=np.float64)
