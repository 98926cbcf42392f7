"""Poses that a STAR file of predictions brings along: what was known, predicted and refined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = ["StoredPoses"]

_ANGLES = ("AngleRot", "AngleTilt", "AnglePsi")
_UNCERTAINTY = ("cryosphereEntropy", "cryosphereSpread", "cryosphereConfidence")


@dataclass(frozen=True)
class StoredPoses:
    """The poses of a stack by what they are.

    A plain file's poses are the known ones. ``infer`` and ``align`` move those to
    ``cryosphereInputAngleRot`` and so on, and ``infer --refine`` the network's to
    ``cryosphereNetworkAngleRot``.

    Attributes
    ----------
    known
        ``(n, 3, 3)``, or None if the file has none.
    predicted
        Predicted poses with their uncertainty, or None if the file holds no predictions. Of refined
        poses the uncertainty is that after refinement, which is all that the file keeps.
    refined
        ``(n, 3, 3)`` poses refined against a map, or None.
    """

    known: NDArray[np.float64] | None
    predicted: PoseSummary | None
    refined: NDArray[np.float64] | None

    @classmethod
    def of(cls, stack: ParticleStack) -> StoredPoses:
        """Sort a stack's poses."""
        columns = set(stack.particles.columns)
        if not stack.has_poses:
            return cls(None, None, None)
        if not columns.issuperset(_UNCERTAINTY):
            return cls(stack.rotations(), None, None)
        written = stack.rotations()
        known, network = _poses(stack, "cryosphereInput"), _poses(stack, "cryosphereNetwork")
        aligned = network is not None or "rlnLogLikeliContribution" in columns
        return cls(
            known,
            _summary(stack, written if network is None else network),
            written if aligned else None,
        )


def _poses(stack: ParticleStack, prefix: str) -> NDArray[np.float64] | None:
    """Return the poses of columns with a prefix; None if there are none."""
    names = [prefix + name for name in _ANGLES]
    if not set(names) <= set(stack.particles.columns):
        return None
    from napari_cryosphere.so3.rotations import rotation_from_relion_angles

    return rotation_from_relion_angles(stack.particles[names].to_numpy(dtype=np.float64))


def _summary(stack: ParticleStack, rotations: NDArray[np.float64]) -> PoseSummary:
    """Return the columns of a file of predictions as a summary."""
    from napari_cryosphere.so3.pose_summary import PoseSummary

    def column(name: str) -> NDArray[np.float64]:
        if name not in stack.particles:
            return np.full(len(stack), np.nan)
        return stack.particles[name].to_numpy(dtype=np.float64)

    entropy, spread, confidence = (column(name) for name in _UNCERTAINTY)
    return PoseSummary(
        rotations, column("rlnMaxValueProbDistribution"), entropy, spread, confidence
    )
