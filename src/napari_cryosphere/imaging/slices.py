"""Central slices of a map's transform at chosen frequencies, with their derivatives."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import embedding_bag

from napari_cryosphere.imaging.projection import sinc_squared

__all__ = ["SliceSampler"]


class SliceSampler:
    """Samples central slices of one map's transform, up to a shell.

    The transform of the zero-padded map is interpolated trilinearly, as RELION does. It is stored
    once, as a table with one row a lattice point, so that a sample is a weighted sum of eight rows:
    PyTorch's ``embedding_bag``, which works from cache lines where ``grid_sample`` jumps between
    channels.

    With ``moments``, a second table's rows also hold the transforms of x V, y V and z V. Multiplied
    by ``-2 pi i / box`` they are the exact derivatives of V's transform along x, y and z.

    - ``voxels``: ``(n, n, n)`` in z, y, x order, n even.
    - ``max_shell``: largest frequency that will be asked for, in cycles per box; at most n / 2.
    - ``padding``: factor by which the map is padded before its transform.
    - ``moments``: also prepare derivatives (five times the memory).
    """

    def __init__(
        self, voxels: ArrayLike | Tensor, max_shell: int, padding: int = 2, moments: bool = False
    ) -> None:
        volume = torch.as_tensor(voxels, dtype=torch.float32)
        self.box = volume.shape[-1]
        self.padding, self.max_shell = padding, max_shell
        size = self.box * padding
        self._reach = min(max_shell * padding + 1, size // 2)
        fall_off = sinc_squared(size, self.box).to(volume.device)
        volume = volume / (fall_off[:, None, None] * fall_off[:, None] * fall_off)
        axis = (torch.arange(self.box, device=volume.device) - self.box // 2).to(volume)
        weights = [axis, axis[:, None], axis[:, None, None]] if moments else []
        row, plane = self._reach + 1, (2 * self._reach + 1) * (self._reach + 1)
        points = (2 * self._reach + 1) * plane
        # corners of weight 0 may lie beyond the end
        table = volume.new_zeros(points + plane + row + 1, 2 * (1 + len(weights)))
        for column, part in enumerate([volume, *(volume * weight for weight in weights)]):
            table[:points, 2 * column : 2 * column + 2] = self._lattice(part).reshape(-1, 2)
        self._with_moments = table
        self._table = table[:, :2].contiguous() if moments else table
        corners = [z * plane + y * row + x for z in (0, 1) for y in (0, 1) for x in (0, 1)]
        self._corners = torch.tensor(corners, dtype=torch.int32, device=volume.device)
        # along one axis the corners 0 and 1 count 1 - x and x: columns of 1 and x, rows of the
        # matrix
        along = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], device=volume.device)
        self._of_products = torch.kron(along, torch.kron(along, along))

    @property
    def device(self) -> torch.device:
        """Where the table is, and where answers come."""
        return self._table.device

    def _lattice(self, volume: Tensor) -> Tensor:
        """Return the padded transform around the origin, ``(z, y, x >= 0, 2)``.

        Axis by axis, so that neither zeros nor frequencies beyond reach are transformed along the
        others.
        """
        size = self.box * self.padding
        near = torch.arange(-self._reach, self._reach + 1, device=volume.device)
        centre = torch.polar(
            torch.ones(len(near)), 2 * torch.pi / size * (self.box // 2) * near.float()
        )
        turn = centre.to(volume.device)  # voxel n // 2 is the origin
        transform = (
            torch.fft.rfft(volume, size, dim=2)[..., : self._reach + 1] * turn[self._reach :]
        )
        transform = torch.fft.fft(transform, size, dim=1)[:, near] * turn[:, None]
        transform = torch.fft.fft(transform, size, dim=0)[near] * turn[:, None, None]
        return torch.view_as_real(transform)

    def values(self, rotations: Tensor, frequencies: Tensor) -> Tensor:
        """Return the slices of ``(n, 3, 3)`` poses at ``(k, 2)`` frequencies, ``(n, k)`` complex64.

        Frequencies are (x, y) in cycles per box, of `max_shell` at most; poses take image to map
        coordinates.
        """
        parts, sign = self._sample(self._table, rotations, frequencies)
        return torch.complex(parts[..., 0, 0], parts[..., 0, 1] * sign)

    def values_and_moments(self, rotations: Tensor, frequencies: Tensor) -> Tensor:
        """Return slices of V, x V, y V and z V, ``(n, 4, 2, k)`` float32: real parts, then imaginary parts.

        The last three times ``-2 pi i / box`` are the first's derivatives with respect to the
        frequency along the map's x, y and z, in cycles per box.
        """
        parts, sign = self._sample(self._with_moments, rotations, frequencies)
        planes = parts.flatten(2).transpose(1, 2).contiguous().unflatten(1, (-1, 2))
        planes[:, :, 1] *= sign[:, None]
        return planes

    def _sample(
        self, table: Tensor, rotations: Tensor, frequencies: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Interpolate a table, ``(n, k, columns, 2)``; what has sign -1 in ``(n, k)`` is to be conjugated."""
        turned = rotations[:, :, :2].transpose(0, 1).reshape(-1, 2) @ (frequencies * self.padding).T
        points = turned.reshape(3, -1)
        sign = torch.copysign(torch.ones_like(points[0]), points[0])
        points *= sign  # only the half with x >= 0 is stored
        below = points.floor()
        x, y, z = below.to(torch.int32)
        row, column = self._reach + 1, 2 * self._reach + 1
        home = ((z + self._reach) * column + y + self._reach) * row + x
        sums = embedding_bag(
            home[:, None] + self._corners,
            table,
            per_sample_weights=self._weights(points.sub_(below)),
            mode="sum",
        )
        shape = (len(rotations), len(frequencies))
        return sums.reshape(*shape, -1, 2), sign.reshape(shape)

    def _weights(self, fractions: Tensor) -> Tensor:
        """Return what a cube's eight corners count at ``(3, m)`` places x, y, z inside it, ``(m, 8)``.

        Multilinear in x, y and z: the eight products of some of them, times a matrix of 1, 0 and
        -1. That is several times as fast as writing the corners' weights side by side.
        """
        products = fractions.new_empty(8, fractions.shape[1])
        products[0] = 1
        for bit, axis in enumerate(fractions):
            some = slice(1 << bit, 2 << bit)
            torch.mul(products[: 1 << bit], axis, out=products[some])
        return products.T @ self._of_products
