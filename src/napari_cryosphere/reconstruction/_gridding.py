"""Division of a reconstruction's sums by weights that even out the sampling, as relion_reconstruct does it.

Plain division lets noise fade towards Nyquist, where slices lie on one side only. Pipe & Menon
(Magn. Reson. Med. 41, 179, 1999) look for weights u / w whose product u with the sampling density
w, smeared by a kernel, is 1 everywhere in the sphere; RELION (Scheres, J. Struct. Biol. 180, 519,
2012) takes ten rounds of ``u <- u / (kernel * u)`` with a Kaiser-Bessel kernel (Lewitt, J. Opt.
Soc. Am. A 7, 1834, 1990).
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.special import iv, jv

from napari_cryosphere.reconstruction._solving import filled_weights

__all__ = ["divide_gridded"]

_KERNEL_RADIUS_VOXELS, _KERNEL_ALPHA = 1.9, 15.0  # in voxels without padding; RELION's
_ROUNDS = 10  # of the iteration; RELION's
_LEAST = 1e-6  # of a smeared weight that is divided by, RELION's (backprojector.cpp)


def divide_gridded(sums: NDArray[np.float32], padding: int, floor: float) -> NDArray[np.complex64]:
    """Divide numerators by weights with RELION's density compensation.

    ``sums``, ``(m, m, m // 2 + 1, 3)``: real part, imaginary part, weight; y, x in FFT order, z
    from 0. ``padding``: voxels of the volume for one of the images. ``floor``: least weight, in
    mean weights of the shell. Returns ``(m, m, m // 2 + 1)`` complex64, zero from Nyquist on. So is
    frequency zero, since RELION's maps have nothing there but what the neighbouring frequencies
    leave.
    """
    size = len(sums)
    weight = filled_weights(sums, padding, floor)
    inside = _inside(size, padding)
    scale = float(weight[inside].mean())
    kernel = _kernel_transform(size, padding)
    compensation = inside.astype(np.float32)
    for _ in range(_ROUNDS):
        smeared = scipy.fft.irfftn(
            compensation * (weight / np.float32(scale)), (size,) * 3, overwrite_x=True
        )
        smeared *= kernel
        density = np.abs(scipy.fft.rfftn(smeared, overwrite_x=True))
        compensation /= np.maximum(density, np.float32(_LEAST))
        compensation *= inside
    quotient = sums[..., :2].view(np.complex64)[..., 0] * (compensation / np.float32(scale))
    quotient[0, 0, 0] = 0
    return np.asarray(quotient, dtype=np.complex64)


def _inside(size: int, padding: int) -> NDArray[np.bool_]:
    """Return which points of the half volume lie within Nyquist."""
    squared = np.fft.fftfreq(size, 1 / size) ** 2
    limit = (size // padding // 2 * padding) ** 2
    return squared[:, None, None] + squared[:, None] + np.arange(size // 2 + 1) ** 2 < limit


def _kernel_transform(size: int, padding: int) -> NDArray[np.float32]:
    """Return the kernel's transform at every voxel of real space, 1 in the origin, in FFT order."""
    steps = 10_000
    distances = np.linspace(0, np.sqrt(3) / 2, steps)
    # RELION smears in a volume of size + 3 voxels, which makes its kernel that much wider
    table = _kaiser_bessel_transform(distances, _KERNEL_RADIUS_VOXELS * padding * (size + 3) / size)
    table /= table[0]
    squared = np.fft.fftfreq(size) ** 2
    values = np.empty((size,) * 3, dtype=np.float32)
    for plane, squared_distance in zip(values, squared, strict=True):
        plane[:] = np.interp(
            np.sqrt(squared_distance + squared[:, None] + squared), distances, table
        )
    return values


def _kaiser_bessel_transform(distances: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return the three-dimensional transform of a Kaiser-Bessel kernel of order 0, up to a factor."""
    product = 2 * np.pi * radius * distances
    sigma = np.maximum(np.sqrt(np.abs(_KERNEL_ALPHA**2 - product**2)), 1e-9)
    bessel = np.where(product < _KERNEL_ALPHA, iv(1.5, sigma), jv(1.5, sigma))
    return np.asarray(bessel / sigma**1.5)
