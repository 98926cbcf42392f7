"""The contrast transfer function of a particle, in RELION's convention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.particles.ctf_parameters import CtfParameters

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ctf_2d", "ctf_values"]

_ANGSTROM_PER_MILLIMETRE = 1e7


def ctf_values(parameters: CtfParameters, frequencies: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the CTF of each particle at spatial frequencies.

    ``sin(pi lambda dz s^2 - pi/2 Cs lambda^3 s^4 + asin(w) + phase shift)`` with
    ``dz = (U + V)/2 + (U - V)/2 cos 2(theta - angle)``, theta from +x towards +y, underfocus positive:
    multiplied by it a protein stays white. This is what `relion_project --ctf` does.

    The phase is a combination of five images that all particles share (1, s^2, s^2 cos 2 theta,
    s^2 sin 2 theta, s^4): one matrix product and one sine make all CTFs.

    Parameters
    ----------
    parameters
        ``(n,)`` values in RELION's units (angstrom, kV, mm, degrees).
    frequencies
        ``(p, 2)``: x and y in 1/angstrom.

    Returns
    -------
    ``(n, p)`` float32.
    """
    x, y = np.asarray(frequencies, dtype=np.float64).T
    squared = x**2 + y**2
    basis = np.stack([np.ones_like(x), squared, x**2 - y**2, 2 * x * y, squared**2])
    wavelength = _wavelength_angstrom(parameters.voltage_kv)
    u, v = parameters.defocus_u_angstrom, parameters.defocus_v_angstrom
    twice = 2 * np.radians(parameters.defocus_angle_degrees)
    offset = np.arcsin(parameters.amplitude_contrast) + np.radians(parameters.phase_shift_degrees)
    spherical = parameters.spherical_aberration_mm * _ANGSTROM_PER_MILLIMETRE
    weights = [
        offset,
        np.pi * wavelength * (u + v) / 2,
        np.pi * wavelength * (u - v) / 2 * np.cos(twice),
        np.pi * wavelength * (u - v) / 2 * np.sin(twice),
        -np.pi / 2 * spherical * wavelength**3,
    ]
    phase = np.stack(weights, axis=1).astype(np.float32) @ basis.astype(np.float32)
    return np.sin(phase, out=phase)


def ctf_2d(parameters: CtfParameters, box: int, pixel_size_angstrom: float) -> Tensor:
    """Return the CTF of each particle (see `ctf_values`) on the grid of a real-input FFT.

    Parameters
    ----------
    parameters
        ``(n,)`` values in RELION's units (angstrom, kV, mm, degrees).
    box
        Even box of the images, in pixels.
    pixel_size_angstrom
        Pixel size in angstrom.

    Returns
    -------
    ``(n, box, box // 2 + 1)`` float32; rows are the y frequencies in FFT order, columns x from 0.
    """
    import torch

    y = np.fft.fftfreq(box, pixel_size_angstrom)
    x = np.arange(box // 2 + 1) / (box * pixel_size_angstrom)
    grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
    values = ctf_values(parameters, grid.reshape(-1, 2))
    return torch.from_numpy(values.reshape(-1, box, box // 2 + 1))


def _wavelength_angstrom(voltage_kv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the relativistic electron wavelength (Reimer & Kohl 2008, eq. 2.5)."""
    volts = voltage_kv * 1e3
    return 12.2642596 / np.sqrt(volts * (1 + 0.978475e-6 * volts))
