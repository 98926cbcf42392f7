"""Where training images come from: the loaded particles, or projections of a map.

Every source gives batches of images as the network takes them, with the rotation of each. In both, each
image is turned about its centre by a random angle and moved a little every time it is shown, and its pose
is turned with it, so that no two passes over the data are alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.imaging.ctf import ctf_2d
from napari_cryosphere.imaging.fourier import (
    from_fourier,
    shift_phases,
    to_fourier,
)
from napari_cryosphere.imaging.preprocess import soft_circle
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.so3.rotations import random_rotations

__all__ = [
    "Batch",
    "LoadedParticles",
    "SimulatedProjections",
    "TrainingSource",
]


@dataclass(frozen=True)
class Batch:
    """Training images and their poses.

    Attributes
    ----------
    images
        ``(b, box, box)`` float32, prepared.
    rotations
        ``(b, 3, 3)`` float32; image to map coordinates.
    weights
        ``(b,)`` float32: how much each pose is trusted.
    targets
        ``(b, cells)`` float32 probabilities of all poses of a grid, which take the place of the one pose;
        None to train on that. The number of cells says the order of the grid.
    """

    images: Tensor
    rotations: Tensor
    weights: Tensor
    targets: Tensor | None = None


class TrainingSource(Protocol):
    """Anything that gives training batches."""

    def batch(self, size: int, progress: float, rng: np.random.Generator) -> Batch:
        """Return ``size`` images; ``progress`` (0 to 1) lets a source make them harder as training goes."""
        ...


def turn_and_shift(images: Tensor, angles: Tensor, shifts_px: Tensor) -> Tensor:
    """Move images' content by ``(b, 2)`` pixels, then turn it by ``(b,)`` radians from +x towards +y.

    A quarter turn moves pixels; the rest, within 45 degrees, is three shears, each a phase in the Fourier
    transform of rows or columns (Unser, Thevenaz & Yaroslavsky 1995). White noise stays white, which
    interpolating between pixels would not leave it. The pose of the turned image is ``R Rz(-angle)``.
    """
    moved = from_fourier(to_fourier(images) * shift_phases(shifts_px, images.shape[-1]))
    quarters = torch.round(angles / (torch.pi / 2))
    rest = angles - quarters * (torch.pi / 2)
    for turns in (1, 2, 3):
        chosen = quarters.long() % 4 == turns
        moved[chosen] = _quarter_turns(moved[chosen], turns)
    across, down = -torch.tan(rest / 2), torch.sin(rest)
    for factor, axis in ((across, -1), (down, -2), (across, -1)):
        moved = _shear(moved, factor, axis)
    return moved


def _quarter_turns(images: Tensor, turns: int) -> Tensor:
    """Turn by 90 degrees about pixel n // 2: ``rot90`` turns about the middle, half a pixel before it."""
    for _ in range(turns):
        images = torch.roll(torch.rot90(images, -1, (-2, -1)), 1, -1)
    return images


def _shear(images: Tensor, factors: Tensor, axis: int) -> Tensor:
    """Move every row (axis -1) or column (-2) along itself by factor times its distance from pixel n // 2."""
    box = images.shape[-1]
    distance = torch.arange(box, device=images.device) - box // 2
    frequency = torch.fft.rfftfreq(box, device=images.device)
    angle = -2 * torch.pi * factors[:, None, None] * distance[:, None] * frequency
    phases = torch.polar(torch.ones_like(angle), angle)
    if axis == -2:
        phases = phases.transpose(-1, -2)
    return torch.fft.irfft(torch.fft.rfft(images, dim=axis) * phases, n=box, dim=axis)


