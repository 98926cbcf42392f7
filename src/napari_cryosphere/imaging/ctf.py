"""The contrast transfer function of a particle, in RELION's convention."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_ctf import calculate_ctf_2d

from napari_cryosphere.imaging.fourier import frequency_grid
from napari_cryosphere.particles.ctf_parameters import CtfParameters
from napari_cryosphere.particles.stack import ParticleStack

__all__ = ["ctf_2d", "transfer_functions"]

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


def transfer_functions(stack: ParticleStack) -> Tensor | None:
    """Return what each particle's image holds of each frequency on the stack's grid.

    That is its CTF (1 where it is not known), and zero from the Nyquist frequency of its own optics group on
    where the stack's grid is finer.

    Returns
    -------
    ``(n, box, box // 2 + 1)`` float32; None if it is 1 everywhere.
    """
    grid, coarser = stack.grid, _coarser_groups(stack)
    ctf = ctf_2d(stack.ctf_parameters(), grid.box, grid.pixel_size_angstrom) if stack.has_ctf else None
    if not coarser:
        return ctf
    if ctf is None:
        ctf = torch.ones(len(stack), grid.box, grid.box // 2 + 1)
    frequencies = frequency_grid(grid.box).abs().amax(dim=-1) / grid.field_angstrom
    groups = stack.optics_groups()
    for group, pixel_size_angstrom in coarser.items():
        ctf[torch.from_numpy(groups == group)] *= frequencies < 0.5 / pixel_size_angstrom
    return ctf


def _coarser_groups(stack: ParticleStack) -> dict[int, float]:
    """Return the pixel sizes of the optics groups that are coarser than the stack's grid."""
    finest = stack.pixel_size_angstrom * (1 + 1e-4)
    sizes = {group: grid.pixel_size_angstrom for group, grid in stack.grids.items()}
    return {group: size for group, size in sizes.items() if size > finest}
