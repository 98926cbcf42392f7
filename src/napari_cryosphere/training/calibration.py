"""Whether predicted probabilities are frequencies, and the temperature that makes them so.

A network that is trained by its likelihood is nearly calibrated on what it was trained on; on other particles
it may be too sure, or not sure enough. Dividing its log-density by one number, fitted to held-out particles
by their likelihood (Guo, Pleiss, Sun & Weinberger 2017), mends most of that.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from napari_cryosphere.model.card import Calibration
from napari_cryosphere.so3._harmonic import HarmonicDistribution
from napari_cryosphere.so3.distribution import EVALUATION_ORDER

__all__ = ["LEVELS", "calibrate", "credible_levels", "mean_negative_log_density"]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of credible sets that a calibration tells the coverage of."""

_PART = 16
_LEAST, _MOST = 0.25, 4.0
_RANKING_ORDER = EVALUATION_ORDER + 1


def calibrate(coefficients: Tensor, rotations: NDArray[np.float64], symmetry: str = "C1") -> Calibration:
    """Fit the temperature to particles of known pose.

    Parameters
    ----------
    coefficients
        ``(n, L + 1, 2 L + 1, L + 1)`` complex, as the network gives them, of particles that it has not seen.
    rotations
        ``(n, 3, 3)`` their poses.
    symmetry
        Point group of the map.
    """

    def cost(log_temperature: float) -> float:
        return mean_negative_log_density(coefficients / math.exp(log_temperature), rotations, symmetry)

    bounds = (math.log(_LEAST), math.log(_MOST))
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 0.005})
    temperature = math.exp(found.x)
    levels = credible_levels(coefficients / temperature, rotations, symmetry)
    coverage = {f"{level:g}": float((levels <= level).mean()) for level in LEVELS}
    return Calibration(temperature=temperature, particles=len(rotations), coverage=coverage)


def mean_negative_log_density(
    coefficients: Tensor, rotations: NDArray[np.float64], symmetry: str = "C1"
) -> float:
    """Return how unlikely known poses are, in nats relative to uniform, as the training loss does."""
    values = []
    for part, known in _parts(coefficients, rotations, symmetry):
        cells = part.values_on_grid(EVALUATION_ORDER).flatten(1).double()
        label = torch.from_numpy(part.score(known[:, None]))
        total = torch.logaddexp(cells.logsumexp(dim=1, keepdim=True), label)
        values.append((total - label - math.log(cells.shape[1])).sum())
    return float(torch.stack(values).sum()) / len(rotations)


def credible_levels(
    coefficients: Tensor, rotations: NDArray[np.float64], symmetry: str = "C1"
) -> NDArray[np.float64]:
    """Return the level of the smallest credible set that holds each pose, ``(n,)``.

    The mass of the cells of one grid that are denser than the pose. For peaks as wide as the cells of order 4
    (3.7 degrees) or wider this is `PoseDistribution.credible_level`, a hundred times faster.
    """
    levels = []
    for part, known in _parts(coefficients, rotations, symmetry):
        cells = part.values_on_grid(_RANKING_ORDER).flatten(1)
        denser = cells > torch.from_numpy(part.score(known[:, None])).to(cells)
        levels.append((cells.softmax(dim=1) * denser).sum(dim=1).double())
    return torch.cat(levels).numpy()


def _parts(
    coefficients: Tensor, rotations: NDArray[np.float64], symmetry: str
) -> list[tuple[HarmonicDistribution, NDArray[np.float64]]]:
    starts = range(0, len(coefficients), _PART)
    return [
        (HarmonicDistribution(coefficients[at : at + _PART], symmetry), rotations[at : at + _PART])
        for at in starts
    ]
