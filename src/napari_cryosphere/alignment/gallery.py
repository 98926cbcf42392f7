"""Projections of a map from many directions, laid out for matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import Observation
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.grid import ReducedGrid

__all__ = ["Gallery", "shift_grid"]

_CHUNK = 128


@dataclass(frozen=True)
class Gallery:
    """Slices of a map at many poses, in one band.

    Attributes
    ----------
    band
        The frequencies.
    slices
        ``(r, 2 k)`` float32: real parts, then imaginary parts.
    power
        ``(r, k)`` float32: squared magnitudes.
    """

    band: FourierBand
    slices: Tensor
    power: Tensor

    @classmethod
    def of(cls, sampler: SliceSampler, rotations: NDArray[np.float64] | Tensor, band: FourierBand) -> Gallery:
        """Sample the slices at ``(r, 3, 3)`` poses."""
        poses = torch.as_tensor(rotations, dtype=torch.float32).to(sampler.device)
        frequencies = band.frequencies.to(sampler.device)
        slices = poses.new_empty(len(poses), 2 * len(frequencies))
        for start in range(0, len(poses), _CHUNK):
            values = sampler.values(poses[start : start + _CHUNK], frequencies)
            slices[start : start + _CHUNK] = real_row(values)
        return cls(band, slices, slices.unflatten(1, (2, -1)).square().sum(1))

    @classmethod
    def of_grid(cls, sampler: SliceSampler, grid: ReducedGrid, band: FourierBand) -> Gallery:
        """Sample the slices at a grid's cells, in the order of its `indices`.

        A quarter of a turn in the plane takes the band's frequencies to each other, and half of one
        conjugates a slice: only a quarter of the in-plane angles are sampled.
        """
        n_psi = grid.grid.n_psi
        parts = 4 if n_psi % 4 == 0 else 2
        rotations = grid.rotations().reshape(-1, n_psi, 3, 3)[:, : n_psi // parts]
        sampled = cls.of(sampler, rotations.reshape(-1, 3, 3), band)
        slices = [sampled.slices.reshape(len(rotations), n_psi // parts, 2, -1)]
        power = [sampled.power.reshape(len(rotations), n_psi // parts, -1)]
        if parts == 4:
            places, signs = band.after_quarter_turn()
            turned = slices[0][..., places.to(sampler.device)]
            turned[:, :, 1] *= signs.to(sampler.device)
            slices.append(turned)
            power.append(power[0][..., places.to(sampler.device)])
        conjugate = slices[0].new_tensor([1.0, -1.0])[:, None]
        half = torch.cat(slices, dim=1)
        whole = torch.cat([half, half * conjugate], dim=1)
        return cls(
            band, whole.reshape(-1, 2 * len(band.frequencies)), torch.cat(power * 2, dim=1).flatten(0, 1)
        )

    def log_likelihoods(self, observation: Observation, phases: Tensor) -> Tensor:
        """Score every pose and shift for every image.

        Parameters
        ----------
        observation
            ``n`` images in the gallery's band.
        phases
            ``(t, k)`` complex64: the band's factors for the shifts.

        Returns
        -------
        ``(r, n, t)`` float32 nats: the log-likelihood over that of an image without a particle.
        """
        return self.products(observation, phases).sub_(self.norms(observation)[..., None])

    def best_log_likelihoods(self, observation: Observation, phases: Tensor) -> Tensor:
        """Return `log_likelihoods` at each pose's best shift, ``(r, n)``."""
        return self.products(observation, phases).amax(-1).sub_(self.norms(observation))

    def products(self, observation: Observation, phases: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return what `log_likelihoods` consists of beside `norms`, of all poses or of some rows."""
        matched = real_row(observation.matched(phases))
        slices = self.slices if rows is None else self.slices[rows]
        return (slices @ matched.flatten(0, 1).T).reshape(len(slices), *matched.shape[:2])

    def norms(self, observation: Observation) -> Tensor:
        """Return half of every pose's power behind every image's filters, ``(r, n)``."""
        return self.power @ (0.5 * observation.filters.square()).T


def real_row(values: Tensor) -> Tensor:
    """Return ``(..., k)`` complex as ``(..., 2 k)`` real, so that a dot product is ``Re sum conj(a) b``."""
    return torch.cat([values.real, values.imag], dim=-1)


def shift_grid(reach_px: float, step_px: float, device: torch.device | None = None) -> Tensor:
    """Return the points of a square lattice in a disc, ``(t, 2)`` float32; the origin is one of them.

    The disc's radius is ``reach_px`` and half a step, so that every shift within reach has a point near it.
    """
    steps = math.floor(reach_px / step_px + 0.5)
    axis = torch.arange(-steps, steps + 1, device=device, dtype=torch.float32) * step_px
    lattice = torch.cartesian_prod(axis, axis)
    return lattice[lattice.norm(dim=1) <= reach_px + step_px / 2]
