"""Whether an image shows a particle of the map at all: hypotheses weighed over a whole set.

Three explanations compete for every image: a particle of the map; flat noise; and clutter, that is
structure that the map does not explain, with or without a particle under it (ice, carbon, a second
particle on top). The first is as probable as its evidence, integrated over poses and shifts; the
last shows in what the best pose leaves over inside the particle. How frequent each is, is estimated
from the set by expectation maximisation.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.observation import Observation
from napari_cryosphere.alignment.refine import RefinedPoses
from napari_cryosphere.alignment.shift_prior import ShiftPrior
from napari_cryosphere.imaging.fourier import frequency_grid, from_fourier
from napari_cryosphere.imaging.slices import SliceSampler

__all__ = ["presence", "reached", "residual_power"]

_CLUTTER = np.array([1.5, 2.0, 3.0, 5.0, 8.0])
"""Powers of what is left over in clutter, relative to that of particles.

Tuned on realistic simulations: starting at 1.25 takes neighbours at a particle's rim for clutter.
"""
_UNEVEN = 0.5
"""Share of the degrees of freedom that good particles' own scatter leaves: neighbours and wrong CTFs
make their upper tail longer than the lower half, from which it is measured.
"""
_LEAST_LEFT = 0.5
"""Of the noise: what leaves over less is no clutter. Phantoms without noise leave 0.001 to 0.008, and one of
them several times as much as another; with noise particles leave 1 and more.
"""
_PRIOR_IMAGES, _PRIOR_FREEDOM = 10, 50
"""What is assumed of the scatter before it is measured, and how many images that counts for; of 400 and
more particles it does not matter.
"""
_EXPECTED = np.array([0.8, 0.1, 0.1])
_COUNTS = np.array([1.0, 0.5, 0.5])
"""First guess of the shares of particles, noise and clutter, and the counts of a weak prior."""
_ROUNDS = 50  # of EM at most; chosen, not tuned
_SUPPOSED = 5.0
"""Particles that count for the supposed fit at true poses, two deviations above that at wrong ones, before
it is measured. Chosen: 1 to 20 change the mean probability of sets of 64 by 0.004, of 500 by less.
"""
_INSIDE = 0.8  # of the particle's radius
_SURE = 0.9  # confidence of the particles that the scatter is measured on; chosen, not tuned


def residual_power(
    sampler: SliceSampler,
    observation: Observation,
    power: Tensor,
    best: RefinedPoses,
    radius_px: float,
) -> Tensor:
    """Return the power inside the particle of what images hold beyond their best poses, ``(n,)``.

    Frequencies count as in a Wiener filter for the map's mean power; noise alone gives 1.

    Parameters
    ----------
    sampler
        The map's slices.
    observation
        ``n`` images.
    power
        `slice_power` of the map.
    best
        One pose per image.
    radius_px
        Radius of the particle.
    """
    band = observation.band
    slices = sampler.values(best.rotations, band.frequencies.to(sampler.device))
    filters = observation.filters * best.contrast[:, None]
    # turned back by the phases: the particle's centre comes to the middle
    left = observation.data * band.phases(-best.shifts_px) - slices * filters
    signal = 0.5 * observation.filters.square() * power.to(sampler.device)[band.shells]
    left = (left * (signal.sqrt() / (1 + signal))).cpu()
    box = 2 * (band.max_shell + 1)
    grid = frequency_grid(box)
    chosen = (grid[..., 0] > 0) | (grid[..., 1] > 0)
    chosen &= grid.norm(dim=-1) <= band.max_shell
    transform = torch.zeros(len(left), box, box // 2 + 1, dtype=left.dtype)
    transform[:, chosen] = left[:, _order_of(band.frequencies, grid[chosen])]
    mirrored = torch.arange(1, box // 2)
    transform[:, -mirrored, 0] = transform[:, mirrored, 0].conj()
    axis = (torch.arange(box) - box // 2).float() * (band.box / box)
    inside = torch.hypot(axis[:, None], axis) < _INSIDE * radius_px
    seen = from_fourier(transform)[:, inside].square().mean(1)
    # both of a conjugate pair count, each with variance 2 of the whitened noise
    expected = 4 * (signal / (1 + signal).square()).sum(1).cpu() / box**4
    return seen / expected


def _order_of(frequencies: Tensor, wanted: Tensor) -> Tensor:
    """Return where each wanted frequency is in a band's list, ``(k,)``."""
    span = 2 * int(frequencies.abs().max()) + 3
    keys, targets = (part[:, 0].long() * span + part[:, 1].long() for part in (frequencies, wanted))
    order = keys.argsort()
    return order[torch.searchsorted(keys[order], targets)]


