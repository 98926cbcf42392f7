"""From the sums of a reconstruction to a map: division, inverse transform, gridding correction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_cryosphere.imaging.map_mask import soft_sphere

__all__ = ["divide", "filled_weights", "map_from_transform", "outside_sphere", "radii_by_row"]

_EDGE_PX = 3.0  # of the soft edge of the sphere: RELION's default in softMaskOutsideMap


def divide(
    sums: NDArray[np.float32], padding: int, ssnr: NDArray[np.floating] | None, floor: float
) -> NDArray[np.complex64]:
    """Divide numerators by weights plus regularisation.

    Returns ``(m, m, m // 2 + 1)`` complex64, zero beyond Nyquist.

    - ``sums``, ``(m, m, m // 2 + 1, 3)``: real part, imaginary part, weight; y, x in FFT order, z
      from 0.
    - ``padding``: voxels of the volume for one of the images.
    - ``ssnr``: ``(m / padding // 2 + 1,)`` by shell of the images, or None.
    - ``floor``: least weight, in mean weights of the shell.
    """
    size = len(sums)
    means = _mean_weights(sums, padding)
    nyquist = size / padding / 2
    added = None if ssnr is None else means[: len(ssnr)] / np.maximum(ssnr, 1e-6)
    transform = np.zeros(sums.shape[:3], dtype=np.complex64)
    shells = np.arange(len(means))
    for row, radius in radii_by_row(size):
        image_radius = radius / padding
        inside = image_radius <= nyquist
        weight = sums[row, ..., 2][inside]
        at = image_radius[inside]
        divisor = np.maximum(weight, floor * np.interp(at, shells, means))
        if added is not None:
            divisor += np.interp(at, np.arange(len(added)), added)
        np.maximum(divisor, 1e-20, out=divisor)
        transform[row][inside] = sums[row, ..., :2].view(np.complex64)[..., 0][inside] / divisor
    return transform


def filled_weights(sums: NDArray[np.float32], padding: int, floor: float) -> NDArray[np.float32]:
    """Return the weights, ``(m, m, m // 2 + 1)``, none below ``floor`` mean weights of its shell."""
    means = _mean_weights(sums, padding)
    shells = np.arange(len(means))
    weights = np.empty(sums.shape[:3], dtype=np.float32)
    for row, radius in radii_by_row(len(sums)):
        weights[row] = np.maximum(
            sums[row, ..., 2], floor * np.interp(radius / padding, shells, means)
        )
    return weights


def radii_by_row(size: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield every y of a half volume and the distances ``(size, size // 2 + 1)`` of its points from 0."""
    x, z = np.fft.fftfreq(size, 1 / size), np.arange(size // 2 + 1)
    in_plane = x[:, None] ** 2 + z**2
    for row, y in enumerate(x):
        yield row, np.sqrt(in_plane + y**2)


def _mean_weights(sums: NDArray[np.float32], padding: int) -> NDArray[np.float64]:
    """Return the mean weight by shell of the images."""
    size = len(sums)
    number = int(np.ceil(size * np.sqrt(3) / 2 / padding)) + 2
    total, count = np.zeros(number), np.zeros(number)
    for row, radius in radii_by_row(size):
        shell = np.rint(radius / padding).astype(np.int64).ravel()
        total += np.bincount(shell, sums[row, ..., 2].ravel(), minlength=number)
        count += np.bincount(shell, minlength=number)
    return total / np.maximum(count, 1)


def map_from_transform(
    transform: NDArray[np.complex64], box: int, fall_off: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Transform back, cut the box out, undo the interpolation's fall-off, fade outside the sphere.

    ``transform``, ``(m, m, m // 2 + 1)``: y, x, z. Overwritten. ``box``: box that is wanted.
    ``fall_off``: ``(box, box, box)`` z, y, x. Returns ``(box, box, box)`` float32, z, y, x.
    """
    size = len(transform)
    kept = np.arange(-(box // 2), box - box // 2) % size
    # one axis at a time, so that what is cut away is not transformed along the others
    rows = scipy.fft.ifft(transform, axis=0, overwrite_x=True)[kept]
    columns = scipy.fft.ifft(rows, axis=1, overwrite_x=True)[:, kept]
    voxels = scipy.fft.irfft(columns, size, axis=2)[:, :, kept]
    voxels = np.ascontiguousarray(voxels.transpose(2, 0, 1)) / fall_off
    fade = outside_sphere(box)
    background = voxels[fade == 1].mean(dtype=np.float64) if (fade == 1).any() else 0.0
    return (voxels + fade * (np.float32(background) - voxels)).astype(np.float32)


def outside_sphere(box: int) -> NDArray[np.float32]:
    """Return 0 inside the sphere of diameter ``box``, 1 from 3 voxels outside it, a raised cosine between."""
    return 1 - soft_sphere(box, box / 2, _EDGE_PX)
