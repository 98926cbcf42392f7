"""Random changes of training images, with their poses moved exactly as the images are.

Shift, turn, quarter turn, zoom, uniform and Gaussian noise, erasing (CESPED, appendix B). Only turns change a
pose: the batch holds no shifts, and a magnified image shows the particle from where it was seen before.

Nothing is remembered from one call to the next: what happens follows from the generator alone, which is to be
made from the seed and the number of the step. Each kind of change draws from a stream of its own, so that
switching one off leaves the others as they were.
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
from napari_cryosphere.training.sources import Batch, TrainingSource, turn_and_shift, turned_rotations

__all__ = ["Augment", "Augmented", "erase", "zoom"]

_FLATTEST = 0.3
"""Height over width of an erased patch is at least this and at most its inverse (Zhong et al. 2020)."""


def zoom(images: Tensor, factors: Tensor) -> Tensor:
    """Magnify images about pixel n // 2.

    Trigonometric interpolation; what would lie beyond Nyquist in a smaller image is left out, and what lies
    beyond the edge of the given image is 0.

    Parameters
    ----------
    images
        ``(b, n, n)``, n even.
    factors
        ``(b,)``; above 1 the particle becomes larger.
    """
    box = images.shape[-1]
    distance = torch.arange(box, dtype=torch.float64, device=images.device) - box // 2
    where = distance / factors.to(distance)[:, None]  # b, n: what each pixel of the result shows
    frequency = torch.arange(box // 2 + 1, dtype=torch.float64, device=images.device)
    kept = frequency < (box / 2) * factors.to(distance).clamp(max=1)[:, None]
    weights = torch.where(kept, 2.0, 0.0) / box
    weights[:, 0] = 1 / box
    weights[:, -1] = torch.where(factors >= 1, 1 / box, 0.0)  # half of Nyquist's frequency is on either side
    given = 2 * math.pi / box * frequency * distance[:, None]  # n, k
    wanted = 2 * math.pi / box * frequency * where[..., None]  # b, n, k
    rows = (torch.cos(wanted) * weights[:, None]) @ torch.cos(given).T
    rows += (torch.sin(wanted) * weights[:, None]) @ torch.sin(given).T
    inside = (where > -box / 2 - 1) & (where < box / 2)
    matrices = (rows * inside[..., None]).to(images.dtype)
    return matrices @ images @ matrices.mT


def erase(images: Tensor, corners: Tensor, edges: Tensor) -> Tensor:
    """Set a rectangle of each image to 0, the mean of the background.

    Parameters
    ----------
    images
        ``(b, n, n)``.
    corners, edges
        ``(b, 2)`` pixels along x and y: the first pixel of the rectangle, and how many there are.
    """
    pixel = torch.arange(images.shape[-1], device=images.device)
    first, last = corners[..., None], (corners + edges)[..., None]
    along_x, along_y = ((pixel >= first) & (pixel < last)).unbind(1)
    return images.masked_fill(along_y[:, :, None] & along_x[:, None, :], 0.0)


class Augment:
    """Changes batches as an `Augmentation` says: moves and turns, zoom, noise, erasing, soft circle.

    Noise comes after what interpolates, so that it stays white. The soft circle that prepared images have is
    put on again. Shifts and turns are periodic: what leaves on one side comes back on the other, so that
    noise fills the circle as before.
    """

    def __init__(self, settings: Augmentation) -> None:
        self.settings = settings

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the batch with other images and their poses; the given one stays as it is.

        Parameters
        ----------
        batch
            Prepared images.
        rng
            Made anew for every step, from the seed and the step: ``default_rng([seed, step])``.

        Raises
        ------
        CryosphereError
            If images are to be turned whose targets stand on a grid: these cannot follow.
        """
        if batch.targets is not None and self.settings.turns:
            raise CryosphereError(
                "targets on a grid of poses cannot follow an image that is turned; set turn_probability and "
                "quarter_turn_probability of the augmentation to 0, or train on the poses themselves"
            )
        moving, zooming, uniform, gaussian, erasing = rng.spawn(5)
        images, rotations = self._moved(batch, moving)
        images = self._zoomed(images, zooming)
        images = self._with_uniform_noise(images, uniform)
        images = self._with_gaussian_noise(images, gaussian)
        images = self._erased(images, erasing)
        circle = soft_circle(images.shape[-1]).to(images)
        return replace(batch, images=images * circle, rotations=rotations)

    def _moved(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return shifted and turned images and their poses."""
        size, settings = len(batch.images), self.settings
        reach = settings.shift_fraction * batch.images.shape[-1]
        shifts = (
            rng.uniform(-reach, reach, (size, 2)) * _chosen(size, settings.shift_probability, rng)[:, None]
        )
        reach = math.radians(settings.turn_degrees)
        angles = rng.uniform(-reach, reach, size) * _chosen(size, settings.turn_probability, rng)
        quarters = rng.integers(4, size=size) * _chosen(size, settings.quarter_turn_probability, rng)
        angles = angles + quarters * (math.pi / 2)
        if not shifts.any() and not angles.any():
            return batch.images, batch.rotations
        turns = torch.from_numpy(angles).to(batch.rotations)
        images = turn_and_shift(
            batch.images, turns.to(batch.images), torch.from_numpy(shifts).to(batch.images)
        )
        return images, turned_rotations(batch.rotations, turns)

    def _zoomed(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        settings = self.settings
        factors = 1 + rng.uniform(-settings.zoom_out, settings.zoom_in, len(images))
        rows = _rows(len(images), settings.zoom_probability, rng, images.device)
        if settings.zoom_in == settings.zoom_out == 0 or not len(rows):
            return images
        changed = zoom(images[rows], torch.from_numpy(factors).to(images)[rows])
        return images.index_copy(0, rows, changed)

    def _with_uniform_noise(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        widths = rng.uniform(0, self.settings.uniform_noise_width, len(images))
        rows = _rows(len(images), self.settings.uniform_noise_probability, rng, images.device)
        noise = rng.random((len(rows), *images.shape[1:]), dtype=np.float32) - np.float32(0.5)
        return _with_noise(images, rows, noise, widths)

    def _with_gaussian_noise(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        deviations = rng.uniform(0, self.settings.gaussian_noise_sd, len(images))
        rows = _rows(len(images), self.settings.gaussian_noise_probability, rng, images.device)
        noise = rng.standard_normal((len(rows), *images.shape[1:]), dtype=np.float32)
        return _with_noise(images, rows, noise, deviations)

    def _erased(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        size, box = len(images), images.shape[-1]
        areas = rng.uniform(0, self.settings.erasing_fraction, size)
        areas = areas * _chosen(size, self.settings.erasing_probability, rng)
        stretch = np.sqrt(np.exp(rng.uniform(math.log(_FLATTEST), -math.log(_FLATTEST), size)))
        edges = np.rint(np.sqrt(areas)[:, None] * np.stack([1 / stretch, stretch], axis=1) * box)
        edges = edges.clip(0, box).astype(np.int64)
        corners = rng.integers(0, box - edges, endpoint=True)
        if not edges.any():
            return images
        return erase(images, *(torch.from_numpy(values).to(images.device) for values in (corners, edges)))


class Augmented:
    """A source whose batches are changed."""

    def __init__(self, source: TrainingSource, settings: Augmentation, seed: int = 0) -> None:
        self._source, self._augment, self._seed = source, Augment(settings), seed

    def batch(self, step: int, size: int, progress: float) -> Batch:
        """See `TrainingSource`."""
        rng = np.random.default_rng([self._seed, step])
        return self._augment(self._source.batch(step, size, progress), rng)


def _chosen(size: int, probability: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of ``size`` images a change is made to."""
    return rng.random(size) < probability


def _rows(size: int, probability: float, rng: np.random.Generator, device: torch.device) -> Tensor:
    return torch.from_numpy(np.flatnonzero(_chosen(size, probability, rng))).to(device)


def _with_noise(
    images: Tensor, rows: Tensor, noise: NDArray[np.float32], scales: NDArray[np.float64]
) -> Tensor:
    """Add ``(k, n, n)`` noise, scaled as ``(b,)`` says, to the images of ``(k,)`` rows."""
    scaled = torch.from_numpy(noise).to(images) * torch.from_numpy(scales).to(images)[rows, None, None]
    return images.index_add(0, rows, scaled)
