"""Particles unlike those a network was trained on: noise, ice, another molecule.

The features of the training particles (`PoseNetwork.features`) are described by a normal distribution: its
leading principal directions with their own variances, and one variance for all that lies beside them
(probabilistic principal components, Tipping & Bishop 1999). A particle's novelty is its Mahalanobis distance,
divided by the distance that a stated share of held-out particles exceeds: above 1 it is suspect.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FALSE_ALARM_RATE", "Novelty"]

FALSE_ALARM_RATE = 0.02
"""Share of particles like those of the training whose novelty is above 1."""

_DIRECTIONS = 64
_FEWEST_A_DIRECTION = 8  # particles that a variance is estimated from
_FEWEST_HELD_OUT = 50  # or one particle would be more than the share of false alarms
_SMALLEST = 1e-6  # of a feature's spread: less is rounding


class Novelty(nn.Module):
    """See the module. Made by `fit`, or empty, to be filled from a file.

    Parameters
    ----------
    features, directions
        How many there are.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    variances: Tensor
    rest: Tensor
    limit: Tensor

    def __init__(self, features: int, directions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("directions", torch.zeros(features, directions))
        self.register_buffer("variances", torch.ones(directions))
        self.register_buffer("rest", torch.ones(()))
        self.register_buffer("limit", torch.ones(()))

    @classmethod
    def fit(
        cls, features: Tensor, held_out: Tensor, false_alarm_rate: float = FALSE_ALARM_RATE
    ) -> Novelty | None:
        """Describe the features of training particles, and set the limit by held-out ones.

        Parameters
        ----------
        features, held_out
            ``(n, f)`` and ``(m, f)``.
        false_alarm_rate
            Share of the held-out particles whose novelty is above 1.

        Returns
        -------
        None if there are too few particles of either kind.
        """
        number, size = features.shape
        directions = min(_DIRECTIONS, number // _FEWEST_A_DIRECTION, size - 1)
        if directions < 1 or len(held_out) < _FEWEST_HELD_OUT:
            return None
        made = cls(size, directions)
        given = features.double()
        spread = given.std(0)
        made.mean.copy_(given.mean(0))
        made.scale.copy_(spread.clamp(min=_SMALLEST * float(spread.max()) + 1e-30))
        values, vectors = torch.linalg.eigh(torch.cov(made._scaled(features).double().T))
        made.directions.copy_(vectors[:, -directions:])
        made.variances.copy_(values[-directions:].clamp(min=_SMALLEST))
        made.rest.copy_(values[:-directions].mean().clamp(min=_SMALLEST))
        made.limit.copy_(torch.quantile(made(held_out), 1 - false_alarm_rate))
        return made

    def forward(self, features: Tensor) -> Tensor:
        """Return the novelty of features ``(n, f)``, ``(n,)``: 0 is the middle, above 1 is suspect."""
        scaled = self._scaled(features.to(self.mean))
        along = (scaled @ self.directions).square()
        beside = (scaled.square().sum(1) - along.sum(1)).clamp(min=0)
        return ((along / self.variances).sum(1) + beside / self.rest).sqrt() / self.limit

    def _scaled(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale
