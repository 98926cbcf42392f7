"""Posteriors of coordinates against dense linear algebra, and populations that come out again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from napari_cryosphere.alignment.coordinates import Evidence, Population

NUMBER, FREQUENCIES, NUISANCES, COMPONENTS = 5, 7, 2, 3


@dataclass(frozen=True)
class Images:
    """Images of a few numbers each, and what they look like along latents."""

    data: np.ndarray
    slices: np.ndarray

    @property
    def evidence(self) -> Evidence:
        products = np.einsum("nqk,nk->nq", self.slices.conj(), self.data).real
        norms = np.einsum("nqk,nrk->nqr", self.slices.conj(), self.slices).real
        return Evidence(products, norms)

    def real(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image and its slices as real numbers: real parts, then imaginary ones."""
        parts = [np.concatenate([one.real, one.imag], axis=-1) for one in (self.data, self.slices)]
        return parts[0][image], parts[1][image]


@pytest.fixture
def images() -> Images:
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    return Images(drawn(NUMBER, FREQUENCIES), drawn(NUMBER, NUISANCES + COMPONENTS, FREQUENCIES))


@pytest.fixture
def population() -> Population:
    root = np.random.default_rng(1).normal(size=(COMPONENTS, COMPONENTS))
    return Population(np.array([0.3, -1.0, 0.5]), root @ root.T + 0.1 * np.eye(COMPONENTS))


def test_the_posterior_is_that_of_dense_algebra(images: Images, population: Population) -> None:
    """Of a linear model with normal prior: by the covariance of images and latents together."""
    prior = population.after(NUISANCES)
    means, covariances = images.evidence.posterior(prior)
    for image in range(NUMBER):
        data, slices = images.real(image)
        across = prior.covariance @ slices
        gain = across @ np.linalg.inv(slices.T @ across + np.eye(2 * FREQUENCIES))
        np.testing.assert_allclose(means[image], prior.mean + gain @ (data - slices.T @ prior.mean))
        np.testing.assert_allclose(
            covariances[image], prior.covariance - gain @ across.T, atol=1e-12
        )


def test_integrated_nuisances_leave_the_same_posterior(
    images: Images, population: Population
) -> None:
    means, covariances = images.evidence.posterior(population.after(NUISANCES))
    own, own_covariances = images.evidence.without(NUISANCES).posterior(population)
    np.testing.assert_allclose(own, means[:, NUISANCES:])
    np.testing.assert_allclose(own_covariances, covariances[:, NUISANCES:, NUISANCES:])


def test_likelihoods_are_those_of_normal_images(images: Images, population: Population) -> None:
    evidence = images.evidence.without(NUISANCES)
    said = evidence.log_likelihoods(population)
    for image in range(NUMBER):
        data, slices = images.real(image)
        noise = np.eye(2 * FREQUENCIES) + slices[:NUISANCES].T @ slices[:NUISANCES]
        maps = slices[NUISANCES:]
        with_maps = multivariate_normal(
            population.mean @ maps, noise + maps.T @ population.covariance @ maps
        )
        without = multivariate_normal(np.zeros(len(noise)), noise)
        assert said[image] == pytest.approx(with_maps.logpdf(data) - without.logpdf(data))


def test_a_population_comes_out_again() -> None:
    rng = np.random.default_rng(2)
    number, mean = 4000, np.array([0.5, -0.2])
    root = np.array([[1.2, 0.0], [0.4, 0.5]])
    latents = mean + rng.normal(size=(number, 2)) @ root.T
    norms = np.tile(np.array([[3.0, 0.5], [0.5, 2.0]]), (number, 1, 1))
    noise = rng.normal(size=(number, 2)) @ np.linalg.cholesky(norms[0]).T
    products = np.einsum("nqr,nr->nq", norms, latents) + noise
    weights = np.ones(number)
    found = Evidence(products, norms).population(weights)
    np.testing.assert_allclose(found.mean, mean, atol=0.06)
    np.testing.assert_allclose(found.covariance, root @ root.T, atol=0.12)
    nothing = Evidence(noise, norms).population(weights)
    assert nothing.log_likelihood < 8
    assert Evidence(noise, norms).first(0).population(weights).log_likelihood == 0
