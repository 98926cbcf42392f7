"""Central slices of a map's transform at chosen frequencies, with their derivatives."""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

__all__ = ["SliceSampler", "sinc_squared"]


def sinc_squared(size: int, box: int) -> Tensor:
    """Return the real-space fall-off of trilinear interpolation along one axis.

    Parameters
    ----------
    size
        Padded box in pixels, whose transform is interpolated.
    box
        Central part that is wanted.

    Returns
    -------
    ``(box,)`` float32: ``sinc(x / size)^2`` for x counted from the middle.
    """
    return torch.sinc((torch.arange(box) - box // 2) / size) ** 2


class SliceSampler:
    """Samples central slices of one map's transform, up to a shell.

    The transform of the zero-padded map is interpolated trilinearly, as RELION does. It is stored once, as
    a table with one row a lattice point, so that a sample is a weighted sum of eight rows: PyTorch's
    ``embedding_bag``, which works from cache lines where ``grid_sample`` jumps between channels.

    With ``moments``, a row also holds the transforms of x V, y V and z V. Multiplied by ``-2 pi i / box``
    they are the exact derivatives of V's transform along x, y and z.

    Parameters
    ----------
    voxels
        ``(n, n, n)`` in z, y, x order, n even.
    max_shell
        Largest frequency that will be asked for, in cycles a box; at most n / 2.
    padding
        Factor by which the map is padded before its transform.
    moments
        Also prepare derivatives (four times the memory).
    """

    def __init__(
        self, voxels: ArrayLike | Tensor, max_shell: int, padding: int = 2, moments: bool = False
    ) -> None:
        volume = torch.as_tensor(voxels, dtype=torch.float32)
        self.box = volume.shape[-1]
        self.padding = padding
        size = self.box * padding
        self._reach = min(max_shell * padding + 1, size // 2)
        fall_off = sinc_squared(size, self.box).to(volume.device)
        volume = volume / (fall_off[:, None, None] * fall_off[:, None] * fall_off)
        axis = (torch.arange(self.box, device=volume.device) - self.box // 2).to(volume)
        weights = [axis, axis[:, None], axis[:, None, None]] if moments else []
        columns = [self._lattice(volume)] + [self._lattice(volume * weight) for weight in weights]
        row, plane = self._reach + 1, (2 * self._reach + 1) * (self._reach + 1)
        table = torch.stack(columns, dim=-2).flatten(0, 2).flatten(1)
        self._table = pad(table, (0, 0, 0, plane + row + 1))  # corners of weight 0 may lie beyond the end
        corners = [z * plane + y * row + x for z in (0, 1) for y in (0, 1) for x in (0, 1)]
        self._corners = torch.tensor(corners, dtype=torch.int32, device=volume.device)

    @property
    def device(self) -> torch.device:
        """Where the table is, and where answers come."""
        return self._table.device

    def _lattice(self, volume: Tensor) -> Tensor:
        """Return the padded transform around the origin, ``(z, y, x >= 0, 2)``."""
        size = self.box * self.padding
        before = (size - self.box) // 2
        padded = pad(volume, (before, size - self.box - before) * 3)
        transform = torch.fft.rfftn(torch.fft.ifftshift(padded))
        near = torch.arange(-self._reach, self._reach + 1, device=volume.device) % size
        return torch.view_as_real(transform[near][:, near, : self._reach + 1])

    def values(self, rotations: Tensor, frequencies: Tensor) -> Tensor:
        """Return the slices of ``(n, 3, 3)`` poses at ``(k, 2)`` frequencies, ``(n, k)`` complex64.

        Frequencies are (x, y) in cycles a box, of `max_shell` at most; poses take image to map coordinates.
        """
        return self._sample(rotations, frequencies)[..., 0]

    def values_and_gradients(self, rotations: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
        """Return slices ``(n, k)`` and their derivatives along the map's x, y, z, ``(n, k, 3)`` complex64.

        Derivatives are with respect to the frequency in cycles a box.
        """
        sampled = self._sample(rotations, frequencies)
        return sampled[..., 0], sampled[..., 1:] * (-2j * math.pi / self.box)

    def _sample(self, rotations: Tensor, frequencies: Tensor) -> Tensor:
        """Interpolate the table, ``(n, k, columns)`` complex64."""
        points = torch.einsum("nij,kj->ink", rotations[:, :, :2], frequencies * self.padding)
        sign = torch.where(points[0] < 0, -1.0, 1.0)  # only the half with x >= 0 is stored
        x, y, z = (points * sign).flatten(1)
        whole = [axis.floor() for axis in (x, y, z)]
        fx, fy, fz = (axis - below for axis, below in zip((x, y, z), whole, strict=True))
        row, column = self._reach + 1, 2 * self._reach + 1
        home = ((whole[2] + self._reach) * column + whole[1] + self._reach) * row + whole[0]
        rows = home.to(torch.int32)[:, None] + self._corners
        gx, gy, gz = 1 - fx, 1 - fy, 1 - fz
        edges = (gz * gy, gz * fy, fz * gy, fz * fy)
        weights = torch.stack([edge * side for edge in edges for side in (gx, fx)], dim=1)
        sums = embedding_bag(rows, self._table, per_sample_weights=weights, mode="sum")
        parts = sums.reshape(*points.shape[1:], -1, 2)
        return torch.complex(parts[..., 0], parts[..., 1] * sign[..., None])
