"""Coordinates of particles along components: their Gaussian posteriors, and the population's own.

Of an image ``d = sum over k of z_k s_k + noise`` of variance 1, with ``h_k = Re <s_k, d>`` and ``N_kl = Re
<s_k, s_l>``, and a normal population of mean m and covariance G, the posterior of z has covariance ``C = (N +
G^-1)^-1`` and mean ``C (h + G^-1 m)`` (probabilistic principal components: Tipping & Bishop 1999; of images
with poses Tagare et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Evidence", "Population"]

_ROUNDS = 200
"""Rounds of expectation maximisation of a population at most: each takes milliseconds."""
_LOOKED_AT = 10  # rounds after which the likelihood is looked at: it takes as long as a round
_SETTLED_NATS = 1e-3  # gained between two looks; fewer change nothing that is read from it
_LEAST_VARIANCE = 1e-6  # of a population: a direction in which nothing varies stays invertible


@dataclass(frozen=True)
class Population:
    """A normal distribution of coordinates.

    Attributes
    ----------
    mean, covariance
        ``(q,)`` and ``(q, q)``.
    log_likelihood
        Of all images over that without components, nats; 0 where it was not computed.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    log_likelihood: float = 0.0

    @classmethod
    def standard(cls, number: int) -> Population:
        """Return the standard normal distribution of so many coordinates."""
        return cls(np.zeros(number), np.eye(number))

    def after(self, number: int) -> Population:
        """Return the population with so many independent standard normal coordinates before it."""
        covariance = np.eye(number + len(self.mean))
        covariance[number:, number:] = self.covariance
        return Population(np.concatenate([np.zeros(number), self.mean]), covariance)


@dataclass(frozen=True)
class Evidence:
    """What images say about their coordinates.

    Attributes
    ----------
    products
        ``(n, q)``: h above.
    norms
        ``(n, q, q)``: N above.
    """

    products: NDArray[np.float64]
    norms: NDArray[np.float64]

    def first(self, number: int) -> Evidence:
        """Return the evidence of the first so many coordinates; the others are 0."""
        return Evidence(self.products[:, :number], self.norms[:, :number, :number])

    def without(self, number: int) -> Evidence:
        """Return the evidence with the first so many coordinates integrated, of standard normal prior."""
        inner = self.norms[:, :number, :number] + np.eye(number)
        across = self.norms[:, number:, :number]
        gain = across @ np.linalg.inv(inner)
        products = self.products[:, number:] - (gain @ self.products[:, :number, None])[..., 0]
        return Evidence(
            products, self.norms[:, number:, number:] - gain @ across.transpose(0, 2, 1)
        )

    def posterior(self, population: Population) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return means ``(n, q)`` and covariances ``(n, q, q)`` of the coordinates."""
        precision = np.linalg.inv(population.covariance)
        covariances = np.linalg.inv(self.norms + precision)
        information = self.products + precision @ population.mean
        return (covariances @ information[..., None])[..., 0], covariances

    def log_likelihoods(self, population: Population) -> NDArray[np.float64]:
        """Return each image's log-likelihood over that of coordinates 0, ``(n,)`` nats."""
        precision = np.linalg.inv(population.covariance)
        total, information = self.norms + precision, self.products + precision @ population.mean
        explained = np.einsum(
            "nq,nq->n", information, np.linalg.solve(total, information[..., None])[..., 0]
        )
        logs = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(total)[1]
        return np.asarray(0.5 * (explained + logs - population.mean @ precision @ population.mean))

    def population(self, weights: NDArray[np.float64]) -> Population:
        """Return the population of largest likelihood; ``weights``, ``(n,)``, say what an image counts."""
        number = self.products.shape[1]
        found, before, total = Population.standard(number), -np.inf, float(weights.sum())
        for turn in range(_ROUNDS if number else 0):
            means, covariances = self.posterior(found)
            mean = weights @ means / total
            apart = means - mean
            spread = np.einsum("n,nq,nr->qr", weights, apart, apart) + np.einsum(
                "n,nqr->qr", weights, covariances
            )
            found = Population(mean, spread / total + _LEAST_VARIANCE * np.eye(number))
            if turn % _LOOKED_AT:
                continue
            reached = float(weights @ self.log_likelihoods(found))
            if reached < before + _SETTLED_NATS:
                break
            before = reached
        return Population(
            found.mean,
            found.covariance,
            float(weights @ self.log_likelihoods(found)) if number else 0.0,
        )
