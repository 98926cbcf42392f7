"""Simulated particles: I = CTF * shift * projection + white noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from napari_cryosphere.imaging.ctf import ctf_2d
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.particles import CtfParameters, DensityMap
from napari_cryosphere.so3.rotations import random_rotations, relion_angles_from_rotation

__all__ = ["ParticleParameters", "clean_images", "draw_parameters", "noise_deviation", "noisy_images"]

_CHUNK = 128
_PILOT = 256


@dataclass(frozen=True)
class ParticleParameters:
    """The truth behind simulated particles.

    Attributes
    ----------
    rotations
        ``(n, 3, 3)``; image to map coordinates.
    shifts_px
        ``(n, 2)``: where the particle's centre sits relative to pixel n // 2, x and y.
    ctf
        Microscope and defocus of every particle, or None for images without a CTF.
    micrographs
        ``(n,)`` number of the micrograph that each particle comes from, from 1.
    half_sets
        ``(n,)`` 1 or 2.
    """

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    ctf: CtfParameters | None
    micrographs: NDArray[np.int64]
    half_sets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, rows: slice) -> ParticleParameters:
        return ParticleParameters(
            self.rotations[rows],
            self.shifts_px[rows],
            None if self.ctf is None else self.ctf[rows],
            self.micrographs[rows],
            self.half_sets[rows],
        )

    def tables(self, stack_name: str, box: int, pixel_size_angstrom: float) -> dict[str, pd.DataFrame]:
        """Return RELION 3.1's optics and particles tables for a stack of these particles in order."""
        optics = {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnImagePixelSize": [pixel_size_angstrom],
            "rlnImageSize": [box],
            "rlnImageDimensionality": [2],
        }
        number = len(self)
        angles = relion_angles_from_rotation(self.rotations)
        columns: dict[str, object] = {
            "rlnImageName": [f"{index + 1:06d}@{stack_name}" for index in range(number)],
            "rlnMicrographName": [f"mic{micrograph:03d}.mrc" for micrograph in self.micrographs],
            "rlnOpticsGroup": np.ones(number, dtype=int),
            "rlnRandomSubset": self.half_sets,
            "rlnAngleRot": angles[:, 0],
            "rlnAngleTilt": angles[:, 1],
            "rlnAnglePsi": angles[:, 2],
            # RELION's origin is the shift that would bring the particle back to the centre
            "rlnOriginXAngst": -self.shifts_px[:, 0] * pixel_size_angstrom,
            "rlnOriginYAngst": -self.shifts_px[:, 1] * pixel_size_angstrom,
        }
        if self.ctf is not None:
            optics |= {
                "rlnVoltage": [float(self.ctf.voltage_kv[0])],
                "rlnSphericalAberration": [float(self.ctf.spherical_aberration_mm[0])],
                "rlnAmplitudeContrast": [float(self.ctf.amplitude_contrast[0])],
            }
            columns |= {
                "rlnDefocusU": self.ctf.defocus_u_angstrom,
                "rlnDefocusV": self.ctf.defocus_v_angstrom,
                "rlnDefocusAngle": self.ctf.defocus_angle_degrees,
            }
        return {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(columns)}


def draw_parameters(
    number: int, seed: int, shift_px: float = 3.0, with_ctf: bool = True
) -> ParticleParameters:
    """Draw poses, shifts and CTFs at random.

    Poses are uniform on SO(3); shifts uniform in +- ``shift_px`` in x and in y. The microscope has 300 kV,
    2.7 mm spherical aberration and 10 % amplitude contrast; each of 20 micrographs has a mean defocus in
    8000-25000 A and up to 300 A of astigmatism, and its particles vary by 100 A (sd). Halves alternate.

    The same ``seed`` gives the same particles.
    """
    rng = np.random.default_rng(seed)
    rotations = random_rotations(number, rng)
    shifts = rng.uniform(-shift_px, shift_px, size=(number, 2))
    n_micrographs = min(20, number)
    micrograph = np.sort(rng.integers(n_micrographs, size=number))
    defocus = rng.uniform(8000, 25000, n_micrographs)[micrograph] + rng.normal(scale=100, size=number)
    astigmatism = rng.uniform(0, 300, n_micrographs)[micrograph]
    angle = rng.uniform(0, 180, n_micrographs)[micrograph]
    ctf = CtfParameters(
        defocus_u_angstrom=defocus + astigmatism / 2,
        defocus_v_angstrom=defocus - astigmatism / 2,
        defocus_angle_degrees=angle,
        voltage_kv=np.full(number, 300.0),
        spherical_aberration_mm=np.full(number, 2.7),
        amplitude_contrast=np.full(number, 0.1),
        phase_shift_degrees=np.zeros(number),
    )
    half_sets = np.arange(number) % 2 + 1
    return ParticleParameters(rotations, shifts, ctf if with_ctf else None, micrograph + 1, half_sets)


def clean_images(
    projector: Projector, parameters: ParticleParameters, pixel_size_angstrom: float
) -> Iterator[NDArray[np.float32]]:
    """Yield the noise-free images in chunks of ``(k, box, box)`` float32: sums of the map's values."""
    for start in range(0, len(parameters), _CHUNK):
        part = parameters[start : start + _CHUNK]
        transforms = projector.slices(part.rotations)
        transforms = transforms * shift_phases(torch.from_numpy(part.shifts_px), projector.box)
        if part.ctf is not None:
            transforms = transforms * ctf_2d(part.ctf, projector.box, pixel_size_angstrom)
        yield from_fourier(transforms).numpy()


def noise_deviation(
    density: DensityMap, projector: Projector, parameters: ParticleParameters, snr: float
) -> float:
    """Return the standard deviation of white noise that gives a signal-to-noise ratio.

    SNR is the variance of the clean image (with CTF and shift) inside the circle that holds 99 % of the
    map's power, averaged over the first 256 particles, divided by the variance of the noise in a pixel.
    """
    axis = np.arange(density.box) - density.box // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    power = np.bincount(np.rint(radius).astype(int).ravel(), (density.voxels.astype(np.float64) ** 2).ravel())
    reach = int(np.searchsorted(np.cumsum(power), 0.99 * power.sum()))
    inside = np.hypot(axis[:, None], axis) <= reach
    pilot = parameters[: min(_PILOT, len(parameters))]
    variances = [
        images[:, inside].var(axis=1)
        for images in clean_images(projector, pilot, density.pixel_size_angstrom)
    ]
    return float(np.sqrt(np.concatenate(variances).mean() / snr))


def noisy_images(
    density: DensityMap, parameters: ParticleParameters, snr: float, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Yield simulated particles in chunks of ``(k, box, box)`` float32.

    Images are scaled so that the noise has standard deviation 1; an infinite ``snr`` gives the clean images
    in the map's own grey values. The same ``seed`` gives the same noise.
    """
    projector = Projector(density.voxels, padding=3 if density.box <= 128 else 2)
    rng = np.random.default_rng(seed)
    deviation = noise_deviation(density, projector, parameters, snr) if np.isfinite(snr) else None
    for images in clean_images(projector, parameters, density.pixel_size_angstrom):
        if deviation is None:
            yield images
        else:
            yield images / deviation + rng.standard_normal(images.shape, dtype=np.float32)
