"""The equivariant layers of Image2Sphere, from a feature map to a signal on SO(3).

Klee, Biza, Platt & Walters (ICLR 2023), arXiv:2302.13926. The layers here work on Wigner
coefficients in the frame whose polar axis is the optical axis (see `napari_cryosphere.so3.wigner`),
so that rotating the image about its centre is a multiplication by exp(-i n phi), and rotating the
map mixes m.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_cryosphere.so3.gauss_legendre import gauss_legendre_grid
from napari_cryosphere.so3.healpix import pix2vec
from napari_cryosphere.so3.rotations import rotation_from_relion_angles
from napari_cryosphere.so3.wigner import band_mask, small_d, wigner_matrices

__all__ = ["HalfSphere", "LocalSO3Convolution", "S2Convolution", "SO3Activation", "SO3Convolution"]


class _Points(NamedTuple):
    """The HEALPix points (x, y, z) of the half-sphere z > 0, each at (x, y) on the feature map.

    The feature map's inscribed disc is the unit disc, pixel size // 2 is at the origin
    (orthographic projection).

    ``pixels``, ``shares``, ``(p, 4)``: flat indices of the pixels around each point, and the
    weights of bilinear interpolation; pixels off the map have weight 0. ``harmonics``,
    ``(p, 2 (L + 1)^2)``: real, then imaginary part of ``conj(Y_ln)``, l, n >= 0, over the number of
    points of the whole sphere; Y has mean square 1.
    """

    pixels: Tensor
    shares: Tensor
    harmonics: Tensor

    @classmethod
    def make(cls, size: int, l_max: int, order: int) -> _Points:
        """Return all points of a HEALPix order, float64."""
        n_side = 2**order
        points = pix2vec(n_side, np.arange(12 * n_side**2))
        points = points[points[:, 2] > 1e-6]
        tilt = torch.from_numpy(np.arccos(points[:, 2]))
        degree = torch.arange(l_max + 1)
        d_n0 = small_d(tilt, l_max)[:, :, l_max, :] * (-1.0) ** degree  # d_n0 = (-1)^n d_0n
        amplitude = d_n0 * torch.sqrt(2 * degree.double() + 1)[:, None] / (12 * n_side**2)
        phase = torch.from_numpy(np.arctan2(points[:, 1], points[:, 0]))[:, None, None] * degree
        harmonics = torch.stack(
            [amplitude * torch.cos(phase), -amplitude * torch.sin(phase)], dim=1
        )
        pixels, shares = _bilinear(points[:, :2] * size / 2 + size // 2, size)
        return cls(pixels, shares, harmonics.flatten(1))

    def matrix(self, size: int) -> Tensor:
        """Return the map from a feature map to the harmonics of what it puts on these points.

        ``(size * size, 2 (L + 1)^2)``: feature pixel; real and imaginary part, l, n >= 0.
        """
        spread = (self.shares[..., None] * self.harmonics[:, None]).flatten(0, 1)
        return spread.new_zeros(size * size, spread.shape[1]).index_add(
            0, self.pixels.flatten(), spread
        )


def _bilinear(where: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Return the pixels around ``(points, 2)`` x, y positions and their weights, ``(points, 4)`` each."""
    base = np.floor(where).astype(int)
    part = where - base
    corner = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    pixels = base[:, None] + corner
    shares = np.abs(1 - corner - part[:, None]).prod(axis=2)
    shares[((pixels < 0) | (pixels >= size)).any(axis=2)] = 0
    x, y = np.moveaxis(pixels.clip(0, size - 1), 2, 0)
    return torch.from_numpy(y * size + x), torch.from_numpy(shares)


class HalfSphere(nn.Module):
    """Lay a feature map on the half-sphere that faces the viewer and expand it in spherical harmonics.

    ``(b, channels, size, size)`` real to ``(b, channels, L + 1, L + 1)`` complex: degrees l, orders
    n >= 0, ``s_ln = mean over the sphere of s conj(Y_ln)``. Both steps are linear: together they
    are one matrix.

    ``size``: of the feature map in pixels. ``order``: HEALPix order of the points. ``share``: of
    the points that count in a step of the training; they are drawn from torch's global generator,
    one draw for the batch, and weighted so that the mean over draws is what all points give.
    """

    def __init__(self, size: int, l_max: int, order: int, share: float = 1.0) -> None:
        super().__init__()
        self.size, self.l_max, self.share = size, l_max, share
        points = _Points.make(size, l_max, order)
        self.register_buffer("matrix", points.matrix(size).float(), persistent=False)
        self.matrix: Tensor
        if share < 1:
            self.register_buffer("pixels", points.pixels, persistent=False)
            self.register_buffer("shares", points.shares.float(), persistent=False)
            self.register_buffer("harmonics", points.harmonics.float(), persistent=False)
            self.pixels: Tensor
            self.shares: Tensor
            self.harmonics: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Return the coefficients of the half-sphere's signal, complex."""
        matrix = self._drawn_matrix() if self.training and self.share < 1 else self.matrix
        flat = features.flatten(2) @ matrix  # b, c, 2 (L + 1)^2
        real, imaginary = flat.unflatten(2, (2, self.l_max + 1, self.l_max + 1)).unbind(2)
        return torch.complex(real, imaginary)

    def _drawn_matrix(self) -> Tensor:
        number = len(self.pixels)
        kept = max(1, round(self.share * number))
        rows = torch.randperm(number)[:kept].to(self.pixels.device)
        drawn = _Points(self.pixels[rows], self.shares[rows], self.harmonics[rows])
        return drawn.matrix(self.size) * (number / kept)


