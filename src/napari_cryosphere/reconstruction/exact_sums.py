"""Exact sums of a reconstruction: the same bits in whatever order images were added.

Sums of floating-point numbers depend on their order in the last digits. Here every number is a
whole number of units of 2^-40, so that adding is exact: sums made from files in the order in which
they came, in several runs or on several machines are the same bit for bit. Such a number takes 12
bytes: how many times 4096 (32 bits) and the rest (64 bits). That holds what float32 sums of images
of any usual grey values need.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.reconstruction.backprojection import BackProjector, refuse_unlike_sums

__all__ = ["ExactSums"]

_UNIT = 2.0**-40  # 2^-20 of the smallest sum that is legal
_HIGH = 2.0**12  # `_UNIT` times 2**`_LOW_BITS`
_LOW_BITS = 52  # units in one of the high part
_LARGEST = 2.0**42  # 2**30 units of `_HIGH`, half of what 32 bits hold
# below it less than 20 bits would be left; images of deviation 1 are far above
_SMALLEST = 2.0**-20


class ExactSums:
    """Sums of back-projectors of one box, padding and symmetry, added without rounding.

    ``box``, ``padding``, ``symmetry``: as for `BackProjector`. ``inserted``: number of particles in
    the sums.
    """

    def __init__(self, box: int, padding: int = 2, symmetry: str = "C1") -> None:
        self.box, self.padding, self.symmetry = box, padding, symmetry
        self.inserted = 0
        size = box * padding
        self._high = np.zeros((size, size, size // 2 + 1, 3), dtype=np.int32)
        self._low = np.zeros_like(self._high, dtype=np.int64)

    @staticmethod
    def memory_bytes(box: int, padding: int) -> int:
        """Return what sums take, in bytes."""
        size = box * padding
        return size * size * (size // 2 + 1) * 3 * 12

    @staticmethod
    def fitting(projector: BackProjector) -> NDArray[np.float32]:
        """Return what a back-projector holds, for `add`: ``(m, m, m // 2 + 1, 3)`` float32.

        Raises `CryosphereError` if grey values are so large or so small that their sums do not fit.
        """
        sums = projector.sums()
        largest = float(np.abs(sums[..., :2]).max())
        if (
            not _SMALLEST < max(largest, float(sums[..., 2].max())) < _LARGEST
            or largest < _SMALLEST
        ):
            raise CryosphereError(
                f"the images' transforms add up to {largest:.1e}, out of {_SMALLEST:.0e} to {_LARGEST:.0e}; "
                "normalise the images (RELION's extraction does: background mean 0 and deviation 1)"
            )
        return sums

    def add(self, sums: NDArray[np.float32], inserted: int) -> None:
        """Add the sums of so many particles, ``(m, m, m // 2 + 1, 3)``, as `fitting` returns them."""
        for row in range(len(sums)):  # a slab at a time: temporaries are in double precision
            values = sums[row].astype(np.float64)
            high = np.rint(values / _HIGH)
            low = np.rint((values - high * _HIGH) / _UNIT).astype(np.int64)
            self._carry(row, high.astype(np.int64), low)
        self.inserted += inserted

    def __iadd__(self, other: ExactSums) -> ExactSums:
        """Add other sums of the same box, padding and symmetry."""
        refuse_unlike_sums(self, other)
        for row in range(len(self._low)):
            self._carry(row, other._high[row].astype(np.int64), other._low[row])
        self.inserted += other.inserted
        return self

    def _carry(self, row: int, high: NDArray[np.int64], low: NDArray[np.int64]) -> None:
        """Add numbers to a slab and bring the low parts back below half a unit of the high ones."""
        self._low[row] += low
        carried = (self._low[row] + (1 << (_LOW_BITS - 1))) >> _LOW_BITS
        self._low[row] -= carried << _LOW_BITS
        high += carried + self._high[row]
        if max(int(high.max()), -int(high.min())) >= 1 << 31:
            raise CryosphereError("the sums have grown beyond what they can hold; begin a new run")
        self._high[row] = high

    def projector(self) -> BackProjector:
        """Return a back-projector with these sums, rounded once to float32, to make a map from."""
        sums = np.empty(self._low.shape, dtype=np.float32)
        for row in range(len(sums)):
            sums[row] = self._low[row] * _UNIT + self._high[row] * _HIGH
        return BackProjector.from_sums(self.box, self.padding, self.symmetry, sums, self.inserted)

    def arrays(self) -> dict[str, NDArray[np.int32] | NDArray[np.int64]]:
        """Return the numbers as they are kept, for writing; `from_arrays` takes them.

        ``high`` and ``low``, each ``(m, m, m // 2 + 1, 3)``; m is box times padding.
        """
        return {"high": self._high, "low": self._low}

    @classmethod
    def from_arrays(
        cls,
        arrays: dict[str, NDArray[np.int32] | NDArray[np.int64]],
        padding: int,
        symmetry: str,
        inserted: int,
    ) -> ExactSums:
        """Return sums from arrays that `arrays` gave.

        Raises `ValueError` if their shapes are not ``(m, m, m // 2 + 1, 3)`` or do not fit each
        other.
        """
        high, low = arrays["high"], arrays["low"]
        size = len(high)
        expected = (size, size, size // 2 + 1, 3)
        if not high.shape == low.shape == expected or size % padding:
            raise ValueError(f"sums of shapes {high.shape} and {low.shape} with padding {padding}")
        made = cls.__new__(cls)
        made.box, made.padding = size // padding, padding
        made.symmetry, made.inserted = symmetry, inserted
        made._high, made._low = high.astype(np.int32, copy=False), low.astype(np.int64, copy=False)
        return made
