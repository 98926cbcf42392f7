"""The rows of a STAR loop, as a table: checked and parsed a few megabytes at a time.

Where the words of a row begin is found with numpy, which shows every row that is too short or too
long. The words then go through pandas' C parser. Quotes and comments are first replaced by text
without either. Columns that hold names stay text: a micrograph called ``0012`` does not become 12.
So do columns of integers that would not be written as they were read (``0012``, ``+5``, or more
digits than 64 bits hold).
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["RowError", "column_of", "hide", "read_rows", "show", "words_of"]

_CHUNK_BYTES = 1 << 22  # parsed at once, which bounds temporaries; chosen, not tuned
_EXACT_INTEGERS = 2**53  # up to which float64 holds every integer

# pandas reads floats to the last digit from 3.1 on; before, only on request.
_EXACT: dict[str, Any] = (
    {}
    if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1)
    else {"float_precision": "round_trip"}
)


class RowError(Exception):
    """A row that is no row of its table: its position in the text, what is wrong, and its number from 1."""

    def __init__(self, position: int, row: int, what: str) -> None:
        super().__init__(what)
        self.position, self.row, self.what = position, row, what


@dataclass(frozen=True)
class _Chunk:
    """Complete lines without quotes and comments, and where their words begin."""

    text: bytes
    starts: NDArray[np.int64]
    """``(rows, labels)``."""
    hidden: bool
    """Whether some characters replace others."""

    def column(self, position: int) -> list[str]:
        """Return the words of a column as they are."""
        text = self.text
        return [text[at:].split(None, 1)[0].decode() for at in self.starts[:, position].tolist()]


def read_rows(data: bytes, start: int, end: int, labels: list[str]) -> pd.DataFrame:
    """Return the table whose rows are at ``data[start:end]``.

    Raises `RowError` for the first row that does not have a word for each label.
    """
    if not labels:
        return pd.DataFrame()
    texts = {label for label in labels if is_name(label)}
    while True:
        parts = [_parse(chunk, labels, texts) for chunk in _chunks(data, start, end, len(labels))]
        mixed = {
            label
            for at, label in enumerate(labels)
            if not _compatible([part[at] for part in parts])
        }
        if not mixed:
            return _table(labels, parts)
        texts |= mixed  # numbers here, words there: the numbers are wanted as they were written


def is_name(label: str) -> bool:
    """Return whether a column holds names, which are text even where they look like numbers."""
    return label.endswith(("Name", "File", "Path"))


def column_of(label: str, word: str) -> pd.Series:
    """Return one word as a column of one row."""
    if not is_name(label) and word.isascii() and "_" not in word:
        for kind in (int, float):
            try:
                number = kind(word)
            except ValueError:
                continue
            if kind is float or (str(number) == word and abs(number) < 2**63):
                return pd.Series([number])
            break
    return pd.Series([word], dtype=str)


def _chunks(data: bytes, start: int, end: int, width: int) -> Any:
    """Yield the rows in chunks of complete lines."""
    rows = 0
    while start < end:
        stop = min(start + _CHUNK_BYTES, end)
        if stop < end:
            stop = data.find(b"\n", stop, end) + 1 or end
        chunk = _chunk(data[start:stop], width, start, rows)
        rows += len(chunk.starts)
        if len(chunk.starts):
            yield chunk
        start = stop


def _chunk(text: bytes, width: int, position: int, rows: int) -> _Chunk:
    """Find the words of a few lines and check their number; ``rows`` come before."""
    if not text.endswith(b"\n"):
        text += b"\n"
    original = text
    _refuse_control_characters(text, position, rows)
    text = hide(text)
    hidden = text is not original
    values = np.frombuffer(text, dtype=np.uint8)
    begins = values > 32
    if hidden:
        begins |= (values >= 1) & (values <= 3)
    lines = np.flatnonzero(values == 10)
    begins[1:] &= ~begins[:-1]
    starts = np.flatnonzero(begins)
    counts = np.diff(np.searchsorted(starts, lines), prepend=0)
    wrong = (counts != width) & (counts != 0)
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0])
        row = rows + int(np.count_nonzero(counts[:line])) + 1
        at = position + sum(len(part) + 1 for part in original.split(b"\n", line)[:line])
        raise RowError(at, row, f"{counts[line]} values for {width} labels")
    return _Chunk(text, starts.reshape(-1, width), hidden)


def _refuse_control_characters(text: bytes, position: int, rows: int) -> None:
    """Refuse characters below the space other than tabs and line ends."""
    values = np.frombuffer(text, dtype=np.uint8)
    legal = np.count_nonzero(values == 10) + np.count_nonzero(values == 9)
    if np.count_nonzero(values < 32) != legal:
        bad = int(((values < 32) & (values != 10) & (values != 9)).argmax())
        row = rows + text.count(b"\n", 0, bad) + 1
        raise RowError(position + bad, row, "a control character; the file is damaged")


def _parse(chunk: _Chunk, labels: list[str], texts: set[str]) -> list[NDArray[Any]]:
    """Return the columns: int64, uint64, float64, or objects that are str."""
    table = pd.read_csv(
        io.BytesIO(chunk.text),
        sep=r"\s+",
        header=None,
        names=range(len(labels)),
        index_col=False,
        dtype={at: object for at, label in enumerate(labels) if label in texts},
        quoting=csv.QUOTE_NONE,
        na_filter=False,
        low_memory=False,
        encoding="utf-8",
        **_EXACT,
    )
    return [_values(chunk, at, table[at], label in texts) for at, label in enumerate(labels)]


def _values(chunk: _Chunk, at: int, column: pd.Series, named: bool) -> NDArray[Any]:
    if column.dtype.kind in "iuf" and not (column.dtype.kind in "iu" and _odd_integers(chunk, at)):
        return np.asarray(column)
    words = column.tolist()
    if not isinstance(words[0], str):  # odd integers, True and False, integers of more than 64 bits
        words = chunk.column(at)
    elif not named and (numbers := _floats(words)) is not None:
        return numbers
    if chunk.hidden:
        words = [show(word) for word in words]
    values = np.empty(len(words), dtype=object)
    values[:] = words
    return values


def _floats(words: list[str]) -> NDArray[np.float64] | None:
    """Return words that pandas takes for text, such as ``nan``, as numbers if all of them are."""
    try:
        return np.array([float(word) if "_" not in word else float("") for word in words])
    except ValueError:
        return None


def _odd_integers(chunk: _Chunk, at: int) -> bool:
    """Return whether one of a column's integers is written otherwise than Python writes it."""
    text = np.frombuffer(chunk.text, dtype=np.uint8)
    first, second = text[chunk.starts[:, at]], text[chunk.starts[:, at] + 1]
    zero, minus = ord("0"), ord("-")
    odd = (
        ((first == zero) & (second > 32))
        | ((first == minus) & (second == zero))
        | (first == ord("+"))
    )
    return bool(odd.any())


