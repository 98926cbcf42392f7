"""Poses that a STAR file of predictions brings along: what was known, predicted and refined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import SymmetryError

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = ["StoredPoses"]

_ANGLES = ("AngleRot", "AngleTilt", "AnglePsi")


@dataclass(frozen=True)
class StoredPoses:
    """The poses of a stack by what they are, each with its own uncertainty.

    A plain file's poses are the known ones. ``infer`` and ``align`` move those to
    ``cryosphereInputAngleRot`` and so on, and ``infer --refine`` the network's, with their
    uncertainty, to ``cryosphereNetworkAngleRot``, ``cryosphereNetworkSpread`` and so on.

    - ``known``: ``(n, 3, 3)``, or None if the file has none.
    - ``predicted``: predicted poses, or None if the file holds no predictions. Values that an
      earlier version has not written are NaN.
    - ``refined``: poses refined against a map, or None.
    - ``symmetry``: the point group that the predictions are modulo; None if the file does not say.
    """

    known: NDArray[np.float64] | None
    predicted: PoseSummary | None
    refined: PoseSummary | None
    symmetry: str | None = None

    @classmethod
    def of(cls, stack: ParticleStack) -> StoredPoses:
        """Sort a stack's poses."""
        from napari_cryosphere.particles import UNCERTAINTY, network_column

        columns = set(stack.particles.columns)
        if not stack.has_poses:
            return cls(None, None, None)
        if not columns.issuperset(UNCERTAINTY[1:]):  # RELION writes the first one too
            return cls(stack.rotations(), None, None)
        written = _summary(stack, stack.rotations(), UNCERTAINTY)
        known, network = _poses(stack, "cryosphereInput"), _poses(stack, network_column(""))
        predicted = written
        if network is not None:
            names = tuple(map(network_column, UNCERTAINTY))
            predicted = _summary(stack, network, names)
        aligned = network is not None or "rlnLogLikeliContribution" in columns
        return cls(known, predicted, written if aligned else None, _symmetry(stack))


def _symmetry(stack: ParticleStack) -> str | None:
    """Return the point group of all rows; None if a file does not say, or says several."""
    from napari_cryosphere.particles import SYMMETRY
    from napari_cryosphere.so3.symmetry import normalise_group_name

    if SYMMETRY not in stack.particles or stack.particles[SYMMETRY].nunique() != 1:
        return None
    try:
        return normalise_group_name(str(stack.particles[SYMMETRY].iloc[0]))
    except SymmetryError:
        return None


def _poses(stack: ParticleStack, prefix: str) -> NDArray[np.float64] | None:
    """Return the poses of columns with a prefix; None if there are none."""
    names = [prefix + name for name in _ANGLES]
    if not set(names) <= set(stack.particles.columns):
        return None
    from napari_cryosphere.so3.rotations import rotation_from_relion_angles

    return rotation_from_relion_angles(stack.particles[names].to_numpy(dtype=np.float64))


def _summary(
    stack: ParticleStack, rotations: NDArray[np.float64], names: tuple[str, ...]
) -> PoseSummary:
    """Return poses with the columns of their uncertainty; NaN for those that are missing."""
    from napari_cryosphere.so3.pose_summary import PoseSummary

    unknown = np.full(len(stack), np.nan)
    table = stack.particles
    values = (
        table[name].to_numpy(dtype=np.float64) if name in table else unknown for name in names
    )
    return PoseSummary(rotations, *values)
