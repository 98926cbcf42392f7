"""Rows of a table: those that an expression is true for, or a few spread over all."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._checks import listed, shown

__all__ = ["rows_where", "spread_rows"]

_MOST_NAMES = 8  # columns that a message names
# What pandas raises for expressions that it cannot parse, resolve or apply to the columns' types.
_FAILURES = (
    *(SyntaxError, NameError, ValueError, TypeError, KeyError, AttributeError, IndexError),
    *(NotImplementedError, ArithmeticError, RecursionError, re.error),
)


def rows_where(path: Path, table: pd.DataFrame, expression: str) -> NDArray[np.bool_]:
    """Return ``(n,)`` for which rows an expression is true. See :meth:`ParticleStack.select`.

    Raises `MetadataError` if the expression cannot be evaluated, gives no condition per row, or is
    true nowhere.
    """
    asked = f"{path}: the selection {shown(expression)}"
    if "@" in re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "", expression):
        raise MetadataError(f"{asked} has an @ outside quotes; put text between quotes")
    try:
        with np.errstate(all="ignore"):
            found = table.eval(expression, engine="python", local_dict={}, global_dict={})
    except _FAILURES as error:
        reason = str(error).partition("\n")[0].strip() or type(error).__name__
        raise MetadataError(
            f"{asked} cannot be used ({reason}); {_legal(table, reason)}"
        ) from error
    chosen = np.asarray(found)
    if chosen.shape != (len(table),) or chosen.dtype != np.bool_:
        raise MetadataError(
            f"{asked} is no condition; write a comparison such as rlnDefocusU < 20000"
        )
    if not chosen.any():
        raise MetadataError(f"{asked} is true for none of {len(table)} particles; {_legal(table)}")
    return chosen


def spread_rows(number: int, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` row numbers, spread evenly over ``number``: files are sorted by micrograph."""
    rows: NDArray[np.int64] = np.unique(
        np.linspace(0, number - 1, min(number, most)).astype(np.int64)
    )
    return rows


def _legal(table: pd.DataFrame, reason: str = "") -> str:
    """Return which columns there are: those like an unknown name first."""
    names = [str(name) for name in table]
    unknown = re.search(r"name '([^']+)'", reason)
    near = difflib.get_close_matches(unknown[1], names, _MOST_NAMES) if unknown else []
    return f"columns are {listed([*near, *(n for n in names if n not in near)], _MOST_NAMES)}"
