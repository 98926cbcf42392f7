"""Sources of training images: the loaded particles, or projections of a map.

Every source gives batches of images as the network takes them, with the rotation of each. A batch
follows from the seed and the number of its step alone, so that a run that is taken up again sees
what it would have seen. Of a batch that several processes learn from, each makes its share: what is
random is drawn for the whole batch, which is cheap, and images are made for the share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.imaging.ctf import radial_ctf, transfer_functions
from napari_cryosphere.imaging.fourier import frequency_grid, from_fourier, shift_phases, to_fourier
from napari_cryosphere.imaging.preprocess import soft_circle
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack, spread_rows
from napari_cryosphere.so3.rotations import random_rotations

__all__ = [
    "WHOLE",
    "Batch",
    "LoadedParticles",
    "SimulatedProjections",
    "Succession",
    "TrainingSource",
    "known_shifts_px",
    "shuffled_rows",
    "turn_and_shift",
    "turned_rotations",
    "turned_vectors",
]

WHOLE = slice(None)
"""The share of a batch that is all of it."""

_MEASURED = 512  # particles from which contrast and noise are estimated; chosen, not tuned


@dataclass(frozen=True)
class Batch:
    """Training images and their poses.

    - ``images``: ``(b, box, box)`` float32, prepared.
    - ``rotations``: ``(b, 3, 3)`` float32; image to map coordinates.
    - ``weights``: ``(b,)`` float32: how much each pose is trusted.
    - ``targets``: ``(b, cells)`` float32 probabilities of all poses of a grid, which take the place
      of the one pose; None to train on that. The number of cells says the order of the grid.
    - ``shifts_px``: ``(b, 2)`` float32 x and y of the particle's centre from pixel n // 2; None
      where it is not known.
    - ``ctf``: ``(b, box // 2 + 1)`` float32, see `napari_cryosphere.imaging.ctf.radial_ctf`; None
      where it is not known.
    - ``states``: ``(b, k)`` float32 probabilities of the states; None where there is one, or they
      are not known.
    """

    images: Tensor
    rotations: Tensor
    weights: Tensor
    targets: Tensor | None = None
    shifts_px: Tensor | None = None
    ctf: Tensor | None = None
    states: Tensor | None = None

    def part(self, rows: slice | Tensor) -> Batch:
        """Return some of the images and their labels."""
        optional = (
            None if values is None else values[rows]
            for values in (self.targets, self.shifts_px, self.ctf, self.states)
        )
        return Batch(self.images[rows], self.rotations[rows], self.weights[rows], *optional)

    def labels_on(self, device: torch.device) -> Batch:
        """Return the labels on a device; the images stay, they have been used."""
        targets, shifts, states = (
            None if values is None else values.to(device)
            for values in (self.targets, self.shifts_px, self.states)
        )
        return replace(
            self,
            rotations=self.rotations.to(device),
            weights=self.weights.to(device),
            targets=targets,
            shifts_px=shifts,
            states=states,
        )


class TrainingSource(Protocol):
    """Anything that gives training batches."""

    def batch(self, step: int, size: int, progress: float, share: slice = WHOLE) -> Batch:
        """Return ``share`` of a step's ``size`` images, the same for the same step.

        ``progress`` (0 to 1) lets a source make them harder as training goes.
        """
        ...


class Succession:
    """One source after another; ``until`` is the part of the run, 0 to 1, that the first has."""

    def __init__(self, first: TrainingSource, second: TrainingSource, until: float) -> None:
        self._first, self._second, self._until = first, second, until

    def batch(self, step: int, size: int, progress: float, share: slice = WHOLE) -> Batch:
        """See `TrainingSource`; the first source's progress reaches 1 where the second takes over."""
        if progress < self._until:
            return self._first.batch(step, size, progress / self._until, share)
        return self._second.batch(step, size, (progress - self._until) / (1 - self._until), share)


def shuffled_rows(number: int, step: int, size: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of a step, ``(size,)``: all pass by again and again, each time in another order."""
    first, last = step * size // number, (step * size + size - 1) // number
    passes = [_order(number, seed, each) for each in range(first, last + 1)]
    start = step * size - first * number
    return np.concatenate(passes)[start : start + size]


@lru_cache(maxsize=4)
def _order(number: int, seed: int, which: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, which]).permutation(number)


def turn_and_shift(images: Tensor, angles: Tensor, shifts_px: Tensor) -> Tensor:
    """Move images' content by ``(b, 2)`` pixels, then turn it by ``(b,)`` radians from +x towards +y.

    A quarter turn moves pixels; the rest, within 45 degrees, is three shears, each a phase in the
    Fourier transform of rows or columns (Unser, Thevenaz & Yaroslavsky 1995). White noise stays
    white, which interpolating between pixels would not leave it. The pose of the turned image is
    ``R Rz(-angle)``.
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
    turn = torch.stack([cosine, sine, zero, -sine, cosine, zero, zero, zero, one], -1).reshape(
        -1, 3, 3
    )
    return rotations @ turn


def turned_vectors(vectors: Tensor, angles: Tensor) -> Tensor:
    """Return vectors in the image ``(b, 2)`` (x, y) turned by ``(b,)`` radians from +x towards +y."""
    (x, y), cosine, sine = vectors.unbind(1), torch.cos(angles), torch.sin(angles)
    return torch.stack([x * cosine - y * sine, x * sine + y * cosine], dim=1)


def known_shifts_px(stack: ParticleStack, grid: ImageGrid) -> NDArray[np.float64] | None:
    """Return where particles' centres are from pixel n // 2, ``(n, 2)`` x and y in pixels of a grid.

    None where no origin differs from 0: nobody has looked for them.
    """
    shifts = -stack.shifts_angstrom() / grid.pixel_size_angstrom
    return shifts if shifts.any() else None


class LoadedParticles:
    """The particles themselves, held in memory as the network sees them.

    - ``images``: ``(n, box, box)`` prepared.
    - ``rotations``: ``(n, 3, 3)``.
    - ``weights``: ``(n,)``; rlnMaxValueProbDistribution where the particles have it (CESPED's
      weighted cross-entropy).
    - ``seed``: of the order.
    - ``shifts_px``: ``(n, 2)`` x and y of each particle's centre from pixel n // 2; None if they
      are not known.
    - ``ctf``, ``states``: ``(n, box // 2 + 1)`` and ``(n, k)``, see `Batch`.
    """

    def __init__(
        self,
        images: Tensor,
        rotations: NDArray[np.float64],
        weights: NDArray[np.float64],
        seed: int = 0,
        shifts_px: NDArray[np.float64] | None = None,
        ctf: Tensor | None = None,
        states: NDArray[np.float64] | None = None,
    ) -> None:
        self._all = Batch(
            images,
            torch.from_numpy(rotations).float(),
            torch.from_numpy(weights).float(),
            shifts_px=None if shifts_px is None else torch.from_numpy(shifts_px).float(),
            ctf=ctf,
            states=None if states is None else torch.from_numpy(states).float(),
        )
        self._number, self._seed = len(images), seed

    def batch(self, step: int, size: int, progress: float, share: slice = WHOLE) -> Batch:
        """Return the next ``size`` particles of a shuffled pass, or a share of them."""
        rows = torch.from_numpy(shuffled_rows(self._number, step, size, self._seed)[share])
        return self._all.part(rows)


class SimulatedProjections:
    """Training on projections of maps, with the CTFs, shifts, noise and contrast of loaded particles.

    Contrast and noise are measured: each of up to 512 loaded particles is compared with the projection
    of its most probable state's map at its known pose. The least-squares factor is the contrast; the
    power spectrum of what remains is that of the noise, whatever colour it has.

    - ``densities``: the map of each state, on the particles' grid or not; they are resampled to the
      network's.
    - ``stack``: particles with poses, shifts and, where they have one, a CTF.
    - ``prepared``, ``(n, box, box)``: the same particles as the network sees them.
    - ``grid``: the network's grid, on which ``prepared`` is.
    - ``seed``: of poses, states, particles and noise.
    - ``states``: ``(n, k)`` probabilities of the particles' states, whose means are the shares of
      the maps' projections; None where there is one map.
    """

    def __init__(
        self,
        densities: Sequence[DensityMap],
        stack: ParticleStack,
        prepared: Tensor,
        grid: ImageGrid,
        seed: int = 0,
        states: NDArray[np.float64] | None = None,
    ) -> None:
        self._grid, self._seed = grid, seed
        self._projectors = [
            Projector(map_on_grid(each, grid.box, grid.pixel_size_angstrom), padding=3)
            for each in densities
        ]
        self._shares = None if states is None else states.mean(0)
        self._stack = stack
        self._known_shifts_px, self._ctf = known_shifts_px(stack, grid), radial_ctf(stack, grid)
        self._shifts_px = -stack.shifts_angstrom() / grid.pixel_size_angstrom
        self._number = len(stack)
        self._mask = soft_circle(grid.box)
        rows = spread_rows(len(stack), _MEASURED)
        best = None if states is None else states[rows].argmax(1)
        projections = self._projections(stack.rotations()[rows], rows, best) * self._mask
        particles = prepared[torch.from_numpy(rows)]
        self.contrast = float((projections * particles).sum() / (projections**2).sum())
        self.noise_amplitude = _noise_amplitude(particles - self.contrast * projections, self._mask)

    def batch(self, step: int, size: int, progress: float, share: slice = WHOLE) -> Batch:
        """Return projections from uniform directions; the noise grows with progress to its full level."""
        rng = np.random.default_rng([self._seed, step])
        rotations = random_rotations(size, rng)[share]
        particles = rng.integers(self._number, size=size)[share]
        drawn = (
            None if self._shares is None else rng.choice(len(self._shares), size, p=self._shares)
        )
        states = None if drawn is None else drawn[share]
        images = self._projections(rotations, particles, states) * self.contrast
        white = rng.standard_normal((size, *images.shape[1:]), dtype=np.float32)[share]
        noise = from_fourier(to_fourier(torch.from_numpy(white)) * self.noise_amplitude)
        images = (images + noise * _noise_level(progress)) * self._mask
        known, ctf = self._known_shifts_px, self._ctf
        return Batch(
            images,
            torch.from_numpy(rotations).float(),
            torch.ones(len(images)),
            shifts_px=None if known is None else torch.from_numpy(known[particles]).float(),
            ctf=None if ctf is None else ctf[particles],
            states=None if states is None else torch.eye(len(self._projectors))[states],
        )

    def _projections(
        self,
        rotations: NDArray[np.float64],
        particles: NDArray[np.int64],
        states: NDArray[np.int64] | None,
    ) -> Tensor:
        """Return projections with the shift and the CTF (phases flipped) of the given particles."""
        box = self._grid.box
        transforms = self._slices(rotations, states)
        transforms = transforms * shift_phases(torch.from_numpy(self._shifts_px[particles]), box)
        ctf = transfer_functions(self._stack[particles], self._grid)
        if ctf is not None:
            transforms = transforms * ctf.abs()
        return from_fourier(transforms)

    def _slices(self, rotations: NDArray[np.float64], states: NDArray[np.int64] | None) -> Tensor:
        """Return central slices of the maps of ``(b,)`` states, or of the one map."""
        if states is None:
            return self._projectors[0].slices(rotations)
        order = np.argsort(states, kind="stable")
        parts = [
            projector.slices(rotations[states == state])
            for state, projector in enumerate(self._projectors)
        ]
        return torch.cat(parts)[np.argsort(order)]


def _noise_level(progress: float) -> float:
    """Return the share of the noise's amplitude: from 30 % at the start to all of it at 40 % of the run."""
    return min(1.0, 0.3 + 0.7 * progress / 0.4)


def _noise_amplitude(residuals: Tensor, mask: Tensor) -> Tensor:
    """Return what white noise of variance 1 is to be filtered with, ``(box, box // 2 + 1)``.

    Shell by shell, the power of the residuals over that of masked white noise, which is the mask's
    own mean square at every frequency.
    """
    box = residuals.shape[-1]
    power = to_fourier(residuals).abs().square().mean(0) / mask.square().sum()
    shell = torch.round(frequency_grid(box).norm(dim=-1)).long()
    number = torch.bincount(shell.flatten())
    mean = torch.bincount(shell.flatten(), power.flatten()) / number
    return mean.float().sqrt()[shell]
