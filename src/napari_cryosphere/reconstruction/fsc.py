"""Fourier shell correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FourierShellCorrelation", "fourier_shell_correlation"]


@dataclass(frozen=True)
class FourierShellCorrelation:
    """Correlation of two maps, shell by shell.

    Attributes
    ----------
    values
        ``(box // 2 + 1,)``: the correlation of frequencies with ``round(radius) = k`` cycles a box.
    box
        Box of the maps in voxels.
    pixel_size_angstrom
        Voxel size.
    """

    values: NDArray[np.float64]
    box: int
    pixel_size_angstrom: float

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Spatial frequency of every shell in 1/angstrom."""
        return np.arange(len(self.values)) / (self.box * self.pixel_size_angstrom)

    def resolution_angstrom(self, threshold: float = 0.143) -> float:
        """Return the resolution at which the curve first falls below a threshold.

        Between the last shell above and the first below, the crossing is interpolated linearly in frequency.
        A curve that never falls below gives Nyquist, twice the pixel size.
        """
        below = np.flatnonzero(self.values[1:] < threshold)
        if len(below) == 0:
            return 2 * self.pixel_size_angstrom
        shell = int(below[0]) + 1
        before, after = self.values[shell - 1], self.values[shell]
        part = (before - threshold) / (before - after) if before > after else 1.0
        crossing = max(shell - 1 + part, 1e-6)
        return float(self.box * self.pixel_size_angstrom / crossing)


def fourier_shell_correlation(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    pixel_size_angstrom: float,
    mask: NDArray[np.floating] | None = None,
) -> FourierShellCorrelation:
    """Correlate two maps in shells of their Fourier transforms (Harauz & van Heel 1986), as RELION does.

    Parameters
    ----------
    first, second
        ``(n, n, n)`` maps.
    pixel_size_angstrom
        Voxel size.
    mask
        ``(n, n, n)``, multiplied with both maps before.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if first.shape != second.shape or (mask is not None and mask.shape != first.shape):
        shapes = [first.shape, second.shape] + ([] if mask is None else [mask.shape])
        raise ValueError(f"maps and mask must have one shape, not {' and '.join(map(str, shapes))}")
    box = first.shape[0]
    a, b = (first, second) if mask is None else (first * mask, second * mask)
    f, g = np.fft.rfftn(a), np.fft.rfftn(b)
    y = np.fft.fftfreq(box, 1 / box)
    x = np.arange(box // 2 + 1)
    shell = np.rint(np.sqrt(y[:, None, None] ** 2 + y[:, None] ** 2 + x**2)).astype(int).ravel()
    # columns x = 0 and Nyquist stand once in the full transform, the others twice
    count = np.broadcast_to(np.where((x == 0) | (x == box // 2), 1.0, 2.0), f.shape).ravel()

    def shells(values: NDArray[np.floating]) -> NDArray[np.float64]:
        sums = np.asarray(np.bincount(shell, weights=count * values.ravel()), dtype=np.float64)
        return sums[: box // 2 + 1]

    cross = shells((f * g.conj()).real)
    power = np.sqrt(shells(np.abs(f) ** 2) * shells(np.abs(g) ** 2))
    correlation = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    return FourierShellCorrelation(correlation, box, pixel_size_angstrom)
