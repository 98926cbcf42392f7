"""Image stacks in MRC files: a lazy reader, and a streaming writer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles._checks import listed
from napari_cryosphere.particles.mrc.header import read_header
from napari_cryosphere.particles.mrc.pixel_views import ViewKey, count_copied, open_view
from napari_cryosphere.particles.mrc.writer import section_writer

__all__ = ["MrcStack", "stack_writer", "write_stack"]

_CHUNK_BYTES = 1 << 24  # converted at once, which bounds temporaries; chosen, not tuned
_CHECK_VALUES = 1 << 18  # summed at once: 1 MB stays in the cache; chosen, not tuned


class MrcStack:
    """A stack of images in one MRC file, plain or compressed with gzip or bzip2.

    Only the header is read here. Pixels are memory-mapped when they are asked for, and few files
    are mapped at a time, so that a data set of 30,000 stacks can be held. Compressed files are
    unpacked in memory, up to 1 GiB in all: fit for reading in order, slow at random.

    ``path``: an ``.mrcs`` or ``.mrc`` file of either byte order, mode 0, 1, 2, 6 or 12. ``shape``:
    ``(n, ny, nx)``, along z, y, x whatever order of axes the header names. ``pixel_size_angstrom``:
    from the header; None if it has none. ``warnings``: one line for each oddity that does not
    prevent reading, such as bytes behind the last image. Raises `FileFormatError` if the file is
    missing, no MRC file, of an unknown mode, or shorter than its header promises.
    """

    __slots__ = (
        *("_finite", "_key", "file_bytes", "header", "path"),
        *("pixel_size_angstrom", "shape", "warnings"),
    )

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.header = read_header(self.path)
        self.shape = self.header.shape
        self.pixel_size_angstrom: float | None = self.header.voxel_size_angstrom[0] or None
        self.warnings = self.header.warnings
        self.file_bytes = self.header.file_bytes
        self._key = ViewKey()
        self._finite: NDArray[np.bool_] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the file again in another process."""
        return MrcStack, (self.path,)

    def __len__(self) -> int:
        """Return the number of images."""
        return self.shape[0]

    def read(self, indices: ArrayLike | slice | None = None) -> NDArray[np.float32]:
        """Read images.

        ``indices``: ``(k,)`` integers counted from 0, in any order, a slice, one integer, or None
        for all images. Returns ``(k, ny, nx)`` float32, in the order asked for. Raises `IndexError`
        if an index is negative or past the end. Raises `FileFormatError` if a pixel is not finite
        (the images are numbered from 1), or the file has shrunk. Each image is checked when it is
        read for the first time.
        """
        if isinstance(indices, (int, np.integer)):
            return self._read_one(int(indices))
        if indices is None or isinstance(indices, slice):
            wanted = np.arange(len(self))[indices or slice(None)]
        else:
            wanted = np.atleast_1d(np.asarray(indices)).astype(np.int64)
        if not wanted.size:
            return np.empty((0, *self.shape[1:]), dtype=np.float32)
        lowest, highest = int(wanted.min()), int(wanted.max())
        if not (lowest >= 0 and highest < len(self)):
            raise IndexError(f"{self.path} has {len(self)} images; asked for {lowest} to {highest}")
        view = open_view(self._key, self.path, self.header).array
        if highest - lowest + 1 == len(wanted) and (np.diff(wanted) == 1).all():
            images = np.array(view[lowest : highest + 1], dtype=np.float32, order="C")
        elif view.dtype == np.float32:
            images = np.ascontiguousarray(view[wanted])
        else:
            images = np.empty((len(wanted), *self.shape[1:]), dtype=np.float32)
            number = max(1, _CHUNK_BYTES // images[0].nbytes)
            for start in range(0, len(wanted), number):
                images[start : start + number] = view[wanted[start : start + number]]
        count_copied(view[: len(wanted)])
        if view.dtype.kind == "f":
            self._check(images, wanted)
        return images

    def _read_one(self, index: int) -> NDArray[np.float32]:
        """Return one image as ``(1, ny, nx)``."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} images; asked for {index}")
        view = open_view(self._key, self.path, self.header).array
        image = np.array(view[index : index + 1], dtype=np.float32, order="C")
        count_copied(image)
        if view.dtype.kind == "f" and not (self._finite is not None and self._finite[index]):
            self._check(image, np.array([index]))
        return image

    def _check(self, images: NDArray[np.float32], indices: NDArray[np.int64]) -> None:
        """Raise FileFormatError if a pixel is NaN or infinite in an image that is read for the first time."""
        if self._finite is None:
            self._finite = np.zeros(len(self), dtype=bool)
        new = ~self._finite[indices]
        if not new.any():
            return
        if not new.all():
            images, indices = images[new], indices[new]
        bad = ~_finite_images(images)
        if bad.any():
            numbers = np.unique(indices[bad] + 1)
            raise FileFormatError(
                f"{self.path} has pixels that are not finite (NaN or infinite) in image "
                f"{listed([str(number) for number in numbers])}; leave these out or repair the file"
            )
        self._finite[indices] = True


def _finite_images(images: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which images have finite pixels only, ``(k,)``.

    The sum of squares is finite for all but such images (and for values beyond 1e17): it costs a
    third of asking each pixel, which only the rest are.
    """
    number = max(1, _CHECK_VALUES // (images.shape[1] * images.shape[2]))
    finite = np.ones(len(images), dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(images), number):
            chunk = images[start : start + number]
            flat = chunk.reshape(-1)
            if not np.isfinite(flat @ flat):
                finite[start : start + number] = np.isfinite(chunk).all(axis=(1, 2))
    return finite


def stack_writer(
    path: str | PathLike[str], pixel_size_angstrom: float, overwrite: bool = False
) -> AbstractContextManager[Callable[[ArrayLike], None]]:
    """Open a float32 MRC stack for writing; see `write_stack` for the parameters and errors.

    The context gives a function that appends an image ``(ny, nx)`` or a batch ``(k, ny, nx)``. The
    file appears when the context ends; if it ends with an error there is none.
    """
    return section_writer(Path(path), pixel_size_angstrom, overwrite=overwrite, volume=False)


def write_stack(
    images: ArrayLike | Iterable[ArrayLike],
    path: str | PathLike[str],
    pixel_size_angstrom: float,
    overwrite: bool = False,
) -> None:
    """Write images as a float32 MRC stack, one after the other.

    ``images``: ``(n, ny, nx)``, or an iterable of images ``(ny, nx)`` or of batches
    ``(k, ny, nx)``; an iterable is never held in memory as a whole. ``path``: the file to write; it
    appears whole or not at all. RELION wants the suffix ``.mrcs``. ``pixel_size_angstrom``: pixel
    size for the header. Raises `OutputExistsError` if the file exists and ``overwrite`` is False;
    `CryosphereError` if there are no images, their shapes differ, a pixel is not finite, or the
    pixel size is not positive.
    """
    with stack_writer(path, pixel_size_angstrom, overwrite) as append:
        for batch in images:  # type: ignore[union-attr]
            append(batch)
