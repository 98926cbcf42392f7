"""Central slices put into a Fourier volume, point by point: the inner loop of back-projection.

A point of a slice falls between eight voxels. Adding to eight places is bound by memory, not by
arithmetic, so the volume keeps for every voxel a block: what the points based at that voxel give to
it and to its neighbours along y and z (four corners), side by side in memory. A point then touches
two places, its block and the next one along x. Blocks are summed to voxels once, at the end.
Large volumes keep one corner per block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# y[:, indices] += data * x, row by row and in place: scipy's product of a sparse matrix in CSC form
# with a dense one. The public operator would allocate a whole volume for every call.
from scipy.sparse._sparsetools import csc_matvecs

__all__ = ["SliceVolume"]

_POINTS = 12_000  # inserted at a time: their temporaries fit into a core's cache
# Edge up to which four corners are kept apart: 0.4 GB; above it memory counts more.
_LARGEST_WITH_BLOCKS = 256


class SliceVolume:
    """Half of a Fourier volume (z >= 0) that sums slices by trilinear insertion.

    ``size``: edge of the padded box; even. ``points``: ``(2, p)`` float32: x and y of a slice's
    points, in voxels of the volume, within ``size / 2``.
    """

    def __init__(self, size: int, points: NDArray[np.float32]) -> None:
        self.size = size
        self._points = np.ascontiguousarray(points, dtype=np.float32)
        self._rows, self._depth = size + 2, size // 2 + 2  # space for the upper neighbours
        self._corners = 4 if size <= _LARGEST_WITH_BLOCKS else 1
        # three numbers per corner: real part, imaginary part, weight
        self._width = 3 * self._corners
        self._blocks = np.zeros(
            (self._rows, self._rows, self._depth, self._width), dtype=np.float32
        )
        self._columns = np.arange(_POINTS + points.shape[1] + 1, dtype=np.int32)

    def insert(
        self,
        slices: NDArray[np.complex64],
        factors: NDArray[np.float32],
        powers: NDArray[np.float32],
        rotations: NDArray[np.float64],
        stretched: bool = False,
    ) -> None:
        """Add slices.

        - ``slices``, ``(n, p)``: the images' transforms at the slice's points.
        - ``factors``, ``(n, p)``: what they are multiplied by.
        - ``powers``, ``(n, p)``: the weight that goes with the product.
        - ``rotations``: ``(n, 3, 3)``; the first two columns span the slice.
        - ``stretched``: whether columns may be longer than 1. Points that leave the volume must
          then have factors and powers of 0.
        """
        step = max(1, _POINTS // self._points.shape[1])
        for start in range(0, len(slices), step):
            part = slice(start, start + step)
            self._insert_few(slices[part], factors[part], powers[part], rotations[part], stretched)

    def _insert_few(
        self,
        slices: NDArray[np.complex64],
        factors: NDArray[np.float32],
        powers: NDArray[np.float32],
        rotations: NDArray[np.float64],
        stretched: bool,
    ) -> None:
        spanned = rotations[:, :, :2].astype(np.float32).transpose(1, 0, 2).reshape(-1, 2)
        places = spanned @ self._points
        if stretched:
            np.clip(places, -self.size / 2, self.size / 2, out=places)
        x, y, z = places.reshape(3, -1)
        # only z >= 0 is kept: the mirror image of a point holds the conjugate
        sign = np.copysign(np.float32(1), z)
        x *= sign
        y *= sign
        z *= sign
        left, low, near = np.floor(x), np.floor(y), np.floor(z)
        x -= left
        y -= low
        z -= near
        # whole numbers below 2^24 are exact in single precision; larger volumes count in double
        count = np.float32 if self._blocks.size // self._width < 2**24 else np.float64
        index = low.astype(count, copy=False) * self._rows + left
        index = (index + self.size // 2 * (self._rows + 1)) * self._depth + near
        real, imaginary = (slices.real * factors).reshape(-1), (slices.imag * factors).reshape(-1)
        imaginary *= sign
        parts = (real, imaginary, powers.reshape(-1))
        if self._corners == 4:
            both = y * z
            corners = (1 - y - z + both, z - both, y - both, both)
            self._scatter(index.astype(np.int32), parts, corners, (1 - x, x))
        else:
            rows = [(1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y]
            weights = [w for row in rows for w in (row - row * z, row * z)]
            self._scatter(index.astype(np.int32), parts, (None,), weights)

    def _scatter(
        self,
        index: NDArray[np.int32],
        parts: Sequence[NDArray[np.float32]],
        corners: Sequence[NDArray[np.float32] | None],
        weights: Sequence[NDArray[np.float32]],
    ) -> None:
        """Add ``parts`` times ``corners`` (a block) times ``weights`` (one for each block touched)."""
        number, touched = len(index), len(weights)
        block = np.empty((number, self._width), dtype=np.float32)
        for corner, factor in enumerate(corners):
            for part, value in enumerate(parts):
                column = block[:, 3 * corner + part]
                if factor is None:
                    column[:] = value
                else:
                    np.multiply(value, factor, out=column)
        places = np.empty((number, touched), dtype=np.int32)
        factors = np.empty((number, touched), dtype=np.float32)
        for place, (offset, weight) in enumerate(zip(self._offsets(), weights, strict=True)):
            np.add(index, offset, out=places[:, place])
            factors[:, place] = weight
        target = self._blocks.reshape(-1)
        columns = self._columns[: number + 1] * np.int32(touched)
        csc_matvecs(
            len(target) // self._width,
            number,
            self._width,
            columns,
            places.ravel(),
            factors.ravel(),
            block.ravel(),
            target,
        )

    def _offsets(self) -> list[int]:
        """Return how far the blocks that a point touches are from its own, in voxels."""
        along_x, along_y = self._depth, self._rows * self._depth
        if self._corners == 4:
            return [0, along_x]
        return [dx * along_x + dy * along_y + dz for dx in (0, 1) for dy in (0, 1) for dz in (0, 1)]

    @staticmethod
    def memory_bytes(size: int) -> int:
        """Return what a volume of an edge takes."""
        corners = 4 if size <= _LARGEST_WITH_BLOCKS else 1
        return (size + 2) ** 2 * (size // 2 + 2) * 3 * corners * 4

    def __iadd__(self, other: SliceVolume) -> SliceVolume:
        """Add another volume of the same size."""
        self._blocks += other._blocks
        return self

    def sums(self) -> NDArray[np.float32]:
        """Return the voxels' sums, ``(size, size, size // 2 + 1, 3)`` float32.

        Axes are y and x in FFT order, z from 0, then real part, imaginary part and weight. The
        plane z = 0 holds what fell on it from both sides: it obeys Friedel's law.
        """
        size, rows, depth = self.size, self._rows, self._depth
        sums = np.zeros((size, size, size // 2 + 1, 3), dtype=np.float32)
        centre = size // 2
        for y in range(rows):
            blocks = self._blocks[y].reshape(rows, depth, self._corners, 3)
            self._add_row(sums[(y - centre) % size], blocks[:, :, 0], blocks[:, :, 1:2])
            if self._corners == 4 and y + 1 < rows:
                self._add_row(sums[(y + 1 - centre) % size], blocks[:, :, 2], blocks[:, :, 3:])
        plane = sums[:, :, 0]
        mirror = np.roll(plane[::-1, ::-1], (1, 1), (0, 1)) * np.array([1, -1, 1], dtype=np.float32)
        sums[:, :, 0] = plane + mirror
        return sums

    def _add_row(
        self, target: NDArray[np.float32], here: NDArray[np.float32], above: NDArray[np.float32]
    ) -> None:
        """Add a row of y, ``(rows, depth, 3)``, in FFT order; ``above`` belongs one z further."""
        size, centre = self.size, self.size // 2
        row = here[:, : centre + 1].copy()
        if above.shape[2]:
            row[:, 1:] += above[:, :centre, 0]
        target[:centre] += row[centre:size]
        target[centre:] += row[:centre]
        target[centre : centre + 2] += row[size:]  # n / 2 is -n / 2

    def restore(self, sums: NDArray[np.float32]) -> None:
        """Start from sums that `sums` returned, instead of from nothing."""
        size, centre = self.size, self.size // 2
        halved = sums.copy()
        halved[:, :, 0] /= 2  # it will be completed again
        self._blocks[:] = 0
        rolled = np.fft.fftshift(halved, (0, 1))
        self._blocks[:size, :size, : centre + 1, :3] = rolled
