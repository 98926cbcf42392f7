"""How particles at known poses differ: principal components, and mixtures of a few maps.

Both explain what a map leaves over in whitened images, in a band of low frequencies, by expectation
maximisation. The components are those of the posterior-weighted covariance (probabilistic principal
component analysis: Tipping & Bishop 1999; of images with poses Tagare et al. 2015, Gilles & Singer
2025), with a prior that falls as the map's own power does, inside a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.observation import Observation, best_contrast
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.reconstruction.filters import shell_power
from napari_cryosphere.reconstruction.slice_sums import SliceSums

__all__ = ["Components", "Mixture", "Residuals"]

_AT_ONCE = 256  # images: slices of five maps in 12 shells take 2 MB
_CONTROLS = 4  # times that images are compared at poses of others, to see what noise does
_PRIOR = 0.3
"""Power of a difference between particles that is expected, relative to the map's; chosen, not tuned."""


@dataclass(frozen=True)
class Components:
    """Principal components of what particles differ in.

    Attributes
    ----------
    mean
        ``(box, box, box)``: what the particles have on average beyond the map.
    maps
        ``(q, box, box, box)``: one standard deviation along each component, largest first.
    coordinates
        ``(n, q)``: expected coordinate of each particle, in standard deviations.
    covariances
        ``(n, q, q)``: of each particle's coordinates about these.
    """

    mean: NDArray[np.float32]
    maps: NDArray[np.float32]
    coordinates: NDArray[np.float64]
    covariances: NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """A few maps between which particles are shared out.

    Attributes
    ----------
    maps
        ``(k, box, box, box)``: each one's difference from the common map.
    shares
        ``(k,)``: of the particles.
    probabilities
        ``(n, k)``.
    log_likelihood
        Of all images together over the common map alone, nats.
    """

    maps: NDArray[np.float32]
    shares: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    log_likelihood: float


