"""How much a map's shells are to be trusted, from its half-maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation

__all__ = ["TAU_FUDGE", "ssnr_of_full_map"]

TAU_FUDGE = 4.0
"""RELION's tau2_fudge for single particles: the signal inside the mask is stronger than in the
whole box.
"""

# Correlations that are believed at least and at most. Of the least: tuned on simulated D7
# particles; from 0.03 to 0.143 the resolution at FSC 0.5 stays within 0.03 A (docs/measurements.md).
_LEAST, _MOST = 0.07, 0.999


def ssnr_of_full_map(
    curve: FourierShellCorrelation, tau_fudge: float = TAU_FUDGE
) -> NDArray[np.float64]:
    """Return the spectral signal-to-noise ratio of the map from all particles, shell by shell.

    ``tau_fudge * 2 FSC / (1 - FSC)`` of the half-maps' unmasked FSC (Scheres 2012, eq. 10: each
    half has FSC / (1 - FSC), all particles twice that). The FSC is taken to lie in 0.07 to 0.999: a
    shell beyond the resolution is damped, not removed, for a steep filter spills strong shells into
    weak ones as soon as the map is masked (measured: docs/measurements.md).

    Parameters
    ----------
    curve
        FSC of the half-maps.
    tau_fudge
        Factor on the signal's power.

    Returns
    -------
    ``(box // 2 + 1,)``, for `BackProjector.solve`.
    """
    trusted = np.clip(curve.values, _LEAST, _MOST)
    return np.asarray(tau_fudge * 2 * trusted / (1 - trusted))
