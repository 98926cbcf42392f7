"""Central slices of a map's transform at chosen frequencies, with their derivatives."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from napari_cryosphere.imaging.projection import sinc_squared

__all__ = ["SliceSampler"]


class SliceSampler:
    """Samples central slices of one map's transform, up to a shell.

    The transform of the zero-padded map is interpolated trilinearly, as RELION does. It is stored once, as
    a table with one row a lattice point, so that a sample is a weighted sum of eight rows: PyTorch's
    ``embedding_bag``, which works from cache lines where ``grid_sample`` jumps between channels.

    With ``moments``, a second table's rows also hold the transforms of x V, y V and z V. Multiplied by
    ``-2 pi i / box`` they are the exact derivatives of V's transform along x, y and z.

    Parameters
    ----------
    voxels
        ``(n, n, n)`` in z, y, x order, n even.
    max_shell
        Largest frequency that will be asked for, in cycles a box; at most n / 2.
    padding
        Factor by which the map is padded before its transform.
    moments
        Also prepare derivatives (five times the memory).
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
        # corners of weight 0 may lie beyond the end
        self._with_moments = pad(table, (0, 0, 0, plane + row + 1))
        self._table = self._with_moments[:, :2].contiguous() if moments else self._with_moments
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
        parts, sign = self._sample(self._table, rotations, frequencies)
        return torch.complex(parts[..., 0, 0], parts[..., 0, 1] * sign)

    def values_and_moments(self, rotations: Tensor, frequencies: Tensor) -> Tensor:
        """Return slices of V, x V, y V and z V, ``(n, 4, 2, k)`` float32: real parts, then imaginary parts.

        The last three times ``-2 pi i / box`` are the first's derivatives with respect to the frequency
        along the map's x, y and z, in cycles a box.
        """
        parts, sign = self._sample(self._with_moments, rotations, frequencies)
        planes = parts.flatten(2).transpose(1, 2).contiguous().unflatten(1, (-1, 2))
        planes[:, :, 1] *= sign[:, None]
        return planes

    def _sample(self, table: Tensor, rotations: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
        """Interpolate a table, ``(n, k, columns, 2)``; what has sign -1 in ``(n, k)`` is to be conjugated."""
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
        sums = embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
        return sums.reshape(*points.shape[1:], -1, 2), sign
