"""From a feature map to a signal on SO(3): the equivariant layers of Image2Sphere.

Klee, Biza, Platt & Walters (ICLR 2023), arXiv:2302.13926. The layers here work on Wigner coefficients in
the frame whose polar axis is the optical axis (see `napari_cryosphere.so3.wigner`), so that rotating the
image about its centre is a multiplication by exp(-i n phi), and rotating the map mixes m.
"""

from __future__ import annotations

import math

import healpy
import numpy as np
import torch
from torch import Tensor, nn

from napari_cryosphere.so3.gauss_legendre import gauss_legendre_grid
from napari_cryosphere.so3.wigner import band_mask, small_d

__all__ = ["HalfSphere", "S2Convolution", "SO3Activation", "SO3Convolution"]


def half_sphere_matrix(size: int, l_max: int, order: int) -> Tensor:
    """Return the linear map from a feature map to the harmonics of its half-sphere.

    Each HEALPix point (x, y, z) with z > 0 takes the feature at (x, y), the feature map's inscribed disc
    being the unit disc with pixel size // 2 at the origin (orthographic projection, bilinear); the result
    is analysed as ``s_ln = mean over the sphere of s conj(Y_ln)``, with Y scaled to mean square 1.

    Returns
    -------
    ``(2, L + 1, L + 1, size * size)`` float32: real and imaginary parts, l, n >= 0, feature pixel.
    """
    n_side = 2**order
    points = np.stack(healpy.pix2vec(n_side, np.arange(12 * n_side**2)), axis=1)
    points = points[points[:, 2] > 1e-6]
    weights = _bilinear(points[:, :2] * size / 2 + size // 2, size)
    tilt = torch.from_numpy(np.arccos(points[:, 2]))
    d_n0 = small_d(tilt, l_max)[:, :, l_max, :] * (-1.0) ** torch.arange(l_max + 1)  # d_n0 = (-1)^n d_0n
    scale = torch.sqrt(2 * torch.arange(l_max + 1, dtype=torch.float64) + 1)[:, None]
    phase = torch.from_numpy(np.arctan2(points[:, 1], points[:, 0]))[:, None, None] * torch.arange(l_max + 1)
    amplitude = d_n0 * scale / (12 * n_side**2)
    harmonics = torch.stack([amplitude * torch.cos(phase), -amplitude * torch.sin(phase)])  # conj(Y)
    return torch.einsum("cpln,pk->clnk", harmonics, weights).float()


def _bilinear(where: np.ndarray, size: int) -> Tensor:
    """Return bilinear interpolation at ``(points, 2)`` x, y positions as a ``(points, pixels)`` matrix."""
    base = np.floor(where).astype(int)
    part = where - base
    matrix = np.zeros((len(where), size * size))
    for right, down in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = base[:, 0] + right, base[:, 1] + down
        share = np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1])
        valid = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        np.add.at(matrix, (np.flatnonzero(valid), (y * size + x)[valid]), share[valid])
    return torch.from_numpy(matrix)


class HalfSphere(nn.Module):
    """Lay a feature map on the half-sphere that faces the viewer and expand it in spherical harmonics.

    ``(b, channels, size, size)`` real to ``(b, channels, L + 1, L + 1)`` complex: degrees l, orders n >= 0.
    """

    def __init__(self, size: int, l_max: int, order: int) -> None:
        super().__init__()
        self.l_max = l_max
        matrix = half_sphere_matrix(size, l_max, order)
        self.register_buffer("matrix", matrix.flatten(0, 2).T.contiguous(), persistent=False)
        self.matrix: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        flat = features.flatten(2) @ self.matrix  # b, c, 2 (L + 1)^2
        real, imaginary = flat.unflatten(2, (2, self.l_max + 1, self.l_max + 1)).unbind(2)
        return torch.complex(real, imaginary)


def _complex_weight(*shape: int, scale: float) -> nn.Parameter:
    """Return a weight ``(*shape, 2)``, last axis real and imaginary part, of the given RMS modulus."""
    return nn.Parameter(torch.randn(*shape, 2) * scale / math.sqrt(2))


