"""FSC by direction: shows whether resolution is the same along every axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction._shells import shell_numbers, transform_of
from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation

__all__ = ["ConicalFsc", "conical_fsc", "half_sphere"]

# In a cone's shell; below, its correlation says nothing and the whole shell's is taken.
_LEAST_VALUES = 8


@dataclass(frozen=True)
class ConicalFsc:
    """FSC inside cones.

    ``directions``, ``(k, 3)``: axes of the cones, unit vectors in x, y, z. ``curves``: one for each
    cone.
    """

    directions: NDArray[np.float64]
    curves: tuple[FourierShellCorrelation, ...]

    @property
    def lowest(self) -> FourierShellCorrelation:
        """The worst cone's value in every shell."""
        return self._reduced(np.min([curve.values for curve in self.curves], axis=0))

    @property
    def highest(self) -> FourierShellCorrelation:
        """The best cone's value in every shell."""
        return self._reduced(np.max([curve.values for curve in self.curves], axis=0))

    def _reduced(self, values: NDArray[np.float64]) -> FourierShellCorrelation:
        return FourierShellCorrelation(
            values, self.curves[0].box, self.curves[0].pixel_size_angstrom
        )

    def resolution_range_angstrom(self, threshold: float = 0.143) -> tuple[float, float]:
        """Return the resolutions of the best and of the worst cone."""
        resolutions = [curve.resolution_angstrom(threshold) for curve in self.curves]
        return min(resolutions), max(resolutions)


def conical_fsc(
    first: DensityMap,
    second: DensityMap,
    mask: NDArray[np.floating] | None = None,
    cones: int = 50,
    half_angle_degrees: float = 20.0,
) -> ConicalFsc:
    """Correlate two maps inside double cones (Dang et al. 2017; 20 degrees as in 3DFSC).

    - ``first``, ``second``: maps on one grid.
    - ``mask``: ``(n, n, n)``, multiplied with both maps before.
    - ``cones``: number of axes, spread evenly over the half-sphere.
    - ``half_angle_degrees``: between a cone's axis and its edge.
    """
    box = first.box
    f = transform_of(first.voxels if mask is None else first.voxels * mask)
    g = transform_of(second.voxels if mask is None else second.voxels * mask)
    directions = half_sphere(cones)
    sums = np.zeros((cones + 1, 4, box // 2 + 1))
    for z in range(box):
        _add_plane(sums, f[z], g[z], z, directions, np.cos(np.radians(half_angle_degrees)))
    values = _correlations(sums)
    curves = (FourierShellCorrelation(row, box, first.pixel_size_angstrom) for row in values)
    return ConicalFsc(directions, tuple(curves))


def half_sphere(number: int) -> NDArray[np.float64]:
    """Return unit vectors spread evenly over z > 0, on a golden spiral, ``(number, 3)``."""
    z = (np.arange(number) + 0.5) / number
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(number)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _add_plane(
    sums: NDArray[np.float64],
    f: NDArray[np.complexfloating],
    g: NDArray[np.complexfloating],
    plane: int,
    directions: NDArray[np.float64],
    least_cosine: float,
) -> None:
    """Add one z plane of two half transforms to the sums of every cone, and of the whole shell (the last)."""
    box = len(f)
    shells = shell_numbers(box, plane).ravel()
    inside = np.flatnonzero(shells <= box // 2)
    frequency = np.fft.fftfreq(box, 1 / box)
    y, x = np.divmod(inside, box // 2 + 1)
    points = np.stack([x, frequency[y], np.full(len(x), frequency[plane])], axis=1)
    length = np.linalg.norm(points, axis=1)
    near = np.abs(points @ directions.T) >= least_cosine * length[:, None]
    a, b = f.ravel()[inside], g.ravel()[inside]
    parts = [(a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2, np.ones(len(a))]
    for cone in range(len(sums)):
        rows = np.flatnonzero(near[:, cone]) if cone < len(directions) else slice(None)
        for total, values in zip(sums[cone], parts, strict=True):
            total += np.bincount(shells[inside][rows], values[rows], minlength=box // 2 + 1)


def _correlations(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the FSC of each cone; shells with too few values get the whole shell's."""
    cross, first, second, count = sums.transpose(1, 0, 2)
    power = np.sqrt(first * second)
    values = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    return np.where(count[:-1] >= _LEAST_VALUES, values[:-1], values[-1])
