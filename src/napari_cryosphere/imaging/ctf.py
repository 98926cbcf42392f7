"""The contrast transfer function of a particle, in RELION's convention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.particles.aberrations import Aberrations, aberrations_of
from napari_cryosphere.particles.ctf_parameters import (
    ANGSTROM_PER_MILLIMETRE,
    CtfParameters,
    wavelength_angstrom,
)
from napari_cryosphere.particles.image_grid import ImageGrid
from napari_cryosphere.particles.stack import ParticleStack

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LEAST_CTF",
    "aberrated_ctf",
    "ctf_2d",
    "ctf_values",
    "fft_frequencies",
    "radial_ctf",
    "transfer_functions",
    "transfer_values",
]

LEAST_CTF = 0.05
"""Least absolute CTF that a premultiplied image is divided by: below it rounding of the stored
pixels would be blown up. Any value from 0.01 to 0.1 gives the same map (correlation to 1e-4)."""
_DIRECTIONS = 8  # of half a circle, over which astigmatism is averaged; chosen, not tuned


def ctf_values(
    parameters: CtfParameters,
    frequencies: NDArray[np.floating],
    extra_phase: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Return the CTF of each particle at spatial frequencies.

    ``sin(pi lambda dz s^2 - pi/2 Cs lambda^3 s^4 + asin(w) + phase shift)`` with ``dz = (U + V)/2 +
    (U - V)/2 cos 2(theta - angle)``, theta from +x towards +y, underfocus positive: multiplied by
    it a protein stays white. An envelope ``exp(-B s^2 / 4)`` and a scale multiply it where there
    are any. This is what `relion_project --ctf` does.

    The phase is a combination of five images that all particles share (1, s^2, s^2 cos 2 theta,
    s^2 sin 2 theta, s^4): one matrix product and one sine make all CTFs.

    ``parameters``: ``(n,)`` values in RELION's units (angstrom, kV, mm, degrees). ``frequencies``,
    ``(p, 2)``: x and y in 1/angstrom. ``extra_phase``: ``(p,)`` radians added to the sine's
    argument: symmetric aberrations. Returns ``(n, p)`` float32.
    """
    x, y = np.asarray(frequencies, dtype=np.float64).T
    squared = x**2 + y**2
    basis = np.stack([np.ones_like(x), squared, x**2 - y**2, 2 * x * y, squared**2])
    wavelength = wavelength_angstrom(parameters.voltage_kv)
    u, v = parameters.defocus_u_angstrom, parameters.defocus_v_angstrom
    twice = 2 * np.radians(parameters.defocus_angle_degrees)
    offset = np.arcsin(parameters.amplitude_contrast) + np.radians(parameters.phase_shift_degrees)
    spherical = parameters.spherical_aberration_mm * ANGSTROM_PER_MILLIMETRE
    weights = [
        offset,
        np.pi * wavelength * (u + v) / 2,
        np.pi * wavelength * (u - v) / 2 * np.cos(twice),
        np.pi * wavelength * (u - v) / 2 * np.sin(twice),
        -np.pi / 2 * spherical * wavelength**3,
    ]
    phase = np.stack(weights, axis=1).astype(np.float32) @ basis.astype(np.float32)
    if extra_phase is not None:
        phase += extra_phase.astype(np.float32)
    values: NDArray[np.float32] = np.sin(phase, out=phase)
    if parameters.b_factor_angstrom2.any():
        values *= np.exp(
            -0.25 * np.outer(parameters.b_factor_angstrom2, squared).astype(np.float32)
        )
    if (parameters.scale_factor != 1).any():
        values *= parameters.scale_factor.astype(np.float32)[:, None]
    return values


