"""Point groups in RELION's axes, and distances that know them."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.errors import SymmetryError
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, rotation_from_relion_angles

__all__ = ["VALID_GROUPS", "angular_error_degrees", "normalise_group_name", "point_group"]

VALID_GROUPS = "C1, C2, ... C99, D1, ... D99, T, O, I, I1, I2, I3, I4"
_NAME = re.compile(r"(?:([CD])([1-9][0-9]?)|(T|O|I[1-4]?))", flags=re.ASCII)

# scipy's O and I use RELION's axes (its I is RELION's I1); the others are turned versions, by
# ZYZ angles
_GOLDEN_DEGREES = np.degrees(np.arctan((1 + np.sqrt(5)) / 2))  # 58.28
_CONJUGATIONS = {
    "T": (90.0, np.degrees(np.arctan(np.sqrt(2))), 135.0),
    "I2": (90.0, 0.0, 0.0),
    "I3": (0.0, _GOLDEN_DEGREES, 0.0),
    "I4": (0.0, -_GOLDEN_DEGREES, 0.0),
}


def normalise_group_name(name: str) -> str:
    """Return the canonical upper-case name of a point group, with ``I`` spelled out as ``I2``.

    Raises `SymmetryError` if there is no such group; the message lists the valid ones.
    """
    match = _NAME.fullmatch(name.upper()) if name.isascii() else None
    if match is None:
        raise SymmetryError(f"unknown point group {name!r}; valid are {VALID_GROUPS}")
    return "I2" if match.group(0) == "I" else match.group(0)


@lru_cache(maxsize=64)
def point_group(name: str) -> NDArray[np.float64]:
    """Return the rotation matrices of a point group.

    ``name``: RELION's name: n-fold axes along z, D-n's two-fold along x, ``I`` is ``I2``. Upper or
    lower case. Returns ``(order, 3, 3)`` float64, read-only; the identity comes first. An operator
    ``g`` acts on the map, so ``g R`` and ``R`` are the same view.
    """
    canonical = normalise_group_name(name)
    if canonical[0] in "CD":
        group = _about_z(int(canonical[1:]))
        if canonical[0] == "D":
            group = np.concatenate([group, group * (1.0, -1.0, -1.0)])  # after half a turn about x
    else:
        group = _polyhedral(canonical)
    traces = np.round(group.trace(axis1=1, axis2=2), 9)
    matrices: NDArray[np.float64] = group[np.argsort(-traces, kind="stable")]
    matrices.setflags(write=False)
    return matrices


def _about_z(n: int) -> NDArray[np.float64]:
    """Return the n rotations of C_n."""
    angles = np.zeros((n, 3))
    angles[:, 0] = np.arange(n) * (360 / n)
    return rotation_from_relion_angles(angles)


def _polyhedral(name: str) -> NDArray[np.float64]:
    """Return the rotations of T, O or I1 to I4."""
    from scipy.spatial.transform import Rotation

    group = np.asarray(Rotation.create_group(name[0]).as_matrix(), dtype=np.float64)
    if name not in _CONJUGATIONS:
        return group
    turn = rotation_from_relion_angles(_CONJUGATIONS[name])
    return turn @ group @ turn.T


def angular_error_degrees(
    truth: ArrayLike, predicted: ArrayLike, symmetry: str = "C1"
) -> NDArray[np.float64]:
    """Return the angle between poses, modulo the map's symmetry.

    ``min over g of angle(g truth, predicted)``, the angular error of the CESPED paper (section
    2.3).

    ``truth``, ``predicted``: ``(n, 3, 3)``; image to map coordinates. ``symmetry``: point group of
    the map. Returns ``(n,)`` float64 degrees.
    """
    poses, found = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    best = np.full(len(poses), -np.inf)
    nearest = poses.copy()
    for operator in point_group(symmetry):  # one at a time: memory stays that of the poses
        image = operator @ poses
        trace = np.einsum("nij,nij->n", image, found)
        nearest = np.where((trace > best)[:, None, None], image, nearest)
        best = np.maximum(best, trace)
    distances: NDArray[np.float64] = geodesic_distance_degrees(nearest, found)
    return distances
