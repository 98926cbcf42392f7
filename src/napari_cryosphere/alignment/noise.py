"""Estimates of noise spectrum and contrast from the particles themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import NoiseModel, Observation
from napari_cryosphere.imaging.fourier import frequency_grid, to_fourier
from napari_cryosphere.imaging.map_mask import map_radius_px
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.grid import SO3Grid

__all__ = [
    "contrast_factor",
    "estimate_noise",
    "informative_shell",
    "mean_signal_power",
    "particle_radius_px",
]

_FEWEST_BACKGROUND_PIXELS = 0.1
_LEAST_SHARE = 0.5
_SAMPLES_AT_ONCE = 1 << 16


def particle_radius_px(voxels: Tensor) -> float:
    """Return the radius of the sphere about voxel n // 2 that holds 99 % of a map's power, at most n / 2."""
    return float(min(map_radius_px(voxels.cpu().numpy()), voxels.shape[-1] // 2))


def estimate_noise(images: Tensor, signal: Tensor, radius_px: float) -> NoiseModel:
    """Estimate noise and contrast without knowing any pose.

    The noise spectrum comes from the pixels beyond the particle. The contrast is the one at which
    the mean power of the map's slices, behind the mean squared CTF, explains what the images' power
    has beyond that. The spectrum is then what the explained signal leaves of the images' power.

    Parameters
    ----------
    images
        ``(n, box, box)``: a few hundred, spread over the data, backgrounds normalised.
    signal
        `mean_signal_power` of the map behind these images' CTFs.
    radius_px
        Radius of the particle.
    """
    box = images.shape[-1]
    outside = _background_window(box, radius_px)
    background = (
        _shell_means(to_fourier(images * outside).abs().square().mean(0)) / outside.square().mean()
    )
    power = _shell_means(to_fourier(images).abs().square().mean(0))
    shells = torch.arange(1, len(power) - 1)
    weight = shells / background[shells].square()
    excess = (power - background)[shells]
    squared = float(
        (weight * signal[shells] * excess).sum() / (weight * signal[shells].square()).sum()
    )
    contrast = max(squared, 0.0) ** 0.5
    left = torch.maximum(power - squared * signal, _LEAST_SHARE * background)
    return NoiseModel(left if contrast > 0 else background, contrast)


def contrast_factor(observation: Observation, model: Tensor) -> float:
    """Return the factor by which ``(n, k)`` model images fit an observation best.

    Five parameters of each image's pose have been fitted to its noise, which makes the product of
    data and model too large by 5/2 nats an image; that is taken off.
    """
    cross = torch.view_as_real(observation.data * model.conj())[..., 0].sum() - 2.5 * len(
        observation
    )
    return float(cross / model.abs().square().sum())


def informative_shell(noise: NoiseModel, signal: Tensor, share: float = 0.998) -> int:
    """Return the shell up to which images hold ``share`` of all that they say about poses.

    ``signal`` is `mean_signal_power` of the map behind their CTFs, ``(box // 2 + 1,)``.

    A shell tells of rotations by its signal-to-noise ratio, its number of frequencies, and the
    square of its radius, since a rotation moves points in proportion to it.
    """
    ratio = noise.contrast**2 * signal / noise.spectrum
    shells = torch.arange(len(ratio))
    information = (ratio * shells**3)[:-1]
    return max(4, int(torch.searchsorted(information.cumsum(0) / information.sum(), share)))


def mean_signal_power(sampler: SliceSampler, ctf: Tensor | None) -> Tensor:
    """Return the mean power of slices behind the mean squared CTF by shell, ``(box // 2 + 1,)``.

    Parameters
    ----------
    sampler
        Slices of the map on the images' grid, to the last shell below Nyquist.
    ctf
        ``(n, box, box // 2 + 1)`` of the images, or None.
    """
    box = sampler.box
    band = FourierBand(box, box // 2 - 1)
    poses = torch.from_numpy(SO3Grid(0).rotations()).float().to(sampler.device)
    frequencies = band.frequencies.to(sampler.device)
    power = torch.zeros(len(frequencies), device=sampler.device)
    for some in poses.split(max(1, _SAMPLES_AT_ONCE // len(frequencies))):
        power += sampler.values(some, frequencies).abs().square().sum(0)
    power /= len(poses)
    if ctf is not None:
        power = power * band.of(ctf.square().mean(0)).to(power)
    shells = band.shells.to(power.device)
    means = torch.zeros(box // 2 + 1, device=power.device)
    means.index_add_(0, shells, power)
    return (means / torch.bincount(shells, minlength=len(means)).clamp(min=1)).cpu()


def _shell_means(power: Tensor) -> Tensor:
    """Average ``(box, box // 2 + 1)`` over shells 0 to box // 2."""
    shells = frequency_grid(power.shape[0]).norm(dim=-1).round().long().flatten()
    inside = shells <= power.shape[0] // 2
    sums = torch.bincount(shells[inside], power.cpu().flatten()[inside].double())
    return (sums / torch.bincount(shells[inside])).float()


def _background_window(box: int, radius_px: float) -> Tensor:
    """Return a window that is 1 beyond the particle and falls smoothly to 0 at its rim."""
    axis = (torch.arange(box) - box // 2).float()
    radius = torch.hypot(axis[:, None], axis)
    # a particle that fills the box leaves at least the corners
    rim = radius_px + 2
    while float((radius > rim).float().mean()) < _FEWEST_BACKGROUND_PIXELS:
        rim -= 1
    return 0.5 - 0.5 * torch.cos(torch.pi * ((radius - rim) / 4).clamp(0, 1))
