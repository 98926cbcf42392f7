"""Poses in a table of particles, and everything that is tied to them.

Columns of poses are made here and nowhere else: whoever writes a pose also moves RELION's priors,
which its local searches go back to, and takes away what was true of the earlier pose only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.so3.asymmetric_unit import reduce
from napari_cryosphere.so3.rotations import are_rotations, relion_angles_from_rotation

if TYPE_CHECKING:
    from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = [
    "ANGLES",
    "ANGLE_PRIORS",
    "CLASS_NUMBER",
    "ORIGINS",
    "ORIGIN_PRIORS",
    "ORIGIN_SPREAD",
    "PSI_PRIOR",
    "STATE_PROBABILITY",
    "SYMMETRY",
    "UNCERTAINTY",
    "is_pose_column",
    "is_state_column",
    "moved_to_poses",
    "network_column",
    "number_of_states",
    "pose_columns",
    "state_columns",
    "state_probabilities",
    "uncertainty_columns",
]

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
PSI_PRIOR = "rlnAnglePsiPrior"
SYMMETRY = "cryosphereSymmetry"
"""Column of the point group that poses and their uncertainties are modulo; missing for C1."""
UNCERTAINTY = (
    "rlnMaxValueProbDistribution",
    "cryosphereEntropy",
    "cryosphereSpread",
    "cryosphereConfidence",
)
"""Columns of the uncertainty of the table's poses, in the order of `PoseSummary`."""
ORIGIN_SPREAD = "cryosphereOriginSpread"
"""Column of the standard deviation of a network's origins along each axis, in A."""
ANGLE_PRIORS = tuple(f"{name}Prior" for name in ANGLES)
ORIGIN_PRIORS = ("rlnOriginXPriorAngst", "rlnOriginYPriorAngst")
# RELION 3.0's columns, in pixels.
_ORIGINS_PX = ("rlnOriginX", "rlnOriginY")
_ORIGIN_PRIORS_PX = ("rlnOriginXPrior", "rlnOriginYPrior")
CLASS_NUMBER = "rlnClassNumber"
"""Column of the state, or of RELION's class, that a particle is in."""
# Columns that were true of the earlier pose only: of RELION, and of cryoSPARC as they are carried.
_OF_EARLIER_POSE = re.compile(
    r"rln(LogLikeliContribution|MaxValueProbDistribution|NrOfSignificantSamples"
    r"|Angle(Psi|Rot)Flip)|cryosparc/(alignments3D|alignments_class)[^\n]*"
)
# Of this package: replaced with the pose that they belong to, and not kept.
_OF_PREDICTION = re.compile(
    r"cryosphere(Entropy|Spread|OriginSpread|Confidence|Symmetry|Network\w+|StateProbability\d+)"
)
STATE_PROBABILITY = "cryosphereStateProbability"
"""What the columns of states' probabilities begin with; the state follows, counted from 1."""
_KEPT = "cryosphereInput"
_NETWORK = "cryosphereNetwork"
_SUM_OFF = 1e-2  # of probabilities from 1, as files round them to three digits
# 2e-10 rad: gives the angles of an input file back as they were.
_DECIMALS = 8


def is_pose_column(name: str) -> bool:
    """Return whether a column holds a pose or a prior of one, which only this module writes."""
    return name in (
        *(*ANGLES, *ORIGINS, *ANGLE_PRIORS, *ORIGIN_PRIORS),
        *(*_ORIGINS_PX, *_ORIGIN_PRIORS_PX),
    )


