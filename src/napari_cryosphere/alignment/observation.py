"""Images as the likelihood sees them: whitened, inside a band.

The model of an image's transform X at frequency k is

    X(k) = c * gain(|k|) * H(k) * exp(-2 pi i k . t / box) * A_R(k) + noise,
    E |noise(k)|^2 = white(|k|) + H(k)^2 * solvent(|k|)

with the CTF H, the shift t and the map's slice A_R. What the solvent scatters passes the CTF, what
the detector adds does not: every defocus has a spectrum of its own. What particles have and the map
lacks passes the CTF as well, and counts as solvent. The gain is the contrast with a B-factor; c is
the particle's own contrast, about 1. Divided by the noise and summed over one of each pair of
conjugate frequencies (which doubles each term), the log-likelihood of a pose is, up to a constant,

    log P(X | R, t, c) = -1/2 * sum over k of |data - c * filters * phases(t) * A_R|^2
                       = c * product - c^2 * norm + constant.

With a Gaussian prior about 1 the contrast c is integrated in closed form, see `contrast_integral`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.imaging.fourier import to_fourier

__all__ = ["NoiseModel", "Observation", "best_contrast", "contrast_integral", "observe"]


@dataclass(frozen=True)
class NoiseModel:
    """How strong the signal is and how strong the noise.

    Attributes
    ----------
    spectrum
        ``(box // 2 + 1,)`` float32: variance of the noise in one Fourier coefficient (as
        `to_fourier` gives it) by shell. White noise of standard deviation s in a pixel has ``s^2
        box^2`` in every shell.
    contrast
        Factor from the map's projections to the images.
    solvent
        ``(box // 2 + 1,)``: variance that is multiplied by the squared CTF; None is none.
    fall_off
        The signal falls as ``exp(-fall_off k^2)``, k in cycles a box: ``B / 4 / (box pixel
        size)^2``.
    contrast_spread
        Standard deviation of a particle's contrast, relative to the mean.
    """

    spectrum: Tensor
    contrast: float
    solvent: Tensor | None = None
    fall_off: float = 0.0
    contrast_spread: float = 0.0

    @classmethod
    def white(cls, box: int, deviation: float = 1.0, contrast: float = 1.0) -> NoiseModel:
        """Return white noise with a standard deviation a pixel."""
        return cls(torch.full((box // 2 + 1,), deviation**2 * box**2), contrast)

    @property
    def gain(self) -> Tensor:
        """``(box // 2 + 1,)``: contrast and fall-off by shell."""
        shells = torch.arange(len(self.spectrum))
        return self.contrast * torch.exp(-self.fall_off * shells.square())


@dataclass(frozen=True)
class Observation:
    """A batch of images in a band, whitened.

    Attributes
    ----------
    band
        The frequencies.
    data
        ``(n, k)`` complex64: transforms over the noise's deviation, times the square root of 2.
    filters
        ``(n, k)`` float32: gain times CTF, scaled likewise.
    contrast_spread
        Standard deviation of a particle's own contrast about 1.
    """

    band: FourierBand
    data: Tensor
    filters: Tensor
    contrast_spread: float = 0.0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: slice | Tensor) -> Observation:
        return replace(self, data=self.data[rows], filters=self.filters[rows])

    def centred(self, centres_px: Tensor) -> Observation:
        """Return the images with ``(n, 2)`` moved to the middle, so that all have one grid of shifts."""
        return replace(self, data=self.data * self.band.phases(centres_px).conj())

    def narrowed(self, max_shell: int) -> Observation:
        """Return the same images in a smaller band."""
        if max_shell >= self.band.max_shell:
            return self
        band = FourierBand(self.band.box, max_shell)
        keep = self.band.frequencies.norm(dim=-1) <= max_shell
        keep = keep.to(self.data.device)
        return replace(self, band=band, data=self.data[:, keep], filters=self.filters[:, keep])

    def blurred(self, correlation: Tensor, power: Tensor) -> Observation:
        """Return the images as slices at poses a little off the truth explain them.

        Such a slice holds, by shell, ``correlation`` times the true one; what is left of the true
        one's ``power``, ``(1 - correlation^2) power``, counts as noise. Both are ``(shells,)``.
        """
        shells = self.band.shells.to(self.data.device)
        rho = correlation.to(self.data.device)[shells]
        left = (1 - rho.square()) * power.to(self.data.device)[shells]
        scale = (1 + 0.5 * self.filters.square() * left).rsqrt()
        return replace(self, data=self.data * scale, filters=self.filters * (scale * rho))

    def matched(self, phases: Tensor) -> Tensor:
        """Return what slices are compared with: the data behind CTF and opposite shift, ``(n, t, k)``.

        ``Re conj(data) filters phases A = Re conj(matched) A``: all that belongs to the image is on
        its side, so that the same references serve every image. ``phases`` is ``(t, k)``.
        """
        return (self.data * self.filters)[:, None, :] * phases.conj()


def observe(
    images: Tensor, ctf: Tensor | None, noise: NoiseModel, band: FourierBand
) -> Observation:
    """Whiten images.

    Parameters
    ----------
    images
        ``(n, box, box)``.
    ctf
        ``(n, box, box // 2 + 1)``, or None for images without one.
    noise
        Spectra and contrast.
    band
        Frequencies to keep.
    """
    device, shells = images.device, band.shells
    variance, gain = noise.spectrum[shells].to(device), noise.gain[shells].to(device)
    passed = None if ctf is None else band.of(ctf.to(device))
    if noise.solvent is not None:
        solvent = noise.solvent[shells].to(device)
        variance = variance + (solvent if passed is None else solvent * passed.square())
    scale = (2 / variance).sqrt()
    data = band.of(to_fourier(images)) * scale
    filters = scale * gain if passed is None else passed * (scale * gain)
    return Observation(band, data, filters.expand(len(images), -1), noise.contrast_spread)


def best_contrast(products: Tensor, norms: Tensor, spread: float) -> Tensor:
    """Return the contrast of largest posterior, not negative; shapes as in `contrast_integral`, ``(...)``."""
    if spread == 0:
        return torch.ones_like(products)
    precision = spread**-2
    return ((products + precision) / (2 * norms + precision)).clamp(min=0)


def contrast_integral(products: Tensor, norms: Tensor, spread: float) -> Tensor:
    """Return the logarithm of the mean of ``exp(c products - c^2 norms)`` over the contrast c.

    The contrast is normal about 1 with standard deviation ``spread``; below 0 it counts as 0.
    ``products``, ``norms`` and the result have one shape, ``(...)``.
    """
    if spread == 0:
        return products - norms
    precision = spread**-2
    total = 2 * norms + precision
    gain = 0.5 * ((products + precision).clamp(min=0).square() / total - precision)
    return gain - 0.5 * (total / precision).log()
