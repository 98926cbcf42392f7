"""Opening files of particles: errors that say what to do, and compressed files."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from napari_cryosphere.errors import FileFormatError

__all__ = ["compression_of", "damaged", "reading", "unpacked"]

_OPENERS: dict[str, Callable[[Path], Any]] = {"gzip": gzip.open, "bzip2": bz2.open}
_FIRST_BYTES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the system's errors in a block that reads a file into FileFormatError."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise FileFormatError(f"{path} cannot be read: {reason}") from error


def compression_of(path: Path, start: bytes) -> str:
    """Return ``gzip``, ``bzip2`` or, of a plain file, an empty string, by a file's first bytes.

    Raises `FileFormatError` if the file is compressed in another way.
    """
    for first, name in _FIRST_BYTES.items():
        if start.startswith(first):
            if name not in _OPENERS:
                raise FileFormatError(
                    f"{path} is {name}-compressed, which is not supported; decompress it"
                )
            return name
    return ""


@contextmanager
def unpacked(path: Path, compression: str) -> Iterator[IO[bytes]]:
    """Open a compressed file. Raises `FileFormatError` if it is damaged, also while it is read."""
    try:
        with _OPENERS[compression](path) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise damaged(path, compression, error) from error
    except OSError as error:
        if error.errno is not None:  # the system's, not bz2's
            raise
        raise damaged(path, compression, error) from error


def damaged(path: Path, compression: str, what: object) -> FileFormatError:
    """Return the error to raise for a damaged compressed file."""
    return FileFormatError(f"{path} is a damaged {compression} file ({what}); copy it again")
