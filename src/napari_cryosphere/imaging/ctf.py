"""The contrast transfer function of a particle, in RELION's convention."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_ctf import calculate_ctf_2d

from napari_cryosphere.imaging.fourier import frequency_grid
from napari_cryosphere.particles.ctf_parameters import CtfParameters

__all__ = ["ctf_2d"]

_ANGSTROM_PER_MICROMETRE = 1e4


def ctf_2d(parameters: CtfParameters, box: int, pixel_size_angstrom: float) -> Tensor:
    """Return the CTF of each particle on the grid of a real-input FFT.

    ``sin(pi lambda dz s^2 - pi/2 Cs lambda^3 s^4 + asin(w) + phase shift)`` with
    ``dz = (U + V)/2 + (U - V)/2 cos 2(theta - angle)``, theta from +x towards +y, underfocus positive:
    multiplied by it a protein stays white. An envelope ``exp(-B s^2 / 4)`` and a scale multiply it where
    there are any. This is the image that `relion_project --ctf` makes.

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
    u, v = parameters.defocus_u_angstrom, parameters.defocus_v_angstrom
    # torch-ctf takes micrometres and half of U - V, and needs U >= V; swapping them turns the axis by 90.
    swapped = v > u
    angle = np.where(swapped, parameters.defocus_angle_degrees + 90.0, parameters.defocus_angle_degrees)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))

    ctf = calculate_ctf_2d(
        defocus=tensor((u + v) / 2 / _ANGSTROM_PER_MICROMETRE),
        astigmatism=tensor(np.abs(u - v) / 2 / _ANGSTROM_PER_MICROMETRE),
        astigmatism_angle=tensor(angle),
        voltage=tensor(parameters.voltage_kv),
        spherical_aberration=tensor(parameters.spherical_aberration_mm),
        amplitude_contrast=tensor(parameters.amplitude_contrast),
        phase_shift=tensor(parameters.phase_shift_degrees),
        pixel_size=pixel_size_angstrom,
        image_shape=(box, box),
        rfft=True,
        fftshift=False,
    )
    if parameters.b_factor_angstrom2.any():
        s_squared = (frequency_grid(box) / (box * pixel_size_angstrom)).square().sum(-1)
        ctf = ctf * torch.exp(-0.25 * tensor(parameters.b_factor_angstrom2)[:, None, None] * s_squared)
    if (parameters.scale_factor != 1).any():
        ctf = ctf * tensor(parameters.scale_factor)[:, None, None]
    return ctf
