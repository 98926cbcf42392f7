"""The STAR parser behind :func:`napari_cryosphere.particles.star.read_star`.

The structure (blocks, loops, labels, the number of values in each row) is checked line by line so that
every complaint has a line number. The rows of a loop then go through pandas' C parser, which is quicker
and far leaner than Python strings; only loops with quotes, comments or characters beyond ASCII take the
slow tokeniser. Columns that hold names stay text: a micrograph called ``0012`` does not become 12.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles._messages import shown

__all__ = ["PAIRS", "parse_star"]

#: Key in ``DataFrame.attrs`` of a block that is written as ``_label value`` pairs, without ``loop_``.
PAIRS = "star_pairs"

# pandas reads floats to the last digit from 3.1 on; before, only on request.
_EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
_TOKEN = re.compile(r'"([^"]*)"(?=\s|$)|\'([^\']*)\'(?=\s|$)|(#.*)|([^ \t]+)')
# Marks that the C parser, or its idea of white space, would treat differently.
_SPECIAL = "'\"#\x0b\x0c\x1c\x1d\x1e\x1f"


def parse_star(path: Path) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Read a STAR file, plain or gzip-compressed.

    Returns
    -------
    The blocks by name (``data_particles`` is ``"particles"``, a nameless block ``""``), in file order,
    and warnings about the file.

    Raises
    ------
    FileFormatError
        If the file cannot be read or is not a STAR file; with the number of the line where there is one.
    """
    text, warnings = _text_of(path)
    lines = text.split("\n")
    heads = [at for at, line in enumerate(lines) if "data_" in line and _block_name(line) is not None]
    if not heads:
        raise FileFormatError(f"{path} has no data_ block; it is not a STAR file, or it was cut short")
    if (at := _next_line(lines, 0, len(lines))) < heads[0]:
        raise FileFormatError(
            f"{path} line {at + 1}: text before the first data_ block; this is not a STAR file, "
            "or its beginning is lost"
        )
    blocks: dict[str, pd.DataFrame] = {}
    for head, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        name = _block_name(lines[head]) or ""
        if name in blocks:
            raise FileFormatError(
                f"{path} line {head + 1}: a second block data_{name}; block names must differ"
            )
        blocks[name] = _read_block(path, lines, head + 1, end)
    return blocks, warnings


