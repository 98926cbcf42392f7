"""How particles at known poses differ: principal components, and mixtures of a few maps.

Both explain what a map leaves over in whitened images, in a band of low frequencies, by expectation
maximisation. The components are those of the posterior-weighted covariance (probabilistic principal
component analysis: Tipping & Bishop 1999; of images with poses Tagare et al. 2015, Gilles & Singer
2025), with a prior that falls as the map's own power does, inside a mask.

What an image may differ in from the map without being another structure (its contrast, and a small error of
its pose) can be integrated: it is then a coordinate of each image along known slices, with a normal prior.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere._generators import returned
from napari_cryosphere.alignment.coordinates import Evidence, Population
from napari_cryosphere.alignment.observation import Observation, best_contrast
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.reconstruction.filters import shell_power
from napari_cryosphere.reconstruction.slice_sums import SliceSums

__all__ = ["Components", "Mixture", "Nuisances", "Residuals"]

_AT_ONCE = 256  # images: slices of five maps in 12 shells take 2 MB
_CONTROLS = 4  # times that images are compared at poses of others, to see what noise does
_PRIOR = 0.3
"""Power of a difference between particles that is expected, relative to the map's; chosen, not tuned."""
_NOISE_MEASURED = (3, 8, 15)
"""Rounds before which the noise that components leave over is measured, where nuisances are integrated: what
they explain counted as noise before.
"""


