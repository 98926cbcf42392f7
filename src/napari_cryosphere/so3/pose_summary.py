"""Summaries of pose distributions: best pose, spread, confidence, and modes, as plain arrays.

Nothing here needs torch, so that tables, events and the window can name them without loading it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFIDENCE_RADIUS_DEGREES", "EVALUATION_ORDER", "SUMMARY", "Modes", "PoseSummary"]

EVALUATION_ORDER = 3
"""HEALPix order of the grid (7.3 degree spacing) on which distributions are shown and counted."""

CONFIDENCE_RADIUS_DEGREES = 30.0
"""A pose's confidence is the probability that the truth lies within this angle of it."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PoseSummary:
    """What one line of a STAR file can say of a distribution; one entry per particle.

    - ``rotations``, ``(n, 3, 3)``: the most probable pose, refined below the grid's spacing; image
      to map coordinates.
    - ``max_probability``, ``(n,)``: probability of the best cell of the order-3 grid and its
      equivalents (RELION's rlnMaxValueProbDistribution).
    - ``entropy``: ``(n,)`` nats, relative to the uniform distribution: 0 is uniform, more negative
      is sharper; ``exp(entropy)`` is the fraction of SO(3) that the pose is spread over.
    - ``spread_degrees``, ``(n,)``: expected angle between the true pose and the reported one,
      modulo symmetry.
    - ``confidence``, ``(n,)``: probability that the truth is within `CONFIDENCE_RADIUS_DEGREES` of
      the reported pose.
    """

    rotations: Array
    max_probability: Array
    entropy: Array
    spread_degrees: Array
    confidence: Array

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> PoseSummary:
        """Return what is said of some particles."""
        return PoseSummary(*(getattr(self, name)[rows] for name in SUMMARY))

    @classmethod
    def concatenate(cls, parts: list[PoseSummary]) -> PoseSummary:
        """Join summaries of consecutive particles."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in SUMMARY))


SUMMARY = tuple(field.name for field in fields(PoseSummary))
"""Names of what a summary holds, in its order."""


@dataclass(frozen=True)
class Modes:
    """The highest local maxima of every distribution, best first.

    ``rotations``: ``(n, k, 3, 3)``; NaN where a distribution has fewer than k maxima. Equivalent
    maxima count once. ``log_prob``: ``(n, k)`` nats relative to uniform; minus infinity where there
    is none.
    """

    rotations: Array
    log_prob: Array
