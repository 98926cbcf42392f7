"""Particles unlike those that a network was trained on: ice, carbon, gradients, noise, another molecule.

A particle is described by the power of its prepared image in bands of spatial frequency, the cube
root of each: that of a mean of squares is nearly normal (Wilson & Hilferty 1931). Its novelty is
the Mahalanobis distance to the training particles, divided by the distance that a stated share of
held-out particles exceeds: above 1 it is suspect. It does not change when the image is turned, and
asks nothing of the network, whose own doubt is in its distribution's entropy.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["FALSE_ALARM_RATE", "Novelty", "is_novel"]

FALSE_ALARM_RATE = 0.02
"""Share of particles like those of the training whose novelty is above 1."""

_BANDS = 16  # of the power spectrum; chosen, not tuned
_FEWEST_A_BAND = 8  # particles that a covariance is estimated from
_SMALLEST = 1e-6  # of the largest variance: less is rounding


def is_novel(novelty: NDArray[np.float64]) -> bool:
    """Return whether a set is novel as a whole: most of its particles, ``(n,)``, are suspect one by one."""
    return int((novelty > 1).sum()) > len(novelty) / 2


class Novelty(nn.Module):
    """See the module. Made by `fit`, or empty, to be filled from a file.

    Parameters
    ----------
    box
        Of the prepared images.
    """

    mean: Tensor
    whitening: Tensor
    limit: Tensor
    bands: Tensor

    def __init__(self, box: int) -> None:
        super().__init__()
        bands = _bands(box)
        number = bands.shape[1]
        self.register_buffer("mean", torch.zeros(number))
        self.register_buffer("whitening", torch.eye(number))
        self.register_buffer("limit", torch.ones(()))
        self.register_buffer("bands", bands, persistent=False)

    @classmethod
    def fit(
        cls, images: Tensor, held_out: Tensor, false_alarm_rate: float = FALSE_ALARM_RATE
    ) -> Novelty | None:
        """Describe training particles, and set the limit by held-out ones.

        Parameters
        ----------
        images, held_out
            ``(n, box, box)`` and ``(m, box, box)`` prepared.
        false_alarm_rate
            Share of the held-out particles whose novelty is above 1.

        Returns
        -------
        None if there are too few particles of either kind.
        """
        made = cls(images.shape[-1])
        if len(images) < _FEWEST_A_BAND * len(made.mean) or len(held_out) < 1 / false_alarm_rate:
            return None
        known = made.described(images).double()
        variances, directions = torch.linalg.eigh(torch.cov(known.T))
        made.mean.copy_(known.mean(0))
        made.whitening.copy_(
            directions / variances.clamp(min=_SMALLEST * float(variances[-1])).sqrt()
        )
        made.limit.copy_(torch.quantile(made(held_out), 1 - false_alarm_rate))
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Return the novelty of prepared images, ``(n,)``: 0 is the middle, above 1 is suspect."""
        return (
            torch.linalg.vector_norm((self.described(images) - self.mean) @ self.whitening, dim=1)
            / self.limit
        )

    def described(self, images: Tensor) -> Tensor:
        """Return the cube root of the mean power in every band, ``(n, k)``."""
        power = torch.fft.rfft2(images.to(self.mean)).abs().square()
        return (power.flatten(1) @ self.bands) ** (1 / 3)


def _bands(box: int) -> Tensor:
    """Return what averages the half-transform of an image over bands, ``(box * (box // 2 + 1), k)``.

    Bands are equally wide up to the Nyquist frequency; the last one holds the corners too.
    """
    number = min(_BANDS, box // 2)
    frequency = torch.hypot(torch.fft.fftfreq(box)[:, None], torch.fft.rfftfreq(box))
    band = (frequency * 2 * number).round().long().clamp(max=number).flatten()
    members = torch.nn.functional.one_hot(band, number + 1).float().view(box, box // 2 + 1, -1)
    members[:, 1 : box // 2] *= (
        2  # these represent their conjugates, which a half-transform leaves out
    )
    return (members / members.sum((0, 1))).flatten(0, 1)
