"""The columns that poses are written to, and where the earlier ones are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.so3.asymmetric_unit import reduce
from napari_cryosphere.so3.rotations import relion_angles_from_rotation

if TYPE_CHECKING:
    from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = ["ANGLES", "ORIGINS", "pose_columns", "uncertainty_columns"]

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
_OLD_ORIGINS = ("rlnOriginX", "rlnOriginY")
_KEPT = "cryosphereInput"
_ORTHOGONAL = 1e-3
_DECIMALS = 8


def pose_columns(
    particles: pd.DataFrame,
    rotations: ArrayLike,
    shifts_angstrom: ArrayLike | None,
    pixel_sizes_angstrom: NDArray[np.float64] | None,
    symmetry: str,
) -> dict[str, NDArray[Any]]:
    """Return the columns to assign. See :meth:`ParticleStack.with_poses`."""
    matrices = _checked_rotations(rotations, len(particles))
    columns: dict[str, NDArray[Any]] = {}
    for name in (*ANGLES, *ORIGINS):
        kept = _KEPT + name.removeprefix("rln")
        if name in particles and kept not in particles:
            columns[kept] = particles[name].to_numpy()
    # Eight decimals (2e-10 rad) give the angles of an input file back as they were.
    angles = relion_angles_from_rotation(_in_asymmetric_unit(matrices, symmetry)).round(_DECIMALS)
    columns |= {name: angles[:, axis] for axis, name in enumerate(ANGLES)}
    if shifts_angstrom is None:
        return columns
    shifts = np.asarray(shifts_angstrom, dtype=np.float64)
    if shifts.shape != (len(particles), 2) or not np.isfinite(shifts).all():
        raise MetadataError(
            f"shifts must be finite, of shape ({len(particles)}, 2) in A; got shape {shifts.shape}"
        )
    for axis, (name, old) in enumerate(zip(ORIGINS, _OLD_ORIGINS, strict=True)):
        columns[name] = shifts[:, axis]
        if old in particles and pixel_sizes_angstrom is not None:
            columns[old] = shifts[:, axis] / pixel_sizes_angstrom
    return columns


def _in_asymmetric_unit(rotations: NDArray[np.float64], symmetry: str) -> NDArray[np.float64]:
    """Return the equivalents of poses that lie in RELION's asymmetric unit."""
    if symmetry == "C1":
        return rotations
    return reduce(rotations, symmetry)


def _checked_rotations(rotations: ArrayLike, number: int) -> NDArray[np.float64]:
    """Return ``(number, 3, 3)`` float64; refuse what is no rotation."""
    matrices = np.asarray(rotations, dtype=np.float64)
    if matrices.shape != (number, 3, 3):
        raise MetadataError(f"rotations must have shape ({number}, 3, 3); got {matrices.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        product = matrices @ matrices.transpose(0, 2, 1)
        good = (np.abs(product - np.eye(3)) < _ORTHOGONAL).all((1, 2)) & (
            np.linalg.det(matrices) > 0
        )
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise MetadataError(
            f"rotation {row + 1} is no rotation matrix: its rows must be orthonormal, its determinant 1"
        )
    return matrices


def uncertainty_columns(summary: PoseSummary) -> dict[str, NDArray[np.float64]]:
    """Return the STAR columns of a summary: probability of the best cell, entropy, spread, confidence."""
    return {
        "rlnMaxValueProbDistribution": summary.max_probability,
        "cryosphereEntropy": summary.entropy,
        "cryosphereSpread": summary.spread_degrees,
        "cryosphereConfidence": summary.confidence,
    }