@dataclass(frozen=True)
class Nuisances:
    """By how much an image may differ from the map's slice and still be the same structure.

    All are standard deviations of normal priors; 0 leaves one out.

    Attributes
    ----------
    contrast
        Of the image's contrast about 1.
    rotation_degrees, shift_px
        Of the errors of a pose: about each axis, and along x and y.
    """

    contrast: float
    rotation_degrees: float = 0.0
    shift_px: float = 0.0


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
    nuisances
        What is integrated besides coordinates along components. None takes each image at its best
        contrast instead, and integrates nothing.
    noise
        ``(shells,)``: variance of the noise by shell relative to the observation's; None is 1.

    Attributes
    ----------
    noise
        The same as it was measured last, `max_shell` + 1 values.
    weights
        How much each image counts.
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
        nuisances: Nuisances | None = None,
        noise: NDArray[np.float64] | None = None,
    ) -> None:
        self._band, self._symmetry, self._mask = observation.band, symmetry, mask
        self._rotations, self._nuisances = rotations, nuisances
        self.weights = np.ones(len(rotations)) if weights is None else weights
        centred = observation.centred(torch.from_numpy(shifts_px).float())
        turned = nuisances is not None and nuisances.rotation_degrees > 0
        sampler = SliceSampler(voxels, self._band.max_shell, moments=turned)
        self._of_map = sampler
        poses, data, filters = torch.from_numpy(rotations).float(), [], []
        for rows in _chunks(len(rotations)):
            part = centred[rows]
            slices = sampler.values(poses[rows], self._band.frequencies) * part.filters
            product = (slices.conj() * part.data).real.sum(1)
            norm = 0.5 * slices.abs().square().sum(1)
            own = best_contrast(product, norm, observation.contrast_spread)[:, None]
            if nuisances is not None:
                own = torch.ones_like(own)
            filters.append((part.filters * own).numpy())
            data.append((part.data - slices * own).numpy())
        self._data, self._filters = np.concatenate(data), np.concatenate(filters)
        self._power = shell_power(voxels.numpy())[: self._band.max_shell + 1]
        self.noise = np.ones(self._band.max_shell + 1)
        if noise is not None:
            self.rescale(noise)

    def __len__(self) -> int:
        return len(self._data)

    def rescale(self, noise: NDArray[np.float64]) -> None:
        """Whiten by noise of other variances, ``(shells,)``, relative to those so far."""
        self.noise = self.noise * noise
        scale = (noise[self._band.shells.numpy()] ** -0.5).astype(np.float32)
        self._data *= scale
        self._filters *= scale

    @property
    def integrated(self) -> int:
        """How many nuisances are integrated."""
        if self._nuisances is None:
            return 0
        given = self._nuisances
        return (given.contrast > 0) + 3 * (given.rotation_degrees > 0) + 2 * (given.shift_px > 0)

    def _known(self, rows: slice) -> NDArray[np.complex64]:
        """Return what images look like along their nuisances, a standard deviation each, ``(n, m, k)``."""
        frequencies, given = self._band.frequencies, self._nuisances
        if given is None or not self.integrated:
            return np.zeros((len(self._data[rows]), 0, len(frequencies)), dtype=np.complex64)
        poses = torch.from_numpy(self._rotations[rows]).float()
        per_box = -2j * np.pi / self._band.box
        found = list[Tensor]()
        if given.rotation_degrees > 0:
            parts = self._of_map.values_and_moments(poses, frequencies)
            slices, *moments = torch.complex(parts[:, :, 0], parts[:, :, 1]).unbind(1)
            gradient = per_box * torch.stack(moments, -1)  # n, k, 3: along the map's x, y, z
            places = (poses[:, :, :2] @ frequencies.T).transpose(1, 2)
            turns = torch.cross(places.to(gradient.dtype), gradient, dim=-1)
            found += list((np.radians(given.rotation_degrees) * turns).unbind(-1))
        else:
            slices = self._of_map.values(poses, frequencies)
        if given.contrast > 0:
            found.append(given.contrast * slices)
        if given.shift_px > 0:
            found += [given.shift_px * per_box * along * slices for along in frequencies.T]
        filters = self._filters[rows, None]
        return np.asarray(torch.stack(found, 1).numpy() * filters, dtype=np.complex64)

    def _fit(
        self,
        means: NDArray[np.float64],
        products: NDArray[np.float64],
        together: bool,
        across: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """Return the maps that explain the images best with given coefficients, inside the mask.

        ``across``, ``(n, q, m)``, are expected products of coefficients and nuisances.
        """
        number = means.shape[1]
        frequencies = self._band.frequencies.numpy()
        sums = SliceSums(self._band.box, frequencies, number, together, self._symmetry)
        weighted = means * self.weights[:, None], products * self.weights[:, None, None]
        first, second = (part.astype(np.float32) for part in weighted)
        for rows in _chunks(len(self)):
            known = None
            if across is not None and self.integrated:
                weighted_across = across[rows] * self.weights[rows, None, None]
                known = (weighted_across @ self._known(rows)).astype(np.complex64)
            sums.insert(
                self._data[rows],
                self._filters[rows],
                self._rotations[rows],
                first[rows],
                second[rows],
                known,
            )
        precision = 2 / np.maximum(_PRIOR * self._power, 1e-30)
        return sums.solve(np.tile(precision, (number, 1))) * self._mask

    def _compared(
        self, maps: NDArray[np.float32], order: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return products of nuisances, then maps, with images ``(n, q)``, and with each other ``(n, q, q)``.

        With an ``order``, ``(n,)``, all maps but the first are seen at the poses of other images.
        """
        samplers = [SliceSampler(one, self._band.max_shell) for one in maps]
        products, norms = [], []
        for rows in _chunks(len(self)):
            slices = self._slices(samplers, rows, order)
            products.append(np.einsum("nqk,nk->nq", slices.conj(), self._data[rows]).real)
            norms.append((slices.conj() @ slices.transpose(0, 2, 1)).real)
        return np.concatenate(products).astype(float), np.concatenate(norms).astype(float)

    def _slices(
        self, samplers: list[SliceSampler], rows: slice, order: NDArray[np.int64] | None = None
    ) -> NDArray[np.complex64]:
        """Return what images look like along nuisances and maps, ``(n, q, k)``."""
        own = torch.from_numpy(self._rotations[rows]).float()
        other = own if order is None else torch.from_numpy(self._rotations[order[rows]]).float()
        found = [
            sampler.values(other if place else own, self._band.frequencies).numpy()
            for place, sampler in enumerate(samplers)
        ]
        of_maps = np.stack(found, axis=1) * self._filters[rows, None]
        return np.concatenate([self._known(rows), of_maps], axis=1)

    def components(self, number: int, rounds: int, seed: int = 0) -> Components:
        """Return the principal components; see `component_rounds`."""
        return returned(self.component_rounds(number, rounds, seed), lambda done: None)

    def component_rounds(
        self, number: int, rounds: int, seed: int = 0
    ) -> Generator[int, None, Components]:
        """Find the principal components; yields the number of each round that is done.

        Parameters
        ----------
        number
            How many.
        rounds
            Rounds of expectation maximisation.
        seed
            Of the random maps that it starts from.
        """
        box, n, known = self._band.box, len(self), self.integrated
        rng = np.random.default_rng(seed)
        start = rng.normal(size=(n, number))
        means = np.concatenate([np.ones((n, 1)), start], axis=1)
        products = means[:, :, None] * means[:, None, :]
        across = np.zeros((n, number + 1, known))
        maps = np.zeros((number + 1, box, box, box), dtype=np.float32)
        latents = np.zeros((n, known + number))
        covariances = np.zeros((n, known + number, known + number))
        for turn in range(rounds):
            if turn in _NOISE_MEASURED and self._nuisances is not None:
                self.rescale(self.left_over(maps, latents, covariances))
            maps = self._fit(means, products, together=True, across=across)
            latents, covariances = self.evidence(maps).posterior(
                Population.standard(known + number)
            )
            means[:, 1:] = latents[:, known:]
            products = means[:, :, None] * means[:, None, :]
            products[:, 1:, 1:] += covariances[:, known:, known:]
            across = means[:, :, None] * latents[:, None, :known]
            across[:, 1:] += covariances[:, known:, :known]
            yield turn + 1
        return _in_principal_axes(maps, means[:, 1:], covariances[:, known:, known:])

    def evidence(
        self, maps: NDArray[np.float32], order: NDArray[np.int64] | None = None
    ) -> Evidence:
        """Return what images say of their nuisances, and of their coordinates along all maps but the first.

        Parameters
        ----------
        maps
            ``(1 + q, box, box, box)``: the mean beyond the map, and components.
        order
            ``(n,)``: other images, at whose poses components are seen: what noise says of them.
        """
        seen, norms = self._compared(maps, order)
        at, number = self.integrated, seen.shape[1]
        kept = np.delete(np.arange(number), at)
        return Evidence(seen[:, kept] - norms[:, kept, at], norms[:, kept][:, :, kept])

    def left_over(
        self,
        maps: NDArray[np.float32],
        latents: NDArray[np.float64],
        covariances: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the variance by shell that the posteriors of nuisances and coordinates leave over.

        Parameters
        ----------
        maps
            As in `evidence`.
        latents, covariances
            ``(n, m + q)`` and ``(n, m + q, m + q)``: the posteriors.
        """
        samplers = [SliceSampler(one, self._band.max_shell) for one in maps]
        at, shells = self.integrated, self._band.shells.numpy()
        power = np.zeros(len(shells))
        for rows in _chunks(len(self)):
            slices = self._slices(samplers, rows)
            left = self._data[rows] - slices[:, at]
            slices = np.delete(slices, at, axis=1)
            left -= np.einsum("nq,nqk->nk", latents[rows].astype(np.float32), slices)
            roots = np.linalg.cholesky(covariances[rows]).astype(np.float32)
            unsure = roots.transpose(0, 2, 1) @ slices
            each = np.abs(left) ** 2 + (np.abs(unsure) ** 2).sum(1)
            power += self.weights[rows] @ each
        # of real and imaginary part together
        sums = np.bincount(shells, power, minlength=len(self.noise))
        counts = np.bincount(shells, minlength=len(self.noise)) * 2 * self.weights.sum()
        counted = np.maximum(counts, 1)
        return np.where(counts > 0, sums / counted, 1.0)

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
            counts = (probabilities * self.weights[:, None]).sum(0) + 1
            shares = counts / counts.sum()
            total = float(each @ self.weights)
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
        counts = weights * self.weights
        beyond = float(counts @ (ratios[0] - ratios[1:].mean(0)))
        # the square of a standard normal number has variance 2
        return beyond / float(np.sqrt(2 * (1 + 1 / _CONTROLS) * (counts**2).sum()))

    def _log_likelihoods(self, maps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return those of images under each of several maps over the common one, ``(n, k)`` nats."""
        seen, norms = self._compared(maps)
        found: NDArray[np.float64] = seen - 0.5 * np.einsum("nkk->nk", norms)
        return found[:, self.integrated :]


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
