"""The pixels of an image, and how images come from one such grid to another.

Optics groups may differ in box and pixel size. A stack shows all of them on one grid: the finest
pixel size among its groups and the widest field, so that nothing of any image is lost.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._tables import GROUP, PIXEL_SIZE

__all__ = ["ImageGrid", "grids_of_groups", "refuse_unlike", "resample", "resampling_matrix"]

_UNLIKE = 8.0  # common box over the largest one: no real set comes near it; chosen, not tuned
_SAME = 1e-4  # pixel sizes that differ by less are one


@dataclass(frozen=True)
class ImageGrid:
    """The pixels of square images.

    ``box``: edge in pixels; the centre is pixel ``box // 2``. ``pixel_size_angstrom``: edge of a
    pixel.
    """

    box: int
    pixel_size_angstrom: float

    @property
    def field_angstrom(self) -> float:
        """Edge of the image."""
        return self.box * self.pixel_size_angstrom

    def matches(self, other: ImageGrid) -> bool:
        """Return whether images on both grids have the same pixels, to 1 in 10,000."""
        return (
            self.box == other.box
            and abs(self.pixel_size_angstrom / other.pixel_size_angstrom - 1) < _SAME
        )

    def even(self) -> ImageGrid:
        """Return the grid with a row and a column more where the box is odd."""
        return ImageGrid(self.box + self.box % 2, self.pixel_size_angstrom)

    @classmethod
    def common(cls, grids: Collection[ImageGrid]) -> ImageGrid:
        """Return the even grid that holds all of what is on the given ones: finest pixels, widest field."""
        finest = min(grid.pixel_size_angstrom for grid in grids)
        fields = [grid.field_angstrom for grid in grids]
        return cls(
            max(2 * int(np.ceil(field / finest * (0.5 - _SAME))) for field in fields), finest
        )


def grids_of_groups(optics: pd.DataFrame, used: Collection[int]) -> dict[int, ImageGrid]:
    """Return the grid of each optics group in ``used``; nothing where boxes or pixel sizes are not known."""
    if "rlnImageSize" not in optics or PIXEL_SIZE not in optics:
        return {}
    rows = optics[optics[GROUP].isin(used)]
    columns = (rows[GROUP].tolist(), rows["rlnImageSize"].tolist(), rows[PIXEL_SIZE].tolist())
    return {
        int(group): ImageGrid(int(box), float(size))
        for group, box, size in zip(*columns, strict=True)
    }


def refuse_unlike(path: Path, grids: Collection[ImageGrid]) -> None:
    """Refuse grids so different that a pixel size must be wrong: their common box would be huge.

    Raises `MetadataError` if the common box is over eight times the largest of the given ones.
    """
    largest = max((grid.box for grid in grids), default=0)
    sizes = [grid.pixel_size_angstrom for grid in grids]
    if (
        len(grids) > 1
        and max(grid.field_angstrom for grid in grids) / min(sizes) > _UNLIKE * largest
    ):
        raise MetadataError(
            f"{path}: optics groups with pixel sizes of {min(sizes):g} to {max(sizes):g} A cannot be brought "
            "to one box; check rlnImagePixelSize in data_optics, or process the groups apart"
        )


@lru_cache(maxsize=32)
def resampling_matrix(size: int, box: int, step: float) -> NDArray[np.float32]:
    """Return the matrix that Fourier-rescales one axis: a resampled image is ``W @ image @ W.T``.

    It is trigonometric interpolation, cut at the Nyquist frequency of the coarser grid: the same as
    cutting or padding the image's transform where ``step`` is ``size / box``, and as exact for any
    other ratio and for odd sizes. Grey values are kept.

    ``size``: pixels along the given image's edge; its centre is pixel ``size // 2``. ``box``:
    pixels along the new edge, centre ``box // 2``. ``step``: new pixel size in units of the given
    one. Returns ``(box, size)`` float32, read-only. Rows of pixels that lie outside the given image
    are zero.
    """
    positions = (np.arange(box) - box // 2) * step + size // 2
    phase = np.pi * (positions[:, None] - np.arange(size)) / size
    sine = np.sin(phase)
    near = np.abs(sine) < 1e-12
    safe = np.where(near, 1.0, sine)
    finer = step <= 1 + _SAME
    # On a coarser grid the new Nyquist frequency itself has no mirror image: it is left out.
    highest = (size - 1) // 2 if finer else int(np.ceil(size / (2 * step) - 1e-6)) - 1
    terms = 2 * highest + 1
    kernel = np.where(near, terms, np.sin(terms * phase) / safe) / size
    if finer and size % 2 == 0:
        kernel += np.cos(size * phase) / size
    kernel[(positions <= -1) | (positions >= size)] = 0
    matrix = kernel.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def resample(images: NDArray[np.float32], old: ImageGrid, new: ImageGrid) -> NDArray[np.float32]:
    """Bring images from one grid to another by Fourier rescaling; see `resampling_matrix`.

    ``images``: ``(k, old.box, old.box)`` float32. ``old``, ``new``: the grids; boxes may be odd.
    Returns ``(k, new.box, new.box)`` float32. Grey values are kept. Pixels outside the given image
    have the mean grey value of its border.
    """
    if old.matches(new):
        return images
    step = new.pixel_size_angstrom / old.pixel_size_angstrom
    if abs(step - 1) < _SAME:
        return _cut_or_pad(images, new.box)
    border = _border_means(images)[:, None, None]
    matrix = resampling_matrix(old.box, new.box, step)
    resampled: NDArray[Any] = matrix @ (images - border) @ matrix.T
    return resampled + border


def _border_means(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the outermost pixels of each image, ``(k,)``."""
    edges = (images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1])
    return np.concatenate(edges, axis=1).mean(axis=1, dtype=np.float64).astype(np.float32)


def _cut_or_pad(images: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    """Cut images about pixel n // 2, or pad them with the mean of their border."""
    size = images.shape[-1]
    start = size // 2 - box // 2
    if start >= 0 and start + box <= size:
        return images[:, start : start + box, start : start + box]
    padded = np.empty((len(images), box, box), dtype=np.float32)
    padded[:] = _border_means(images)[:, None, None]
    padded[:, -start : size - start, -start : size - start] = images
    return padded
