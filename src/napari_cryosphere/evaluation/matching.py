"""Matching of predictions with the true particles, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles import ParticleStack

__all__ = ["MatchedHalf", "matched_halves"]


@dataclass(frozen=True)
class MatchedHalf:
    """The particles of one half: the truth's rows, and the predictions in the same order."""

    truth: ParticleStack
    predicted: ParticleStack


def matched_halves(
    truth: Sequence[ParticleStack], predicted: Sequence[ParticleStack]
) -> list[MatchedHalf]:
    """Pair predictions with the truth, half by half.

    Particles are the same if the number in rlnImageName and the last parts of the stack's path are;
    of the path only as many parts are compared as distinguish the true particles, so that tables may
    be in different folders. Two files of the truth are the two halves, each with its own
    predictions where these are two files as well; else two files of predictions are; else
    rlnRandomSubset splits the particles.

    In a symmetry-expanded file every particle has the same number of rows: the first row of a
    particle belongs to its first prediction and so on, or all of them to its only one.

    ``truth``, ``predicted``: one or two tables each; predictions need no images. Returns the halves
    that have particles: two, or one if all particles are in one half. Raises `MetadataError` if
    some particles have several rows and others do not, or the two sides do not have the same
    particles; the first is named.
    """
    for side, tables in (("truth", truth), ("predictions", predicted)):
        if not 1 <= len(tables) <= 2:
            raise MetadataError(
                f"the {side} must be in one file or two (half 0 and half 1), not {len(tables)}"
            )
    if len(truth) == len(predicted) == 2:
        return [
            MatchedHalf(t, p[_order([t], [p])[0]]) for t, p in zip(truth, predicted, strict=True)
        ]
    orders = _order(truth, predicted)
    if len(truth) == 2:
        return [MatchedHalf(t, predicted[0][rows]) for t, rows in zip(truth, orders, strict=True)]
    whole, rows = truth[0], orders[0]
    if len(predicted) == 2:
        first = len(predicted[0])
        return [
            MatchedHalf(whole[rows < first], predicted[0][rows[rows < first]]),
            MatchedHalf(whole[rows >= first], predicted[1][rows[rows >= first] - first]),
        ]
    halves = [whole.half_sets() == half for half in (1, 2)]
    return [MatchedHalf(whole[half], predicted[0][rows[half]]) for half in halves if half.any()]


def _order(
    truth: Sequence[ParticleStack], predicted: Sequence[ParticleStack]
) -> list[NDArray[np.int64]]:
    """Return, for each table of the truth, which of all predictions belongs to each of its rows."""
    names = _Names(truth)
    depth = names.telling_depth()
    known = _Names(predicted)
    keys, others = names.keys(depth), known.keys(depth)
    copies, of_prediction = names.copies(keys), known.copies(others)
    _refuse_unequal(names, keys, known, others)
    if of_prediction.max(initial=0) not in (0, copies.max(initial=0)):
        raise MetadataError(
            f"{known.said} has {of_prediction.max() + 1} rows of each particle, {names.said} has "
            f"{copies.max() + 1}; expand both by symmetry, or the truth alone"
        )
    place = {
        row: index for index, row in enumerate(zip(others, of_prediction.tolist(), strict=True))
    }
    wanted = copies if of_prediction.any() else np.zeros_like(copies)
    rows = np.array([place[row] for row in zip(keys, wanted.tolist(), strict=True)], dtype=np.int64)
    return np.split(rows, np.cumsum([len(table) for table in truth])[:-1])


class _Names:
    """The image names of one table or two, and the row of each."""

    def __init__(self, tables: Sequence[ParticleStack]) -> None:
        self._tables = tables
        self._split = [_parts(name) for table in tables for name in table.image_names()]

    @property
    def said(self) -> str:
        return " and ".join(str(table.source) for table in self._tables)

    def keys(self, depth: int) -> list[tuple[int, tuple[str, ...]]]:
        """Return the number and the last ``depth`` parts of the path of each name."""
        return [(number, parts[-depth:]) for number, parts in self._split]

    def telling_depth(self) -> int:
        """Return the least depth at which all names that differ at all differ."""
        most = max((len(parts) for _, parts in self._split), default=1)
        different = len(set(self.keys(most)))
        depths = range(1, most + 1)
        return next((depth for depth in depths if len(set(self.keys(depth))) == different), most)

    def copies(self, keys: list[tuple[int, tuple[str, ...]]]) -> NDArray[np.int64]:
        """Return which of its particle's rows each row is, ``(n,)`` from 0.

        Raises MetadataError if not all particles have the same number of rows; two rows of one are
        named.
        """
        rows_of: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        copies = np.zeros(len(keys), dtype=np.int64)
        for row, key in enumerate(keys):
            mine = rows_of.setdefault(key, [])
            copies[row] = len(mine)
            mine.append(row)
        if len({len(rows) for rows in rows_of.values()}) > 1:
            key, rows = next((key, rows) for key, rows in rows_of.items() if len(rows) > 1)
            raise MetadataError(
                f"{self.place(rows[1])} is the same particle as {self.place(rows[0])}, {_shown(key)}; "
                f"remove the duplicates ({len(keys) - len(rows_of)} in all)"
            )
        return copies

    def place(self, row: int) -> str:
        """Return the file and row of a particle, counted from 1."""
        for table in self._tables:
            if row < len(table):
                return f"{table.source} row {row + 1}"
            row -= len(table)
        raise IndexError(row)


def _parts(name: str) -> tuple[int, tuple[str, ...]]:
    """Split ``000001@some/stack.mrcs`` into its number and the parts of its path."""
    number, at, path = name.partition("@")
    written = (path if at else number).replace("\\", "/")
    return int(number) if at else 1, PurePosixPath(written).parts


def _shown(key: tuple[int, tuple[str, ...]]) -> str:
    """Return a particle as a STAR file writes it."""
    return f"{key[0]:06d}@{'/'.join(key[1])}"


def _refuse_unequal(
    truth: _Names,
    keys: list[tuple[int, tuple[str, ...]]],
    predicted: _Names,
    others: list[tuple[int, tuple[str, ...]]],
) -> None:
    """Raise MetadataError unless both sides have the same particles; says how many differ and the first."""
    wanted, given = set(keys), set(others)
    lacking = [row for row, key in enumerate(keys) if key not in given]
    surplus = [row for row, key in enumerate(others) if key not in wanted]
    said = []
    if lacking:
        first = f"{_shown(keys[lacking[0]])}, {truth.place(lacking[0])}"
        said.append(f"{len(lacking)} of {len(keys)} particles have no prediction (first {first})")
    if surplus:
        first = f"{_shown(others[surplus[0]])}, {predicted.place(surplus[0])}"
        said.append(
            f"{len(surplus)} predictions are of particles that the truth lacks (first {first})"
        )
    if said:
        raise MetadataError(f"{predicted.said} does not fit {truth.said}: {'; '.join(said)}")
