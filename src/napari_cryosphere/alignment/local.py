"""Search around given poses: a ball of rotations and a square of shifts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import Observation
from napari_cryosphere.alignment.references import References, shift_grid
from napari_cryosphere.alignment.search import shells_for_spacing, step_for_shell
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.rotations import rotation_from_vector

__all__ = ["LocalSearch"]

_SPACING_DEGREES = 7.5  # of the lattice, about that of HEALPix order 3
_SAMPLES_AT_ONCE = 1 << 18  # values of slices: 2 MB complex


class LocalSearch:
    """Compares each image with projections in balls about poses of its own.

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
        shell = min(max_shell, shells_for_spacing(_SPACING_DEGREES, radius_px, sampler.box))
        self._band = FourierBand(sampler.box, shell)
        self._turns = _ball(reach_degrees, _SPACING_DEGREES).to(sampler.device)
        self._shifts = shift_grid(
            shift_reach_px, step_for_shell(shell, sampler.box), sampler.device
        )
        self._phases = self._band.phases(self._shifts)

    def search(
        self, observation: Observation, owners: Tensor, rotations: Tensor, centres_px: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score the ball about each pose, and the shifts about its image's own.

        Parameters
        ----------
        observation
            ``n`` images.
        owners
            ``(p,)`` int64, ascending: the image that each pose belongs to.
        rotations
            ``(p, 3, 3)``: where to start; the start itself is one of the poses tried.
        centres_px
            ``(n, 2)``: each image's shift to start from.

        Returns
        -------
        Rotations ``(p, r, 3, 3)``, the best log-likelihood of each over shifts ``(p, r)``, and that
        shift ``(p, r, 2)``.
        """
        centred = observation.narrowed(self._band.max_shell).centred(centres_px)
        poses = rotations.float()[:, None] @ self._turns
        counts = torch.bincount(owners, minlength=len(centred)).tolist()
        scores, best = [], []
        at_once = max(1, _SAMPLES_AT_ONCE // (len(self._turns) * len(self._band.frequencies)))
        for images, places in _runs(counts, at_once):
            references = References.of(self._sampler, poses[places].flatten(0, 1), self._band)
            each = [len(self._turns) * count for count in counts[images]]
            pairs = zip(references.slices.split(each), references.power.split(each), strict=True)
            for image, (slices, power) in zip(range(images.start, images.stop), pairs, strict=True):
                part = References(self._band, slices, power)
                found = part.log_likelihoods(centred[image : image + 1], self._phases)[:, 0].max(
                    dim=-1
                )
                scores.append(found.values)
                best.append(found.indices)
        shape = poses.shape[:2]
        shifts = self._shifts[torch.cat(best).reshape(shape)] + centres_px[owners, None]
        return poses, torch.cat(scores).reshape(shape), shifts


def _runs(counts: list[int], at_once: int) -> Iterator[tuple[slice, slice]]:
    """Yield runs of images, and of their poses: up to ``at_once`` poses, or one image's."""
    image = place = 0
    while image < len(counts):
        end, stop = image + 1, place + counts[image]
        while end < len(counts) and stop + counts[end] - place <= at_once:
            stop += counts[end]
            end += 1
        yield slice(image, end), slice(place, stop)
        image, place = end, stop


def _ball(reach_degrees: float, spacing_degrees: float) -> Tensor:
    """Return rotations on a lattice of rotation vectors within a ball, ``(r, 3, 3)``; the first is none."""
    steps = math.ceil(reach_degrees / spacing_degrees)
    axis = torch.arange(-steps, steps + 1, dtype=torch.float64) * spacing_degrees
    lattice = torch.cartesian_prod(axis, axis, axis)
    length = lattice.norm(dim=1)
    inside = lattice[length <= reach_degrees + 1e-9]
    inside = inside[inside.norm(dim=1).argsort(stable=True)]
    return torch.from_numpy(rotation_from_vector(torch.deg2rad(inside).numpy())).float()
