"""Images and their Fourier transforms, with the centre of an image at pixel n // 2.

All transforms here put that pixel at the origin first, so that a centred, symmetric particle has a
real transform and a shift is a pure phase. Boxes are even.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "crop_or_pad",
    "even_box",
    "frequency_grid",
    "from_fourier",
    "rescale",
    "shift_phases",
    "to_fourier",
]


def to_fourier(images: Tensor) -> Tensor:
    """Transform ``(..., n, n)`` real images to ``(..., n, n // 2 + 1)`` complex; y in FFT order, x from 0."""
    return torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)))


def from_fourier(transforms: Tensor) -> Tensor:
    """Invert `to_fourier`: ``(..., n, n // 2 + 1)`` complex to ``(..., n, n)`` real."""
    box = transforms.shape[-2]
    return torch.fft.fftshift(torch.fft.irfft2(transforms, s=(box, box)), dim=(-2, -1))


def frequency_grid(box: int, device: torch.device | None = None) -> Tensor:
    """Return the frequencies of `to_fourier`, ``(box, box // 2 + 1, 2)``: (x, y) in cycles per box."""
    y = torch.fft.fftfreq(box, 1 / box, device=device)
    x = torch.arange(box // 2 + 1, device=device, dtype=y.dtype)
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)


def shift_phases(shifts_px: Tensor, box: int) -> Tensor:
    """Return the factors that move an image's content.

    ``shifts_px``, ``(n, 2)``: displacement along x and y in pixels. RELION's origin is the opposite
    displacement: the content of a particle sits at minus rlnOriginXAngst / pixel size. ``box``:
    even box in pixels. Returns ``(n, box, box // 2 + 1)`` complex64,
    ``exp(-2 pi i k . shift / box)``.
    """
    phase = frequency_grid(box, shifts_px.device) @ shifts_px.to(torch.float32).T  # box, half, n
    angle = (-2 * torch.pi / box) * phase.permute(2, 0, 1)
    return torch.polar(torch.ones_like(angle), angle)


def even_box(length: float) -> int:
    """Return the even number of pixels nearest to a length in pixels, at least 8."""
    return 2 * max(4, round(length / 2))


def crop_or_pad(images: Tensor, box: int, dims: int = 2) -> Tensor:
    """Cut or zero-pad the last ``dims`` axes, all of length n, about index n // 2 to length ``box``.

    ``(..., n, n)`` becomes ``(..., box, box)``, with ``dims=3`` likewise; the result may share
    memory.
    """
    size = images.shape[-1]
    if box < size:
        start = size // 2 - box // 2
        for axis in range(-dims, 0):
            images = images.narrow(axis, start, box)
        return images
    before = box // 2 - size // 2
    return torch.nn.functional.pad(images, (before, box - size - before) * dims)


def rescale(images: Tensor, box: int, dims: int = 2) -> Tensor:
    """Resample images (or maps) to another box over the same field, by cutting or padding their transform.

    ``images``: ``(..., n, n)`` real, or ``(..., n, n, n)`` with ``dims=3``; n even. ``box``: new
    even box; the pixel size becomes ``n / box`` times the old one. ``dims``: number of trailing
    axes that are space. Returns ``(..., box, box)``, or with three axes; mean and grey values are
    kept.
    """
    size = images.shape[-1]
    if box == size:
        return images
    axes = tuple(range(-dims, 0))
    transform = torch.fft.fftshift(
        torch.fft.fftn(torch.fft.ifftshift(images, axes), dim=axes), axes
    )
    resized = crop_or_pad(transform, box, dims)
    if box < size:
        # The new Nyquist frequency has lost its mirror image: it cannot belong to a real image.
        for axis in axes:
            resized.narrow(axis, 0, 1).zero_()
    back = torch.fft.ifftn(torch.fft.ifftshift(resized, axes), dim=axes).real
    return torch.fft.fftshift(back, axes) * float((box / size) ** dims)
