"""cryoSPARC's .cs files: numpy arrays of records, read without pickle and written atomically.

A .cs file is what ``numpy.save`` writes (https://numpy.org/neps/nep-0001-npy-format.html) for an
array with one named field a property, such as ``alignments3D/pose``.
"""

from __future__ import annotations

import ast
import os
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.particles._opening import reading

__all__ = ["read_cs", "write_cs"]

_NUMPY, _STREAM = b"\x93NUMPY", b"\x94CSDAT"
_LONGEST_HEADER = 1 << 18  # bytes; fifty fields take 5 kB
_SENSELESS = (
    *(ValueError, TypeError, SyntaxError, KeyError, IndexError, AttributeError),
    *(OverflowError, MemoryError, RecursionError),
)


def read_cs(path: str | PathLike[str]) -> NDArray[Any]:
    """Read a .cs file.

    Returns ``(n,)`` records. Raises `FileFormatError` if the file is missing, cut short, no .cs
    file, or holds Python objects, which only pickle can read: reading them would run code from the
    file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileFormatError(f"{path} is not a file but a folder, pipe or device")
    with reading(path), path.open("rb") as stream:
        return _read(path, stream, os.fstat(stream.fileno()).st_size)


def write_cs(records: NDArray[Any], path: str | PathLike[str], overwrite: bool = False) -> None:
    """Write ``(n,)`` records as a .cs file, which appears whole or not at all.

    Raises `OutputExistsError` if the file exists and ``overwrite`` is False.
    """
    with atomic_path(Path(path), overwrite=overwrite) as temporary:
        try:
            with temporary.open("wb") as stream:
                # as a stream, not a file: into a file numpy writes by itself, and does not
                # notice that a disk is full
                plain = SimpleNamespace(write=stream.write)
                np.lib.format.write_array(plain, records, allow_pickle=False)
        except OSError as error:
            raise CryosphereError(f"cannot write {path}: {error.strerror or error}") from error


def _read(path: Path, stream: IO[bytes], size: int) -> NDArray[Any]:
    start = stream.read(8)
    if start.startswith(_STREAM):
        raise FileFormatError(
            f"{path} is in cryoSPARC's streaming format; save it in the numpy format (Dataset.save)"
        )
    if not start.startswith(_NUMPY) or len(start) < 8:
        raise FileFormatError(f"{path} is not a .cs file: it does not begin like a numpy array")
    shape, dtype = _header(path, stream, start[6])
    promised, found = shape[0] * dtype.itemsize, size - stream.tell()
    if found < promised:
        raise FileFormatError(
            f"{path} is truncated: its header promises {shape[0]} rows of {dtype.itemsize} bytes, {promised} "
            f"in all, but {found} are there; copy it again"
        )
    return np.fromfile(stream, dtype=dtype, count=shape[0])


def _header(path: Path, stream: IO[bytes], version: int) -> tuple[tuple[int], np.dtype[Any]]:
    """Return the shape and the type of the array."""
    if version not in (1, 2, 3):
        raise FileFormatError(
            f"{path} is of version {version} of numpy's format; known are 1, 2 and 3"
        )
    length = int.from_bytes(stream.read(2 if version == 1 else 4), "little")
    text = stream.read(length) if length <= _LONGEST_HEADER else b""
    if not length or len(text) < length:
        raise FileFormatError(
            f"{path} is truncated or damaged: its header is not whole; copy it again"
        )
    try:
        header = ast.literal_eval(text.decode("utf-8" if version == 3 else "latin-1"))
        dtype = np.lib.format.descr_to_dtype(header["descr"])
        shape = header["shape"]
        fields = dtype.names or ()
    except _SENSELESS as error:
        raise FileFormatError(
            f"{path} is damaged: its header makes no sense; copy it again"
        ) from error
    if dtype.hasobject:
        raise FileFormatError(
            f"{path} holds Python objects, which are not read since that would run code from the file; "
            "save it with plain numbers and text"
        )
    one = isinstance(shape, tuple) and len(shape) == 1 and type(shape[0]) is int and shape[0] >= 0
    if not (one and fields and dtype.itemsize):
        raise FileFormatError(
            f"{path} is no table of particles: it has no named fields, or not one row each"
        )
    return shape, dtype
