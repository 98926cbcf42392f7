"""The forward model: image = CTF * shift * projection of the map, plus noise at a stated ratio.

**Signal-to-noise ratio**, as every part of the package means it: the variance of the clean image
(with CTF and shift) over the pixels of a centred circle, averaged over the particles, divided by
the variance of the noise in a pixel. The circle holds 99 % of the map's power unless its radius is
given. For coloured noise the variance of a pixel is the mean of its power over all frequencies of
the image, so that the ratio within a band of frequencies is another one. Simulated images are
scaled so that a pixel's noise has variance 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.imaging.coloured_noise import NoiseSpectrum
from napari_cryosphere.imaging.ctf import aberrated_ctf, fft_frequencies
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases, to_fourier
from napari_cryosphere.imaging.map_mask import map_radius_angstrom
from napari_cryosphere.imaging.motion import DomainMotion, MovingProjector
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.simulate import ParticleParameters
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.particles.aberrations import Aberrations

__all__ = [
    "NoiseLevel",
    "Projectors",
    "clean_images",
    "moving_projector_of",
    "noise_level",
    "noisy_images",
    "projector_of",
]

_CHUNK_PIXELS = 128 * 64**2  # of the images that are made at once
_PILOT = 512  # images whose mean power is taken for the signal of all; chosen, not tuned


def _padding(box: int) -> int:
    """Return the padding of projectors that simulation uses: threefold up to a box of 128, else twofold."""
    return 3 if box <= 128 else 2


def projector_of(density: DensityMap) -> Projector:
    """Return the projector that simulation uses."""
    return Projector(density.voxels, _padding(density.box))


def moving_projector_of(motion: DomainMotion) -> MovingProjector:
    """Return the projector that simulation uses of a map with a part that turns."""
    return MovingProjector(motion, _padding(len(motion.part)))


Projectors: TypeAlias = Projector | MovingProjector | Sequence[Projector]
"""Of one map, still or moving, or of the states that particles are in, all of one box."""


def _box_of(projector: Projectors) -> int:
    one = projector[0] if isinstance(projector, Sequence) else projector
    return one.box


def clean_images(
    projector: Projectors, parameters: ParticleParameters, pixel_size_angstrom: float
) -> Iterator[NDArray[np.float32]]:
    """Yield the noise-free images in chunks of ``(k, box, box)`` float32: sums of the map's values."""
    box = _box_of(projector)
    chunk = max(1, _CHUNK_PIXELS // box**2)
    for start in range(0, len(parameters), chunk):
        part = parameters[start : start + chunk]
        if part.aberrations is None:
            transforms = _transforms(projector, part, Aberrations(), pixel_size_angstrom)
        else:
            shape = (len(part), box, box // 2 + 1)
            transforms = torch.empty(shape, dtype=torch.complex64)
            for rows, kind in part.aberrations.parts():
                transforms[rows] = _transforms(projector, part[rows], kind, pixel_size_angstrom)
        transforms = transforms * shift_phases(torch.from_numpy(part.shifts_px), box)
        yield from_fourier(transforms).numpy()


def _transforms(
    projector: Projectors, part: ParticleParameters, kind: Aberrations, pixel_size_angstrom: float
) -> Tensor:
    """Return the transforms of centred images with one kind of aberrations, ``(n, box, box // 2 + 1)``.

    An image's frequency k is that of the undistorted one at M k.
    """
    box = _box_of(projector)
    rotations, shape = part.rotations, (-1, box, box // 2 + 1)
    frequencies = fft_frequencies(box, pixel_size_angstrom)
    if kind.matrix is not None:
        frequencies = frequencies @ kind.matrix.T
        in_plane = rotations[..., :2] @ kind.matrix
        rotations = np.concatenate([in_plane, rotations[..., 2:]], axis=-1)
    transforms = _slices(projector, part, rotations)
    if part.ctf is not None:
        ctf = aberrated_ctf(part.ctf, frequencies, kind)
        transforms = transforms * torch.from_numpy(ctf).reshape(shape)
    odd = kind.odd_phase(frequencies)
    if odd is not None:
        transforms = transforms * torch.from_numpy(np.exp(1j * odd)).to(transforms).reshape(shape)
    return transforms


def _slices(
    projector: Projectors, part: ParticleParameters, rotations: NDArray[np.float64]
) -> Tensor:
    """Return each particle's slice of the map of its own state, ``(n, box, box // 2 + 1)``."""
    if isinstance(projector, MovingProjector):
        assert part.motion_degrees is not None
        return projector.slices(rotations, part.motion_degrees)
    if isinstance(projector, Projector):
        return projector.slices(rotations)
    if part.states is None:
        return projector[0].slices(rotations)
    box = projector[0].box
    slices = torch.empty(len(rotations), box, box // 2 + 1, dtype=torch.complex64)
    for state in np.unique(part.states):
        rows = np.flatnonzero(part.states == state)
        slices[rows] = projector[state].slices(rotations[rows])
    return slices


@dataclass(frozen=True)
class NoiseLevel:
    """How much noise gives a ratio.

    ``deviation``: standard deviation of the noise in a pixel, in the map's grey values times
    pixels. ``radius_angstrom``: radius of the circle in which the signal's variance was taken.
    """

    deviation: float
    radius_angstrom: float


def noise_level(
    density: DensityMap,
    projector: Projectors,
    parameters: ParticleParameters,
    snr: float,
    radius_angstrom: float | None = None,
) -> NoiseLevel:
    """Return the noise that gives a signal-to-noise ratio; the module's first lines define it.

    The mean is taken over all particles, or over 512 that are spread evenly where there are more.
    """
    radius = map_radius_angstrom(density) if radius_angstrom is None else radius_angstrom
    axis = (np.arange(density.box) - density.box // 2) * density.pixel_size_angstrom
    inside = np.hypot(axis[:, None], axis) <= radius
    pilot = parameters[
        np.linspace(0, len(parameters) - 1, min(_PILOT, len(parameters))).astype(int)
    ]
    variances = [
        images[:, inside].var(axis=1, dtype=np.float64)
        for images in clean_images(projector, pilot, density.pixel_size_angstrom)
    ]
    return NoiseLevel(float(np.sqrt(np.concatenate(variances).mean() / snr)), float(radius))


def noisy_images(
    projector: Projectors,
    parameters: ParticleParameters,
    pixel_size_angstrom: float,
    deviation: float | None,
    seed: int,
    spectrum: NoiseSpectrum | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield simulated particles in chunks of ``(k, box, box)`` float32; only one chunk is held.

    - ``projector``: of the map, or one for each state.
    - ``parameters``: poses, shifts and CTFs.
    - ``pixel_size_angstrom``: pixel size of map and images.
    - ``deviation``: standard deviation of the noise, see :func:`noise_level`; images are divided by
      it, so that a pixel's noise has variance 1. None gives the clean images in the map's own grey
      values.
    - ``seed``: decides the noise, whatever the size of a chunk.
    - ``spectrum``: colour of the noise; None is white.
    """
    rng = np.random.default_rng(seed)
    box = _box_of(projector)
    colour = None if spectrum is None else spectrum.amplitudes(box, pixel_size_angstrom)
    for images in clean_images(projector, parameters, pixel_size_angstrom):
        if deviation is None:
            yield images
            continue
        noise = rng.standard_normal(images.shape, dtype=np.float32)
        if colour is not None:
            noise = from_fourier(to_fourier(torch.from_numpy(noise)) * colour).numpy()
        yield images / np.float32(deviation) + noise
