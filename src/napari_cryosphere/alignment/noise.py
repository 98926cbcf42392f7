"""Estimates of noise spectra and contrast from the particles themselves."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import NoiseModel, best_contrast
from napari_cryosphere.imaging.fourier import to_fourier
from napari_cryosphere.imaging.map_mask import map_radius_px
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import rotation_from_vector

__all__ = [
    "estimate_noise",
    "informative_shell",
    "neighbour_correlation",
    "particle_radius_px",
    "refit_noise",
    "slice_power",
]

_FEWEST_BACKGROUND_PIXELS = 0.1  # of an image; the circle shrinks until so many lie outside
_LEAST_SHARE = 0.5  # of the background's power is noise under the particle too; chosen, not tuned
_SAMPLES_AT_ONCE = 1 << 16  # values of slices: 0.5 MB complex, which a core's cache holds
_MODEL_ERROR = 3e-3
"""Share of the signal's power that slices are never better than: interpolation errs by 0.9 % of the
amplitude at padding 2 (see `Projector`), grids of pixels by as much again; other values were not tried.
"""
_LEAST_VARIATION = 0.02
"""Relative variance of the squared CTF in a shell from which its share of the noise can be told."""
_MOST_SOLVENT = 0.9
"""Share of a shell's noise that may have passed the CTF: some of a detector's noise is always there."""
_FALL_OFFS = torch.linspace(-0.5, 3.0, 71)
"""Exponents of the signal's fall-off at the last shell that are tried."""


