"""Defocus of particles, where their images fit a map at known poses best."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import NoiseModel, best_contrast

__all__ = ["best_defocus", "defocus_log_likelihoods"]

_SPREADS_ANGSTROM = (50.0, 100.0, 200.0, 400.0, 800.0)
"""Standard deviations of particles about their micrograph that are compared: ice is 200 to 1000 A thick."""


def defocus_log_likelihoods(
    data: Tensor, slices: Tensor, ctfs: Iterable[Tensor], noise: NoiseModel, band: FourierBand
) -> NDArray[np.float64]:
    """Return the log-likelihood of images at several CTFs, ``(n, d)`` nats up to a constant per image.

    The noise that passes the CTF is at other frequencies for every defocus, so that its own
    likelihood counts as well.

    Parameters
    ----------
    data
        ``(n, k)``: the images' transforms in the band.
    slices
        ``(n, k)``: the map's slices at the images' poses, shifted.
    ctfs
        ``(n, k)`` each, ``d`` of them.
    noise, band
        The noise's spectra, and the frequencies compared.
    """
    white, gain = noise.spectrum[band.shells], noise.gain[band.shells]
    logs = []
    for ctf in ctfs:
        variance = white.expand_as(ctf)
        if noise.solvent is not None:
            variance = variance + ctf.square() * noise.solvent[band.shells]
        model = slices * ctf * gain
        product = 2 * ((data * model.conj()).real / variance).sum(1)
        norm = (model.abs().square() / variance).sum(1)
        contrast = best_contrast(product, norm, noise.contrast_spread)
        own = (data.abs().square() / variance + variance.log()).double().sum(1)
        logs.append((contrast * product - contrast.square() * norm).double() - own)
    return torch.stack(logs, dim=1).numpy()


def best_defocus(
    log_likelihoods: NDArray[np.float64],
    offsets_angstrom: NDArray[np.float64],
    micrographs: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find each particle's defocus offset, and its standard deviation.

    A particle's offset is its micrograph's and a normal deviation of its own. The micrograph's is
    the one of largest likelihood, the particles' deviations integrated; the spread of these, one
    for all, is that of largest likelihood too; a particle's offset is the mean of what is then
    left.

    Parameters
    ----------
    log_likelihoods
        ``(n, d)`` nats.
    offsets_angstrom
        ``(d,)``: evenly spaced.
    micrographs
        ``(n,)``: 0, 1, 2, ... by micrograph.

    Returns
    -------
    Offsets and their standard deviations in angstrom, ``(n,)`` each.
    """
    apart = offsets_angstrom[:, None] - offsets_angstrom
    peak = log_likelihoods.max(1, keepdims=True)
    likelihood = np.exp(log_likelihoods - peak)
    best = (-np.inf, _SPREADS_ANGSTROM[0], np.zeros(0, dtype=np.int64))
    for spread in _SPREADS_ANGSTROM:
        prior = np.exp(-0.5 * (apart / spread) ** 2)
        prior /= prior.sum(0)
        # of each particle, were its micrograph off by so much
        own = np.log(np.maximum(likelihood @ prior, 1e-300))
        sums = np.zeros((micrographs.max() + 1, len(offsets_angstrom)))
        np.add.at(sums, micrographs, own)
        total = float(sums.max(1).sum())
        if total > best[0]:
            best = (total, spread, sums.argmax(1))
    _, spread, centres = best
    off = offsets_angstrom - offsets_angstrom[centres[micrographs]][:, None]
    weights = likelihood * np.exp(-0.5 * (off / spread) ** 2)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-300)
    mean = weights @ offsets_angstrom
    variance = (weights * (offsets_angstrom - mean[:, None]) ** 2).sum(1)
    return mean, np.sqrt(variance)
