"""Stacks of pictures that are made one at a time, when napari shows them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from napari_cryosphere.imaging.prepared import PreparedImages
    from napari_cryosphere.imaging.preprocess import Preprocessing
    from napari_cryosphere.particles import ParticleStack

__all__ = ["LazyFrames", "ParticleFrames", "low_passed_images"]

_KEEPING = Lock()  # of all stacks: napari copies layers with their data, which could not hold it
_MOST_FRAMES = 64
_MOST_BYTES = 48 * 2**20  # a little above what napari reads to find contrast limits


class LazyFrames(ABC):
    """Pictures along the first axis, as napari's layers take them (its LayerDataProtocol).

    The last pictures are kept; several threads may ask for them. Many at once are refused: napari asks for
    all of them where it shows the first axis in space, as its 3D button does.

    ``shape``: ``(n, rows, columns)``, or ``(n, rows, columns, 4)`` for colours. ``dtype``: type of
    the pixels.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.frames_made = 0
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._version = 0

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def _make(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Make some pictures, ``(k, ...)``."""

    def forget(self, index: int | None = None) -> None:
        """Remake a picture the next time; without an index all of them."""
        with _KEEPING:
            self._version += 1  # what is being made meanwhile is not kept
            if index is None:
                self._kept.clear()
            else:
                self._kept.pop(index, None)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Return what an array would. Raises `CryosphereError` if that needs more than 64 pictures."""
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) and parts[0] is Ellipsis and len(parts) <= self.ndim:
            parts = (*(slice(None),) * (self.ndim - len(parts) + 1), *parts[1:])
        first, rest = (parts[0], parts[1:]) if parts else (slice(None), ())
        indices = np.arange(len(self))[first]
        if indices.size > _MOST_FRAMES:
            raise CryosphereError(
                f"{indices.size} pictures at once are too many ({_MOST_FRAMES} at most): particles are shown "
                "one at a time, in 2D"
            )
        if indices.ndim == 0:
            frame = self._frame(int(indices))
            return frame[rest] if rest else frame
        flat = indices.ravel()
        frames = np.empty((0, *self.shape[1:]), self.dtype)
        if len(flat):
            frames = np.stack([self._frame(int(i)) for i in flat])
        return frames[(slice(None), *rest)]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all pictures, where they are small; napari's contrast limits ask for it."""
        if self.size * self.dtype.itemsize > _MOST_BYTES:
            raise CryosphereError(
                f"{len(self)} pictures at once are too many: they are shown one at a time, in 2D"
            )
        return self._make(np.arange(len(self))).astype(dtype or self.dtype)

    def _frame(self, index: int) -> NDArray[Any]:
        with _KEEPING:
            version = self._version
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        frame: NDArray[Any] = self._make(np.array([index]))[0]
        with _KEEPING:
            self.frames_made += 1
            if version == self._version:
                self._kept[index] = frame
                while len(self._kept) > _MOST_FRAMES:
                    self._kept.popitem(last=False)
        return frame


class ParticleFrames(LazyFrames):
    """The images of particles, ``(n, box, box)`` float32, read when they are shown."""

    def __init__(self, stack: ParticleStack) -> None:
        super().__init__((len(stack), stack.box, stack.box), np.float32)
        self._stack = stack
        self._prepared: PreparedImages | None = None
        self._low_pass_angstrom: float | None = None

    def prepare(self, steps: Preprocessing | None, low_pass_angstrom: float | None = None) -> None:
        """Take some steps on every image from now on, then low-pass it; None for as it is stored.

        The steps must leave the images on the stack's grid.
        """
        from napari_cryosphere.imaging.prepared import PreparedImages

        self._prepared = None if steps is None else PreparedImages(self._stack, steps)
        self._low_pass_angstrom = low_pass_angstrom
        self.forget()

    def _make(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._prepared is None:
            images = self._stack.images(indices)
        else:
            images = np.asarray(self._prepared[indices])
        if self._low_pass_angstrom is None:
            return images
        return low_passed_images(images, self._stack.pixel_size_angstrom, self._low_pass_angstrom)


def low_passed_images(
    images: NDArray[np.float32], pixel_size_angstrom: float, resolution_angstrom: float
) -> NDArray[np.float32]:
    """Filter ``(n, k, k)`` images with a Gaussian that has fallen to a half at a resolution.

    Without torch, which loads slowly.
    """
    from scipy.fft import irfft2, rfft2

    box = images.shape[-1]
    keep = _low_pass_filter(box, pixel_size_angstrom, resolution_angstrom)
    return np.asarray(irfft2(rfft2(images) * keep, s=(box, box)), dtype=np.float32)


@lru_cache(maxsize=8)
def _low_pass_filter(
    box: int, pixel_size_angstrom: float, resolution_angstrom: float
) -> NDArray[np.float32]:
    """Return the filter's values, ``(box, box // 2 + 1)``."""
    y = np.fft.fftfreq(box, pixel_size_angstrom)[:, None]
    x = np.fft.rfftfreq(box, pixel_size_angstrom)
    return np.exp(-np.log(2) * (x**2 + y**2) * resolution_angstrom**2).astype(np.float32)
