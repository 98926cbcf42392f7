"""Sums of slices that several maps share, and the maps that explain them best together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.reconstruction._insertion import SliceVolume
from napari_cryosphere.reconstruction._solving import map_from_transform, radii_by_row
from napari_cryosphere.reconstruction._symmetry import SumSymmetry

__all__ = ["SliceSums"]


class SliceSums:
    """Normal equations of maps V_a whose slices, with coefficients z, make up each image.

    Of images ``d_i = filters_i * sum over a of z_ia slice_i(V_a) + noise`` of variance 1 they hold, at
    every frequency, the sums of ``z_ia filters_i d_i`` and ``z_ia z_ib filters_i^2``.

    - ``box``: even box of the maps.
    - ``frequencies``, ``(k, 2)``: x and y of a slice's points, in cycles per box, one of each
      conjugate pair.
    - ``number``: how many maps.
    - ``together``: whether an image may hold several of the maps at once; otherwise products of
      different coefficients count as 0.
    - ``symmetry``: point group of the maps.
    - ``padding``: oversampling of the Fourier volume.
    """

    def __init__(
        self,
        box: int,
        frequencies: NDArray[np.float32],
        number: int,
        together: bool,
        symmetry: str = "C1",
        padding: int = 2,
    ) -> None:
        self.box, self.padding, self.number = box, padding, number
        self._symmetry = SumSymmetry(symmetry)
        pairs = [(a, b) for a in range(number) for b in range(a, number) if together or a == b]
        points = frequencies.T * np.float32(padding)
        self._volumes = {pair: SliceVolume(box * padding, points) for pair in pairs}

    def insert(
        self,
        data: NDArray[np.complex64],
        filters: NDArray[np.float32],
        rotations: NDArray[np.float64],
        means: NDArray[np.float32],
        products: NDArray[np.float32],
        known: NDArray[np.complex64] | None = None,
    ) -> None:
        """Add images.

        - ``data``, ``filters``, ``(n, k)``: whitened transforms and what slices were multiplied by.
        - ``rotations``: ``(n, 3, 3)``.
        - ``means``, ``products``: ``(n, number)`` and ``(n, number, number)``: expected
          coefficients and products of them.
        - ``known``, ``(n, number, k)``: what else is in the images, times each coefficient, as
          expected; None is nothing.
        """
        squared, nothing = filters**2, np.zeros_like(filters)
        for (a, b), volume in self._volumes.items():
            powers, factors, values = squared * products[:, a, b, None], nothing, data
            if a == b and known is None:
                factors = filters * means[:, a, None]
            elif a == b and known is not None:
                factors, values = filters, data * means[:, a, None] - known[:, a]
            for operator in self._symmetry.insertions:
                volume.insert(values, factors, powers, operator @ rotations)

    @staticmethod
    def memory_bytes(box: int, number: int, padding: int = 2) -> int:
        """Return what the sums of so many maps take that an image may hold at once."""
        return number * (number + 1) // 2 * SliceVolume.memory_bytes(box * padding)

    def solve(self, precision: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the maps of largest posterior, ``(number, box, box, box)``.

        ``precision`` is ``(number, shells)``: of a normal prior about 0 on each coefficient of the map's
        transform, real and imaginary part alike, by shell; beyond the last shell maps are 0.
        """
        size = self.box * self.padding
        radius = np.stack([row for _, row in radii_by_row(size)]) / self.padding
        inside = radius < precision.shape[1] - 0.5
        at = radius[inside]
        numerator = np.empty((len(at), self.number), dtype=np.complex128)
        matrix = np.zeros((len(at), self.number, self.number))
        for (a, b), volume in self._volumes.items():
            sums = self._symmetry.impose(volume.sums())[inside]
            matrix[:, a, b] = matrix[:, b, a] = sums[:, 2]
            if a == b:
                numerator[:, a] = sums[:, 0] + 1j * sums[:, 1]
        # a coefficient of the map is spread over padding^3 points of the padded transform
        share = self._symmetry.order / self.padding**3
        shells = np.arange(precision.shape[1])
        for a, own in enumerate(precision):
            matrix[:, a, a] += share * np.interp(at, shells, own) + 1e-12
        solved = np.linalg.solve(matrix, numerator[..., None])[..., 0].astype(np.complex64)
        fall_off = self._symmetry.fall_off(size, self.box)
        maps = []
        for one in solved.T:
            transform = np.zeros(inside.shape, dtype=np.complex64)
            transform[inside] = one
            maps.append(map_from_transform(transform, self.box, fall_off))
        return np.stack(maps)
