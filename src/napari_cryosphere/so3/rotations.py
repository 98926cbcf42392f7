"""Rotations: the only place where Euler angles, quaternions and rotation vectors become matrices and back.

The package's pose is a matrix ``R`` that takes image coordinates to map coordinates, ``r_map = R
r_img`` (column vectors in x, y, z order). RELION writes the same pose as three angles, intrinsic
ZYZ:

    R = Rz(rot) Ry(tilt) Rz(psi)

which is the transpose of the matrix that RELION uses inside. The third column of ``R`` is the view
direction in the map frame, ``(sin tilt cos rot, sin tilt sin rot, cos tilt)``. A symmetry operator
``g`` of the map multiplies from the left: ``g R`` and ``R`` give the same image.

e3nn's polar axis is y, ours the optical axis z: its matrices live in a frame whose axes (x, y, z)
are our (y, z, x), so that in either frame the same three angles give the same rotation.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

__all__ = [
    "are_rotations",
    "geodesic_distance_degrees",
    "nearest_rotation",
    "quaternion_from_rotation",
    "random_rotations",
    "relion_angles_from_rotation",
    "rotation_from_quaternion",
    "rotation_from_relion_angles",
    "rotation_from_vector",
    "to_e3nn_frame",
    "vector_from_rotation",
    "zyz_angles",
]

Array = NDArray[np.float64]
AnyArray = TypeVar("AnyArray", bound=Any)

_ORTHOGONAL = 1e-3  # largest error of R R^T; rotations from single precision have 1e-6
_TO_E3NN = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # (x, y, z) to (y, z, x)


def rotation_from_relion_angles(angles_degrees: ArrayLike) -> Array:
    """Turn RELION's (rot, tilt, psi) into rotation matrices.

    ``angles_degrees``, ``(..., 3)``: rlnAngleRot, rlnAngleTilt, rlnAnglePsi in degrees. Returns
    ``(..., 3, 3)`` float64; each matrix takes image coordinates (x, y, z) to map coordinates.
    """
    angles = np.radians(np.asarray(angles_degrees, dtype=np.float64))
    cr, ct, cp = np.moveaxis(np.cos(angles), -1, 0)
    sr, st, sp = np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [cr * ct * cp - sr * sp, -cr * ct * sp - sr * cp, cr * st],
        [sr * ct * cp + cr * sp, -sr * ct * sp + cr * cp, sr * st],
        [-st * cp, st * sp, ct],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def relion_angles_from_rotation(rotations: ArrayLike) -> Array:
    """Turn rotation matrices into RELION's (rot, tilt, psi).

    Where tilt is 0 or 180 degrees only one combination of rot and psi is determined; rot is 0
    there.

    ``rotations``: ``(..., 3, 3)``; image to map coordinates. Returns ``(..., 3)`` float64 degrees:
    rot and psi in [-180, 180], tilt in [0, 180].
    """
    matrices = np.asarray(rotations, dtype=np.float64)
    return np.degrees(np.stack(zyz_angles(matrices), axis=-1))


def zyz_angles(rotations: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return rot, tilt and psi of rotation matrices in radians.

    ``rotations``: ``(..., 3, 3)``, a numpy array or a torch tensor. Returns three ``(...)`` of the
    same kind and precision: rot and psi in [-pi, pi], tilt in [0, pi]. On the poles, where only one
    combination of rot and psi is determined, rot is 0.
    """
    xp: Any = np if isinstance(rotations, np.ndarray) else sys.modules["torch"]
    # R[:, 2] is the view direction; R[2, :] = (-sin tilt cos psi, sin tilt sin psi, cos tilt).
    x, y, z = rotations[..., 0, 2], rotations[..., 1, 2], rotations[..., 2, 2]
    sine = xp.hypot(x, y)
    polar = sine < 4 * float(xp.finfo(rotations.dtype).eps)
    sign = xp.sign(z)
    rot = xp.where(polar, xp.zeros_like(x), xp.arctan2(y, x))
    # With rot = 0 and tilt = 0 or 180 degrees: R[0, 0] = +-cos psi, R[0, 1] = -+sin psi.
    psi = xp.where(
        polar,
        xp.arctan2(-sign * rotations[..., 0, 1], sign * rotations[..., 0, 0]),
        xp.arctan2(rotations[..., 2, 1], -rotations[..., 2, 0]),
    )
    return rot, xp.arctan2(sine, z), psi


