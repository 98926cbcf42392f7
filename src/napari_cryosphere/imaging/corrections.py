"""Images freed of what a CTF cannot hold: antisymmetric phases, anisotropic magnification, premultiplication.

What is left is an undistorted image whose transform is a slice of the map times
`napari_cryosphere.imaging.ctf.transfer_values`, plus white noise: what every comparison with a map and
every reconstruction takes.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_cryosphere.imaging.ctf import LEAST_CTF, aberrated_ctf, fft_frequencies
from napari_cryosphere.particles import ImageGrid, ParticleStack
from napari_cryosphere.particles.aberrations import Aberrations, aberrations_of
from napari_cryosphere.particles.image_grid import resampling_matrix

__all__ = ["corrected_images"]


def corrected_images(
    stack: ParticleStack, images: NDArray[np.float32], grid: ImageGrid, undistort: bool = True
) -> NDArray[np.float32]:
    """Return images without aberrations that are not in `transfer_values`.

    Beam tilt, trefoil and other odd phases are turned back. Anisotropic magnification is undone
    about each particle's recorded centre, by trigonometric interpolation. Images that were
    multiplied by their CTF are divided by its absolute value, which makes their noise white again.

    ``stack``: the particles, a row for each image. ``images``: ``(n, box, box)`` on ``grid``, their
    box and pixel size, as
    `ParticleStack.images` or `images_by_grid` reads them. ``undistort``: whether anisotropic
    magnification is undone. A reconstruction does without: it puts every frequency where it
    belongs. Returns ``(n, box, box)`` float32; ``images`` itself where there is nothing to do.
    """
    aberrations = aberrations_of(stack)
    if aberrations.harmless:
        return images
    done = np.array(images)
    for rows, kind in aberrations.parts():
        done[rows] = _corrected(stack[rows], done[rows], kind, grid, undistort)
    return done


def _corrected(
    part: ParticleStack,
    images: NDArray[np.float32],
    kind: Aberrations,
    grid: ImageGrid,
    undistort: bool,
) -> NDArray[np.float32]:
    frequencies = own = fft_frequencies(grid.box, grid.pixel_size_angstrom)
    matrix = kind.matrix
    if matrix is not None and not undistort:
        own = frequencies @ matrix.T
    factors: NDArray[np.complexfloating] = np.ones((1, len(frequencies)), dtype=np.complex64)
    odd = kind.odd_phase(own)
    if odd is not None:
        factors = factors * np.exp(-1j * odd).astype(np.complex64)
    if kind.treatment == "premultiplied" and part.has_ctf:
        ctf = aberrated_ctf(part.ctf_parameters(), own, kind)
        factors = factors / np.maximum(np.abs(ctf), LEAST_CTF)
    if matrix is not None and undistort:
        images = _undistorted(images, matrix)
        centres = -part.shifts_angstrom()
        moved = centres - centres @ np.linalg.inv(matrix)  # from M^-T c back to c
        turns = np.exp(-2j * np.pi * (moved @ frequencies.T))
        factors = factors * turns.astype(np.complex64)
    if (factors == 1).all():
        return images
    shape = (-1, grid.box, grid.box // 2 + 1)
    # a product with an FFT about pixel 0 is the same as about the centre
    transforms = scipy.fft.rfft2(images) * factors.reshape(shape)
    return np.asarray(scipy.fft.irfft2(transforms, images.shape[1:]), dtype=np.float32)


def _undistorted(images: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return images I(M^T x) det M of images I(x): their transforms at k are the old ones at M^-1 k.

    M^T is a shear of columns, a change of scale along x and along y, and a shear of rows; each is
    exact for images that are zero at their rim.
    """
    (a, b), (c, d) = matrix.T
    box = images.shape[-1]
    height = d - b * c / a
    images = _sheared(images.swapaxes(1, 2), c / a).swapaxes(1, 2)
    across, down = (resampling_matrix(box, box, float(step)) for step in (a, height))
    scaled = np.asarray(down @ images @ across.T, dtype=np.float32)
    return _sheared(scaled, b / a) * np.float32(a * height)


def _sheared(images: NDArray[np.float32], slope: float) -> NDArray[np.float32]:
    """Return I(x + slope y, y): every row moved along itself."""
    if slope == 0:
        return images
    box = images.shape[-1]
    distance = np.arange(box) - box // 2
    phases = np.exp(2j * np.pi * slope * np.outer(distance, np.arange(box // 2 + 1)) / box)
    transforms = scipy.fft.rfft(images, axis=-1) * phases.astype(np.complex64)
    return np.asarray(scipy.fft.irfft(transforms, box, axis=-1), dtype=np.float32)