class Residuals:
    """What a map leaves over in images at known poses.

    Parameters
    ----------
    observation
        ``n`` whitened images.
    rotations, shifts_px
        ``(n, 3, 3)`` and ``(n, 2)``: their poses.
    voxels
        ``(box, box, box)``: the map, on the images' grid.
    mask
        ``(box, box, box)``: where particles may differ, 0 to 1.
    symmetry
        Point group of all maps.
    weights
        ``(n,)``: how probably each image is a particle; None counts as 1.
    """

    def __init__(
        self,
        observation: Observation,
        rotations: NDArray[np.float64],
        shifts_px: NDArray[np.float64],
        voxels: Tensor,
        mask: NDArray[np.float32],
        symmetry: str = "C1",
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self._band, self._symmetry, self._mask = observation.band, symmetry, mask
        self._rotations = rotations
        self._weights = np.ones(len(rotations)) if weights is None else weights
        centred = observation.centred(torch.from_numpy(shifts_px).float())
        sampler = SliceSampler(voxels, self._band.max_shell)
        poses, data, filters = torch.from_numpy(rotations).float(), [], []
        for rows in _chunks(len(rotations)):
            part = centred[rows]
            slices = sampler.values(poses[rows], self._band.frequencies) * part.filters
            product = (slices.conj() * part.data).real.sum(1)
            norm = 0.5 * slices.abs().square().sum(1)
            own = best_contrast(product, norm, observation.contrast_spread)[:, None]
            filters.append((part.filters * own).numpy())
            data.append((part.data - slices * own).numpy())
        self._data, self._filters = np.concatenate(data), np.concatenate(filters)
        self._power = shell_power(voxels.numpy())[: self._band.max_shell + 1]

    def __len__(self) -> int:
        return len(self._data)

    def _fit(
        self,
        means: NDArray[np.float64],
        products: NDArray[np.float64],
        together: bool,
    ) -> NDArray[np.float32]:
        """Return the maps that explain the images best with given coefficients, inside the mask."""
        number = means.shape[1]
        frequencies = self._band.frequencies.numpy()
        sums = SliceSums(self._band.box, frequencies, number, together, self._symmetry)
        weighted = means * self._weights[:, None], products * self._weights[:, None, None]
        first, second = (part.astype(np.float32) for part in weighted)
        for rows in _chunks(len(self)):
            sums.insert(
                self._data[rows],
                self._filters[rows],
                self._rotations[rows],
                first[rows],
                second[rows],
            )
        precision = 2 / np.maximum(_PRIOR * self._power, 1e-30)
        return sums.solve(np.tile(precision, (number, 1))) * self._mask

    def _compared(
        self, maps: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return products of maps and images ``(n, q)``, and of maps with each other ``(n, q, q)``."""
        samplers = [SliceSampler(one, self._band.max_shell) for one in maps]
        products, norms = [], []
        for rows in _chunks(len(self)):
            poses = torch.from_numpy(self._rotations[rows]).float()
            found = [one.values(poses, self._band.frequencies).numpy() for one in samplers]
            slices = np.stack(found) * self._filters[rows]
            products.append(np.einsum("qnk,nk->nq", slices.conj(), self._data[rows]).real)
            norms.append(np.einsum("qnk,rnk->nqr", slices.conj(), slices).real)
        return np.concatenate(products).astype(float), np.concatenate(norms).astype(float)

    def components(self, number: int, rounds: int, seed: int = 0) -> Components:
        """Return the principal components.

        Parameters
        ----------
        number
            How many.
        rounds
            Rounds of expectation maximisation.
        seed
            Of the random maps that it starts from.
        """
        box, n = self._band.box, len(self)
        rng = np.random.default_rng(seed)
        start = rng.normal(size=(n, number))
        means = np.concatenate([np.ones((n, 1)), start], axis=1)
        products = means[:, :, None] * means[:, None, :]
        maps = np.zeros((number + 1, box, box, box), dtype=np.float32)
        for _ in range(rounds):
            maps = self._fit(means, products, together=True)
            means, products, covariances = self._coordinates(maps)
        return _in_principal_axes(maps, means[:, 1:], covariances)

    def _coordinates(
        self, maps: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return expected coordinates with 1 for the mean, their products, and their covariances."""
        seen, norms = self._compared(maps)
        own = seen[:, 1:] - norms[:, 1:, 0]
        covariances = np.asarray(
            np.linalg.inv(norms[:, 1:, 1:] + np.eye(len(maps) - 1)), np.float64
        )
        found = (covariances @ own[..., None])[..., 0]
        means = np.concatenate([np.ones((len(found), 1)), found], axis=1)
        products = means[:, :, None] * means[:, None, :]
        products[:, 1:, 1:] += covariances
        return means, products, covariances

    def mixture(self, probabilities: NDArray[np.float64], rounds: int) -> Mixture:
        """Return the maps that share out the particles best, from first ``(n, k)`` probabilities."""
        number = probabilities.shape[1]
        shares, total = probabilities.mean(0), 0.0
        maps = np.zeros((number, *self._mask.shape), dtype=np.float32)
        for _ in range(rounds):
            diagonal = probabilities[:, :, None] * np.eye(number)
            maps = self._fit(probabilities, diagonal, together=False)
            logs = self._log_likelihoods(maps) + np.log(shares)
            each = np.logaddexp.reduce(logs, axis=1)
            probabilities = np.exp(logs - each[:, None])
            counts = (probabilities * self._weights[:, None]).sum(0) + 1
            shares = counts / counts.sum()
            total = float(each @ self._weights)
        return Mixture(maps, shares, probabilities, total)

    def shared_out(self, mixture: Mixture) -> NDArray[np.float64]:
        """Return the probabilities of a mixture's maps, ``(n, k)``, that other particles made."""
        logs = self._log_likelihoods(mixture.maps) + np.log(mixture.shares)
        return np.asarray(np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None]))

    def scatter_along(
        self,
        difference: NDArray[np.float32],
        middle: NDArray[np.float32],
        weights: NDArray[np.float64],
    ) -> float:
        """Return by how many standard deviations images scatter along a map, more than noise does.

        What noise does is seen along the same map at the poses of other images.

        Parameters
        ----------
        difference
            ``(box, box, box)``: made without these images.
        middle
            ``(box, box, box)``: the difference from the common map about which they scatter.
        weights
            ``(n,)``: how much each counts.
        """
        rng = np.random.default_rng(0)
        orders = [np.arange(len(self)), *(rng.permutation(len(self)) for _ in range(_CONTROLS))]
        about = SliceSampler(middle, self._band.max_shell)
        along = SliceSampler(difference, self._band.max_shell)
        poses = torch.from_numpy(self._rotations).float()
        ratios = np.empty((len(orders), len(self)))
        for rows in _chunks(len(self)):
            filters = self._filters[rows]
            left = (
                self._data[rows]
                - about.values(poses[rows], self._band.frequencies).numpy() * filters
            )
            for ratio, order in zip(ratios, orders, strict=True):
                slices = along.values(poses[order[rows]], self._band.frequencies).numpy() * filters
                norms = (np.abs(slices) ** 2).sum(1)
                ratio[rows] = (slices.conj() * left).real.sum(1) ** 2 / np.maximum(norms, 1e-30)
        counts = weights * self._weights
        beyond = float(counts @ (ratios[0] - ratios[1:].mean(0)))
        # the square of a standard normal number has variance 2
        return beyond / float(np.sqrt(2 * (1 + 1 / _CONTROLS) * (counts**2).sum()))

    def _log_likelihoods(self, maps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return those of images under each of several maps over the common one, ``(n, k)`` nats."""
        seen, norms = self._compared(maps)
        found: NDArray[np.float64] = seen - 0.5 * np.einsum("nkk->nk", norms)
        return found


def _chunks(number: int) -> Iterator[slice]:
    return (slice(start, start + _AT_ONCE) for start in range(0, number, _AT_ONCE))


def _in_principal_axes(
    maps: NDArray[np.float32],
    coordinates: NDArray[np.float64],
    covariances: NDArray[np.float64],
) -> Components:
    """Return the components turned so that their maps are orthogonal, the largest first."""
    flat = maps[1:].reshape(len(maps) - 1, -1).astype(np.float64)
    second = coordinates.T @ coordinates / len(coordinates) + covariances.mean(0)
    root = np.linalg.cholesky(second)
    # coordinates of unit second moment, then the axes of the maps that belong to them
    left, _, _ = np.linalg.svd(root.T @ flat, full_matrices=False)
    turn = np.linalg.inv(root).T @ left
    turned = (left.T @ root.T @ flat).reshape(-1, *maps.shape[1:]).astype(np.float32)
    return Components(
        maps[0],
        turned,
        coordinates @ turn,
        np.einsum("ai,nab,bj->nij", turn, covariances, turn),
    )
