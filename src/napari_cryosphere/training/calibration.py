"""Calibration: whether predicted probabilities are frequencies, and the temperature that makes them so.

A network that is trained by its likelihood is nearly calibrated on what it was trained on; on other
particles it may be too sure, or not sure enough. Dividing its log-density by one number, fitted to
held-out particles (Guo, Pleiss, Sun & Weinberger 2017), mends most of that, if these particles are
like those to come: a network that is right about micrographs of high defocus may be too sure at low
defocus.

The number is fitted to the levels of the credible sets that just hold the known poses, which are
uniform between 0 and 1 where probabilities are frequencies. Their likelihood is a poorer guide: it
is ruled by the few particles whose pose was missed altogether, and makes all others less sure than
they should be.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from napari_cryosphere.model.card import Calibration, ShiftCard
from napari_cryosphere.model.pose_network import Shifts
from napari_cryosphere.so3.distributions import HarmonicDistribution

__all__ = ["LEVELS", "calibrate", "calibrate_shifts", "tempered"]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of credible sets whose coverage a calibration reports."""

_LEAST, _MOST = 0.25, 4.0  # temperatures that are tried; those in docs/measurements.md are 0.9 to 1
_LEAST_SCALE = 0.01  # of shifts' widths: a card needs a positive one where all errors are 0
_ENOUGH = 0.02  # in the temperature's logarithm: 250 particles determine it to 0.05


def calibrate(predicted: HarmonicDistribution, rotations: NDArray[np.float64]) -> Calibration:
    """Fit the temperature to particles of known pose, by the Cramer-von Mises distance of their levels.

    Parameters
    ----------
    predicted
        What the network says, ``n`` particles that it has not seen.
    rotations
        ``(n, 3, 3)`` their poses.
    """
    uniform = (np.arange(len(rotations)) + 0.5) / len(rotations)

    def levels(temperature: float) -> NDArray[np.float64]:
        return np.sort(tempered(predicted, temperature).credible_level(rotations))

    def cost(log_temperature: float) -> float:
        return float(np.square(levels(math.exp(log_temperature)) - uniform).mean())

    bounds = (math.log(_LEAST), math.log(_MOST))
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": _ENOUGH})
    temperature = math.exp(found.x)
    reached = levels(temperature)
    coverage = {f"{level:g}": float((reached <= level).mean()) for level in LEVELS}
    return Calibration(temperature=temperature, particles=len(rotations), coverage=coverage)


def calibrate_shifts(
    shifts: Shifts, known_px: NDArray[np.float64], pixel_size_angstrom: float
) -> ShiftCard:
    """Fit one factor of all standard deviations to particles of known shift.

    It makes half of them lie in the disc that should hold half: in units of its standard deviation the
    squared distance of a Gaussian in the plane has the median 2 log 2. The median, since a particle whose
    pose was missed may lie anywhere.

    Parameters
    ----------
    shifts
        What the network says, ``n`` particles that it has not seen.
    known_px
        ``(n, 2)`` x and y of their centres from pixel n // 2, in the network's pixels of this size.
    """
    squares = np.square(shifts.means_px.double().numpy() - known_px).sum(1)
    ratios = squares / shifts.variances_px2.double().numpy()
    scale = max(math.sqrt(float(np.median(ratios)) / (2 * math.log(2))), _LEAST_SCALE)
    inside = 1 - np.exp(-ratios / (2 * scale**2))  # probability of the disc that just holds it
    return ShiftCard(
        scale=scale,
        particles=len(known_px),
        median_angstrom=float(np.sqrt(np.median(squares))) * pixel_size_angstrom,
        coverage={f"{level:g}": float((inside <= level).mean()) for level in LEVELS},
    )


def tempered(predicted: HarmonicDistribution, temperature: float) -> HarmonicDistribution:
    """Return what a model with this temperature says: coefficients divided by it, before symmetry counts."""
    return HarmonicDistribution(predicted.coefficients / temperature, predicted.symmetry)