def _real_filter(weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the nearest coefficients of a real filter: ``W_m = (-1)^m conj(W_-m)`` over the given axes.

    A signal stores n >= 0 alone, since it is real. Only real filters treat the n < 0 that are implied like
    the others; any other filter would break the equivariance that mixes them.
    """
    mirrored = torch.flip(weight, axes).conj()
    for axis in axes:
        width = weight.shape[axis]
        signs = 1 - 2 * ((torch.arange(width, device=weight.device) - width // 2) % 2)
        shape = [1] * weight.ndim
        shape[axis] = width
        mirrored = mirrored * signs.reshape(shape)
    return (weight + mirrored) / 2


class S2Convolution(nn.Module):
    """Correlate signals on the sphere with learnt real filters: ``c^l_mn = sum_i W^l_(m,i) s_ln,i``.

    ``(b, in, L + 1, L + 1)`` to ``(b, out, L + 1, 2 L + 1, L + 1)``, complex; filters of global support.
    The scale at the start makes the outputs' spread about that of the inputs.
    """

    def __init__(self, l_max: int, in_channels: int, out_channels: int, gain: float = 1.0) -> None:
        super().__init__()
        # The sum over m of |W|^2 / (2 l + 1) is the share of degree l in the output's mean square.
        self.weight = _complex_weight(
            l_max + 1, out_channels, 2 * l_max + 1, in_channels, scale=gain * math.sqrt(2 / in_channels)
        )
        self.register_buffer("mask", band_mask(l_max)[..., 0].float(), persistent=False)
        self.mask: Tensor

    def forward(self, sphere: Tensor) -> Tensor:
        """See the class."""
        batch, channels, count, _ = sphere.shape
        weight = _real_filter(torch.view_as_complex(self.weight * self.mask[:, None, :, None, None]), (2,))
        flat = sphere.permute(2, 1, 0, 3).reshape(count, channels, batch * count)  # l, in, (b n)
        out = torch.bmm(weight.flatten(1, 2), flat)  # l, (out m), (b n)
        return out.reshape(count, weight.shape[1], weight.shape[2], batch, count).permute(3, 1, 0, 2, 4)


class SO3Convolution(nn.Module):
    """Convolve signals on SO(3) with learnt real filters: ``c'^l_mn = sum_(i,k) W^l_(mk,i) c^l_kn,i``.

    ``(b, in, L + 1, 2 L + 1, L + 1)`` to ``(b, out, L + 1, 2 L + 1, L + 1)``, complex. The sum runs over the
    map's index, so that what the image's rotation does to the input it does to the output.
    """

    def __init__(self, l_max: int, in_channels: int, out_channels: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = _complex_weight(
            l_max + 1,
            out_channels,
            2 * l_max + 1,
            in_channels,
            2 * l_max + 1,
            scale=gain * math.sqrt(2 / (in_channels * (2 * l_max + 1))),
        )
        side = band_mask(l_max)[..., 0].float()
        self.register_buffer("mask", side[:, :, None] * side[:, None, :], persistent=False)
        self.mask: Tensor

    def forward(self, signal: Tensor) -> Tensor:
        """See the class."""
        batch, channels, count, width, _ = signal.shape
        weight = _real_filter(
            torch.view_as_complex(self.weight * self.mask[:, None, :, None, :, None]), (2, 4)
        )
        flat = signal.permute(2, 1, 3, 0, 4).reshape(count, channels * width, batch * count)
        out = torch.bmm(weight.flatten(1, 2).flatten(2, 3), flat)
        return out.reshape(count, weight.shape[1], width, batch, count).permute(3, 1, 0, 2, 4)


class SO3Activation(nn.Module):
    """Batch normalisation and ReLU on the values of signals on SO(3), sampled on a Gauss-Legendre grid."""

    def __init__(self, l_max: int, channels: int) -> None:
        super().__init__()
        self.l_max = l_max
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, signal: Tensor) -> Tensor:
        """Map ``(b, channels, L + 1, 2 L + 1, L + 1)`` complex to the same shape."""
        grid = gauss_legendre_grid(self.l_max, dtype=signal.real.dtype, device=signal.device)
        batch, channels = signal.shape[:2]
        values = grid.to_grid(signal.flatten(0, 1))
        points = values.shape[1:]
        normed = self.norm(values.reshape(batch, channels, -1))
        active = torch.relu(normed).reshape(batch * channels, *points)
        return grid.from_grid(active).unflatten(0, (batch, channels))
