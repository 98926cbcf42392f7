"""How far particles of a set are off the middle of their images, as a prior on shifts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ShiftPrior"]

_FAR = 0.05
"""Share of particles whose shift follows no normal distribution (3 % in realistic simulations)."""
_LEAST_PX = 0.5  # standard deviation: finer than images with some noise tell shifts
_SUPPOSED, _SUPPOSED_DEVIATION = 1.0, 1 / 6
"""Particles that count for a supposed distribution before any is seen, and its deviation as a share of the
largest shift; chosen, not tuned.
"""
_ROUNDS = 30  # of EM; chosen, not tuned


@dataclass(frozen=True)
class ShiftPrior:
    """Shifts are normal about the middle, but for one of twenty, which is anywhere.

    RELION has such a prior too, without the part that is anywhere (Scheres, J. Struct. Biol. 2012).

    Attributes
    ----------
    deviation_px
        Standard deviation along x and along y.
    farthest_px
        Up to where the others are.
    """

    deviation_px: float
    farthest_px: float

    @classmethod
    def fitted(
        cls, distance_px: NDArray[np.float64], weight: NDArray[np.float64], farthest_px: float
    ) -> Self:
        """Estimate the deviation by expectation maximisation.

        Parameters
        ----------
        distance_px
            ``(n,)``: how far each particle is off; NaN for those to leave out.
        weight
            ``(n,)``: how probably that is right.
        farthest_px
            Largest shift that was searched.
        """
        finite = np.isfinite(distance_px) & np.isfinite(weight)
        distance_px, weight = distance_px[finite], weight[finite]
        farthest = max(float(distance_px.max(initial=0.0)), farthest_px, 1.0)
        squared, wide = (
            torch.from_numpy(distance_px).square(),
            (_SUPPOSED_DEVIATION * farthest) ** 2,
        )
        prior = cls(math.sqrt(wide), farthest)
        for _ in range(_ROUNDS):
            near = torch.exp(prior._log_normal(squared) - prior.log_density(squared))
            counts = near * torch.from_numpy(weight)
            total = float((counts * squared).sum()) / 2 + _SUPPOSED * wide
            variance = total / (float(counts.sum()) + _SUPPOSED)
            prior = cls(max(math.sqrt(variance), _LEAST_PX), farthest)
        return prior

    def log_density(self, squared_px: Tensor) -> Tensor:
        """Return the logarithm of the density (1/px^2) at squared distances from the middle, ``(...)``."""
        far = math.log(_FAR) - math.log(math.pi * self.farthest_px**2)
        return torch.logaddexp(self._log_normal(squared_px), squared_px.new_tensor(far))

    def _log_normal(self, squared_px: Tensor) -> Tensor:
        variance = self.deviation_px**2
        return math.log((1 - _FAR) / (2 * math.pi * variance)) - 0.5 * squared_px / variance
