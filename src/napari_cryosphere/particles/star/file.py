"""STAR files, the tables of RELION.

Reading checks the structure line by line; writing is atomic, without time stamps, and keeps every
digit, so that write-read-write gives the same bytes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.particles._checks import shown
from napari_cryosphere.particles.star.reader import PAIRS, parse_star

__all__ = ["read_star", "write_star"]

logger = logging.getLogger(__name__)

_FIRST = ("optics", "particles")
_CHUNK_ROWS = 20_000  # written at once; chosen, not tuned
# A word that needs no quotes: no space, and at its start no quote, comment or what begins a block.
_PLAIN = re.compile(r"(?!data_|loop_)[^\x00-\x20\"'#][^\x00-\x20]*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f]")


def read_star(path: str | PathLike[str]) -> dict[str, pd.DataFrame]:
    """Read all blocks of a STAR file, plain or compressed with gzip or bzip2.

    ``path``: the file. Line ends of any system, tabs or spaces, quoted values and comments are
    understood. Returns one table a block, in file order, by name without ``data_`` (``""`` for a
    nameless block). Columns are named without the leading underscore. Integers and floats become
    int64 (or uint64) and float64; columns that hold names stay text, and so do integers such as
    ``0012``. A block of ``_label value`` pairs becomes a table of one row. Raises `FileFormatError`
    if the file is missing, empty or no STAR file, if a loop has no labels, or if a row has too few
    or too many values (with the number of the line).
    """
    blocks, warnings = parse_star(Path(path))
    for warning in warnings:
        logger.warning(warning)
    return blocks


def write_star(
    blocks: Mapping[str, pd.DataFrame], path: str | PathLike[str], overwrite: bool = False
) -> None:
    """Write blocks as a STAR file that RELION 3.1 and later read.

    ``blocks``: tables by block name without ``data_``; ``optics`` is written first, then
    ``particles``, then the others in the order given. ``path``: the file to write; it appears whole
    or not at all. Raises `OutputExistsError` if the file exists and ``overwrite`` is False;
    `MetadataError` if a value cannot be expressed in a STAR file (control characters, both kinds of
    quotes with spaces).
    """
    names = [name for name in _FIRST if name in blocks] + [
        name for name in blocks if name not in _FIRST
    ]
    lines = (line + "\n" for name in names for line in _block_lines(name, blocks[name]))
    with atomic_path(Path(path), overwrite=overwrite) as temporary:
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(lines)
        except OSError as error:
            raise CryosphereError(f"cannot write {path}: {error.strerror or error}") from error


def table_of_block(block: pd.DataFrame | Mapping[str, Any]) -> pd.DataFrame:
    """Return a block of ``starfile.read`` as a table; label-value pairs become one row."""
    if isinstance(block, pd.DataFrame):
        return block
    table = pd.DataFrame({label: [value] for label, value in block.items()})
    table.attrs[PAIRS] = True
    return table


def block_of_table(table: pd.DataFrame) -> pd.DataFrame | dict[str, Any]:
    """Return a table as ``starfile.write`` takes it: pairs, where the file had these, as a dictionary."""
    if not table.attrs.get(PAIRS):
        return table.copy()
    return {str(label): column.iloc[0] for label, column in table.items()}


def _block_lines(name: str, table: pd.DataFrame) -> Iterator[str]:
    """Yield the lines of one block."""
    yield from ("", "# version 30001", "", f"data_{name}", "")
    if table.attrs.get(PAIRS) and len(table) == 1:
        yield from (f"_{label} {_texts(str(label), table[label])[0]}" for label in table.columns)
    elif len(table.columns):
        yield "loop_"
        yield from (f"_{label} #{number}" for number, label in enumerate(table.columns, 1))
        # text takes ten times the memory of numbers
        for start in range(0, len(table), _CHUNK_ROWS):
            rows = table.iloc[start : start + _CHUNK_ROWS]
            columns = [_texts(str(label), rows[label]) for label in rows.columns]
            yield from map(" ".join, zip(*columns, strict=True))
    yield ""


def _texts(label: str, column: pd.Series) -> list[str]:
    """Return the column's values as they are in the file."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return ["1" if value else "0" for value in column]
    if pd.api.types.is_integer_dtype(column.dtype):
        return [str(value) for value in column.tolist()]
    if column.dtype == np.float64:
        return [repr(value) for value in column.tolist()]
    if pd.api.types.is_float_dtype(column.dtype):
        return [str(value) for value in column.to_numpy()]
    return [_text(label, value) for value in column.tolist()]


def _text(label: str, value: Any) -> str:
    """Return one value of a text column, in quotes where it needs them."""
    if isinstance(value, float) and not np.isnan(value):
        return repr(value)
    text = "None" if value is None or value is pd.NA or value != value else str(value)
    if _PLAIN.fullmatch(text):
        return text
    quote = next((mark for mark in "\"'" if mark not in text), None)
    if quote is None or _CONTROL.search(text):
        raise MetadataError(
            f"column {label} holds {shown(text)}, which no STAR file can hold; shorten or rename it"
        )
    return f"{quote}{text}{quote}"