def ctf_2d(parameters: CtfParameters, box: int, pixel_size_angstrom: float) -> Tensor:
    """Return the CTF of each particle (see `ctf_values`) on the grid of a real-input FFT.

    ``parameters``: ``(n,)`` values in RELION's units (angstrom, kV, mm, degrees). ``box``: even box
    of the images, in pixels. ``pixel_size_angstrom``: pixel size in angstrom. Returns
    ``(n, box, box // 2 + 1)`` float32; rows are the y frequencies in FFT order, columns x from 0.
    """
    import torch

    values = ctf_values(parameters, fft_frequencies(box, pixel_size_angstrom))
    return torch.from_numpy(values.reshape(-1, box, box // 2 + 1))


def aberrated_ctf(
    parameters: CtfParameters, frequencies: NDArray[np.floating], kind: Aberrations
) -> NDArray[np.float32]:
    """Return the CTF of particles with one kind of aberrations, ``(n, ...)``; see `ctf_values`.

    ``frequencies``, ``(..., 2)``, are those of undistorted images.
    """
    return ctf_values(parameters, frequencies, kind.even_phase(frequencies))


def transfer_values(
    stack: ParticleStack, frequencies: NDArray[np.floating], undistorted: bool = True
) -> NDArray[np.float32] | None:
    """Return what each particle's corrected image, on the stack's grid, holds of given frequencies.

    That is its CTF (1 where it is not known) with tetrafoil and other symmetric aberrations; of
    images whose phases were flipped its absolute value, and of images that were multiplied by their
    CTF likewise, once `napari_cryosphere.imaging.corrections.corrected_images` has divided them by
    it. It is zero from the Nyquist frequency of a particle's own optics group on where the stack's
    grid is finer.

    ``stack``: particles. ``frequencies``, ``(p, 2)``: x and y in 1/angstrom. ``undistorted``:
    whether anisotropic magnification has been undone in the images. Returns ``(n, p)`` float32;
    None if it is 1 everywhere.
    """
    coarser = _coarser_groups(stack)
    values = _ctf_left(stack, frequencies, undistorted) if stack.has_ctf else None
    if not coarser:
        return values
    if values is None:
        values = np.ones((len(stack), len(frequencies)), dtype=np.float32)
    highest = np.abs(frequencies).max(axis=1)
    groups = stack.optics_groups()
    for group, pixel_size_angstrom in coarser.items():
        values[groups == group] *= highest < 0.5 / pixel_size_angstrom
    return values


def _ctf_left(
    stack: ParticleStack, frequencies: NDArray[np.floating], undistorted: bool
) -> NDArray[np.float32]:
    """Return the CTF that is in corrected images, ``(n, p)``."""
    parameters, aberrations = stack.ctf_parameters(), aberrations_of(stack)
    if aberrations.harmless:
        return ctf_values(parameters, frequencies)
    values = np.empty((len(stack), len(frequencies)), dtype=np.float32)
    for rows, kind in aberrations.parts():
        matrix = None if undistorted else kind.matrix
        own = frequencies if matrix is None else frequencies @ matrix.T
        ctf = aberrated_ctf(parameters[rows], own, kind)
        if kind.treatment != "none":
            np.abs(ctf, out=ctf)
        if kind.treatment == "premultiplied":  # what is left of its square
            ctf *= np.minimum(ctf / LEAST_CTF, 1)
        values[rows] = ctf
    return values


def transfer_functions(stack: ParticleStack, grid: ImageGrid | None = None) -> Tensor | None:
    """Return `transfer_values` on the grid of a real-input FFT, the stack's own unless one is given.

    Returns ``(n, box, box // 2 + 1)`` float32; None if it is 1 everywhere.
    """
    import torch

    chosen = stack.grid if grid is None else grid
    values = transfer_values(stack, fft_frequencies(chosen.box, chosen.pixel_size_angstrom))
    if values is None:
        return None
    return torch.from_numpy(values.reshape(-1, chosen.box, chosen.box // 2 + 1))


def radial_ctf(stack: ParticleStack, grid: ImageGrid) -> Tensor | None:
    """Return the mean absolute value of `transfer_values` on circles about the origin of a grid's FFT.

    Turning an image leaves it as it is. Returns ``(n, box // 2 + 1)`` float32, at 0, 1, ... cycles
    per box; None if it is 1 everywhere.
    """
    import torch

    radius = np.arange(grid.box // 2 + 1) / (grid.box * grid.pixel_size_angstrom)
    angle = np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS
    circles = radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    values = transfer_values(stack, circles.reshape(-1, 2))
    if values is None:
        return None
    return torch.from_numpy(np.abs(values).reshape(len(stack), -1, _DIRECTIONS).mean(axis=2))


def fft_frequencies(box: int, pixel_size_angstrom: float) -> NDArray[np.float64]:
    """Return a real-input FFT's frequencies in row order, ``(box * (box // 2 + 1), 2)`` in 1/angstrom."""
    y = np.fft.fftfreq(box, pixel_size_angstrom)
    x = np.arange(box // 2 + 1) / (box * pixel_size_angstrom)
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).reshape(-1, 2)


def _coarser_groups(stack: ParticleStack) -> dict[int, float]:
    """Return the pixel sizes of the optics groups that are coarser than the stack's grid."""
    finest = stack.pixel_size_angstrom * (1 + 1e-4)
    sizes = {group: grid.pixel_size_angstrom for group, grid in stack.grids.items()}
    return {group: size for group, size in sizes.items() if size > finest}
