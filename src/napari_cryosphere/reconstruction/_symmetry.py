"""Point-group symmetry of a Fourier volume's sums, imposed once for all particles.

The n-fold axis of C-n and D-n is z: a rotation about it is one sparse matrix in the plane (y, x),
the same for every z. D-n's two-fold axis is x, a mere exchange of voxels. What is left of T, O and
I goes through as many insertions of every slice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from napari_cryosphere.so3.symmetry import point_group

__all__ = ["SumSymmetry"]

# Between entries of rotation matrices, which are exact to 1e-16: anything in between does.
_TINY = 1e-6


class SumSymmetry:
    """How a point group is imposed: slices inserted at several poses, then sums averaged over a subgroup.

    ``name``: point group in RELION's names. ``insertions``, ``(k, 3, 3)``: each slice goes in at
    each of these times its pose.
    """

    def __init__(self, name: str) -> None:
        group = point_group(name)
        about_z = group[np.abs(group[:, 2, 2] - 1) < _TINY]
        two_fold = np.diag([1.0, -1.0, -1.0])
        self._dihedral = bool((np.abs(group - two_fold).max((1, 2)) < _TINY).any())
        self._rotations = about_z[:, :2, :2]
        imposed = np.concatenate([about_z, two_fold @ about_z]) if self._dihedral else about_z
        self.insertions = _coset_representatives(group, imposed)

    @property
    def order(self) -> int:
        """Order of the subgroup that is imposed on the sums."""
        return len(self._rotations) * (2 if self._dihedral else 1)

    def impose(self, sums: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sums over the subgroup; layout as in `SliceVolume.sums`."""
        if len(self._rotations) > 1:
            size, _, depth, parts = sums.shape
            matrix = _plane_rotations(size, self._rotations)
            sums = (matrix @ sums.reshape(size * size, depth * parts)).reshape(
                size, size, depth, parts
            )
        if self._dihedral:
            # (x, y, z) and (x, -y, -z) are one; the latter is the mirror image of (-x, y, z)
            turned = np.roll(sums[:, ::-1], 1, axis=1) * np.array([1, -1, 1], dtype=np.float32)
            sums = sums + turned
        return sums

    def fall_off(self, size: int, box: int) -> NDArray[np.float32]:
        """Return what interpolation leaves of a map, ``(box, box, box)`` z, y, x: 1 in the middle.

        Trilinear insertion multiplies the map by sinc^2 along each axis (of ``size`` voxels);
        turning the sums in the plane does it once more for every rotation that does not fall on the
        grid.
        """
        axis = (np.arange(box) - box // 2) / size
        position = np.stack(np.meshgrid(axis, axis, indexing="xy"))  # x, y
        plane = np.zeros((box, box))
        for rotation in self._rotations:
            x, y = np.tensordot(rotation.T, position, axes=1)
            once = (np.sinc(x) * np.sinc(y)) ** 2
            exact = np.abs(rotation - np.rint(rotation)).max() < _TINY
            plane += once if exact else once**2
        plane /= len(self._rotations)
        return (np.sinc(axis)[:, None, None] ** 2 * plane).astype(np.float32)


def _coset_representatives(
    group: NDArray[np.float64], subgroup: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return operators whose products with the subgroup, on its right, are the whole group."""
    chosen: list[NDArray[np.float64]] = []
    covered = np.empty((0, 3, 3))
    for operator in group:
        if len(covered) == 0 or np.abs(covered - operator).max((1, 2)).min() > 1e-4:
            chosen.append(operator)
            covered = np.concatenate([covered, subgroup @ operator])
    return np.stack(chosen)


def _plane_rotations(size: int, rotations: NDArray[np.float64]) -> csr_array:
    """Return the sum of bilinear rotations of a plane in FFT order, ``(size^2, size^2)``."""
    frequency = np.fft.fftfreq(size, 1 / size)
    y, x = (grid.ravel() for grid in np.meshgrid(frequency, frequency, indexing="ij"))
    inside = np.flatnonzero(x**2 + y**2 <= (size / 2) ** 2)
    targets, sources, weights = [], [], []
    for rotation in rotations:
        a, b = rotation.T @ np.stack([x[inside], y[inside]])
        for dx in (0, 1):
            for dy in (0, 1):
                left, low = np.floor(a + _TINY), np.floor(b + _TINY)
                weight = np.abs(1 - dx - (a - left)) * np.abs(1 - dy - (b - low))
                kept = weight > _TINY
                row, column = ((at % size).astype(np.int64) for at in (low + dy, left + dx))
                source = row * size + column
                targets.append(inside[kept])
                sources.append(source[kept])
                weights.append(weight[kept])
    data = np.concatenate(weights).astype(np.float32)
    places = (np.concatenate(targets), np.concatenate(sources))
    return csr_array((data, places), shape=(size * size, size * size))