def _complex_weight(*shape: int, scale: float) -> nn.Parameter:
    """Return a weight ``(*shape, 2)``, last axis real and imaginary part, of the given RMS modulus."""
    return nn.Parameter(torch.randn(*shape, 2) * scale / math.sqrt(2))


def _real_filter(weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the nearest coefficients of a real filter: ``W_m = (-1)^m conj(W_-m)`` over the given axes.

    A signal stores n >= 0 alone, since it is real. Only real filters treat the n < 0 that are
    implied like the others; any other filter would break the equivariance that mixes them.
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

    ``(b, in, L + 1, L + 1)`` to ``(b, out, L + 1, 2 L + 1, L + 1)``, complex; filters of global
    support. The scale at the start makes the outputs' spread about that of the inputs.
    """

    def __init__(self, l_max: int, in_channels: int, out_channels: int, gain: float = 1.0) -> None:
        super().__init__()
        # The sum over m of |W|^2 / (2 l + 1) is the share of degree l in the output's mean square.
        self.weight = _complex_weight(
            l_max + 1,
            out_channels,
            2 * l_max + 1,
            in_channels,
            scale=gain * math.sqrt(2 / in_channels),
        )
        self.register_buffer("mask", band_mask(l_max)[..., 0].float(), persistent=False)
        self.mask: Tensor

    def forward(self, sphere: Tensor) -> Tensor:
        """Convolve, ``(b, in, L + 1, L + 1)`` to ``(b, out, L + 1, 2 L + 1, L + 1)``."""
        batch, channels, count, _ = sphere.shape
        weight = _real_filter(
            torch.view_as_complex(self.weight * self.mask[:, None, :, None, None]), (2,)
        )
        flat = sphere.permute(2, 1, 0, 3).reshape(count, channels, batch * count)  # l, in, (b n)
        out = torch.bmm(weight.flatten(1, 2), flat)  # l, (out m), (b n)
        return out.reshape(count, weight.shape[1], weight.shape[2], batch, count).permute(
            3, 1, 0, 2, 4
        )


class SO3Convolution(nn.Module):
    """Convolve signals on SO(3) with learnt real filters: ``c'^l_mn = sum_(i,k) W^l_(mk,i) c^l_kn,i``.

    ``(b, in, L + 1, 2 L + 1, L + 1)`` to ``(b, out, L + 1, 2 L + 1, L + 1)``, complex. The sum runs
    over the map's index, so that what the image's rotation does to the input it does to the output.
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
        """Convolve, ``(b, in, L + 1, 2 L + 1, L + 1)`` to ``(b, out, ...)``."""
        weight = torch.view_as_complex(self.weight * self.mask[:, None, :, None, :, None])
        return _convolved(signal, _real_filter(weight, (2, 4)))


class LocalSO3Convolution(nn.Module):
    """An `SO3Convolution` with filters of local support: ``f'(R) = sum_p w_p f(Q_p R)``.

    The rotations Q of the map are ``Rz(alpha) Ry(beta) Rz(gamma - alpha)``, beta in three steps to
    22.5 degrees, alpha and gamma at eight angles of the full circle each (Klee et al.; CESPED,
    appendix B). Real values make real filters.
    """

    def __init__(self, l_max: int, in_channels: int, out_channels: int, gain: float = 1.0) -> None:
        super().__init__()
        rotations = _near_identity()
        scale = gain / math.sqrt(in_channels * len(rotations))
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, len(rotations)) * scale)
        waves = torch.stack([wigner_matrices(rotation, l_max) for rotation in rotations])
        self.register_buffer("waves", torch.view_as_real(waves).float(), persistent=False)
        self.waves: Tensor

    def forward(self, signal: Tensor) -> Tensor:
        """Convolve, ``(b, in, L + 1, 2 L + 1, L + 1)`` to ``(b, out, ...)``."""
        weight = torch.einsum("oip,plkmc->lomikc", self.weight, self.waves)
        return _convolved(signal, torch.view_as_complex(weight.contiguous()))


def _near_identity() -> NDArray[np.float64]:
    """Return the rotations at which local filters have values, ``(192, 3, 3)``."""
    turn = np.arange(8) * 45.0
    tilt = np.arange(1, 4) * 7.5
    alpha, beta, gamma = np.meshgrid(turn, tilt, turn, indexing="ij")
    angles = np.stack([alpha, beta, gamma - alpha], axis=-1).reshape(-1, 3)
    return rotation_from_relion_angles(angles)


def _convolved(signal: Tensor, weight: Tensor) -> Tensor:
    """Return ``sum_(i,k) W^l_(mk,i) c^l_kn,i`` for filters ``(l, out, m, in, k)`` complex."""
    batch, channels, count, width, _ = signal.shape
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
