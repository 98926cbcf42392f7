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

Where the CTF is known the number follows the particle: its logarithm is linear in that of the contrast
that the CTF leaves (`log_contrast`), with the slope at which levels and contrast are not correlated. A
network sees little of the defocus in one noisy image, and is too sure where the contrast is low.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from napari_cryosphere.model.card import Calibration, ShiftCard
from napari_cryosphere.model.pose_model import LARGEST_CHANGE, temperatures
from napari_cryosphere.model.pose_network import Shifts, log_contrast
from napari_cryosphere.so3.distributions import HarmonicDistribution

__all__ = ["LEVELS", "calibrate", "calibrate_shifts", "tempered"]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of credible sets whose coverage a calibration reports."""

_LEAST, _MOST = 0.25, 4.0  # temperatures that are tried; those in docs/measurements.md are 0.9 to 1
_LEAST_SCALE = 0.01  # of shifts' widths: a card needs a positive one where all errors are 0
_LEAST_SPREAD = 0.02  # of the contrast's logarithm: with less, one temperature serves all
_ENOUGH = 0.02  # in the temperature's logarithm: 250 particles determine it to 0.05
_OFFSETS = np.linspace(-0.2, 0.2, 11)
"""Of the temperature's logarithm, with each slope: it was fitted without one before; chosen, not tuned."""
_SLOPES = LARGEST_CHANGE * np.linspace(-1, 1, 41)
"""Per standard deviation of the contrast: steps of 0.02, as fine as a temperature is fitted."""
_USUAL_CHANGE = 0.2
"""Standard deviation expected of a slope times that of the contrast; chosen, not tuned: 0.12 was found for
beta-galactosidase (docs/measurements/networks.md). Few particles say little of a slope, and this keeps
theirs near 0.
"""


def calibrate(
    predicted: HarmonicDistribution,
    rotations: NDArray[np.float64],
    ctf: torch.Tensor | None = None,
) -> Calibration:
    """Fit the temperature to particles of known pose, by the Cramer-von Mises distance of their levels.

    Parameters
    ----------
    predicted
        What the network says, ``n`` particles that it has not seen.
    rotations
        ``(n, 3, 3)`` their poses.
    ctf
        ``(n, box // 2 + 1)``, see `napari_cryosphere.training.sources.Batch`; None where it is not known.
    """
    uniform = (np.arange(len(rotations)) + 0.5) / len(rotations)

    def levels(temperature: float) -> NDArray[np.float64]:
        return np.sort(tempered(predicted, temperature).credible_level(rotations))

    def cost(log_temperature: float) -> float:
        return float(np.square(levels(math.exp(log_temperature)) - uniform).mean())

    bounds = (math.log(_LEAST), math.log(_MOST))
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": _ENOUGH})
    fitted = Calibration(temperature=math.exp(found.x), particles=len(rotations))
    if ctf is not None:
        fitted = _with_slope(fitted, predicted, rotations, ctf)
    reached = tempered(predicted, temperatures(fitted, ctf)).credible_level(rotations)
    coverage = {f"{level:g}": float((reached <= level).mean()) for level in LEVELS}
    return fitted.model_copy(update={"coverage": coverage})


def _with_slope(
    fitted: Calibration,
    predicted: HarmonicDistribution,
    rotations: NDArray[np.float64],
    ctf: torch.Tensor,
) -> Calibration:
    """Return a calibration with a slope, and the temperature that goes with it.

    Levels at three temperatures, and between them by interpolation, serve all slopes that are tried.
    """
    contrast = log_contrast(ctf).double().numpy()
    spread = float(contrast.std())
    if spread < _LEAST_SPREAD:
        return fitted
    apart = (contrast - contrast.mean()) / spread
    at = np.linspace(-LARGEST_CHANGE, LARGEST_CHANGE, 3)
    table = np.stack(
        [
            tempered(predicted, fitted.temperature * math.exp(change)).credible_level(rotations)
            for change in at
        ]
    )
    rows = np.arange(len(rotations))
    uniform = (rows + 0.5) / len(rotations)
    penalty = 1 / (12 * len(rotations) * _USUAL_CHANGE**2)  # 1 / 12 is the variance of a level

    def cost(offset: float, slope: float) -> float:
        changes = np.clip(offset + slope * apart, at[0], at[-1])
        below = np.clip(np.searchsorted(at, changes) - 1, 0, len(at) - 2)
        share = (changes - at[below]) / (at[1] - at[0])
        levels = table[below, rows] * (1 - share) + table[below + 1, rows] * share
        correlated = float(((levels - 0.5) * apart).mean())
        distance = float(np.square(np.sort(levels) - uniform).mean())
        return distance + correlated**2 + penalty * slope**2

    offset, slope = min(product(_OFFSETS, _SLOPES), key=lambda each: cost(*each))
    return fitted.model_copy(
        update={
            "temperature": fitted.temperature * math.exp(float(offset)),
            "log_contrast": float(contrast.mean()),
            "slope": float(slope / spread),
        }
    )


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
        ``(n, 2)`` x and y of their centres from pixel n // 2, in the network's pixels.
    pixel_size_angstrom
        Of these pixels.
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


def tempered(
    predicted: HarmonicDistribution, temperature: float | torch.Tensor
) -> HarmonicDistribution:
    """Return what a model with this temperature says: coefficients divided by it, before symmetry counts.

    One temperature, or ``(n, 1, 1, 1)``.
    """
    return HarmonicDistribution(predicted.coefficients / temperature, predicted.symmetry)
