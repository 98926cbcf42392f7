"""Convolutions on the circle that commute with turns and with the mirror.

Channels come in pairs: channel c and channel c + C / 2 are each other's mirror images. Mirroring
what comes in, ``x_c(theta) -> x_(c + C/2)(-theta)``, mirrors what comes out in the same way,
whatever the weights (Cohen & Welling 2016, regular representation of the group of two elements).
Half of the filters are stored; the others are these with the halves of their input swapped and the
angle reversed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_cryosphere.model.pose_network import at_least_single

__all__ = ["MirrorConvolution", "MirrorNorm", "MirrorResidual", "PairedInput", "fewer_angles"]


def _mirrored(weight: Tensor) -> Tensor:
    """Return ``(o, i, k)`` filters from the ``(o / 2, i, k)`` that are stored."""
    first, second = weight.chunk(2, dim=1)
    return torch.cat([weight, torch.cat([second, first], dim=1).flip(2)])


class MirrorConvolution(nn.Module):
    """A circular convolution, ``(b, i, angles)`` to ``(b, o, angles)``; the kernel's length is odd."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out // 2, channels_in, kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(channels_out // 2)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, ``(b, i, angles)`` to ``(b, o, angles)``."""
        half = self.weight.shape[2] // 2
        if half:
            x = torch.cat([x[..., -half:], x, x[..., :half]], dim=-1)
        bias = None if self.bias is None else self.bias.repeat(2)
        return nn.functional.conv1d(x, self.filters(), bias)

    def filters(self) -> Tensor:
        """Return all filters, ``(o, i, k)``."""
        return _mirrored(self.weight)


class PairedInput(MirrorConvolution):
    """A convolution of signals that are their own mirror images, as those of a picture are."""

    def filters(self) -> Tensor:
        """Return all filters, ``(o, i, k)``."""
        return torch.cat([self.weight, self.weight.flip(2)])


class MirrorNorm(nn.Module):
    """Batch normalisation that treats the channels of a pair alike."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, both channels of a pair by one mean and deviation."""
        pairs = torch.cat(x.chunk(2, dim=1))
        return torch.cat(self.norm(pairs).chunk(2), dim=1)


class _Gate(nn.Module):
    """Scale every channel by what all angles say together (squeeze and excitation, Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(8, channels // 4)
        self.squeeze = MirrorConvolution(channels, narrow, bias=True)
        self.excite = MirrorConvolution(narrow, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        level = torch.relu(self.squeeze(x.mean(dim=2, keepdim=True)))
        return 2 * torch.sigmoid(self.excite(level)) * x


class MirrorResidual(nn.Module):
    """Two normalised convolutions and a gate around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = MirrorConvolution(channels, channels, 3)
        self.first_norm = MirrorNorm(channels)
        self.second = MirrorConvolution(channels, channels, 3)
        self.second_norm = MirrorNorm(channels)
        self.gate = _Gate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Add the gated convolutions to the input."""
        hidden = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(x + self.gate(self.second_norm(self.second(hidden))))


def fewer_angles(x: Tensor, angles: int) -> Tensor:
    """Return signals on the circle at fewer angles, cut at the new Nyquist frequency: nothing aliases."""
    if angles >= x.shape[-1]:
        return x
    spectrum = torch.fft.rfft(at_least_single(x))[..., : (angles + 1) // 2]
    return torch.fft.irfft(spectrum, n=angles) * (angles / x.shape[-1])
