"""STAR files, the tables of RELION.

Reading checks the structure line by line; writing is atomic, without time stamps, and keeps every digit,
so that write-read-write gives the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.particles._messages import shown
from napari_cryosphere.particles._star_reader import PAIRS, parse_star

__all__ = ["read_star", "write_star"]

logger = logging.getLogger(__name__)

_FIRST = ("optics", "particles")


def read_star(path: str | PathLike[str]) -> dict[str, pd.DataFrame]:
    """Read all blocks of a STAR file, plain or gzip-compressed.

    Parameters
    ----------
    path
        The file. Line ends of any system, tabs or spaces, quoted values and comments are understood.

    Returns
    -------
    One table a block, in file order, by name without ``data_`` (``""`` for a nameless block). Columns are
    named without the leading underscore. Integers and floats become int64 and float64; columns that hold
    names stay text. A block of ``_label value`` pairs becomes a table of one row.

    Raises
    ------
    FileFormatError
        If the file is missing, empty or no STAR file, if a loop has no labels, or if a row has too few or too
        many values (with the number of the line).
    """
    blocks, warnings = parse_star(Path(path))
    for warning in warnings:
        logger.warning(warning)
    return blocks


def write_star(
    blocks: Mapping[str, pd.DataFrame], path: str | PathLike[str], overwrite: bool = False
) -> None:
    """Write blocks as a STAR file that RELION 3.1 and later read.

    Parameters
    ----------
    blocks
        Tables by block name without ``data_``; ``optics`` is written first, then ``particles``, then the
        others in the order given.
    path
        The file to write; it appears whole or not at all.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputExistsError
        If the file exists and ``overwrite`` is False.
    MetadataError
        If a value cannot be expressed in a STAR file (line breaks, both kinds of quotes with spaces).
    """
    names = [name for name in _FIRST if name in blocks] + [name for name in blocks if name not in _FIRST]
    lines = (line + "\n" for name in names for line in _block_lines(name, blocks[name]))
    with atomic_path(Path(path), overwrite=overwrite) as temporary:
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(lines)
        except OSError as error:
            raise CryosphereError(f"cannot write {path}: {error.strerror or error}") from error


def _block_lines(name: str, table: pd.DataFrame) -> Iterator[str]:
    """Yield the lines of one block."""
    yield from ("", "# version 30001", "", f"data_{name}", "")
    columns = [_texts(str(label), table[label]) for label in table.columns]
    if table.attrs.get(PAIRS) and len(table) == 1:
        yield from (f"_{label} {column[0]}" for label, column in zip(table.columns, columns, strict=True))
    elif columns:
        yield "loop_"
        yield from (f"_{label} #{number}" for number, label in enumerate(table.columns, 1))
        yield from map(" ".join, zip(*columns, strict=True))
    yield ""


def _texts(label: str, column: pd.Series) -> list[str]:
    """Return the column's values as they stand in the file."""
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
    if text and text[0] not in "\"'#" and not any(space in text for space in " \t\n\r"):
        return text
    quote = next((mark for mark in "\"'" if mark not in text), None)
    if quote is None or "\n" in text or "\r" in text:
        raise MetadataError(
            f"column {label} holds {shown(text)}, which no STAR file can hold; shorten or rename it"
        )
    return f"{quote}{text}{quote}"
