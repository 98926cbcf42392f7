"""Sums over shells of a map's transform as RELION takes them.

A shell k holds the frequencies whose radius in cycles per box rounds to k. Of the transform of a real
map the half with x >= 0 is stored, and each stored value counts once, as in RELION: the plane x =
0, which holds every frequency together with its mirror image, weighs double.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

__all__ = ["scale_shells", "shell_numbers", "shell_sums", "squared_radii", "transform_of"]


def transform_of(voxels: NDArray[np.floating]) -> NDArray[np.complexfloating]:
    """Transform ``(n, n, n)`` to ``(n, n, n // 2 + 1)`` with voxel 0 at the origin; keeps the precision."""
    return scipy.fft.rfftn(voxels)


def squared_radii(box: int, plane: int) -> NDArray[np.float64]:
    """Return the squared radius of one z plane of the half transform, ``(box, box // 2 + 1)``."""
    frequency = np.fft.fftfreq(box, 1 / box)
    return frequency[plane] ** 2 + frequency[:, None] ** 2 + np.arange(box // 2 + 1) ** 2


def shell_numbers(box: int, plane: int) -> NDArray[np.intp]:
    """Return the shell of each frequency of one z plane of the half transform, ``(box, box // 2 + 1)``."""
    return np.rint(np.sqrt(squared_radii(box, plane))).astype(np.intp)


def shell_sums(box: int, *planes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum ``(box, box, box // 2 + 1)`` arrays over shells 0 to box // 2: ``(len(planes), box // 2 + 1)``."""
    last = box // 2 + 1
    sums = np.zeros((len(planes), last))
    for z in range(box):
        shells = shell_numbers(box, z).ravel()
        for total, values in zip(sums, planes, strict=True):
            total += np.bincount(shells, values[z].ravel(), minlength=last)[:last]
    return sums


def scale_shells(transform: NDArray[np.complexfloating], factors: NDArray[np.floating]) -> None:
    """Multiply each shell of a half transform by its factor, in place; shells without one become 0."""
    box = len(transform)
    padded = np.zeros(2 * box)
    padded[: len(factors)] = factors
    for z in range(box):
        transform[z] *= padded[shell_numbers(box, z)].astype(transform.real.dtype)
