"""Checks of a table's columns against legal ranges; how a message names file, row, column and value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere._ranges import RANGES
from napari_cryosphere.errors import MetadataError

__all__ = [
    "Place",
    "counted",
    "first_row",
    "in_legal_ranges",
    "listed",
    "numbers",
    "refuse",
    "shown",
]

_LONGEST = 80  # characters of a value in a message, so that it stays one readable line


def shown(value: Any) -> str:
    """Return a number as it is and text quoted on one line, shortened in the middle if it is long."""
    if isinstance(value, Real):
        return f"{float(value):.9g}"
    text = json.dumps(str(value), ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:50]}...{text[-25:]}"


def counted(number: int, noun: str) -> str:
    """Return ``1 stack`` or ``2 stacks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(values: list[str], most: int = 4) -> str:
    """Return the first few of ``values``, comma-separated, and how many more there are."""
    head = ", ".join(values[:most])
    return head if len(values) <= most else f"{head} and {len(values) - most} more"


@dataclass(frozen=True)
class Place:
    """Where a table comes from, for messages.

    ``path``: the file. ``block``: name of the block in a STAR file. ``names``: what the file itself
    calls a column, where that is not RELION's name: the fields of a .cs file.
    """

    path: Path
    block: str
    names: Mapping[str, str] = field(default_factory=dict, hash=False)

    def row(self, index: int) -> str:
        """Return the place of a row, counted from 1."""
        name = f" {self.block}" if self.block and not self.names else ""
        return f"{self.path}:{name} row {index + 1}"

    def name(self, column: str) -> str:
        """Return a column's name in the file."""
        return self.names.get(column, column)

    def in_block(self, block: str) -> Place:
        """Return another block of the same file."""
        return Place(self.path, block, self.names)


def numbers(place: Place, table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column as ``(n,)`` float64.

    Raises `MetadataError` if a value is text, NaN or infinite: file, block, row (from 1), column
    and value are named.
    """
    series = table[column]
    values = np.asarray(pd.to_numeric(series, errors="coerce"), dtype=np.float64)
    refuse(place, table, column, ~np.isfinite(values), "expected a finite number")
    return values


def in_legal_ranges(place: Place, table: pd.DataFrame) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the columns that have a range in `RANGES`, as numbers, and warnings of unusual values.

    Columns of whole numbers are int64, all others float64. Raises `MetadataError` if a value is no
    finite number or outside its legal range: the first row is named.
    """
    columns: dict[str, NDArray[Any]] = {}
    warnings: list[str] = []
    for column, legal in RANGES.items():
        if column not in table:
            continue
        values = numbers(place, table, column)
        bad = ~((values >= legal.lowest) & (values <= legal.highest))
        if legal.whole:
            bad |= values != np.floor(values)
        if bad.any():
            refuse(place, table, column, bad, legal.refusal(float(values[bad.argmax()])))
        columns[column] = values.astype(np.int64) if legal.whole else values
        if legal.usual is not None:
            odd = (values < legal.usual[0]) | (values > legal.usual[1])
            if odd.any():
                said = legal.doubt(float(values[odd.argmax()]))
                warnings.append(first_row(place, values, column, odd, said))
    return columns, warnings


def refuse(place: Place, table: pd.DataFrame, column: str, bad: NDArray[Any], legal: str) -> None:
    """Raise MetadataError for the first row where ``bad`` is True; ``legal`` says what was expected."""
    if bad.any():
        raise MetadataError(first_row(place, table[column], column, bad, legal))


def first_row(
    place: Place, values: pd.Series | NDArray[Any], column: str, bad: NDArray[Any], legal: str
) -> str:
    """Return the line that names the first row where ``bad`` is True, and how many there are."""
    rows = np.flatnonzero(bad)
    more = f" (and {counted(len(rows) - 1, 'more row')})" if len(rows) > 1 else ""
    value = shown(np.asarray(values)[rows[0]])
    return f"{place.row(int(rows[0]))}: {place.name(column)} is {value}; {legal}{more}"
