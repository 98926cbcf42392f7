"""How confidences and spreads compare with the errors of particles whose poses are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.so3.pose_summary import CONFIDENCE_RADIUS_DEGREES

__all__ = ["Reliability", "reliability_of"]

_GROUPS = 5  # of equally many particles; chosen: 100 particles leave 20 in each
_FEWEST = 20  # particles: below, shares say nothing; chosen


@dataclass(frozen=True)
class Reliability:
    """Groups of particles in order of their confidence.

    - ``confidence``, ``(k,)``: mean confidence of each group, 0 to 1.
    - ``observed``, ``(k,)``: share of the group within 30 degrees of the known pose.
    - ``mean_confidence``, ``within``: the same of all particles.
    - ``mean_spread_degrees``, ``mean_error_degrees``: the spread says what the mean error is
      expected to be.
    """

    confidence: NDArray[np.float64]
    observed: NDArray[np.float64]
    mean_confidence: float
    within: float
    mean_spread_degrees: float
    mean_error_degrees: float


def reliability_of(
    confidence: NDArray[np.float64],
    spread_degrees: NDArray[np.float64],
    errors_degrees: NDArray[np.float64],
) -> Reliability | None:
    """Compare predictions, ``(n,)`` each, with their errors; None for fewer than 20 with a known pose."""
    known = np.isfinite(errors_degrees) & np.isfinite(confidence)
    if int(known.sum()) < _FEWEST:
        return None
    order = np.argsort(confidence[known], kind="stable")
    said, right = (
        confidence[known][order],
        errors_degrees[known][order] <= CONFIDENCE_RADIUS_DEGREES,
    )
    groups = np.array_split(np.arange(len(said)), _GROUPS)
    return Reliability(
        np.array([said[rows].mean() for rows in groups]),
        np.array([right[rows].mean() for rows in groups]),
        float(said.mean()),
        float(right.mean()),
        float(np.nanmean(spread_degrees[known])),
        float(errors_degrees[known].mean()),
    )
