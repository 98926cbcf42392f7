"""Particles unlike those that a network was trained on: ice, carbon, gradients, noise, another molecule.

A particle is described by the power of its prepared image in bands of spatial frequency, the cube
root of each: that of a mean of squares is nearly normal (Wilson & Hilferty 1931). Its novelty is
the Mahalanobis distance to the training particles, divided by the distance that a stated share of
held-out particles exceeds: above 1 it is suspect. It does not change when the image is turned, and
asks nothing of the network, whose own doubt is in its distribution's entropy.

Training sets hold junk too, which must not count as known. Mean and covariance are those of the
three quarters that lie together, found by concentration from medians (as FAST-MCD, Rousseeuw & Van
Driessen 1999, Technometrics 41:212, from a start like that of Hubert et al. 2012), and the limit is
bounded by what normal particles with the held-out ones' median distance would have.
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
_KNOWN_SHARE = 0.75  # of the training particles, from which mean and covariance come
_START_SHARE = 0.5  # of them, the nearest to the median, from which concentration starts
_CONCENTRATIONS = 10  # it has settled after 4 to 8; chosen, not tuned
_MAD_OF_NORMAL = 1.4826  # standard deviations in a median absolute deviation
# By which the limit may exceed that of normal particles: 1.366 / 1.377 of it on the sample.
_HEAVIER_TAILS = 1.1


def is_novel(novelty: NDArray[np.float64]) -> bool:
    """Return whether a set is novel as a whole: most of its particles, ``(n,)``, are suspect one by one."""
    return int((novelty > 1).sum()) > len(novelty) / 2


class Novelty(nn.Module):
    """See the module. Made by `fit`, or empty, to be filled from a file. ``box``: of prepared images."""

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

        ``images``, ``held_out``: ``(n, box, box)`` and ``(m, box, box)`` prepared.
        ``false_alarm_rate``: share of the held-out particles whose novelty is above 1. Returns none
        if there are too few particles of either kind.
        """
        made = cls(images.shape[-1])
        if len(images) < _FEWEST_A_BAND * len(made.mean) or len(held_out) < 1 / false_alarm_rate:
            return None
        mean, whitening = _concentrated(made.described(images).double())
        whitening *= _share_of_variance(len(mean), _KNOWN_SHARE) ** 0.5
        made.mean.copy_(mean)
        made.whitening.copy_(whitening)
        distances = made(held_out)
        of_normal = _chi_quantiles(len(mean), 0.5, 1 - false_alarm_rate)
        bound = _HEAVIER_TAILS * distances.median() * of_normal[1] / of_normal[0]
        made.limit.copy_(torch.minimum(torch.quantile(distances, 1 - false_alarm_rate), bound))
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Return the novelty of prepared images, ``(n,)``: 0 is the middle, above 1 is suspect."""
        off = (self.described(images) - self.mean) @ self.whitening
        return torch.linalg.vector_norm(off, dim=1) / self.limit

    def described(self, images: Tensor) -> Tensor:
        """Return the cube root of the mean power in every band, ``(n, k)``."""
        power = torch.fft.rfft2(images.to(self.mean)).abs().square()
        return (power.flatten(1) @ self.bands) ** (1 / 3)


def _chi_quantiles(dimensions: int, *shares: float) -> list[float]:
    """Return the distances that shares of standard normal points stay within."""
    from scipy.special import gammaincinv  # only where a model is made

    return [float((2 * gammaincinv(dimensions / 2, share)) ** 0.5) for share in shares]


def _share_of_variance(dimensions: int, share: float) -> float:
    """Return how much of its variance the nearest share of normal points has, along any axis."""
    from scipy.special import gammainc, gammaincinv

    return float(gammainc(dimensions / 2 + 1, gammaincinv(dimensions / 2, share)) / share)


def _concentrated(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean ``(k,)`` and whitening ``(k, k)`` of the rows of ``(n, k)`` that lie together."""
    middle = values.median(0).values
    spread = _MAD_OF_NORMAL * (values - middle).abs().median(0).values
    smallest = _SMALLEST * spread.max().clamp(min=torch.finfo(spread.dtype).tiny)
    distances = torch.linalg.vector_norm((values - middle) / spread.clamp(min=smallest), dim=1)
    share = _START_SHARE
    for _ in range(_CONCENTRATIONS):
        known = values[distances <= distances.quantile(share)]
        mean, whitening = known.mean(0), _whitening(known)
        distances = torch.linalg.vector_norm((values - mean) @ whitening, dim=1)
        share = _KNOWN_SHARE
    return mean, whitening


def _whitening(values: Tensor) -> Tensor:
    """Return what makes the covariance of ``(n, k)`` rows the identity, ``(k, k)``."""
    variances, directions = torch.linalg.eigh(torch.cov(values.T))
    return directions / variances.clamp(min=_SMALLEST * float(variances[-1])).sqrt()


def _bands(box: int) -> Tensor:
    """Return what averages the half-transform of an image over bands, ``(box * (box // 2 + 1), k)``.

    Bands are equally wide up to the Nyquist frequency; the last one holds the corners too.
    """
    number = min(_BANDS, box // 2)
    frequency = torch.hypot(torch.fft.fftfreq(box)[:, None], torch.fft.rfftfreq(box))
    band = (frequency * 2 * number).round().long().clamp(max=number).flatten()
    members = torch.nn.functional.one_hot(band, number + 1).float().view(box, box // 2 + 1, -1)
    # these represent their conjugates, which a half-transform leaves out
    members[:, 1 : box // 2] *= 2
    return (members / members.sum((0, 1))).flatten(0, 1)
