"""Projections of a map from many directions, laid out for matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import Observation, contrast_integral
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.grid import ReducedGrid

__all__ = ["References", "shift_grid"]

_CHUNK = 128  # slices sampled at once


@dataclass(frozen=True)
class References:
    """Slices of a map at many poses, in one band.

    Attributes
    ----------
    band
        The frequencies.
    slices
        ``(r, 2 k)`` float32: each frequency's real and imaginary part.
    power
        ``(r, k)`` float32: squared magnitudes.
    """

    band: FourierBand
    slices: Tensor
    power: Tensor

    @classmethod
    def of(
        cls, sampler: SliceSampler, rotations: NDArray[np.float64] | Tensor, band: FourierBand
    ) -> References:
        """Sample the slices at ``(r, 3, 3)`` poses."""
        poses = torch.as_tensor(rotations, dtype=torch.float32).to(sampler.device)
        frequencies = band.frequencies.to(sampler.device)
        slices = poses.new_empty(len(poses), 2 * len(frequencies))
        for start in range(0, len(poses), _CHUNK):
            values = sampler.values(poses[start : start + _CHUNK], frequencies)
            slices[start : start + _CHUNK] = real_row(values)
        return cls(band, slices, slices.unflatten(1, (-1, 2)).square().sum(2))

    @classmethod
    def of_grid(cls, sampler: SliceSampler, grid: ReducedGrid, band: FourierBand) -> References:
        """Sample the slices at a grid's cells, in the order of its `indices`.

        A quarter of a turn in the plane takes the band's frequencies to each other, and half of one
        conjugates a slice: only a quarter of the in-plane angles are sampled.
        """
        n_psi = grid.grid.n_psi
        parts = 4 if n_psi % 4 == 0 else 2
        sampled_angles = n_psi // parts
        rotations = grid.rotations().reshape(-1, n_psi, 3, 3)[:, :sampled_angles]
        sampled = cls.of(sampler, rotations.reshape(-1, 3, 3), band)
        shape = (len(rotations), parts, sampled_angles, len(band.frequencies))
        slices = sampled.slices.new_empty(*shape, 2)
        values = torch.view_as_complex(slices)
        power = sampled.power.new_empty(shape)
        values[:, 0] = torch.view_as_complex(
            sampled.slices.reshape(len(rotations), sampled_angles, -1, 2)
        )
        power[:, 0] = sampled.power.reshape(len(rotations), sampled_angles, -1)
        if parts == 4:
            places, signs = (of.to(sampler.device) for of in band.after_quarter_turn())
            values[:, 1] = values[:, 0][..., places]
            slices[:, 1, ..., 1] *= signs
            power[:, 1] = power[:, 0][..., places]
        half = parts // 2
        values[:, half:] = values[:, :half].conj()
        power[:, half:] = power[:, :half]
        return cls(band, slices.flatten(0, 2).flatten(1), power.flatten(0, 2))

    def log_likelihoods(self, observation: Observation, phases: Tensor) -> Tensor:
        """Score every pose and shift for every image.

        Parameters
        ----------
        observation
            ``n`` images in the references's band.
        phases
            ``(t, k)`` complex64: the band's factors for the shifts.

        Returns
        -------
        ``(r, n, t)`` float32 nats: the log-likelihood over that of an image without a particle.
        """
        products, norms = self.products(observation, phases), self.norms(observation)
        return contrast_integral(products, norms[..., None], observation.contrast_spread)

    def best_log_likelihoods(
        self, observation: Observation, phases: Tensor, log_prior: Tensor | None = None
    ) -> Tensor:
        """Return `log_likelihoods` and a shift's prior, ``(n, t)``, at each pose's best shift, ``(r, n)``."""
        scores = self.products(observation, phases)
        best = (scores if log_prior is None else scores.add_(log_prior)).amax(-1)
        return contrast_integral(best, self.norms(observation), observation.contrast_spread)

    def products(self, observation: Observation, phases: Tensor) -> Tensor:
        """Return what `log_likelihoods` consists of besides `norms`, ``(r, n, t)``."""
        matched = real_row(observation.matched(phases))
        return (self.slices @ matched.flatten(0, 1).T).unflatten(1, matched.shape[:2])

    def norms(self, observation: Observation) -> Tensor:
        """Return half of every pose's power behind every image's filters, ``(r, n)``."""
        return self.power @ (0.5 * observation.filters.square()).T

    def products_of_rows(self, observation: Observation, phases: Tensor, rows: Tensor) -> Tensor:
        """Return `products` of each image with poses of its own, ``(n, w)`` rows to ``(n, w, t)``."""
        slices = self.slices.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return slices @ real_row(observation.matched(phases)).transpose(1, 2)

    def norms_of_rows(self, observation: Observation, rows: Tensor) -> Tensor:
        """Return `norms` of each image with poses of its own, ``(n, w)`` rows to ``(n, w)``."""
        power = self.power.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return ((0.5 * observation.filters.square())[:, None] @ power.transpose(1, 2))[:, 0]


def real_row(values: Tensor) -> Tensor:
    """Return ``(..., k)`` complex as ``(..., 2 k)`` real, so that a dot product is ``Re sum conj(a) b``."""
    return torch.view_as_real(values).flatten(-2)


def shift_grid(reach_px: float, step_px: float, device: torch.device | None = None) -> Tensor:
    """Return the points of a square lattice in a disc, ``(t, 2)`` float32; the origin is one of them.

    The disc's radius is ``reach_px`` and half a step, so that every shift within reach has a point
    near it.
    """
    steps = math.floor(reach_px / step_px + 0.5)
    axis = torch.arange(-steps, steps + 1, device=device, dtype=torch.float32) * step_px
    lattice = torch.cartesian_prod(axis, axis)
    return lattice[lattice.norm(dim=1) <= reach_px + step_px / 2]
