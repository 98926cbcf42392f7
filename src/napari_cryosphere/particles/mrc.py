"""Image stacks in MRC files: a lazy reader that holds nothing open, and a streaming writer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from io import FileIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles._messages import listed
from napari_cryosphere.particles._mrc_header import read_header
from napari_cryosphere.particles._mrc_writer import section_writer

__all__ = ["MrcStack", "stack_writer", "write_stack"]

_CHUNK_BYTES = 1 << 24
_CHECK_VALUES = 1 << 18


class MrcStack:
    """A stack of images in one MRC file.

    Only the header is read here; the file is opened for each :meth:`read` and closed again, so that a data
    set of 30,000 stacks can be held. Plain reads are used instead of a memory map, since a file that
    shrinks under a map ends the process, and under a read gives an error.

    Parameters
    ----------
    path
        An ``.mrcs`` or ``.mrc`` file of either byte order, mode 0, 1, 2, 6 or 12.

    Attributes
    ----------
    shape
        ``(n, ny, nx)``.
    pixel_size_angstrom
        From the header; None if it has none.
    warnings
        One line for each oddity that does not prevent reading, such as bytes behind the last image.

    Raises
    ------
    FileFormatError
        If the file is missing, no MRC file, of an unknown mode, or shorter than its header promises.
    """

    __slots__ = ("file_bytes", "header", "path", "pixel_size_angstrom", "shape", "warnings")

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.header = read_header(self.path)
        self.shape = self.header.shape
        self.pixel_size_angstrom: float | None = self.header.voxel_size_angstrom[0] or None
        self.warnings = self.header.warnings
        self.file_bytes = self.header.file_bytes

    def __len__(self) -> int:
        """Return the number of images."""
        return self.shape[0]

    def read(self, indices: ArrayLike | slice | None = None) -> NDArray[np.float32]:
        """Read images.

        Parameters
        ----------
        indices
            ``(k,)`` integers counted from 0, in any order, a slice, or None for all images.

        Returns
        -------
        ``(k, ny, nx)`` float32, in the order asked for.

        Raises
        ------
        IndexError
            If an index is negative or past the end.
        FileFormatError
            If a pixel is not finite (the images are numbered from 1), or the file has shrunk.
        """
        if indices is None or isinstance(indices, slice):
            wanted = np.arange(len(self))[indices or slice(None)]
        else:
            wanted = np.atleast_1d(np.asarray(indices)).astype(np.int64)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(
                f"{self.path} has {len(self)} images; asked for {wanted.min()} to {wanted.max()}"
            )
        if not wanted.size:
            return np.empty((0, *self.shape[1:]), dtype=np.float32)
        unique, first, inverse = np.unique(wanted, return_index=True, return_inverse=True)
        repeated = len(unique) < len(wanted)
        images = np.empty((len(unique), *self.shape[1:]), dtype=np.float32)
        try:
            with self.path.open("rb", buffering=0) as stream:
                self._fill(stream, images, unique, np.arange(len(unique)) if repeated else first)
        except OSError as error:
            raise FileFormatError(f"{self.path} cannot be read: {error.strerror or error}") from error
        if self.header.dtype.kind == "f":
            self._refuse_non_finite(images, unique if repeated else wanted)
        return images[inverse] if repeated else images

    def _fill(
        self,
        stream: FileIO,
        images: NDArray[np.float32],
        increasing: NDArray[np.int64],
        targets: NDArray[np.int64],
    ) -> None:
        """Read image ``increasing[i]`` into ``images[targets[i]]``, neighbours in one go."""
        breaks = np.flatnonzero((np.diff(increasing) != 1) | (np.diff(targets) != 1)) + 1
        starts = [0, *breaks.tolist()]
        ends = [*starts[1:], len(increasing)]
        longest = max(1, _CHUNK_BYTES // self._image_bytes)
        direct = self.header.dtype == images.dtype
        for start, end in zip(starts, ends, strict=True):
            for at in range(start, end, longest):
                number, target = min(longest, end - at), int(targets[at])
                into = images[target : target + number]
                block = into if direct else np.empty(into.shape, dtype=self.header.dtype)
                self._read_run(stream, int(increasing[at]), block)
                if not direct:
                    into[...] = block

    @property
    def _image_bytes(self) -> int:
        return self.shape[1] * self.shape[2] * self.header.dtype.itemsize

    def _read_run(self, stream: FileIO, start: int, block: NDArray[Any]) -> None:
        """Fill ``block`` with the images from index ``start`` on."""
        stream.seek(self.header.offset + start * self._image_bytes)
        view = memoryview(block.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        while view:
            count = stream.readinto(view)
            if not count:
                raise FileFormatError(f"{self.path} has become shorter since it was opened; copy it again")
            view = view[count:]

    def _refuse_non_finite(self, images: NDArray[np.float32], indices: NDArray[np.int64]) -> None:
        """Raise FileFormatError if a pixel is NaN or infinite.

        The sum of squares is finite for all but such images (and for values beyond 1e17): it costs a third
        of asking each pixel, which only the rest are.
        """
        number = max(1, _CHECK_VALUES // (self.shape[1] * self.shape[2]))
        bad: list[int] = []
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(images), number):
                chunk = images[start : start + number]
                flat = chunk.reshape(-1)
                if not np.isfinite(flat @ flat):
                    finite = np.isfinite(chunk).all(axis=(1, 2))
                    bad += (indices[start : start + number][~finite] + 1).tolist()
        if bad:
            raise FileFormatError(
                f"{self.path} has pixels that are not finite (NaN or infinite) in image "
                f"{listed([str(image) for image in sorted(bad)])}; leave these out or repair the file"
            )


def stack_writer(
    path: str | PathLike[str], pixel_size_angstrom: float, overwrite: bool = False
) -> AbstractContextManager[Callable[[ArrayLike], None]]:
    """Open a float32 MRC stack for writing; see `write_stack` for the parameters and errors.

    The context gives a function that appends an image ``(ny, nx)`` or a batch ``(k, ny, nx)``. The file
    appears when the context ends; if it ends with an error there is none.
    """
    return section_writer(Path(path), pixel_size_angstrom, overwrite=overwrite, volume=False)


def write_stack(
    images: ArrayLike | Iterable[ArrayLike],
    path: str | PathLike[str],
    pixel_size_angstrom: float,
    overwrite: bool = False,
) -> None:
    """Write images as a float32 MRC stack, one after the other.

    Parameters
    ----------
    images
        ``(n, ny, nx)``, or an iterable of images ``(ny, nx)`` or of batches ``(k, ny, nx)``; an iterable is
        never held in memory as a whole.
    path
        The file to write; it appears whole or not at all. RELION wants the suffix ``.mrcs``.
    pixel_size_angstrom
        Pixel size for the header.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputExistsError
        If the file exists and ``overwrite`` is False.
    CryosphereError
        If there are no images, their shapes differ, a pixel is not finite, or the pixel size is not positive.
    """
    with stack_writer(path, pixel_size_angstrom, overwrite) as append:
        for batch in images:  # type: ignore[union-attr]
            append(batch)
