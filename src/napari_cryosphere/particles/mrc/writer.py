"""Writing MRC files section by section; the header comes last, when the number of sections is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles.mrc.header import HEADER_BYTES

__all__ = ["section_writer"]


@contextmanager
def section_writer(
    path: Path, pixel_size_angstrom: float, *, overwrite: bool, volume: bool
) -> Iterator[Callable[[ArrayLike], None]]:
    """Give a function that appends ``(ny, nx)`` or ``(k, ny, nx)`` sections; see `mrc.stack.stack_writer`.

    Raises `CryosphereError` if there is nothing to write, sections differ in size, or the file
    cannot be written.
    """
    if not (np.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
        raise CryosphereError(
            f"{path}: the pixel size must be positive, not {pixel_size_angstrom} A"
        )
    with atomic_path(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
        stream.write(bytes(HEADER_BYTES))
        statistics = _Statistics()

        def append(sections: ArrayLike) -> None:
            batch = np.asarray(sections, dtype="<f4")
            batch = batch[np.newaxis] if batch.ndim == 2 else batch
            statistics.add(path, batch)
            stream.write(np.ascontiguousarray(batch).data)

        try:
            yield append
            if not statistics.number:
                raise CryosphereError(f"{path}: there are no images to write")
            stream.seek(0)
            stream.write(_header(statistics, pixel_size_angstrom, volume).tobytes())
        except OSError as error:
            raise CryosphereError(f"cannot write {path}: {error.strerror or error}") from error


class _Statistics:
    """Number, shape, extremes and moments of the sections written so far."""

    def __init__(self) -> None:
        self.number = 0
        self.shape: tuple[int, ...] = ()
        self.lowest, self.highest = np.inf, -np.inf
        self.total = self.total_square = 0.0

    def add(self, path: Path, batch: NDArray[Any]) -> None:
        """Take in ``(k, ny, nx)`` values; refuse what does not fit or is not finite."""
        if batch.ndim != 3 or not batch.size or self.shape not in ((), batch.shape[1:]):
            expected = (
                f" like the ones before, {self.shape}"
                if self.shape
                else ", (ny, nx) or (k, ny, nx)"
            )
            raise CryosphereError(
                f"{path}: image {self.number + 1} has shape {batch.shape}; expected images{expected}"
            )
        values = batch.astype(np.float64)
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))[0])
            raise CryosphereError(
                f"{path}: image {self.number + bad + 1} has pixels that are not finite"
            )
        self.shape = batch.shape[1:]
        self.number += len(batch)
        self.lowest, self.highest = min(self.lowest, values.min()), max(self.highest, values.max())
        self.total += values.sum()
        self.total_square += float(np.square(values).sum())


def _header(statistics: _Statistics, pixel_size_angstrom: float, volume: bool) -> NDArray[Any]:
    """Return the finished header: mode 2, little-endian, no extended header, no time stamp."""
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    rows, columns = statistics.shape
    header["nx"], header["ny"], header["nz"] = columns, rows, statistics.number
    header["mode"] = 2
    intervals = columns, rows, statistics.number if volume else 1
    for axis, number in zip("xyz", intervals, strict=True):
        header["m" + axis] = number
        header["cella"][axis] = number * pixel_size_angstrom
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    size = statistics.number * rows * columns
    mean = statistics.total / size
    header["dmin"], header["dmax"], header["dmean"] = statistics.lowest, statistics.highest, mean
    header["rms"] = np.sqrt(max(statistics.total_square / size - mean**2, 0.0))
    header["ispg"] = 1 if volume else 0
    header["map"] = b"MAP "
    header["machst"] = [0x44, 0x44, 0, 0]
    header["nversion"] = 20140
    header["nlabl"] = 1
    header["label"][0] = b"napari-cryosphere"
    return header