def _text_of(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the decoded text with plain line ends, and warnings."""
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} does not exist; check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileFormatError(f"{path} is a damaged gzip file ({error}); copy it again") from error
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    if not data.strip():
        raise FileFormatError(f"{path} is empty; write it again with the program that made it")
    if b"\0" in data:
        raise FileFormatError(f"{path} is a binary file, not a STAR file")
    warnings: tuple[str, ...] = ()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        warnings = (f"{path} line {line} is not UTF-8; the file was read as Latin-1 and is written as UTF-8",)
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n"), warnings


def _next_line(lines: list[str], at: int, end: int) -> int:
    """Return the index of the next line before ``end`` that is neither blank nor a comment."""
    while at < end:
        line = lines[at].strip()
        if line and line[0] != "#":
            break
        at += 1
    return at


def _keyword(line: str, word: str) -> str | None:
    """Return what follows ``word`` if the line holds one token that starts with it (and a comment)."""
    tokens = line.split(None, 2)
    if tokens and tokens[0].startswith(word) and (len(tokens) == 1 or tokens[1].startswith("#")):
        return tokens[0][len(word) :]
    return None


def _block_name(line: str) -> str | None:
    return _keyword(line, "data_") if "data_" in line else None


def _read_block(path: Path, lines: list[str], at: int, end: int) -> pd.DataFrame:
    """Read the block whose body stands at ``lines[at:end]``."""
    at = _next_line(lines, at, end)
    if at == end:
        return pd.DataFrame()
    if _keyword(lines[at], "loop_") is not None:
        return _read_loop(path, lines, at, end)
    if lines[at].lstrip().startswith("_"):
        return _read_pairs(path, lines, at, end)
    raise FileFormatError(f"{path} line {at + 1}: expected loop_ or a label such as _rlnImageName")


def _read_pairs(path: Path, lines: list[str], at: int, end: int) -> pd.DataFrame:
    """Read ``_label value`` lines into a table of one row."""
    values: dict[str, str] = {}
    while (at := _next_line(lines, at, end)) < end:
        tokens = _tokens(lines[at])
        if len(tokens) != 2 or not tokens[0].startswith("_"):
            raise FileFormatError(
                f"{path} line {at + 1}: expected a label and one value, found {len(tokens)} words"
            )
        _add_label(path, at, list(values), tokens[0])
        values[tokens[0][1:]] = tokens[1]
        at += 1
    table = pd.DataFrame({label: _column(label, [value]) for label, value in values.items()})
    table.attrs[PAIRS] = True
    return table


def _read_loop(path: Path, lines: list[str], at: int, end: int) -> pd.DataFrame:
    """Read the loop whose ``loop_`` stands at ``lines[at]``."""
    start = at
    labels: list[str] = []
    while (at := _next_line(lines, at + 1, end)) < end and lines[at].lstrip().startswith("_"):
        labels.append(_add_label(path, at, labels, lines[at].split(None, 1)[0]))
    if not labels:
        raise FileFormatError(
            f"{path} line {start + 1}: loop_ without labels; expected lines such as _rlnImageName #1 below it"
        )
    kept = [index for index in range(at, end) if lines[index] and not lines[index].isspace()]
    if any("#" in lines[index] for index in kept):
        kept = [index for index in kept if not lines[index].lstrip().startswith("#")]
    return _loop_table(path, labels, [lines[index] for index in kept], kept)


def _add_label(path: Path, at: int, labels: list[str], token: str) -> str:
    label = token[1:]
    if not label or label in labels:
        what = "a label without a name" if not label else f"the label {shown(token)} a second time"
        raise FileFormatError(f"{path} line {at + 1}: {what}")
    return label


def _loop_table(path: Path, labels: list[str], rows: list[str], places: list[int]) -> pd.DataFrame:
    """Turn the rows of a loop into a table after checking that each has one value a label."""
    if not rows:
        return pd.DataFrame({label: [] for label in labels})
    body = "\n".join(rows)
    plain = body.isascii() and not any(mark in body for mark in _SPECIAL)
    tokens = None if plain else [_tokens(row) for row in rows]
    counts = [len(row.split()) for row in rows] if tokens is None else [len(row) for row in tokens]
    width = len(labels)
    if counts.count(width) != len(counts):
        index = next(i for i, count in enumerate(counts) if count != width)
        last = "; the file may have been cut while it was written" if index == len(rows) - 1 else ""
        where = f"{path} line {places[index] + 1} (row {index + 1})"
        raise FileFormatError(f"{where}: {counts[index]} values for {width} labels{last}")
    if tokens is not None:
        columns = zip(*tokens, strict=True)
        return pd.DataFrame(
            {label: _column(label, list(values)) for label, values in zip(labels, columns, strict=True)}
        )
    return _fast_table(labels, rows, body)


def _fast_table(labels: list[str], rows: list[str], body: str) -> pd.DataFrame:
    """Parse rows without quotes and comments; floats are read to the last digit."""
    table = pd.read_csv(
        io.StringIO(body),
        sep=r"\s+",
        header=None,
        names=labels,
        index_col=False,
        dtype={label: str for label in labels if _is_name(label)},
        quoting=csv.QUOTE_NONE,
        na_filter=False,
        **_EXACT,
        low_memory=False,
    )
    for position, label in enumerate(labels):
        if table[label].dtype == bool:
            table[label] = _column(label, [row.split()[position] for row in rows])
        elif not _is_name(label) and not pd.api.types.is_numeric_dtype(table[label].dtype):
            table[label] = _column(label, table[label].tolist())
    return table


def _tokens(line: str) -> list[str]:
    """Split a line into words; quotes keep spaces together, ``#`` at the start of a word begins a comment."""
    words = []
    for double, single, comment, word in _TOKEN.findall(line.strip()):
        if comment:
            break
        words.append(double or single or word)
    return words


def _is_name(label: str) -> bool:
    return label.endswith(("Name", "File", "Path"))


def _column(label: str, values: list[str]) -> pd.Series:
    """Return the values as integers or floats if all of them are such, otherwise as text."""
    if _is_name(label) or any("_" in value for value in values):
        return pd.Series(values, dtype=str)
    for kind in (int, float):
        try:
            return pd.Series([kind(value) for value in values])
        except ValueError:
            continue
    return pd.Series(values, dtype=str)
