"""Random changes of training images, with their poses moved exactly as the images are.

Shift, turn, quarter turn, zoom, uniform and Gaussian noise, erasing (CESPED, appendix B). Only
turns change a rotation: a magnified image shows the particle from where it was seen before. Where the
particle lies follows shifts, turns and zoom.

Nothing is remembered from one call to the next: what happens follows from the generator alone,
which is to be made from the seed and the number of the step. Each kind of change draws from a
stream of its own, so that switching one off leaves the others as they were. All draws are made for
the whole batch, so that a share of it changes as it would in the whole.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.preprocess import soft_circle
from napari_cryosphere.training.presets import Augmentation
from napari_cryosphere.training.sources import (
    WHOLE,
    Batch,
    TrainingSource,
    turn_and_shift,
    turned_rotations,
    turned_vectors,
)

__all__ = ["Augment", "Augmented", "erase", "zoom"]

_FLATTEST = 0.3
"""Height over width of an erased patch is at least this and at most its inverse (Zhong et al. 2020)."""


def zoom(images: Tensor, factors: Tensor) -> Tensor:
    """Magnify images about pixel n // 2.

    Trigonometric interpolation; what would lie beyond Nyquist in a smaller image is left out, and
    what lies beyond the edge of the given image is 0.

    ``images``: ``(b, n, n)``, n even. ``factors``: ``(b,)``; above 1 the particle becomes larger.
    """
    box = images.shape[-1]
    distance = torch.arange(box, dtype=torch.float64, device=images.device) - box // 2
    where = distance / factors.to(distance)[:, None]  # b, n: what each pixel of the result shows
    frequency = torch.arange(box // 2 + 1, dtype=torch.float64, device=images.device)
    kept = frequency < (box / 2) * factors.to(distance).clamp(max=1)[:, None]
    weights = torch.where(kept, 2.0, 0.0) / box
    weights[:, 0] = 1 / box
    weights[:, -1] = torch.where(
        factors >= 1, 1 / box, 0.0
    )  # half of Nyquist's frequency is on either side
    given = 2 * math.pi / box * frequency * distance[:, None]  # n, k
    wanted = 2 * math.pi / box * frequency * where[..., None]  # b, n, k
    rows = (torch.cos(wanted) * weights[:, None]) @ torch.cos(given).T
    rows += (torch.sin(wanted) * weights[:, None]) @ torch.sin(given).T
    inside = (where > -box / 2 - 1) & (where < box / 2)
    matrices = (rows * inside[..., None]).to(images.dtype)
    return matrices @ images @ matrices.mT


def erase(images: Tensor, corners: Tensor, edges: Tensor) -> Tensor:
    """Set a rectangle of each image to 0, the mean of the background.

    ``images``: ``(b, n, n)``. ``corners``, ``edges``: ``(b, 2)`` pixels along x and y: the first
    pixel of the rectangle, and how many there are.
    """
    pixel = torch.arange(images.shape[-1], device=images.device)
    first, last = corners[..., None], (corners + edges)[..., None]
    along_x, along_y = ((pixel >= first) & (pixel < last)).unbind(1)
    return images.masked_fill(along_y[:, :, None] & along_x[:, None, :], 0.0)


class Augment:
    """Changes batches as an `Augmentation` says: moves and turns, zoom, noise, erasing, soft circle.

    Noise comes after what interpolates, so that it stays white. The soft circle that prepared
    images have is put on again. Shifts and turns are periodic: what leaves on one side comes back
    on the other, so that noise fills the circle as before.
    """

    def __init__(self, settings: Augmentation) -> None:
        self.settings = settings

    def __call__(
        self, batch: Batch, rng: np.random.Generator, size: int | None = None, share: slice = WHOLE
    ) -> Batch:
        """Return the batch with other images and their poses; the given one stays as it is.

        ``batch``: prepared images. ``rng``: made for each step from the seed and the step:
        ``default_rng([seed, step])``. ``size``, ``share``: ``batch`` is this share of a batch of so
        many images; by default it is all of it. Raises `CryosphereError` if images are to be turned
        whose targets are on a grid: these cannot be rotated.
        """
        if batch.targets is not None and self.settings.turns:
            raise CryosphereError(
                "targets on a grid of poses cannot follow an image that is turned; set turn_probability and "
                "quarter_turn_probability of the augmentation to 0, or train on the poses themselves"
            )
        drawn = _Draws(self.settings, size or len(batch.images), batch.images.shape[-1], share, rng)
        images, rotations, shifts = drawn.moved(batch)
        images, shifts = drawn.zoomed(images, shifts)
        images = drawn.with_uniform_noise(images)
        images = drawn.with_gaussian_noise(images)
        images = drawn.erased(images)
        circle = soft_circle(images.shape[-1]).to(images)
        return replace(batch, images=images * circle, rotations=rotations, shifts_px=shifts)


class _Draws:
    """What is drawn for the ``size`` images of a batch, made of a ``share`` of them."""

    def __init__(
        self, settings: Augmentation, size: int, box: int, share: slice, rng: np.random.Generator
    ) -> None:
        self._settings, self._size, self._box, self._share = settings, size, box, share
        self._moving, self._zooming, self._uniform, self._gaussian, self._erasing = rng.spawn(5)

    def _chosen(self, probability: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return which images of the batch a change is made to."""
        return rng.random(self._size) < probability

    def moved(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return shifted and turned images, their poses, and where the particles lie now."""
        size, settings, rng = self._size, self._settings, self._moving
        reach = settings.shift_fraction * self._box
        shifts = (
            rng.uniform(-reach, reach, (size, 2))
            * self._chosen(settings.shift_probability, rng)[:, None]
        )
        reach = math.radians(settings.turn_degrees)
        angles = rng.uniform(-reach, reach, size) * self._chosen(settings.turn_probability, rng)
        quarters = rng.integers(4, size=size) * self._chosen(settings.quarter_turn_probability, rng)
        angles = angles + quarters * (math.pi / 2)
        if not shifts.any() and not angles.any():
            return batch.images, batch.rotations, batch.shifts_px
        turns = torch.from_numpy(angles[self._share]).to(batch.rotations)
        moves = torch.from_numpy(shifts[self._share]).to(batch.images)
        images = turn_and_shift(batch.images, turns.to(batch.images), moves)
        lying = batch.shifts_px
        if lying is not None:
            lying = turned_vectors(lying + moves.to(lying), turns.to(lying))
        return images, turned_rotations(batch.rotations, turns), lying

    def zoomed(self, images: Tensor, shifts_px: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return images some of which are magnified, and where the particles lie now."""
        settings, rng = self._settings, self._zooming
        factors = (1 + rng.uniform(-settings.zoom_out, settings.zoom_in, self._size))[self._share]
        rows = _rows(self._chosen(settings.zoom_probability, rng)[self._share], images.device)
        if settings.zoom_in == settings.zoom_out == 0 or not len(rows):
            return images, shifts_px
        scales = torch.from_numpy(factors).to(images)[rows]
        changed = images.index_copy(0, rows, zoom(images[rows], scales))
        if shifts_px is None:
            return changed, None
        moved = shifts_px[rows] * scales.to(shifts_px)[:, None]
        return changed, shifts_px.index_copy(0, rows, moved)

    def with_uniform_noise(self, images: Tensor) -> Tensor:
        """Return images some of which have noise of a uniform distribution added."""
        settings, rng = self._settings, self._uniform
        widths = rng.uniform(0, settings.uniform_noise_width, self._size)
        chosen = self._chosen(settings.uniform_noise_probability, rng)
        noise = rng.random((int(chosen.sum()), *images.shape[1:]), dtype=np.float32) - np.float32(
            0.5
        )
        return self._with_noise(images, chosen, noise, widths)

    def with_gaussian_noise(self, images: Tensor) -> Tensor:
        """Return images some of which have Gaussian noise added."""
        settings, rng = self._settings, self._gaussian
        deviations = rng.uniform(0, settings.gaussian_noise_sd, self._size)
        chosen = self._chosen(settings.gaussian_noise_probability, rng)
        noise = rng.standard_normal((int(chosen.sum()), *images.shape[1:]), dtype=np.float32)
        return self._with_noise(images, chosen, noise, deviations)

    def _with_noise(
        self,
        images: Tensor,
        chosen: NDArray[np.bool_],
        noise: NDArray[np.float32],
        scales: NDArray[np.float64],
    ) -> Tensor:
        """Add ``(k, n, n)`` noise of the chosen images, scaled as ``(size,)`` says, to the share's."""
        place = np.arange(self._size)[self._share]
        mine = noise[np.isin(np.flatnonzero(chosen), place)]
        rows = _rows(chosen[self._share], images.device)
        factors = torch.from_numpy(scales[self._share]).to(images)[rows, None, None]
        return images.index_add(0, rows, torch.from_numpy(mine).to(images) * factors)

    def erased(self, images: Tensor) -> Tensor:
        """Return images some of which have a patch of 0."""
        size, box, settings, rng = self._size, self._box, self._settings, self._erasing
        areas = rng.uniform(0, settings.erasing_fraction, size)
        areas = areas * self._chosen(settings.erasing_probability, rng)
        stretch = np.sqrt(np.exp(rng.uniform(math.log(_FLATTEST), -math.log(_FLATTEST), size)))
        edges = np.rint(np.sqrt(areas)[:, None] * np.stack([1 / stretch, stretch], axis=1) * box)
        edges = edges.clip(0, box).astype(np.int64)
        corners = rng.integers(0, box - edges, endpoint=True)
        if not edges.any():
            return images
        mine = (
            torch.from_numpy(values[self._share]).to(images.device) for values in (corners, edges)
        )
        return erase(images, *mine)


class Augmented:
    """A source whose batches are changed."""

    def __init__(self, source: TrainingSource, settings: Augmentation, seed: int = 0) -> None:
        self._source, self._augment, self._seed = source, Augment(settings), seed

    def batch(self, step: int, size: int, progress: float, share: slice = WHOLE) -> Batch:
        """See `TrainingSource`."""
        rng = np.random.default_rng([self._seed, step])
        return self._augment(self._source.batch(step, size, progress, share), rng, size, share)


def _rows(chosen: NDArray[np.bool_], device: torch.device) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen)).to(device)
