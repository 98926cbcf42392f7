"""What a person decides of particles: flags and a selection, with undo."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psygnal import Signal

__all__ = ["Flag", "ParticleChoices"]

_MOST_STEPS = 200


class Flag(IntEnum):
    """What is to become of a particle."""

    NONE = 0
    KEEP = 1
    REJECT = 2
    REVIEW = 3


@dataclass(frozen=True)
class _Step:
    """What a step back or forth has to set: some flags, and the whole selection, eight particles per byte."""

    name: str
    rows: NDArray[np.int64]
    flags: NDArray[np.uint8]
    selected: NDArray[np.uint8]


class ParticleChoices:
    """A flag and a selection mark for each particle of a data set.

    Both are undone by `undo`. The selection of a single particle is no step of its own, so that
    undo goes back over decisions, not over clicks.
    """

    flags_changed = Signal()
    selection_changed = Signal()

    def __init__(self, number: int) -> None:
        self.number = number
        self._flags = np.zeros(number, dtype=np.uint8)
        self._selected = np.zeros(number, dtype=bool)
        self._undo: list[_Step] = []
        self._redo: list[_Step] = []

    @property
    def flags(self) -> NDArray[np.uint8]:
        """``(n,)`` values of `Flag`, read-only."""
        return _read_only(self._flags)

    @property
    def selected(self) -> NDArray[np.bool_]:
        """``(n,)``, read-only."""
        return _read_only(self._selected)

    def rows(self, flag: Flag) -> NDArray[np.int64]:
        """Return the particles with a flag, in the file's order."""
        return np.flatnonzero(self._flags == flag)

    def counts(self) -> dict[Flag, int]:
        """Return the number of particles with each flag."""
        counted = np.bincount(self._flags, minlength=len(Flag))
        return {flag: int(counted[flag]) for flag in Flag}

    # ------------------------------------------------------------------ changes

    def select(self, rows: ArrayLike, continues: bool = False) -> None:
        """Select these particles and no others.

        ``rows``: ``(k,)`` integers or an ``(n,)`` mask. ``continues``: whether this goes on with
        the selection before, as a rubber band that is still being drawn does: undo goes back over
        both.
        """
        selected = np.zeros(self.number, dtype=bool)
        selected[np.asarray(rows if np.size(rows) else np.empty(0, dtype=np.int64))] = True
        if np.array_equal(selected, self._selected):
            return
        worth_it = int(self._selected.sum()) > 1 or bool(self._undo and self._undo[-1].rows.size)
        if worth_it and not continues:
            self._remember("selection", np.empty(0, dtype=np.int64))
        self._selected = selected
        self.selection_changed.emit()

    def flag(self, rows: ArrayLike, flag: Flag) -> None:
        """Give particles, ``(k,)`` integers, a flag."""
        given = np.asarray(rows, dtype=np.int64)
        changed = given[self._flags[given] != flag]
        if not changed.size:
            return
        self._remember(f"{flag.name.lower()} {changed.size:,}", changed)
        self._flags[changed] = flag
        self.flags_changed.emit()

    def flag_selected(self, flag: Flag) -> None:
        """Give the selected particles a flag."""
        self.flag(np.flatnonzero(self._selected), flag)

    def restore(self, flags: ArrayLike, selected: ArrayLike) -> None:
        """Set all flags and the selection, as they were read from a file; this cannot be undone.

        Raises `ValueError` if there are not as many as particles, or a flag is none.
        """
        given, marks = np.asarray(flags, dtype=np.uint8), np.asarray(selected, dtype=bool)
        if (
            given.shape != (self.number,)
            or marks.shape != (self.number,)
            or (given > max(Flag)).any()
        ):
            raise ValueError(
                f"expected {self.number} flags from 0 to {max(Flag)} and as many marks"
            )
        self._flags, self._selected = given.copy(), marks.copy()
        self._undo.clear()
        self._redo.clear()
        self.flags_changed.emit()
        self.selection_changed.emit()

    # ------------------------------------------------------------------ undo

    @property
    def undo_name(self) -> str:
        """What `undo` would take back; empty if there is nothing."""
        return self._undo[-1].name if self._undo else ""

    @property
    def redo_name(self) -> str:
        """What `redo` would do again; empty if there is nothing."""
        return self._redo[-1].name if self._redo else ""

    def undo(self) -> None:
        """Take the last change back."""
        self._go(self._undo, self._redo)

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._go(self._redo, self._undo)

    def _remember(self, name: str, rows: NDArray[np.int64]) -> None:
        self._undo.append(self._present(name, rows))
        del self._undo[:-_MOST_STEPS]
        self._redo.clear()

    def _present(self, name: str, rows: NDArray[np.int64]) -> _Step:
        return _Step(name, rows, self._flags[rows], np.packbits(self._selected))

    def _go(self, source: list[_Step], target: list[_Step]) -> None:
        if not source:
            return
        step = source.pop()
        target.append(self._present(step.name, step.rows))
        self._flags[step.rows] = step.flags
        selected = np.unpackbits(step.selected, count=self.number).astype(bool)
        reselected = not np.array_equal(selected, self._selected)
        self._selected = selected
        if step.rows.size:
            self.flags_changed.emit()
        if reselected:
            self.selection_changed.emit()


def _read_only(values: NDArray) -> NDArray:  # type: ignore[type-arg]
    view = values.view()
    view.setflags(write=False)
    return view