def turned_rotations(rotations: Tensor, angles: Tensor) -> Tensor:
    """Return the poses ``(b, 3, 3)`` of images turned by ``(b,)`` radians: ``R Rz(-angle)``."""
    cosine, sine = torch.cos(angles), torch.sin(angles)
    zero, one = torch.zeros_like(angles), torch.ones_like(angles)
    turn = torch.stack([cosine, sine, zero, -sine, cosine, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return rotations @ turn


class LoadedParticles:
    """Training on the particles themselves, held in memory as the network sees them.

    Parameters
    ----------
    images
        ``(n, box, box)`` prepared.
    rotations
        ``(n, 3, 3)``.
    weights
        ``(n,)``; rlnMaxValueProbDistribution where the particles have it (CESPED's weighted cross-entropy).
    shift_px
        Largest random shift in network pixels.
    """

    def __init__(
        self,
        images: Tensor,
        rotations: NDArray[np.float64],
        weights: NDArray[np.float64],
        shift_px: float = 0.5,
    ) -> None:
        self._images = images
        self._rotations = torch.from_numpy(rotations).float()
        self._weights = torch.from_numpy(weights).float()
        self._shift_px = shift_px
        self._mask = soft_circle(images.shape[-1])
        self._order = np.empty(0, dtype=np.int64)

    def batch(self, size: int, progress: float, rng: np.random.Generator) -> Batch:
        """Return the next ``size`` particles of a shuffled pass, turned and moved at random."""
        while len(self._order) < size:
            self._order = np.concatenate([self._order, rng.permutation(len(self._images))])
        rows, self._order = torch.from_numpy(self._order[:size]), self._order[size:]
        angles = torch.from_numpy(rng.uniform(0, 2 * np.pi, size)).float()
        shifts = torch.from_numpy(rng.uniform(-self._shift_px, self._shift_px, (size, 2))).float()
        images = turn_and_shift(self._images[rows], angles, shifts) * self._mask
        return Batch(images, turned_rotations(self._rotations[rows], angles), self._weights[rows])


class SimulatedProjections:
    """Training on projections of a map, with the CTFs, shifts, noise and contrast of loaded particles.

    The contrast and the noise level are measured: each loaded particle is compared with its own projection
    at its known pose, by least squares.

    Parameters
    ----------
    density
        The map, on the particles' grid or not; it is resampled to the network's.
    stack
        Particles with poses, shifts and, where they have one, a CTF.
    prepared
        ``(n, box, box)``: the same particles as the network sees them.
    grid
        The network's grid, on which ``prepared`` is.
    """

    def __init__(self, density: DensityMap, stack: ParticleStack, prepared: Tensor, grid: ImageGrid) -> None:
        self._grid = grid
        self._projector = Projector(map_on_grid(density, grid.box, grid.pixel_size_angstrom), padding=3)
        self._ctf = stack.ctf_parameters() if stack.has_ctf else None
        self._shifts_px = -stack.shifts_angstrom() / grid.pixel_size_angstrom
        self._number = len(stack)
        self._mask = soft_circle(grid.box)
        self.contrast, self.noise = self._measure(stack, prepared)

    def batch(self, size: int, progress: float, rng: np.random.Generator) -> Batch:
        """Return projections from uniform directions; the noise reaches its full level at 40 % of the run."""
        rotations = random_rotations(size, rng)
        images = self._projections(rotations, rng.integers(self._number, size=size)) * self.contrast
        level = self.noise * min(1.0, 0.3 + 0.7 * progress / 0.4)
        noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32)) * level
        images = (images + noise) * self._mask
        return Batch(images, torch.from_numpy(rotations).float(), torch.ones(size))

    def _projections(self, rotations: NDArray[np.float64], particles: NDArray[np.int64]) -> Tensor:
        """Return projections with the shift and the CTF (phases flipped) of the given particles."""
        box = self._grid.box
        transforms = self._projector.slices(rotations)
        transforms = transforms * shift_phases(torch.from_numpy(self._shifts_px[particles]), box)
        if self._ctf is not None:
            transforms = transforms * ctf_2d(self._ctf[particles], box, self._grid.pixel_size_angstrom).abs()
        return from_fourier(transforms)

    def _measure(self, stack: ParticleStack, prepared: Tensor) -> tuple[float, float]:
        """Return the factor from projections to particles and the noise's standard deviation."""
        rows = np.unique(np.linspace(0, len(stack) - 1, min(len(stack), 512)).astype(int))
        projections = self._projections(stack.rotations()[rows], rows) * self._mask
        particles = prepared[torch.from_numpy(rows)]
        contrast = float((projections * particles).sum() / (projections**2).sum())
        residual = particles - contrast * projections
        return contrast, float(torch.sqrt((residual**2).sum() / (self._mask**2).sum() / len(rows)))
