"""A map from images and poses: back-projection in Fourier space with CTF weighting."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_cryosphere.imaging.fourier import frequency_grid, shift_phases, to_fourier
from napari_cryosphere.imaging.projection import sinc_squared
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["BackProjector"]


class BackProjector:
    """Sums of CTF-weighted central slices, and the map that they make.

    With slices F_i, CTFs c_i, weights w_i and trilinear insertion P*_i (the adjoint of the sampling in
    `napari_cryosphere.imaging.projection.Projector`):

        V = (sum_i w_i P*_i c_i F_i) / (sum_i w_i P*_i c_i^2 + floor)

    Particles can come in any number of batches; memory depends on the box alone.

    Parameters
    ----------
    box
        Even box of the images, in pixels.
    padding
        Oversampling of the Fourier volume.
    symmetry
        Point group; every slice is inserted once for each operator.
    """

    def __init__(self, box: int, padding: int = 2, symmetry: str = "C1") -> None:
        if box % 2:
            raise ValueError(f"box must be even, not {box}")
        self.box = box
        self.padding = padding
        self._group = torch.from_numpy(point_group(symmetry).copy())
        size = box * padding
        self._shape = (size, size, size // 2 + 1)
        # one row a voxel: real part, imaginary part, weight; contiguous, so that one pass writes all three
        self._sums = torch.zeros(size * size * (size // 2 + 1), 3)
        grid = frequency_grid(box)
        self._inside = grid.norm(dim=-1) <= box / 2
        self._frequencies = grid[self._inside] * padding
        # the x = 0 column of an rfft holds both a point and its mirror image; each counts half
        self._share = torch.where(grid[self._inside][:, 0] == 0, 0.5, 1.0)
        self.inserted = 0

    def add(
        self,
        images: ArrayLike | Tensor,
        rotations: ArrayLike,
        ctf: Tensor | None = None,
        shifts_px: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> None:
        """Insert particles.

        Parameters
        ----------
        images
            ``(n, box, box)`` real.
        rotations
            ``(n, 3, 3)``; image to map coordinates.
        ctf
            ``(n, box, box // 2 + 1)``; None counts as 1.
        shifts_px
            ``(n, 2)``: where the particle's centre sits relative to pixel n // 2, x and y; it is moved back.
        weights
            ``(n,)`` non-negative; None counts as 1.
        """
        transforms = to_fourier(torch.as_tensor(images, dtype=torch.float32))
        if shifts_px is not None:
            shifts = torch.as_tensor(np.asarray(shifts_px, dtype=np.float32))
            transforms = transforms * shift_phases(-shifts, self.box)
        share = self._share.expand(len(transforms), -1)
        if weights is not None:
            share = share * torch.as_tensor(np.asarray(weights, dtype=np.float32))[:, None]
        slices = transforms[:, self._inside]
        power = share
        if ctf is not None:
            values = ctf[:, self._inside]
            slices = slices * values
            power = power * values**2
        rows = torch.stack([slices.real * share, slices.imag * share, power], dim=-1)
        poses = torch.as_tensor(np.asarray(rotations, dtype=np.float64))
        for operator in self._group:
            self._insert(rows, (operator @ poses).float())
        self.inserted += len(transforms)

    def _insert(self, rows: Tensor, rotations: Tensor) -> None:
        """Spread ``(n, k, 3)`` rows over the eight voxels around each rotated frequency."""
        points = torch.einsum("nij,kj->nki", rotations[:, :, :2], self._frequencies).reshape(-1, 3)
        sign = torch.where(points[:, 0] < 0, -1.0, 1.0)
        points = points * sign[:, None]
        values = rows.reshape(-1, 3) * torch.stack(
            [torch.ones_like(sign), sign, torch.ones_like(sign)], dim=1
        )
        base = points.floor()
        part = points - base
        x, y, z = base.long().unbind(1)
        size, _, half = self._shape
        for right in (0, 1):
            across = part[:, 0] if right else 1 - part[:, 0]
            for down in (0, 1):
                plane = across * (part[:, 1] if down else 1 - part[:, 1])
                for deep in (0, 1):
                    weight = plane * (part[:, 2] if deep else 1 - part[:, 2])
                    row = ((z + deep) % size) * size + (y + down) % size
                    index = row * half + (x + right).clamp(max=half - 1)
                    self._sums.index_add_(0, index, values * weight[:, None])

    def __iadd__(self, other: BackProjector) -> BackProjector:
        """Add the sums of another back-projector of the same box, padding and symmetry."""
        if (other.box, other.padding) != (self.box, self.padding):
            raise ValueError("only back-projectors of one box and padding can be added")
        self._sums += other._sums
        self.inserted += other.inserted
        return self

    def _mirrored(self) -> Tensor:
        """Return the sums, ``(size, size, half, 3)``, with the x = 0 plane completed by Friedel's law."""
        sums = self._sums.reshape(*self._shape, 3).clone()
        plane = sums[:, :, 0]
        mirror = torch.roll(torch.flip(plane, (0, 1)), (1, 1), (0, 1))
        sums[:, :, 0] = plane + mirror * torch.tensor([1.0, -1.0, 1.0])
        return sums

    def solve(self, floor: float = 1e-3) -> NDArray[np.float32]:
        """Return the map of everything inserted so far, ``(box, box, box)`` float32 in z, y, x order.

        Parameters
        ----------
        floor
            Smallest weight that is divided by, as a fraction of the mean weight in its shell: it keeps
            frequencies that no slice came near from blowing up.
        """
        sums = self._mirrored()
        size, _, half = self._shape
        y = torch.fft.fftfreq(size, 1 / size)
        radius = torch.sqrt(y[:, None, None] ** 2 + y[:, None] ** 2 + torch.arange(half) ** 2)
        shell = radius.round().long().flatten()
        weight = sums[..., 2]
        mean = torch.bincount(shell, weight.flatten().double()) / torch.bincount(shell)
        least = (floor * mean[shell].reshape(weight.shape)).float().clamp(min=1e-20)
        divisor = torch.maximum(weight, least)
        transform = torch.complex(sums[..., 0], sums[..., 1]) / divisor
        transform[radius > self.box / 2 * self.padding] = 0
        volume = torch.fft.fftshift(torch.fft.irfftn(transform, s=(size,) * 3))
        start = (size - self.box) // 2
        cut = volume[(slice(start, start + self.box),) * 3]
        fall_off = sinc_squared(size, self.box)
        return (cut / (fall_off[:, None, None] * fall_off[:, None] * fall_off)).numpy()
