"""What is done to particle images before a network sees them, in one fixed order."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.imaging.fourier import crop_or_pad, even_box, from_fourier, rescale, to_fourier

__all__ = [
    "background_mask",
    "fit_to_network",
    "normalise_background",
    "phase_flip",
    "prepare_images",
    "soft_circle",
]


def background_mask(box: int) -> Tensor:
    """Return the pixels outside the inscribed circle, ``(box, box)`` bool: a particle's background."""
    axis = torch.arange(box) - box // 2
    return torch.hypot(axis[:, None].float(), axis[None, :].float()) > box / 2


def soft_circle(box: int, edge_px: float = 2.0) -> Tensor:
    """Return the inscribed circle with a raised-cosine edge inside it, ``(box, box)`` float32."""
    axis = (torch.arange(box) - box // 2).float()
    radius = torch.hypot(axis[:, None], axis[None, :])
    ramp = ((box / 2 - radius) / edge_px).clamp(0, 1)
    return 0.5 - 0.5 * torch.cos(torch.pi * ramp)


def normalise_background(images: Tensor) -> Tensor:
    """Give the background of ``(n, box, box)`` images mean 0 and sd 1 (CESPED, section 2.1).

    An image whose background is constant has no noise to scale by: it comes back with mean 0, unscaled.
    """
    background = images[:, background_mask(images.shape[-1])]
    mean = background.mean(dim=1)
    deviation = background.std(dim=1)
    flat = deviation <= 1e-6 * background.abs().amax(dim=1).clamp(min=1e-30)
    scale = torch.where(flat, torch.ones_like(deviation), deviation)
    return (images - mean[:, None, None]) / scale[:, None, None]


def phase_flip(images: Tensor, ctf: Tensor) -> Tensor:
    """Undo the CTF's sign.

    Parameters
    ----------
    images
        ``(n, box, box)`` real.
    ctf
        ``(n, box, box // 2 + 1)``, see `napari_cryosphere.imaging.ctf.ctf_2d`.
    """
    return from_fourier(to_fourier(images) * torch.sign(ctf))


def fit_to_network(
    images: Tensor, pixel_size_angstrom: float, box: int, network_pixel_size_angstrom: float
) -> Tensor:
    """Bring images to the network's pixel size and box, keeping white noise at its standard deviation.

    The images are resampled in Fourier space to the even box whose pixel size is nearest to the network's
    (within half a percent for the usual boxes) and then cut or padded about their centre.

    Parameters
    ----------
    images
        ``(n, m, m)`` real.
    pixel_size_angstrom
        Pixel size of the images.
    box, network_pixel_size_angstrom
        What the network wants.
    """
    size = images.shape[-1]
    scaled = even_box(size * pixel_size_angstrom / network_pixel_size_angstrom)
    resampled = rescale(images, scaled)
    if scaled < size:
        # averaging pixels had made white noise weaker by scaled / size
        resampled = resampled * (size / scaled)
    return crop_or_pad(resampled, box)


def prepare_images(
    images: NDArray[np.float32] | Tensor,
    ctf: Tensor | None,
    pixel_size_angstrom: float,
    box: int,
    network_pixel_size_angstrom: float,
) -> Tensor:
    """Turn raw particles into what the network takes.

    In this order: background to mean 0 and sd 1; phases flipped; resampled to the network's pixel size and
    box; soft circular mask.

    Parameters
    ----------
    images
        ``(n, m, m)`` raw particle images, m even.
    ctf
        ``(n, m, m // 2 + 1)``, or None where the CTF is unknown.
    pixel_size_angstrom
        Pixel size of the images.
    box, network_pixel_size_angstrom
        What the network wants.

    Returns
    -------
    ``(n, box, box)`` float32.
    """
    prepared = normalise_background(torch.as_tensor(images))
    if ctf is not None:
        prepared = phase_flip(prepared, ctf)
    return fit_to_network(prepared, pixel_size_angstrom, box, network_pixel_size_angstrom) * soft_circle(box)
