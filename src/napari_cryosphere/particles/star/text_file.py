"""The bytes of a text file, whatever compressed or encoded them, as UTF-8 with plain line ends."""

from __future__ import annotations

import codecs
from pathlib import Path

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles._opening import compression_of, reading, unpacked

__all__ = ["line_of", "read_text"]

_MOST_BYTES = 1 << 32  # unfolded: ten times a table of a million particles; chosen, not tuned
_BLOCK_BYTES = 1 << 24  # read at a time; chosen, not tuned
_WIDE = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(path: Path) -> tuple[bytes, tuple[str, ...]]:
    r"""Read a text file, plain or compressed with gzip or bzip2, in UTF-8, UTF-16 or else Latin-1.

    Returns the text as UTF-8 with ``\\n`` line ends and without byte-order mark, and warnings.
    Raises `FileFormatError` if the file cannot be read, is empty, binary, damaged, or longer than 4
    GiB when decompressed.
    """
    with reading(path):
        with Path(path).open("rb") as stream:
            start = stream.read(8)
            compression = compression_of(path, start)
            data = b"" if compression else start + stream.read()
        if compression:
            data = _decompressed(path, compression)
    data, warnings = _as_utf8(path, data)
    if not data or data.isspace():
        raise FileFormatError(f"{path} is empty; write it again with the program that made it")
    if b"\0" in data:
        raise FileFormatError(f"{path} is a binary file; expected text")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data, warnings


def line_of(data: bytes, position: int) -> int:
    """Return the number, from 1, of the line that ``position`` is in."""
    return data.count(b"\n", 0, position) + 1


def _decompressed(path: Path, compression: str) -> bytes:
    """Return the decompressed content; stop where a small file unfolds into more than can be meant."""
    blocks, total = [], 0
    with unpacked(path, compression) as stream:
        while block := stream.read(_BLOCK_BYTES):
            blocks.append(block)
            total += len(block)
            if total > _MOST_BYTES:
                raise FileFormatError(
                    f"{path} unfolds to more than {_MOST_BYTES >> 30} GiB; split it"
                )
    return b"".join(blocks)


def _as_utf8(path: Path, data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return the text as UTF-8, and a warning if its encoding had to be guessed."""
    for mark, encoding in _WIDE.items():
        if data.startswith(mark):
            try:
                return data.decode(encoding).encode("utf-8"), ()
            except UnicodeError as error:
                raise FileFormatError(f"{path} is a binary file, or damaged UTF-16 text") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    if data.isascii():
        return data, ()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = line_of(data, error.start)
        warning = (
            f"{path} line {line} is not UTF-8; the file was read as Latin-1 and is written as UTF-8"
        )
        return data.decode("latin-1").encode("utf-8"), (warning,)
    return data, ()