def particle_radius_px(voxels: Tensor) -> float:
    """Return the radius of the sphere about voxel n // 2 that holds 99 % of a map's power, at most n / 2."""
    return float(min(map_radius_px(voxels.cpu().numpy()), voxels.shape[-1] // 2))


def estimate_noise(
    images: Tensor, ctf: Tensor | None, power: Tensor, radius_px: float
) -> NoiseModel:
    """Estimate noise and contrast without knowing any pose.

    The noise spectra come from the pixels beyond the particle. The contrast is the one at which the
    mean power of the map's slices, behind the mean squared CTF, explains what the images' power has
    beyond that. The spectra are then scaled to what the explained signal leaves of the images'
    power.

    Parameters
    ----------
    images
        ``(n, box, box)``: a few hundred, spread over the data, backgrounds normalised.
    ctf
        ``(n, box, box // 2 + 1)``, or None.
    power
        `slice_power` of the map.
    radius_px
        Radius of the particle.
    """
    band = FourierBand(images.shape[-1], images.shape[-1] // 2 - 1)
    outside = _background_window(band.box, radius_px)
    squared_ctf = torch.ones(1, len(band.shells)) if ctf is None else band.of(ctf).square()
    around = band.of(to_fourier(images * outside)).abs().square() / outside.square().mean()
    white, solvent = _white_and_solvent(around, squared_ctf, band)
    passed = _shell_means(band, squared_ctf.mean(0))
    background, signal = white + passed * solvent, passed * power
    whole = _shell_means(band, band.of(to_fourier(images)).abs().square().mean(0))
    shells = torch.arange(1, len(whole) - 1)
    weight = shells / background[shells].square()
    excess = (whole - background)[shells]
    squared = float(
        (weight * signal[shells] * excess).sum() / (weight * signal[shells].square()).sum()
    )
    if not squared > 0:
        return NoiseModel(background, 0.0)
    left = ((whole - squared * signal) / background).clamp(min=_LEAST_SHARE)
    return _with_model_error(NoiseModel(white * left, squared**0.5, solvent * left), power)


def refit_noise(
    data: Tensor,
    ctf: Tensor | None,
    slices: Tensor,
    weights: Tensor,
    noise: NoiseModel,
    power: Tensor,
    band: FourierBand,
) -> NoiseModel:
    """Measure noise, contrast and its spread, and the signal's fall-off at the poses of some images.

    What the poses were fitted to is taken off the contrast: a pose has five parameters, which make
    the product of data and model too large by 5/2 nats per image.

    Parameters
    ----------
    data
        ``(n, k)``: the images' transforms in the band.
    ctf
        ``(n, k)``, or None.
    slices
        ``(n, k)``: the map's slices at the images' poses, shifted.
    weights
        ``(n,)``: how sure each pose is.
    noise
        The noise so far, which says what the frequencies count.
    power
        `slice_power` of the map.
    band
        The frequencies compared.
    """
    squared_ctf = torch.ones(1, len(band.shells)) if ctf is None else ctf.square()
    models = slices if ctf is None else slices * ctf
    variance = noise.spectrum[band.shells]
    if noise.solvent is not None:
        variance = variance + squared_ctf * noise.solvent[band.shells]
    product = _shell_sums(band, 2 * (data * models.conj()).real / variance)
    norm = _shell_sums(band, 2 * models.abs().square() / variance)
    each, radii = weights.double()[:, None], torch.arange(product.shape[1]).double()
    told = (each * norm).sum(0) * radii.square()
    fitted = 2.5 * each.sum() * told / told.sum() / noise.contrast
    contrast, fall_off = _contrast_and_fall_off(
        (each * product).sum(0) - fitted, (each * norm).sum(0), band.max_shell
    )
    found = replace(noise, contrast=contrast, fall_off=fall_off)
    gain = found.gain.double()
    own_product, own_norm = product @ gain, norm @ gain.square()
    spread = _spread(own_product, own_norm, each[:, 0])
    own = best_contrast(own_product, own_norm / 2, spread).float()
    left = (data - models * (own[:, None] * found.gain[band.shells])).abs().square()
    white, solvent = _white_and_solvent(left, squared_ctf, band, weights)
    found = replace(found, spectrum=white, solvent=solvent, contrast_spread=spread)
    return _with_model_error(found, power)


def _contrast_and_fall_off(product: Tensor, norm: Tensor, max_shell: int) -> tuple[float, float]:
    """Return c and f of the gain ``g = c exp(-f k^2)`` with the largest likelihood.

    That is ``sum g product - sum g^2 norm / 2`` with a normal prior of deviation 1 on the exponent at
    the last shell.
    """
    fall_offs = _FALL_OFFS.double() / max_shell**2
    envelopes = torch.exp(-fall_offs[:, None] * torch.arange(len(product)).square())
    cross, own = envelopes @ product, envelopes.square() @ norm
    gained = cross.clamp(min=0).square() / (2 * own) - 0.5 * _FALL_OFFS.square()
    best = int(gained.argmax())
    return float(cross[best] / own[best]), float(fall_offs[best])


def _spread(product: Tensor, norm: Tensor, weights: Tensor) -> float:
    """Return the standard deviation of the images' contrasts about 1 beyond what noise makes of them.

    A spread that is no larger than twice its own error is none.
    """
    known = weights * (norm > 0)
    beyond = (product / norm.clamp(min=1e-12) - 1).square() - 1 / norm.clamp(min=1e-12)
    total = known.sum().clamp(min=1e-12)
    variance = float((known * beyond).sum() / total)
    error = float((known * (beyond - variance)).square().sum().sqrt() / total)
    return variance**0.5 if variance > 2 * error else 0.0


def _with_model_error(noise: NoiseModel, power: Tensor) -> NoiseModel:
    """Add to what passes the CTF the share of the signal that no model explains."""
    error = _MODEL_ERROR * noise.gain.square() * power
    solvent = error if noise.solvent is None else noise.solvent + error
    return replace(noise, solvent=solvent.float(), spectrum=noise.spectrum.float())


def _white_and_solvent(
    power: Tensor, squared_ctf: Tensor, band: FourierBand, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split ``(n, k)`` powers into a part that passed the CTF and one that did not, by shell.

    In every shell the power is fitted by ``white + squared_ctf * solvent``, neither negative; the
    means are taken over three shells, since a shell alone may hold few frequencies.
    """
    share = torch.ones(len(power)) if weights is None else weights
    share = share / share.sum()
    squared_ctf = squared_ctf.expand_as(power)
    mean, x, xx, xy = (
        _smooth(_shell_means(band, share @ values))
        for values in (power, squared_ctf, squared_ctf.square(), squared_ctf * power)
    )
    variance = xx - x.square()
    told = variance > _LEAST_VARIATION * x.square()
    slope = torch.where(told, (xy - x * mean) / variance.clamp(min=1e-12), torch.zeros_like(x))
    solvent = torch.minimum(slope.clamp(min=0), _MOST_SOLVENT * mean / x.clamp(min=1e-6))
    return mean - x * solvent, solvent


def informative_shell(
    noise: NoiseModel, power: Tensor, ctf: Tensor | None, share: float = 0.998
) -> int:
    """Return the shell up to which images hold ``share`` of all that they say about poses.

    ``power`` is `slice_power` of the map, ``(box // 2 + 1,)``; ``ctf`` is that of some images, ``(n,
    box, box // 2 + 1)``, as in `estimate_noise`.

    A shell tells of rotations by its signal-to-noise ratio, its number of frequencies, and the
    square of its radius, since a rotation moves points in proportion to it.
    """
    passed = torch.ones_like(power)
    if ctf is not None:
        band = FourierBand(ctf.shape[-2], ctf.shape[-2] // 2 - 1)
        passed = _shell_means(band, band.of(ctf.square().mean(0)))
    variance = noise.spectrum + (0 if noise.solvent is None else passed * noise.solvent)
    ratio = noise.gain.square() * power * passed / variance
    shells = torch.arange(len(ratio))
    information = (ratio * shells**3)[:-1]
    return max(4, int(torch.searchsorted(information.cumsum(0) / information.sum(), share)))


def slice_power(sampler: SliceSampler) -> Tensor:
    """Return the mean power of a map's slices by shell as far as it is sampled, ``(box // 2 + 1,)``."""
    band, poses = _sample(sampler, sampler.max_shell)
    frequencies = band.frequencies.to(sampler.device)
    power = torch.zeros(len(frequencies), device=sampler.device)
    for some in poses.split(max(1, _SAMPLES_AT_ONCE // len(frequencies))):
        power += sampler.values(some, frequencies).abs().square().sum(0)
    return _shell_means(band, power.cpu() / len(poses))


def neighbour_correlation(
    sampler: SliceSampler, max_shell: int, apart_degrees: float, apart_px: float
) -> Tensor:
    """Return how slices at poses some way apart correlate, by shell, ``(box // 2 + 1,)``.

    ``apart_px`` is the standard deviation of the difference of their shifts along an axis.
    """
    band, poses = _sample(sampler, max_shell)
    frequencies = band.frequencies.to(sampler.device)
    axes = torch.randn(len(poses), 3, generator=torch.Generator().manual_seed(0)).double()
    vectors = torch.nn.functional.normalize(axes) * torch.deg2rad(torch.tensor(apart_degrees))
    moved = poses @ torch.from_numpy(rotation_from_vector(vectors.numpy())).to(poses)
    cross, own = (torch.zeros(len(frequencies), device=sampler.device) for _ in range(2))
    for some, others in zip(poses.split(32), moved.split(32), strict=True):
        here, there = (sampler.values(part, frequencies) for part in (some, others))
        cross += (here * there.conj()).real.sum(0)
        own += 0.5 * (here.abs().square() + there.abs().square()).sum(0)
    rotated = _shell_means(band, cross.cpu()) / _shell_means(band, own.cpu()).clamp(min=1e-12)
    turns = (2 * torch.pi / sampler.box * apart_px * torch.arange(len(rotated))).square()
    return rotated.clamp(0, 1) * torch.exp(-0.5 * turns)


def _sample(sampler: SliceSampler, max_shell: int) -> tuple[FourierBand, Tensor]:
    """Return a band and poses spread over all."""
    return FourierBand(sampler.box, max_shell), torch.from_numpy(SO3Grid(0).rotations()).float().to(
        sampler.device
    )


def _shell_sums(band: FourierBand, values: Tensor) -> Tensor:
    """Sum ``(n, k)`` over shells, ``(n, box // 2 + 1)`` float64."""
    sums = torch.zeros(len(values), band.box // 2 + 1, dtype=torch.float64)
    return sums.index_add_(1, band.shells, values.double())


def _shell_means(band: FourierBand, values: Tensor) -> Tensor:
    """Average ``(k,)`` over shells, ``(box // 2 + 1,)``; those the band lacks have their neighbour's."""
    means = _shell_sums(band, values[None])[0]
    means /= torch.bincount(band.shells, minlength=len(means)).clamp(min=1)
    last = int(band.shells.max())
    means[0], means[last + 1 :] = means[1], means[last]
    return means.float()


def _smooth(values: Tensor) -> Tensor:
    """Average neighbouring shells with weights 1, 2, 1."""
    padded = torch.cat([values[:1], values, values[-1:]])
    return 0.25 * (padded[:-2] + 2 * padded[1:-1] + padded[2:])


def _background_window(box: int, radius_px: float) -> Tensor:
    """Return a window that is 1 beyond the particle and falls smoothly to 0 at its rim."""
    axis = (torch.arange(box) - box // 2).float()
    radius = torch.hypot(axis[:, None], axis)
    # a particle that fills the box leaves at least the corners
    rim = radius_px + 2
    while float((radius > rim).float().mean()) < _FEWEST_BACKGROUND_PIXELS:
        rim -= 1
    return 0.5 - 0.5 * torch.cos(torch.pi * ((radius - rim) / 4).clamp(0, 1))
