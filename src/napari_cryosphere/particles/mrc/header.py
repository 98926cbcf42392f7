"""The first 1024 bytes of an MRC file, checked against the size of the file before anything is allocated.

Field layout: the MRC2014 format, https://www.ccpem.ac.uk/mrc-format/mrc2014/, as mrcfile's
``HEADER_DTYPE``.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles._opening import compression_of, reading, unpacked

__all__ = ["MOST_UNPACKED_BYTES", "MrcHeader", "read_header"]

HEADER_BYTES = 1024
_KINDS = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MODES = "0 (int8), 1 (int16), 2 (float32), 6 (uint16), 12 (float16)"
#: Compressed files are held in memory while they are read, up to this size.
MOST_UNPACKED_BYTES = 1 << 30
_IMOD_STAMP = 1146047817


@dataclass(frozen=True, slots=True)
class MrcHeader:
    """What the package needs from a header.

    - ``stored_shape``: ``(sections, rows, columns)`` as stored.
    - ``dtype``: type of the stored values, with the byte order of the file.
    - ``offset``: position of the first value in bytes.
    - ``voxel_size_angstrom``: along x, y, z; 0 where the header has none.
    - ``axes``: which of x (1), y (2), z (3) run along columns, rows and sections.
    - ``is_volume``: whether the header says "volume" (space group 1) and not "image stack" (0).
    - ``file_bytes``: size of the file.
    - ``compression``: ``"gzip"``, ``"bzip2"`` or empty.
    - ``warnings``: one line for each oddity that does not prevent reading.
    """

    stored_shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    voxel_size_angstrom: tuple[float, float, float]
    axes: tuple[int, int, int]
    is_volume: bool
    file_bytes: int
    compression: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, int, int]:
        """Which stored axis (0 sections, 1 rows, 2 columns) runs along z, y and x."""
        columns, rows, sections = self.axes
        stored = (sections, rows, columns)
        return stored.index(3), stored.index(2), stored.index(1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of values along z, y, x."""
        z, y, x = self.order
        return self.stored_shape[z], self.stored_shape[y], self.stored_shape[x]


def read_header(path: Path) -> MrcHeader:
    """Read and check the header of an MRC file, plain or compressed with gzip or bzip2.

    Raises `FileFormatError` if the file is missing, no MRC file, of an unknown mode, or shorter
    than its header promises. The length of a compressed file is checked when its pixels are read.
    """
    data, size, compression = _first_bytes(path)
    if len(data) < HEADER_BYTES:
        raise FileFormatError(
            f"{path} is not an MRC file: {size} bytes, while the header alone takes 1024"
        )
    record, order = _record(path, data)
    mode = int(record["mode"])
    if mode not in _KINDS:
        raise FileFormatError(
            f"{path} has MRC mode {mode}, which is not supported; convert it to one of {_MODES}"
        )
    kind = "u1" if mode == 0 and _imod_unsigned(data, order) else _KINDS[mode]
    dtype = np.dtype(order + kind)
    shape = (int(record["nz"]), int(record["ny"]), int(record["nx"]))
    offset = HEADER_BYTES + int(record["nsymbt"])
    if compression:
        warnings = _check_unpacked_size(path, shape, dtype, offset, compression)
    else:
        warnings = _check_size(path, shape, dtype, offset, size)
    axes = (int(record["mapc"]), int(record["mapr"]), int(record["maps"]))
    return MrcHeader(
        stored_shape=shape,
        dtype=dtype,
        offset=offset,
        voxel_size_angstrom=_voxel_size(record),
        axes=axes if sorted(axes) == [1, 2, 3] else (1, 2, 3),
        is_volume=int(record["ispg"]) == 1,
        file_bytes=size,
        compression=compression,
        warnings=warnings,
    )


def _first_bytes(path: Path) -> tuple[bytes, int, str]:
    """Return up to 1024 bytes, decompressed, the size of a regular file, and its compression."""
    with reading(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(
                f"{path} is not a file but a folder or device; expected an MRC file"
            )
        with path.open("rb", buffering=0) as stream:
            data = stream.read(HEADER_BYTES)
        compression = compression_of(path, data)
        if compression:
            with unpacked(path, compression) as stream:
                data = stream.read(HEADER_BYTES)
    return data, status.st_size, compression


def _record(path: Path, data: bytes) -> tuple[Any, str]:
    """Return the header in the byte order that makes sense of it, and that order (``<`` or ``>``)."""
    orders = ">", "<"
    if data[212:213] != b"\x11":
        orders = "<", ">"
    stamped = data[208:211] == b"MAP"
    for order in orders:
        record = np.frombuffer(data, dtype=_header_type(order), count=1)[0]
        sizes = [int(record[name]) for name in ("nx", "ny", "nz")]
        mode, extended = int(record["mode"]), int(record["nsymbt"])
        legal_mode = 0 <= mode < 1000 if stamped else mode in _KINDS
        if min(sizes) > 0 and legal_mode and extended >= 0:
            return record, order
    raise FileFormatError(
        f"{path} is not an MRC file: its header makes no sense in either byte order"
    )


@lru_cache
def _header_type(order: str) -> np.dtype[Any]:
    return HEADER_DTYPE.newbyteorder(order)


def _imod_unsigned(data: bytes, order: str) -> bool:
    """Return whether IMOD wrote mode 0 as unsigned bytes (its stamp is there, bit 0 of its flags is not)."""
    stamp, flags = np.frombuffer(data, dtype=order + "i4", count=2, offset=152)
    return int(stamp) == _IMOD_STAMP and not int(flags) & 1


def _check_size(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], offset: int, size: int
) -> tuple[str, ...]:
    """Compare the size that the header promises with the file's. Python integers do not overflow."""
    expected = offset + shape[0] * shape[1] * shape[2] * dtype.itemsize
    columns, rows, sections = shape[2], shape[1], shape[0]
    if size < expected:
        raise FileFormatError(
            f"{path} is truncated: its header promises {columns} x {rows} x {sections} {dtype.name} values, "
            f"{expected} bytes, but the file has {size}; copy it again"
        )
    if size > expected:
        return (f"{path} has {size - expected} bytes behind its last image, which were ignored",)
    return ()


def _check_unpacked_size(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], offset: int, compression: str
) -> tuple[str, ...]:
    """Refuse a compressed file that is too large to be held decompressed; return a warning."""
    size = offset + shape[0] * shape[1] * shape[2] * dtype.itemsize
    if size > MOST_UNPACKED_BYTES:
        raise FileFormatError(
            f"{path} is {compression}-compressed and takes {size} bytes unpacked; files of more than "
            f"{MOST_UNPACKED_BYTES >> 30} GiB are not unpacked in memory; decompress it first"
        )
    return (
        f"{path} is {compression}-compressed and unpacked in memory, which is slow; decompress it",
    )


def _voxel_size(record: Any) -> tuple[float, float, float]:
    """Return cell length over sampling along x, y, z; 0 where either is missing or senseless."""
    sizes = []
    for axis in "xyz":
        length, intervals = float(record["cella"][axis]), int(record["m" + axis])
        size = length / intervals if intervals > 0 else 0.0
        sizes.append(size if np.isfinite(size) and size > 0 else 0.0)
    if int(record["mz"]) == 1 < int(record["nz"]):  # sections of an image stack have no spacing
        sizes[2] = sizes[1]
    return sizes[0], sizes[1], sizes[2]
