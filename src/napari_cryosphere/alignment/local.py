"""Search around given poses: a ball of rotations and a square of shifts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from napari_cryosphere.alignment.gallery import real_row, shift_grid
from napari_cryosphere.alignment.observation import Observation
from napari_cryosphere.alignment.search import shells_for_spacing, step_for_shell
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.rotations import rotation_from_vector

__all__ = ["LocalSearch"]

_SPACING_DEGREES = 7.5
_SAMPLES_AT_ONCE = 1 << 18


class LocalSearch:
    """Compares each image with projections in a ball about its own pose.

    Parameters
    ----------
    sampler
        The map's slices.
    max_shell
        Highest shell that the images are known to support.
    radius_px
        Radius of the particle.
    reach_degrees
        Radius of the ball.
    shift_reach_px
        Largest change of the shift along x and along y.
    """

    def __init__(
        self,
        sampler: SliceSampler,
        max_shell: int,
        radius_px: float,
        reach_degrees: float,
        shift_reach_px: float,
    ) -> None:
        self._sampler = sampler
        self._shell = min(max_shell, shells_for_spacing(_SPACING_DEGREES, radius_px, sampler.box))
        self._turns = _ball(reach_degrees, _SPACING_DEGREES).to(sampler.device)
        step = step_for_shell(self._shell, sampler.box)
        self._shifts = shift_grid(shift_reach_px, step, sampler.device)

    def search(
        self, observation: Observation, rotations: Tensor, shifts_px: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score the ball about each image's pose.

        Parameters
        ----------
        observation
            ``n`` images.
        rotations, shifts_px
            ``(n, 3, 3)`` and ``(n, 2)``: where to start; the start itself is one of the poses tried.

        Returns
        -------
        Rotations ``(n, r, 3, 3)``, the best log-likelihood of each over shifts ``(n, r)``, and that shift
        ``(n, r, 2)``.
        """
        narrow = observation.narrowed(self._shell)
        frequencies = narrow.band.frequencies.to(self._sampler.device)
        poses = rotations.float()[:, None] @ self._turns
        at_once = max(1, _SAMPLES_AT_ONCE // (len(self._turns) * len(frequencies)))
        scores, found = [], []
        for start in range(0, len(poses), at_once):
            rows = slice(start, start + at_once)
            part, tried = narrow[rows], shifts_px[rows, None] + self._shifts
            slices = self._sampler.values(poses[rows].flatten(0, 1), frequencies)
            slices = slices.reshape(len(part), len(self._turns), -1)
            matched = (part.data * part.filters)[:, None, :] * narrow.band.phases(tried).conj()
            cross = real_row(slices) @ real_row(matched).transpose(1, 2)
            norm = slices.abs().square() @ (0.5 * part.filters.square())[..., None]
            best = (cross - norm).max(dim=-1)
            scores.append(best.values)
            found.append(torch.take_along_dim(tried, best.indices[..., None], dim=1))
        return poses, torch.cat(scores), torch.cat(found)


def _ball(reach_degrees: float, spacing_degrees: float) -> Tensor:
    """Return rotations on a lattice of rotation vectors within a ball, ``(r, 3, 3)``; the first is none."""
    steps = math.ceil(reach_degrees / spacing_degrees)
    axis = torch.arange(-steps, steps + 1, dtype=torch.float64) * spacing_degrees
    lattice = torch.cartesian_prod(axis, axis, axis)
    length = lattice.norm(dim=1)
    inside = lattice[length <= reach_degrees + 1e-9]
    inside = inside[inside.norm(dim=1).argsort(stable=True)]
    return torch.from_numpy(rotation_from_vector(torch.deg2rad(inside).numpy())).float()