def presence(
    log_evidence: NDArray[np.float64],
    residual: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    confidence: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the probability that each image is a particle of the map, ``(n,)``.

    Parameters
    ----------
    log_evidence
        ``(n,)`` nats over an image without a particle, averaged over poses, integrated over shifts
        (px^2).
    residual
        ``(n,)``: `residual_power`.
    shifts_px
        ``(n,)``: how far each particle is off.
    confidence
        ``(n,)``: how sure its pose is, if it is one.
    """
    sure = confidence > _SURE
    if not sure.any():
        sure = np.ones(len(confidence), dtype=bool)
    near = ShiftPrior.fitted(shifts_px[sure], confidence[sure], float(shifts_px.max()))
    off = near.log_density(torch.from_numpy(shifts_px).square())
    particle = log_evidence + off.numpy()
    usual = max(float(np.median(residual[sure])), _LEAST_LEFT)
    lower = residual[sure & (residual <= usual)]
    scatter = float(np.sum((lower / usual - 1) ** 2)) + _PRIOR_IMAGES * 2 / _PRIOR_FREEDOM
    freedom = _UNEVEN * 2 * (len(lower) + _PRIOR_IMAGES) / scatter
    excess = residual[:, None] / usual * (1 - 1 / _CLUTTER) - np.log(_CLUTTER)
    clutter = np.logaddexp.reduce(0.5 * freedom * excess, axis=1) - math.log(len(_CLUTTER))
    log_likelihood = np.stack(
        [particle, np.zeros_like(particle), np.logaddexp(particle, 0.0) + clutter], axis=1
    )
    shares = _EXPECTED
    for _ in range(_ROUNDS):
        logs = log_likelihood + np.log(shares)
        weights = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
        shares = (weights.sum(0) + _COUNTS) / (len(weights) + _COUNTS.sum())
    return np.asarray(weights[:, 0])


def reached(
    log_likelihood: NDArray[np.float64],
    at_wrong_poses: NDArray[np.float64],
    prior: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the probability that each particle's true pose is among those compared, ``(n,)``.

    A search near some poses always finds a best one. Where the true pose is not near any, its fit is as
    that of particles whose poses were sought in wrong places; those fits, and the others by expectation
    maximisation, are taken as normal.

    Parameters
    ----------
    log_likelihood
        ``(n,)``: the best of each particle, nats.
    at_wrong_poses
        ``(m,)``: the best of some particles near as many random poses.
    prior
        ``(n,)``: the probability of the compared poses before they were compared.
    weight
        ``(n,)``: how probably each image is a particle at all.
    """
    wrong, narrow = float(np.mean(at_wrong_poses)), max(float(np.std(at_wrong_poses)), 1e-3)
    supposed, right, wide = wrong + 2 * narrow, wrong + 2 * narrow, narrow
    prior = np.clip(prior, 1e-6, 1 - 1e-6)
    found = prior
    for _ in range(_ROUNDS):
        # normal curves meet twice if one is wider: what fits worse than wrong poses do is not right
        turn = (wrong * wide**2 - right * narrow**2) / max(wide**2 - narrow**2, 1e-9)
        fit = np.maximum(log_likelihood, turn) if wide > narrow else log_likelihood
        odds = 0.5 * ((fit - wrong) / narrow) ** 2 - 0.5 * ((fit - right) / wide) ** 2
        odds = odds + np.log(narrow / wide) + np.log(prior / (1 - prior))
        found = 1 / (1 + np.exp(-np.clip(odds, -700, 700)))
        counts = found * weight
        total = counts.sum() + _SUPPOSED
        right = max((counts @ log_likelihood + _SUPPOSED * supposed) / total, wrong)
        squares = counts @ (log_likelihood - right) ** 2 + _SUPPOSED * narrow**2
        wide = max(math.sqrt(squares / total), narrow)
    return np.asarray(found)
