"""The values that a job with poses ends with: how sure these are, how far from the input's."""

from __future__ import annotations

import numpy as np

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.so3.symmetry import angular_error_degrees

__all__ = ["summary_metrics"]


def summary_metrics(
    stack: ParticleStack, summary: PoseSummary, symmetry: str
) -> dict[str, float | int | str]:
    """Return number, median spread and confidence, and angles to the poses that came, if any."""
    metrics: dict[str, float | int | str] = {
        "particles": len(stack),
        "median_spread_degrees": float(np.median(summary.spread_degrees)),
        "median_confidence": float(np.median(summary.confidence)),
    }
    if stack.has_poses:
        angles = angular_error_degrees(stack.rotations(), summary.rotations, symmetry)
        metrics["median_angle_to_input_poses_degrees"] = float(np.median(angles))
        metrics["fraction_beyond_30_degrees"] = float(np.mean(angles > 30))
    return metrics
