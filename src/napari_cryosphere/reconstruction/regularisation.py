"""How much a map's shells are to be trusted, from its half-maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation

__all__ = ["TAU_FUDGE", "ssnr_of_full_map"]

TAU_FUDGE = 4.0
"""RELION's tau2_fudge for single particles: the signal inside the mask is stronger than in the whole box."""


def ssnr_of_full_map(curve: FourierShellCorrelation, tau_fudge: float = TAU_FUDGE) -> NDArray[np.float64]:
    """Return the spectral signal-to-noise ratio of the map from all particles, shell by shell.

    ``tau_fudge * 2 FSC / (1 - FSC)`` of the half-maps' unmasked FSC (Scheres 2012, eq. 10: each half has
    FSC / (1 - FSC), all particles twice that). As in RELION the FSC is taken to lie in 0.001 to 0.999, and
    from the first shell on that is not above 0 it is 0.001.

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
    values = curve.values.copy()
    gone = np.flatnonzero(values[1:] <= 0)
    if len(gone):
        values[1 + gone[0] :] = 0
    trusted = np.clip(values, 1e-3, 0.999)
    return np.asarray(tau_fudge * 2 * trusted / (1 - trusted))
