"""Central slices put into a Fourier volume, point by point: the inner loop of back-projection.

A point of a slice falls between eight voxels. Adding to eight places is bound by memory, not by arithmetic, so
the volume keeps for every voxel a block: what the points based at that voxel give to it and to its neighbours
along x and z (four corners), side by side in memory. A point then touches two places, its block and the one
beside it along y. Blocks are summed to voxels once, at the end. Large volumes keep one corner a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# y[:, indices] += data * x, row by row and in place: scipy's product of a sparse matrix in CSC form with a
# dense one. The public operator would allocate a whole volume for every call.
from scipy.sparse._sparsetools import csc_matvecs

__all__ = ["SliceVolume"]

_POINTS = 12_000  # inserted at a time: their temporaries fit into a core's cache
_LARGEST_WITH_BLOCKS = 256


class SliceVolume:
    """Half of a Fourier volume (z >= 0) that sums slices by trilinear insertion.

    Parameters
    ----------
    size
        Edge of the padded box; even.
    points
        ``(2, p)`` float32: x and y of a slice's points, in voxels of the volume, within ``size / 2``.
    """

    def __init__(self, size: int, points: NDArray[np.float32]) -> None:
        self.size = size
        self._points = np.ascontiguousarray(points, dtype=np.float32)
        self._rows, self._depth = size + 2, size // 2 + 2  # room for the upper neighbours
        self._corners = 4 if size <= _LARGEST_WITH_BLOCKS else 1
        self._width = 3 * self._corners  # three numbers a corner: real part, imaginary part, weight
        self._blocks = np.zeros((self._rows, self._rows, self._depth, self._width), dtype=np.float32)
        self._columns = np.arange(_POINTS + points.shape[1] + 1, dtype=np.int32)

    def insert(
        self,
        values: NDArray[np.complex64],
        powers: NDArray[np.float32],
        rotations: NDArray[np.float64],
    ) -> None:
        """Add slices.

        Parameters
        ----------
        values
            ``(n, p)``: what is summed at the slice's points.
        powers
            ``(n, p)``: the weight that goes with it.
        rotations
            ``(n, 3, 3)``; the first two columns span the slice.
        """
        step = max(1, _POINTS // self._points.shape[1])
        for start in range(0, len(values), step):
            part = slice(start, start + step)
            self._insert_few(values[part], powers[part], rotations[part])

    def _insert_few(
        self,
        values: NDArray[np.complex64],
        powers: NDArray[np.float32],
        rotations: NDArray[np.float64],
    ) -> None:
        spanned = rotations[:, :, :2].astype(np.float32).reshape(-1, 2)
        x, y, z = (spanned @ self._points).reshape(len(values), 3, -1).transpose(1, 0, 2).reshape(3, -1)
        # only z >= 0 is kept: the mirror image of a point holds the conjugate
        sign = np.copysign(np.float32(1), z)
        centre = np.float32(self.size // 2)
        x, y, z = x * sign + centre, y * sign + centre, z * sign
        left, low, near = x.astype(np.int32), y.astype(np.int32), z.astype(np.int32)
        index = (low * self._rows + left) * self._depth + near
        x -= left
        y -= low
        z -= near
        parts = (values.real.ravel(), values.imag.ravel() * sign, powers.ravel())
        if self._corners == 4:
            both = x * z
            corners = (1 - x - z + both, z - both, x - both, both)
            self._scatter(index, parts, corners, (1 - y, y))
        else:
            rows = [(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x]
            self._scatter(index, parts, (None,), [w for row in rows for w in (row * (1 - z), row * z)])

    def _scatter(
        self,
        index: NDArray[np.int32],
        parts: tuple[NDArray[np.float32], ...],
        corners: tuple[NDArray[np.float32] | None, ...],
        weights: tuple[NDArray[np.float32], ...] | list[NDArray[np.float32]],
    ) -> None:
        """Add ``parts`` times ``corners`` (a block) times ``weights`` (one for each block that is touched)."""
        block = np.empty((len(index), self._width), dtype=np.float32)
        for corner, factor in enumerate(corners):
            for part, value in enumerate(parts):
                column = block[:, 3 * corner + part]
                if factor is None:
                    column[:] = value
                else:
                    np.multiply(value, factor, out=column)
        flat, rows = block.ravel(), self._blocks.reshape(-1)
        for weight, offset in zip(weights, self._offsets(), strict=True):
            target = rows[self._width * offset :]
            count = len(target) // self._width
            columns = self._columns[: len(index) + 1]
            csc_matvecs(count, len(index), self._width, columns, index, weight, flat, target)

    def _offsets(self) -> list[int]:
        """Return how far the blocks that a point touches are from its own, in voxels."""
        along_x, along_y = self._depth, self._rows * self._depth
        if self._corners == 4:
            return [0, along_y]
        return [dy * along_y + dx * along_x + dz for dy in (0, 1) for dx in (0, 1) for dz in (0, 1)]

    def __iadd__(self, other: SliceVolume) -> SliceVolume:
        """Add another volume of the same size."""
        self._blocks += other._blocks
        return self

    def sums(self) -> NDArray[np.float32]:
        """Return the voxels' sums, ``(size, size, size // 2 + 1, 3)`` float32.

        Axes are y and x in FFT order, z from 0, then real part, imaginary part and weight. The plane z = 0
        holds what fell on it from both sides: it obeys Friedel's law.
        """
        size, rows, depth = self.size, self._rows, self._depth
        sums = np.zeros((size, size, size // 2 + 1, 3), dtype=np.float32)
        centre = size // 2
        for y in range(rows):
            blocks = self._blocks[y].reshape(rows, depth, self._corners, 3)
            row = blocks[:, :, 0].copy()
            if self._corners == 4:
                row[:, 1:] += blocks[:, :-1, 1]
                row[1:] += blocks[:-1, :, 2]
                row[1:, 1:] += blocks[:-1, :-1, 3]
            row = row[:, : size // 2 + 1]
            target = sums[(y - centre) % size]
            target[:centre] += row[centre:size]
            target[centre:] += row[:centre]
            target[centre : centre + 2] += row[size:]  # n / 2 is -n / 2
        plane = sums[:, :, 0]
        mirror = np.roll(plane[::-1, ::-1], (1, 1), (0, 1)) * np.array([1, -1, 1], dtype=np.float32)
        sums[:, :, 0] = plane + mirror
        return sums

    def restore(self, sums: NDArray[np.float32]) -> None:
        """Start from sums that `sums` returned, instead of from nothing."""
        size, centre = self.size, self.size // 2
        halved = sums.copy()
        halved[:, :, 0] /= 2  # it will be completed again
        self._blocks[:] = 0
        rolled = np.fft.fftshift(halved, (0, 1))
        self._blocks[:size, :size, : centre + 1, :3] = rolled
