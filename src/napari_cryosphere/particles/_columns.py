"""Numeric columns of a table, checked as a whole and reported by row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._messages import counted, shown

__all__ = ["Place", "numbers", "refuse"]


@dataclass(frozen=True)
class Place:
    """Where a table comes from, for messages: the file and the name of the block."""

    path: Path
    block: str

    def row(self, index: int) -> str:
        """Return the place of a row, counted from 1."""
        name = f" {self.block}" if self.block else ""
        return f"{self.path}:{name} row {index + 1}"


def numbers(place: Place, table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column as ``(n,)`` float64.

    Raises
    ------
    MetadataError
        If a value is text, NaN or infinite: file, block, row (from 1), column and value are named.
    """
    series = table[column]
    values = np.asarray(pd.to_numeric(series, errors="coerce"), dtype=np.float64)
    refuse(place, table, column, ~np.isfinite(values), "expected a finite number")
    return values


def refuse(place: Place, table: pd.DataFrame, column: str, bad: NDArray[Any], legal: str) -> None:
    """Raise MetadataError for the first row where ``bad`` is True; ``legal`` says what was expected."""
    if not bad.any():
        return
    rows = np.flatnonzero(bad)
    more = f" (and {counted(len(rows) - 1, 'more row')})" if len(rows) > 1 else ""
    value = shown(table[column].iloc[rows[0]])
    raise MetadataError(f"{place.row(int(rows[0]))}: {column} is {value}; {legal}{more}")