def _compatible(parts: list[NDArray[Any]]) -> bool:
    """Return whether the parts of a column can be joined without a change to any value."""
    kinds = {part.dtype.kind for part in parts}
    if len(kinds) <= 1:
        return True
    if kinds == {"i", "f"}:
        return all(
            np.abs(part).max(initial=0) < _EXACT_INTEGERS
            for part in parts
            if part.dtype.kind == "i"
        )
    if kinds == {"i", "u"}:
        return all(part.min(initial=0) >= 0 for part in parts if part.dtype.kind == "i")
    return False


def _table(labels: list[str], parts: list[list[NDArray[Any]]]) -> pd.DataFrame:
    """Join the parts column by column, letting go of each as it is done."""
    if not parts:
        return pd.DataFrame({label: [] for label in labels})
    columns: dict[str, Any] = {}
    for at, label in enumerate(labels):
        pieces = [part[at] for part in parts]
        kinds = {piece.dtype.kind for piece in pieces}
        if kinds == {"i", "u"}:
            pieces = [piece.astype(np.uint64) for piece in pieces]
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        for part in parts:
            part[at] = pieces[0][:0]
        columns[label] = pd.Series(joined, dtype=str) if joined.dtype.kind == "O" else joined
    return pd.DataFrame(columns, copy=False)


# A quoted word, or a comment: both begin where a word begins. The look-behind comes second, so that
# the search leaps from mark to mark.
_SPECIAL = re.compile(
    rb"""\"(?<![^ \t\n]\")([^"\n]*)"(?=[ \t\n])"""
    rb"""|'(?<![^ \t\n]')([^'\n]*)'(?=[ \t\n])"""
    rb"""|\#(?<![^ \t\n]\#)[^\n]*"""
)
_MARKS = (b'"', b"'", b"#")
# What replaces an empty word, and for a space or tab within quotes, while a chunk is parsed.
_EMPTY, _SPACE, _TAB = "\x01", "\x02", "\x03"
_HIDE = bytes.maketrans(b" \t", (_SPACE + _TAB).encode())
_SHOW = str.maketrans({_EMPTY: None, _SPACE: " ", _TAB: "\t"})


def hide(text: bytes) -> bytes:
    """Remove comments and quotes; spaces in quotes, and empty words, become characters of their own.

    The text ends with a line end. Text without quotes and comments comes back as the same object.
    """

    def plain(match: re.Match[bytes]) -> bytes:
        inner = match[1] if match[1] is not None else match[2]
        if inner is None:
            return b""
        return inner.translate(_HIDE) or _EMPTY.encode()

    return _SPECIAL.sub(plain, text) if any(mark in text for mark in _MARKS) else text


def show(word: str) -> str:
    """Return a word of hidden text as it was meant."""
    return word.translate(_SHOW)


def words_of(line: bytes) -> list[str]:
    """Split a line into words: quotes keep spaces together, ``#`` at the start of a word begins a comment."""
    words = hide(line.strip() + b"\n").split()
    return [show(word.decode("utf-8")) for word in words]
