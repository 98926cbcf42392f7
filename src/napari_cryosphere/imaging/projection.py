"""Projections of a map by the Fourier slice theorem."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from napari_cryosphere.imaging.fourier import frequency_grid, from_fourier

__all__ = ["Projector", "sinc_squared"]


def sinc_squared(size: int, box: int) -> Tensor:
    """Return the real-space fall-off of trilinear interpolation along one axis.

    ``size``: padded box in pixels, whose transform is interpolated. ``box``: central part that is
    wanted. Returns ``(box,)`` float32: ``sinc(x / size)^2`` for x counted from the middle.
    """
    return torch.sinc((torch.arange(box) - box // 2) / size) ** 2


class Projector:
    """Projects one map from any direction; its padded transform is computed once.

    ``image(x, y) = sum over z of V(R (x, y, z))``: the image's transform is the central slice of
    the map's transform that is spanned by the first two columns of R (Bracewell 1956). The slice is
    sampled at the image's own frequencies by trilinear interpolation of a zero-padded transform, as
    RELION does.

    ``voxels``: ``(n, n, n)`` in z, y, x order, n even. ``padding``: factor by which the map is
    padded before its transform. On a phantom of Gaussians the projection error is about 2 % at 2
    and 1 % at 3; memory grows with its cube.
    """

    def __init__(self, voxels: ArrayLike | Tensor, padding: int = 2) -> None:
        volume = torch.as_tensor(voxels, dtype=torch.float32)
        self.box = volume.shape[-1]
        self.padding = padding
        size = self.box * padding
        fall_off = sinc_squared(size, self.box).to(volume.device)
        corrected = volume / (fall_off[:, None, None] * fall_off[:, None] * fall_off)
        before = (size - self.box) // 2
        padded = torch.nn.functional.pad(corrected, (before, size - self.box - before) * 3)
        transform = torch.fft.fftshift(torch.fft.rfftn(torch.fft.ifftshift(padded)), dim=(0, 1))
        # grid_sample wants (batch, channel, z, y, x); real and imaginary parts are two channels
        self._transform = torch.view_as_real(transform).permute(3, 0, 1, 2)[None].contiguous()
        grid = frequency_grid(self.box, volume.device)
        self._inside = grid.norm(dim=-1) <= self.box / 2
        self._frequencies = grid[self._inside] * padding

    def slices(self, rotations: ArrayLike | Tensor) -> Tensor:
        """Return the projections' transforms, ``(n, box, box // 2 + 1)`` complex64, as `to_fourier` would.

        Frequencies beyond Nyquist (the corners) are zero.

        ``rotations``: ``(n, 3, 3)``; image to map coordinates.
        """
        r = torch.as_tensor(rotations, dtype=torch.float32).to(self._transform.device)
        # x, y, z in the map's transform
        points = torch.einsum("nij,kj->nki", r[:, :, :2], self._frequencies)
        sign = torch.where(points[..., 0] < 0, -1.0, 1.0)  # only the half with x >= 0 is stored
        points = points * sign[..., None]
        size = self.box * self.padding
        half = self._transform.shape[-1]
        where = torch.stack(
            [
                points[..., 0] * (2 / (half - 1)) - 1,
                (points[..., 1] + size // 2) * (2 / (size - 1)) - 1,
                (points[..., 2] + size // 2) * (2 / (size - 1)) - 1,
            ],
            dim=-1,
        )
        sampled = torch.nn.functional.grid_sample(
            self._transform, where[None, None], align_corners=True
        )
        samples = sampled[0, :, 0]  # real and imaginary part
        out = torch.zeros(len(r), *self._inside.shape, dtype=torch.complex64, device=r.device)
        out[:, self._inside] = torch.complex(samples[0], samples[1] * sign)
        return out

    def project(self, rotations: ArrayLike | Tensor) -> Tensor:
        """Return projections, ``(n, box, box)`` float32: plain sums over z, no CTF, centred."""
        return from_fourier(self.slices(rotations))
