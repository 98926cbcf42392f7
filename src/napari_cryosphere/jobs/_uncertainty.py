"""The columns that say how sure a pose is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.so3.distribution import PoseSummary

__all__ = ["uncertainty_columns"]


def uncertainty_columns(summary: PoseSummary) -> dict[str, NDArray[np.float64]]:
    """Return the STAR columns of a summary: probability of the best cell, entropy, spread, confidence."""
    return {
        "rlnMaxValueProbDistribution": summary.max_probability,
        "cryosphereEntropy": summary.entropy,
        "cryosphereSpread": summary.spread_degrees,
        "cryosphereConfidence": summary.confidence,
    }
