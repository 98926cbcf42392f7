"""Pictures of particles and their distributions, small enough for thousands of tiles."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.state.lazy_frames import low_passed_images

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.widgets.state.predictions import PredictionStore

__all__ = ["TILE", "TilePicture", "TilePictures"]

TILE = 96
"""Pixels of a picture's edge; the sphere below it is half as tall."""

_SPHERE_ORDER = 3
_MOST_KEPT = 1500  # some 40 MB
_LIMITS = (0.5, 99.7)  # percentiles that become black and white
_LOW_PASS_ANGSTROM = 20.0


@dataclass(frozen=True)
class TilePicture:
    """What a tile shows.

    Attributes
    ----------
    image
        ``(k, k)`` uint8, or None where it cannot be read.
    sphere
        ``(k / 2, k, 4)`` uint8 RGBA, or None where nothing is predicted.
    problem
        Why there is no image; empty if there is.
    """

    image: NDArray[np.uint8] | None
    sphere: NDArray[np.uint8] | None
    problem: str = ""


class TilePictures:
    """Pictures of a data set's particles; the last ones asked for are kept.

    `make` may run in another thread, all else is for one thread only.

    Parameters
    ----------
    stack, store
        The particles and what is predicted of them.
    """

    def __init__(self, stack: ParticleStack, store: PredictionStore) -> None:
        self._stack, self._store = stack, store
        self.low_pass = True
        self.version = 0
        """Changes when pictures that were made before are no longer right."""
        self._kept: OrderedDict[int, TilePicture] = OrderedDict()

    def get(self, row: int) -> TilePicture | None:
        """Return a particle's picture if it is at hand."""
        found = self._kept.get(row)
        if found is not None:
            self._kept.move_to_end(row)
        return found

    def missing(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the particles among these that have no picture yet."""
        return np.array([row for row in rows.tolist() if row not in self._kept], dtype=np.int64)

    def keep(self, pictures: dict[int, TilePicture], version: int) -> None:
        """Take pictures that `make` has made; those of an older version are dropped."""
        if version != self.version:
            return
        self._kept.update(pictures)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)

    def forget(self, rows: slice | None = None) -> None:
        """Remake the pictures of some particles, or of all."""
        self.version += 1
        if rows is None:
            self._kept.clear()
        else:
            for row in [row for row in self._kept if rows.start <= row < rows.stop]:
                del self._kept[row]

    def make(self, rows: NDArray[np.int64]) -> dict[int, TilePicture]:
        """Read images and draw spheres."""
        try:
            images: dict[int, TilePicture] = {
                int(row): TilePicture(image, None)
                for row, image in zip(rows, self._images(rows), strict=True)
            }
        except (CryosphereError, OSError):
            images = {int(row): self._alone(int(row)) for row in rows}
        return {
            row: TilePicture(made.image, self._sphere(row), made.problem)
            for row, made in images.items()
        }

    def _alone(self, row: int) -> TilePicture:
        """Read one image: its neighbours' faults are not its own."""
        try:
            return TilePicture(self._images(np.array([row]))[0], None)
        except (CryosphereError, OSError) as error:
            return TilePicture(None, None, str(error))

    def _images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read images as a tile shows them; without torch, which loads slowly."""
        from napari_cryosphere.particles import ImageGrid
        from napari_cryosphere.particles.image_grid import resample

        grid = self._stack.grid
        box = min(grid.box, TILE)
        small = ImageGrid(box, grid.pixel_size_angstrom * grid.box / box)
        images = resample(self._stack.images(rows), grid, small)
        if self.low_pass:
            images = low_passed_images(images, small.pixel_size_angstrom, _LOW_PASS_ANGSTROM)
        low, high = np.percentile(images, _LIMITS, axis=(1, 2), keepdims=True)
        return ((images - low) / np.maximum(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)

    def _sphere(self, row: int) -> NDArray[np.uint8] | None:
        """Draw the distribution, or a ring where only the pose is predicted."""
        if not self._store.predicted[row]:
            return None  # before the imports, which take a second
        from napari_cryosphere.widgets.state.sphere_picture import draw_ring, rasterise

        try:
            distribution = self._store.distribution(row)
        except (CryosphereError, OSError):  # of a file that is gone: its poses are still known
            distribution = None
        if distribution is not None:
            return rasterise(distribution.probability_grid(_SPHERE_ORDER)[0], TILE // 2, TILE)
        rotation = self._store.rotation(row)
        if rotation is None:  # forgotten meanwhile
            return None
        picture = rasterise(np.zeros((12, 6)), TILE // 2, TILE)
        draw_ring(picture, rotation[:, 2], radius=4, whole=True)
        return picture
