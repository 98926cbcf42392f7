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
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cryosphere.model.card import Calibration, ShiftCard, StateCard
from napari_cryosphere.model.pose_model import LARGEST_CHANGE, temperatures
from napari_cryosphere.model.pose_network import Shifts, log_contrast, state_shares
from napari_cryosphere.so3.distributions import HarmonicDistribution

__all__ = ["LEVELS", "calibrate", "calibrate_shifts", "calibrate_states", "tempered"]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of credible sets whose coverage a calibration reports."""

_STEP = 0.2
"""Of the temperature's logarithm, between those at which levels are measured. Levels interpolated between
them were within 0.01 of measured ones, 0.003 on average (50 random distributions of degree 3).
"""
_FARTHEST = 7  # steps from 1: temperatures of 0.25 to 4; those in docs/measurements.md are 0.9 to 1
_LEAST_SCALE = 0.01  # of shifts' widths: a card needs a positive one where all errors are 0
_LEAST_SPREAD = 0.02  # of the contrast's logarithm: with less, one temperature serves all
_STATES_STEP = 0.1  # of the logarithm of the states' temperature: 10 %; chosen, not tuned
_LEAST_SHARE = 1e-6  # of a state, so that one particle does not rule its temperature
_AT_ONCE = 32  # particles on a grid of states and poses: some 30 MB for two states
_ENOUGH = 0.01  # in the temperature's logarithm: 250 particles determine it to 0.05
_OFFSETS = np.linspace(-0.2, 0.2, 11)
"""Of the temperature's logarithm, with each slope: it was fitted without one before; chosen, not tuned."""
_SLOPES = LARGEST_CHANGE * np.linspace(-1, 1, 41)
"""Per standard deviation of the contrast: steps of 0.02, as fine as a temperature is fitted."""
_USUAL_CHANGE = 0.2
"""Standard deviation expected of a slope times that of the contrast; chosen, not tuned: 0.12 was
found for beta-galactosidase (docs/measurements/networks.md). Few particles say little of a slope,
and this keeps theirs near 0."""


def calibrate(
    predicted: HarmonicDistribution, rotations: NDArray[np.float64], ctf: torch.Tensor | None = None
) -> Calibration:
    """Fit the temperature to particles of known pose, by the Cramer-von Mises distance of their levels.

    ``predicted``: what the network says, ``n`` particles that it has not seen. ``rotations``:
    ``(n, 3, 3)`` their poses. ``ctf``: ``(n, box // 2 + 1)``, see
    `napari_cryosphere.training.sources.Batch`; None where it is not known.
    """
    levels, uniform = (
        _Levels(predicted, rotations),
        (np.arange(len(rotations)) + 0.5) / len(rotations),
    )

    def cost(log_temperature: float) -> float:
        reached = levels.at(np.full(len(rotations), log_temperature))
        return float(np.square(np.sort(reached) - uniform).mean())

    fitted = Calibration(temperature=math.exp(_lowest(cost)), particles=len(rotations))
    if ctf is not None:
        fitted = _with_slope(fitted, levels, ctf)
    reached = tempered(predicted, temperatures(fitted, ctf)).credible_level(rotations)
    coverage = {f"{level:g}": float((reached <= level).mean()) for level in LEVELS}
    return fitted.model_copy(update={"coverage": coverage})


class _Levels:
    """Levels of the credible sets that just hold known poses, at any temperature.

    They are measured at some temperatures, when one is first asked for, and interpolated between.
    """

    def __init__(self, predicted: HarmonicDistribution, rotations: NDArray[np.float64]) -> None:
        self._predicted, self._rotations = predicted, rotations
        self._measured: dict[int, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self._rotations)

    def at(self, log_temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the levels at a temperature of each particle, ``(n,)``."""
        place = log_temperatures / _STEP
        below = np.floor(place).astype(int)
        first, last = int(below.min()), int(below.max()) + 1
        table = np.stack([self._at_step(step) for step in range(first, last + 1)])
        rows, share = np.arange(len(self)), place - below
        return table[below - first, rows] * (1 - share) + table[below + 1 - first, rows] * share

    def _at_step(self, step: int) -> NDArray[np.float64]:
        if step not in self._measured:
            given = tempered(self._predicted, math.exp(step * _STEP))
            self._measured[step] = given.credible_level(self._rotations)
        return self._measured[step]


def _lowest(cost: Callable[[float], float]) -> float:
    """Return the temperature's logarithm of least cost: near 0, and farther while it falls."""
    first, last = -1, 1
    while True:
        tried = np.arange(first * _STEP, last * _STEP - _ENOUGH / 2, _ENOUGH)
        found = int(np.argmin([cost(each) for each in tried]))
        if found == 0 and first > -_FARTHEST:
            first -= 1
        elif found == len(tried) - 1 and last < _FARTHEST:
            last += 1
        else:
            return float(tried[found])


def _with_slope(fitted: Calibration, levels: _Levels, ctf: torch.Tensor) -> Calibration:
    """Return a calibration with a slope, and the temperature that goes with it."""
    contrast = log_contrast(ctf).double().numpy()
    spread = float(contrast.std())
    if spread < _LEAST_SPREAD:
        return fitted
    apart = (contrast - contrast.mean()) / spread
    uniform = (np.arange(len(levels)) + 0.5) / len(levels)
    penalty = 1 / (12 * len(levels) * _USUAL_CHANGE**2)  # 1 / 12 is the variance of a level

    def cost(offset: float, slope: float) -> float:
        changes = np.clip(offset + slope * apart, -LARGEST_CHANGE, LARGEST_CHANGE)
        reached = levels.at(math.log(fitted.temperature) + changes)
        correlated = float(((reached - 0.5) * apart).mean())
        distance = float(np.square(np.sort(reached) - uniform).mean())
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

    ``shifts``: what the network says, ``n`` particles that it has not seen. ``known_px``:
    ``(n, 2)`` x and y of their centres from pixel n // 2, in the network's pixels.
    ``pixel_size_angstrom``: of these pixels.
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


def calibrate_states(
    states: torch.Tensor, predicted: HarmonicDistribution, known: NDArray[np.float64]
) -> StateCard:
    """Fit the temperature of states to particles of known state: that of the least cross-entropy.

    ``states``, ``(n, k, L + 1, 2 L + 1, L + 1)``: what the network says, of particles that it has
    not seen. ``predicted``: their poses, as calibrated. ``known``, ``(n, k)``: the probabilities
    that alignment gave.
    """
    reach = round(_FARTHEST * _STEP / _STATES_STEP)
    tried = torch.exp(_STATES_STEP * torch.arange(-reach, reach + 1))
    parts = [
        state_shares(one, poses, tried)
        for one, poses in zip(
            states.split(_AT_ONCE), predicted.coefficients.split(_AT_ONCE), strict=True
        )
    ]
    shares, labels = torch.cat(parts, dim=1).double(), torch.from_numpy(known)
    nats = -(labels * shares.clamp(min=_LEAST_SHARE).log()).sum(dim=2).mean(dim=1)
    best = int(nats.argmin())
    agree = shares[best].argmax(dim=1) == labels.argmax(dim=1)
    return StateCard(
        temperature=float(tried[best]), particles=len(known), agreement=float(agree.double().mean())
    )


def tempered(
    predicted: HarmonicDistribution, temperature: float | torch.Tensor
) -> HarmonicDistribution:
    """Return what a model with this temperature says: coefficients divided by it, before symmetry counts.

    One temperature, or ``(n, 1, 1, 1)``.
    """
    return HarmonicDistribution(predicted.coefficients / temperature, predicted.symmetry)
