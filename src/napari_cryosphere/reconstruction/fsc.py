"""Fourier shell correlation, and the signal-to-noise ratio that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.reconstruction._shells import shell_numbers, squared_radii, transform_of

__all__ = [
    "TAU_FUDGE",
    "FourierShellCorrelation",
    "correlate_transforms",
    "fourier_shell_correlation",
    "ssnr_of_full_map",
]

TAU_FUDGE = 4.0
"""RELION's tau2_fudge for single particles: the signal inside the mask is stronger than in the whole box."""

# Correlations that are believed at least and at most. Of the least: tuned on simulated D7
# particles; from 0.03 to 0.143 the resolution at FSC 0.5 stays within 0.03 A (docs/measurements.md).
_LEAST_TRUSTED, _MOST_TRUSTED = 0.07, 0.999


@dataclass(frozen=True)
class FourierShellCorrelation:
    """Correlation of two maps, shell by shell.

    ``values``, ``(box // 2 + 1,)``: the correlation of frequencies with ``round(radius) = k``
    cycles per box. ``box``: box of the maps in voxels. ``pixel_size_angstrom``: voxel size.
    """

    values: NDArray[np.float64]
    box: int
    pixel_size_angstrom: float

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Spatial frequency of every shell in 1/angstrom."""
        return np.arange(len(self.values)) / (self.box * self.pixel_size_angstrom)

    def _repr_html_(self) -> str:
        """Return the resolutions and the curve, for notebooks."""
        from napari_cryosphere._html import curve, page

        levels = (0.143, 0.5)
        entries = {f"A at FSC {level}": self.resolution_angstrom(level) for level in levels}
        return page("Fourier shell correlation", entries, [curve(self.values, levels)])

    def resolution_angstrom(self, threshold: float = 0.143) -> float:
        """Return the resolution at which the curve first falls below a threshold.

        Between the last shell above and the first below, the crossing is interpolated linearly in
        frequency. A curve that never falls below gives Nyquist, twice the pixel size.
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

    Shells are hard (the radius in cycles per box, rounded) and every stored coefficient of the half
    transform counts once, which is RELION's way.

    ``first``, ``second``: ``(n, n, n)`` maps; the precision of their type is kept.
    ``pixel_size_angstrom``: voxel size. ``mask``: ``(n, n, n)``, multiplied with both maps before.
    Returns values in float64; a shell in which a map has no power gets 0. Raises `ValueError` if
    the shapes differ.
    """
    if first.shape != second.shape or (mask is not None and mask.shape != first.shape):
        shapes = [first.shape, second.shape] + ([] if mask is None else [mask.shape])
        raise ValueError(f"maps and mask must have one shape, not {' and '.join(map(str, shapes))}")
    box = first.shape[0]
    f = transform_of(first if mask is None else first * mask)
    g = transform_of(second if mask is None else second * mask)
    values = correlate_transforms(f, g)
    return FourierShellCorrelation(values, box, pixel_size_angstrom)


def correlate_transforms(
    f: NDArray[np.complexfloating], g: NDArray[np.complexfloating], *, whole_shells: bool = False
) -> NDArray[np.float64]:
    """Return the FSC of two half transforms ``(n, n, n // 2 + 1)``, plane by plane: ``(n // 2 + 1,)``.

    Shells and counts are RELION's, see `fourier_shell_correlation`; with ``whole_shells`` a shell is
    k <= r < k + 1 and every frequency counts once.
    """
    box = len(f)
    last = box // 2 + 1
    x = np.arange(last)
    # the others stand for their mirror images too
    counts = np.where((x == 0) | (2 * x == box), 1.0, 2.0)
    cross, first, second = np.zeros((3, last))
    for z in range(box):
        a, b = f[z], g[z]
        shells = shell_numbers(box, z)
        if whole_shells:
            shells = np.sqrt(squared_radii(box, z)).astype(np.intp)
        for total, values in (
            (cross, a.real * b.real + a.imag * b.imag),
            (first, a.real**2 + a.imag**2),
            (second, b.real**2 + b.imag**2),
        ):
            counted = values * counts if whole_shells else values
            total += np.bincount(shells.ravel(), counted.ravel(), minlength=last)[:last]
    power = np.sqrt(first * second)
    return np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)


def ssnr_of_full_map(curve: FourierShellCorrelation) -> NDArray[np.float64]:
    """Return the spectral signal-to-noise ratio of the map from all particles, shell by shell.

    ``TAU_FUDGE * 2 FSC / (1 - FSC)`` of the half-maps' unmasked FSC (Scheres 2012, eq. 10: each
    half has FSC / (1 - FSC), all particles twice that). The FSC is taken to lie in 0.07 to 0.999: a
    shell beyond the resolution is damped, not removed, for a steep filter spills strong shells into
    weak ones as soon as the map is masked (measured: docs/measurements.md). Returns
    ``(box // 2 + 1,)``, for `BackProjector.solve`.
    """
    trusted = np.clip(curve.values, _LEAST_TRUSTED, _MOST_TRUSTED)
    return np.asarray(TAU_FUDGE * 2 * trusted / (1 - trusted))