def pose_columns(
    rotations: NDArray[np.float64], shifts_angstrom: NDArray[np.float64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return RELION's columns of new poses.

    ``rotations``: ``(n, 3, 3)``; image to map coordinates. ``shifts_angstrom``: ``(n, 2)`` in x, y
    order, as rlnOriginX/YAngst; None for no origins.
    """
    angles = relion_angles_from_rotation(rotations).round(_DECIMALS)
    columns = {name: angles[:, axis] for axis, name in enumerate(ANGLES)}
    if shifts_angstrom is not None:
        columns |= {name: shifts_angstrom[:, axis] for axis, name in enumerate(ORIGINS)}
    return columns


def moved_to_poses(
    particles: pd.DataFrame,
    rotations: ArrayLike,
    shifts_angstrom: ArrayLike | None,
    pixel_sizes_angstrom: NDArray[np.float64] | None,
    symmetry: str,
) -> pd.DataFrame:
    """Return the table with new poses. See :meth:`ParticleStack.with_poses`."""
    matrices = _checked_rotations(rotations, len(particles))
    shifts = None if shifts_angstrom is None else _checked_shifts(shifts_angstrom, len(particles))
    if symmetry != "C1":
        matrices = reduce(matrices, symmetry)
    new: dict[str, Any] = dict(pose_columns(matrices, shifts))
    _move(new, ANGLES, ANGLE_PRIORS, particles)
    if shifts is not None:
        _move(new, ORIGINS, ORIGIN_PRIORS, particles)
        if pixel_sizes_angstrom is not None:
            for old in (_ORIGINS_PX, _ORIGIN_PRIORS_PX):
                _move(new, ORIGINS, old, particles, pixel_sizes_angstrom)
    if CLASS_NUMBER in particles:
        new[CLASS_NUMBER] = np.ones(len(particles), dtype=np.int64)
    stale = [name for name in particles if _OF_EARLIER_POSE.fullmatch(str(name))]
    changed = [
        name
        for name in (*ANGLES, *ORIGINS, *new, *stale)
        if name in particles and name not in (*_ORIGINS_PX, *_ORIGIN_PRIORS_PX)
    ]
    kept = {
        name: particles[old].to_numpy()
        for old in dict.fromkeys(changed)
        if (name := _KEPT + str(old).removeprefix("rln").removeprefix("cryosparc")) not in particles
        and not (old == CLASS_NUMBER and (particles[old] == new[old]).all())  # nothing to keep
    }
    replaced = [name for name in particles if _OF_PREDICTION.fullmatch(str(name))]
    return particles.drop(columns=stale + replaced).assign(**kept, **new)


def _move(
    new: dict[str, Any],
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    particles: pd.DataFrame,
    divisor: NDArray[np.float64] | float = 1.0,
) -> None:
    """Give columns that are there the values of the pose's own columns."""
    new |= {
        target: new[source] / divisor
        for source, target in zip(sources, targets, strict=True)
        if target in particles
    }


def network_column(name: str) -> str:
    """Return the column that holds a network's value where the pose of the table is a refined one.

    Both are predictions with an uncertainty of their own: ``rlnAngleRot`` and ``cryosphereSpread``
    are of the refined pose, ``cryosphereNetworkAngleRot`` and ``cryosphereNetworkSpread`` of the
    network's.
    """
    return _NETWORK + name.removeprefix("rln").removeprefix("cryosphere")


def _checked_shifts(shifts_angstrom: ArrayLike, number: int) -> NDArray[np.float64]:
    """Return ``(number, 2)`` float64; refuse another shape and what is not finite."""
    shifts = np.asarray(shifts_angstrom, dtype=np.float64)
    if shifts.shape != (number, 2) or not np.isfinite(shifts).all():
        raise MetadataError(
            f"shifts must be finite, of shape ({number}, 2) in A; got shape {shifts.shape}"
        )
    return shifts


def _checked_rotations(rotations: ArrayLike, number: int) -> NDArray[np.float64]:
    """Return ``(number, 3, 3)`` float64; refuse what is no rotation."""
    matrices = np.asarray(rotations, dtype=np.float64)
    if matrices.shape != (number, 3, 3):
        raise MetadataError(f"rotations must have shape ({number}, 3, 3); got {matrices.shape}")
    good = are_rotations(matrices)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise MetadataError(
            f"rotation {row + 1} is no rotation matrix: its rows must be orthonormal, its determinant 1"
        )
    return matrices


def uncertainty_columns(summary: PoseSummary, symmetry: str = "C1") -> dict[str, NDArray[Any]]:
    """Return the STAR columns of a summary: probability of the best cell, entropy, spread, confidence.

    The point group that these are modulo is one more column, unless it is C1.
    """
    values = (summary.max_probability, summary.entropy, summary.spread_degrees, summary.confidence)
    columns: dict[str, NDArray[Any]] = dict(zip(UNCERTAINTY, values, strict=True))
    if symmetry != "C1":
        columns[SYMMETRY] = np.full(len(summary), symmetry, dtype=object)
    return columns


def state_columns(probabilities: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return the STAR columns of ``(n, k)`` probabilities of states, and the best one, counted from 1."""
    named = {
        f"{STATE_PROBABILITY}{state}": column
        for state, column in enumerate(probabilities.T, start=1)
    }
    return {CLASS_NUMBER: probabilities.argmax(axis=1) + 1, **named}


def is_state_column(name: str) -> bool:
    """Return whether a column says which state a particle is in, or with what probability."""
    return name == CLASS_NUMBER or name.startswith(STATE_PROBABILITY)


def number_of_states(particles: pd.DataFrame) -> int:
    """Return how many states a table has probabilities of, at least 1."""
    return max(1, sum(str(name).startswith(STATE_PROBABILITY) for name in particles))


def state_probabilities(particles: pd.DataFrame) -> NDArray[np.float64] | None:
    """Return the probabilities of states that a table has, ``(n, k)``; None where it has not two or more.

    Raises `MetadataError` if one is missing, negative or no number, or a particle's do not sum to
    1.
    """
    number = number_of_states(particles)
    if number == 1:
        return None
    wanted = [f"{STATE_PROBABILITY}{state}" for state in range(1, number + 1)]
    missing = [name for name in wanted if name not in particles]
    if missing:
        raise MetadataError(f"there are {number} columns {STATE_PROBABILITY}*, but no {missing[0]}")
    values = particles[wanted].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    good = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < _SUM_OFF)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise MetadataError(
            f"row {row + 1}: {STATE_PROBABILITY}1 to {number} are {particles[wanted].iloc[row].tolist()}; "
            "they must be at least 0 and sum to 1"
        )
    return values / values.sum(axis=1, keepdims=True)
