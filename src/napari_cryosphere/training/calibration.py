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
from napari_cryosphere.so3.distribution import PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["LEVELS", "calibrate", "credible_levels", "mean_negative_log_density"]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of credible sets that a calibration tells the coverage of."""

_LEAST, _MOST = 0.25, 4.0
_RANKING_ORDERS = (4, 5)
_CELLS_AT_ONCE = 5_000_000
_MOST_IN_A_CELL = 0.02


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
    """Return how unlikely known poses ``(n, 3, 3)`` are, in nats relative to uniform.

    Normalised as exactly as the distribution can: on the training loss's grid a peak that is narrower than a
    cell seems to cost less than it does, and the fit would sharpen it further.
    """
    distribution = PoseDistribution.from_coefficients(coefficients, symmetry)
    return -float(distribution.log_prob(rotations[:, None]).mean())


def credible_levels(
    coefficients: Tensor, rotations: NDArray[np.float64], symmetry: str = "C1"
) -> NDArray[np.float64]:
    """Return the level of the smallest credible set that holds each pose, ``(n,)``.

    The mass of the cells of one grid that are denser than the pose, on a finer grid where one cell would hold
    much. This is `PoseDistribution.credible_level` to about 0.01, many times faster.
    """
    levels = np.empty(len(rotations))
    left = np.arange(len(rotations))
    for order in _RANKING_ORDERS:
        coarse: list[int] = []
        size = max(1, _CELLS_AT_ONCE // SO3Grid(order).size)
        for rows in (left[at : at + size] for at in range(0, len(left), size)):
            part = HarmonicDistribution(coefficients[torch.from_numpy(rows)], symmetry)
            cells = part.values_on_grid(order).flatten(1)
            denser = cells > torch.from_numpy(part.score(rotations[rows][:, None])).to(cells)
            probability = cells.softmax(dim=1)
            levels[rows] = (probability * denser).sum(dim=1).double().numpy()
            held = probability.max(dim=1).values * len(point_group(symmetry))
            coarse += rows[(held > _MOST_IN_A_CELL).numpy()].tolist()
        left = np.array(coarse, dtype=int)
    return levels
