"""The STAR parser behind :func:`napari_cryosphere.particles.star.read_star`: blocks, loops and labels.

Positions are kept as bytes from the start of the text; a line is counted only for a message.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import pandas as pd

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles._checks import shown
from napari_cryosphere.particles._opening import compression_of, reading, unpacked
from napari_cryosphere.particles.star.rows import RowError, column_of, read_rows, words_of

__all__ = ["PAIRS", "parse_star"]

_MOST_BYTES = 1 << 32  # unfolded: ten times a table of a million particles; chosen, not tuned
_BLOCK_BYTES = 1 << 24  # read at a time; chosen, not tuned
_WIDE = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

#: Key in ``DataFrame.attrs`` of a block that is written as ``_label value`` pairs, without ``loop_``.
PAIRS = "star_pairs"

# The only word of a line, but for a comment.
_ALONE = rb"(\S*)[ \t]*(?:\#[^\n]*)?(?=\n|\Z)"
_FIRST_HEAD = re.compile(rb"[ \t]*data_" + _ALONE)
_HEAD = re.compile(rb"\n[ \t]*data_" + _ALONE)
_LOOP = re.compile(rb"[ \t]*loop_" + _ALONE)
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f]")
_BLANK = re.compile(rb"(?:[ \t]*(?:\#[^\n]*)?\n)*")
_LABEL = re.compile(rb"[ \t]*(_[^\s#]*)[^\n]*(?:\n|\Z)")


def parse_star(path: Path) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Read a STAR file, plain or compressed with gzip or bzip2.

    Returns the blocks by name (``data_particles`` is ``"particles"``, a nameless block ``""``), in
    file order, and warnings about the file. Raises `FileFormatError` if the file cannot be read or
    is not a STAR file; with the number of the line where there is one.
    """
    data, warnings = read_text(path)
    if not data.endswith(b"\n"):
        data += b"\n"
    first = _FIRST_HEAD.match(data)
    heads = [*([first] if first else []), *_HEAD.finditer(data)]
    if not heads:
        raise FileFormatError(
            f"{path} has no data_ block; it is not a STAR file, or it was cut short"
        )
    start = heads[0].start() + (heads[0] is not first)
    if (at := _after_blank(data, 0, start)) < start:
        raise FileFormatError(
            f"{path} line {line_of(data, at)}: text before the first data_ block; this is not a STAR file, "
            "or its beginning is lost"
        )
    blocks: dict[str, pd.DataFrame] = {}
    ends = [head.start() + 1 for head in heads[1:]]
    for head, end in zip(heads, [*ends, len(data)], strict=True):
        name = head[1].decode("utf-8")
        if name in blocks:
            line = line_of(data, head.end())
            raise FileFormatError(
                f"{path} line {line}: a second block data_{name}; block names must differ"
            )
        blocks[name] = _Block(path, data, end).read(head.end() + 1)
    return blocks, warnings


def _after_blank(data: bytes, at: int, end: int) -> int:
    """Return the start of the next line before ``end`` that is neither blank nor a comment, else ``end``."""
    match = _BLANK.match(data, at, end)
    return match.end() if match else at


class _Block:
    """The text of one block, up to ``end``."""

    def __init__(self, path: Path, data: bytes, end: int) -> None:
        self.path, self.data, self.end = path, data, end

    def read(self, at: int) -> pd.DataFrame:
        """Return the table whose text begins at ``at``."""
        at = _after_blank(self.data, at, self.end)
        if at >= self.end:
            return pd.DataFrame()
        if loop := _LOOP.match(self.data, at, self.end):
            return self._loop(at, loop.end() + 1)
        if _LABEL.match(self.data, at, self.end):
            return self._pairs(at)
        raise self._error(at, "expected loop_ or a label such as _rlnImageName")

    def _loop(self, start: int, at: int) -> pd.DataFrame:
        """Read the loop whose ``loop_`` is at ``start`` and whose labels begin at ``at``."""
        labels: dict[str, None] = {}
        at = _after_blank(self.data, at, self.end)
        while label := _LABEL.match(self.data, at, self.end):
            labels[self._label(at, label[1], labels)] = None
            at = _after_blank(self.data, label.end(), self.end)
        if not labels:
            raise self._error(
                start, "loop_ without labels; expected lines such as _rlnImageName #1 below it"
            )
        try:
            return read_rows(self.data, at, self.end, list(labels))
        except RowError as error:
            last = _after_blank(self.data, self._next_line(error.position), self.end) >= self.end
            cut = "; the file may have been cut while it was written" if last else ""
            line = line_of(self.data, error.position)
            raise FileFormatError(
                f"{self.path} line {line} (row {error.row}): {error.what}{cut}"
            ) from error

    def _pairs(self, at: int) -> pd.DataFrame:
        """Read ``_label value`` lines into a table of one row."""
        columns: dict[str, pd.Series] = {}
        while (at := _after_blank(self.data, at, self.end)) < self.end:
            end = self._next_line(at)
            words = words_of(self.data[at:end])
            if _CONTROL.search(self.data, at, end):
                raise self._error(at, "a control character; the file is damaged")
            if len(words) != 2 or not words[0].startswith("_"):
                raise self._error(at, f"expected a label and one value, found {len(words)} words")
            label = self._label(at, words[0].encode(), columns)
            columns[label] = column_of(label, words[1])
            at = end
        table = pd.DataFrame(columns)
        table.attrs[PAIRS] = True
        return table

    def _label(self, at: int, word: bytes, known: dict[str, None] | dict[str, pd.Series]) -> str:
        label = word[1:].decode("utf-8")
        if not label:
            raise self._error(at, "a label without a name")
        if label in known:
            raise self._error(at, f"the label {shown('_' + label)} a second time")
        return label

    def _next_line(self, at: int) -> int:
        return self.data.find(b"\n", at, self.end) + 1 or self.end

    def _error(self, at: int, what: str) -> FileFormatError:
        return FileFormatError(f"{self.path} line {line_of(self.data, at)}: {what}")


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
