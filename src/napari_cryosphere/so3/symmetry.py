"""Point groups in RELION's axes, and distances that know them."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import SymmetryError
from napari_cryosphere.so3.rotations import geodesic_distance_degrees

__all__ = ["VALID_GROUPS", "angular_error_degrees", "normalise_group_name", "point_group"]

VALID_GROUPS = "C1, C2, ... C99, D1, ... D99, T, O, I, I1, I2, I3, I4"
_NAME = re.compile(r"(?:([CD])([1-9][0-9]?)|(T|O|I[1-4]?))", flags=re.ASCII)

# scipy's C, D, O and I stand in RELION's axes (its I is RELION's I1); the others are turned versions.
_GOLDEN = np.arctan((1 + np.sqrt(5)) / 2)  # 58.28 degrees
_CONJUGATIONS = {
    "T": Rotation.from_euler("ZYZ", [np.pi / 2, np.arctan(np.sqrt(2)), 3 * np.pi / 4]),
    "I2": Rotation.from_euler("Z", np.pi / 2),
    "I3": Rotation.from_euler("Y", _GOLDEN),
    "I4": Rotation.from_euler("Y", -_GOLDEN),
}


def normalise_group_name(name: str) -> str:
    """Return the canonical upper-case name of a point group, with ``I`` spelled out as ``I2``.

    Raises
    ------
    SymmetryError
        If there is no such group; the message lists the valid ones.
    """
    match = _NAME.fullmatch(name.upper()) if name.isascii() else None
    if match is None:
        raise SymmetryError(f"unknown point group {name!r}; valid are {VALID_GROUPS}")
    return "I2" if match.group(0) == "I" else match.group(0)


@lru_cache(maxsize=64)
def point_group(name: str) -> NDArray[np.float64]:
    """Return the rotation matrices of a point group.

    Parameters
    ----------
    name
        RELION's name: n-fold axes along z, D-n's two-fold along x, ``I`` is ``I2``. Upper or lower case.

    Returns
    -------
    ``(order, 3, 3)`` float64, read-only; the identity comes first. An operator ``g`` acts on the map, so
    ``g R`` and ``R`` are the same view.
    """
    canonical = normalise_group_name(name)
    base = "I" if canonical.startswith("I") else canonical
    group = Rotation.create_group(base)
    if canonical in _CONJUGATIONS:
        turn = _CONJUGATIONS[canonical]
        group = turn * group * turn.inv()
    order = np.argsort(np.round(group.magnitude(), 9), kind="stable")
    matrices = group[order].as_matrix()
    matrices.setflags(write=False)
    return np.asarray(matrices, dtype=np.float64)


def angular_error_degrees(
    truth: ArrayLike, predicted: ArrayLike, symmetry: str = "C1"
) -> NDArray[np.float64]:
    """Return the angle between poses, modulo the map's symmetry.

    ``min over g of angle(g truth, predicted)``, the angular error of the CESPED paper (section 2.3).

    Parameters
    ----------
    truth, predicted
        ``(n, 3, 3)``; image to map coordinates.
    symmetry
        Point group of the map.

    Returns
    -------
    ``(n,)`` float64 degrees.
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
