"""Images as the likelihood sees them: whitened, inside a band.

The model of an image's transform X at frequency k is

    X(k) = contrast * H(k) * exp(-2 pi i k . t / box) * A_R(k) + noise,    E |noise(k)|^2 = spectrum(|k|)

with the CTF H, the shift t and the map's slice A_R. Divided by the noise and summed over one of
each pair of conjugate frequencies (which doubles each term), the log-likelihood of a pose is, up to
a constant,

    log P(X | R, t) = -1/2 * sum over k of |data - filters * phases(t) * A_R|^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.imaging.fourier import to_fourier

__all__ = ["NoiseModel", "Observation", "observe"]


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
    """

    spectrum: Tensor
    contrast: float

    @classmethod
    def white(cls, box: int, deviation: float = 1.0, contrast: float = 1.0) -> NoiseModel:
        """Return white noise with a standard deviation a pixel."""
        return cls(torch.full((box // 2 + 1,), deviation**2 * box**2), contrast)


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
        ``(n, k)`` float32: contrast times CTF, scaled likewise.
    """

    band: FourierBand
    data: Tensor
    filters: Tensor

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: slice | Tensor) -> Observation:
        return Observation(self.band, self.data[rows], self.filters[rows])

    def narrowed(self, max_shell: int) -> Observation:
        """Return the same images in a smaller band."""
        if max_shell >= self.band.max_shell:
            return self
        band = FourierBand(self.band.box, max_shell)
        keep = self.band.frequencies.norm(dim=-1) <= max_shell
        keep = keep.to(self.data.device)
        return Observation(band, self.data[:, keep], self.filters[:, keep])

    def matched(self, phases: Tensor) -> Tensor:
        """Return what slices are compared with: the data behind CTF and opposite shift, ``(n, t, k)``.

        ``Re conj(data) filters phases A = Re conj(matched) A``: all that belongs to the image
        stands on its side, so that one gallery serves every image. ``phases`` is ``(t, k)``.
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
        Spectrum and contrast.
    band
        Frequencies to keep.
    """
    scale = (2 / noise.spectrum[band.shells]).sqrt().to(images.device)
    data = band.of(to_fourier(images)) * scale
    filters = scale * noise.contrast
    if ctf is not None:
        filters = band.of(ctf.to(images.device)) * filters
    return Observation(band, data, filters.expand(len(images), -1))