def rotation_from_quaternion(quaternions: ArrayLike) -> Array:
    """Turn quaternions ``(..., 4)`` in the order (w, x, y, z), of any length but 0, into matrices."""
    given = np.asarray(quaternions, dtype=np.float64)
    matrices = _scipy().from_quat(given.reshape(-1, 4)[:, [1, 2, 3, 0]]).as_matrix()
    return np.asarray(matrices).reshape(*given.shape[:-1], 3, 3)


def quaternion_from_rotation(rotations: ArrayLike) -> Array:
    """Turn matrices ``(..., 3, 3)`` into unit quaternions ``(..., 4)``: (w, x, y, z) with w >= 0."""
    matrices = np.asarray(rotations, dtype=np.float64)
    found = _scipy().from_matrix(matrices.reshape(-1, 3, 3)).as_quat(canonical=True)
    return np.asarray(found[:, [3, 0, 1, 2]]).reshape(*matrices.shape[:-2], 4)


def rotation_from_vector(vectors: ArrayLike) -> Array:
    """Turn rotation vectors ``(..., 3)`` (axis times angle in radians) into matrices (Rodrigues' formula)."""
    given = np.asarray(vectors, dtype=np.float64)
    angles = np.linalg.norm(given, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(given, -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(
        *given.shape[:-1], 3, 3
    )
    half = np.sinc(angles / (2 * np.pi))
    matrices: Array = np.eye(3) + np.sinc(angles / np.pi) * skew + 0.5 * half**2 * (skew @ skew)
    return matrices


def vector_from_rotation(rotations: ArrayLike) -> Array:
    """Turn matrices ``(..., 3, 3)`` into rotation vectors ``(..., 3)``, of at most pi radians."""
    matrices = np.asarray(rotations, dtype=np.float64)
    found = _scipy().from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec()
    return np.asarray(found).reshape(*matrices.shape[:-2], 3)


def to_e3nn_frame(rotations: ArrayLike) -> Array:
    """Return the same rotations ``(..., 3, 3)`` as e3nn writes them, whose polar axis is y."""
    return _TO_E3NN @ np.asarray(rotations, dtype=np.float64) @ _TO_E3NN.T


def are_rotations(matrices: Array) -> NDArray[np.bool_]:
    """Return which matrices are rotations, ``(..., 3, 3)`` to ``(...)``; rounding is allowed for."""
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(matrices @ matrices.swapaxes(-1, -2) - np.eye(3)) < _ORTHOGONAL
        return np.asarray(error.all((-1, -2)) & (np.linalg.det(matrices) > 0))


def nearest_rotation(matrices: ArrayLike) -> Array:
    """Return the rotation nearest to each 3 x 3 matrix in the Frobenius norm, ``(..., 3, 3)``.

    By singular values, with the sign of the smallest turned where the determinant asks for it
    (Kabsch 1976).
    """
    u, _, vt = np.linalg.svd(np.asarray(matrices, dtype=np.float64))
    u[..., :, 2] *= np.linalg.det(u @ vt)[..., None]
    return np.asarray(u @ vt)


def geodesic_distance_degrees(first: ArrayLike, second: ArrayLike) -> Any:
    """Return the angle of the rotation that takes ``first`` to ``second``.

    ``first``, ``second``: ``(..., 3, 3)``, broadcast against each other. Returns ``(...)`` float64,
    degrees in [0, 180].

    From the Frobenius norm, ``|A - B|_F = 2 sqrt(2) sin(angle / 2)``: unlike the trace's arc cosine
    it keeps its digits at small angles.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    chord = np.sqrt(((a - b) ** 2).sum((-2, -1)) / 8)
    return np.degrees(2 * np.arcsin(np.clip(chord, 0, 1)))


def random_rotations(number: int, rng: np.random.Generator) -> Array:
    """Draw rotations uniformly (Haar measure). Returns ``(number, 3, 3)`` float64."""
    return np.asarray(_scipy().random(number, random_state=rng).as_matrix(), dtype=np.float64)


def _scipy() -> type[Rotation]:
    """Return scipy's rotations, whose import costs half a second that many a command need not spend."""
    from scipy.spatial.transform import Rotation

    return Rotation
