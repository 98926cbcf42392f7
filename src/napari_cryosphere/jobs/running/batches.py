"""The rows of a long run in batches: which rank works on which, what is kept, how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.jobs.running.journal import Finished
from napari_cryosphere.jobs.running.prefetch import prefetched
from napari_cryosphere.jobs.running.ranks import Ranks

__all__ = ["Arrays", "Batches", "Pace", "finished", "joined", "work_through"]

InputT = TypeVar("InputT")
Arrays: TypeAlias = dict[str, NDArray[Any]]

_BLOCKS = 64  # a rank's share differs from another's by one block at most
_BATCHES_A_BLOCK = 32  # at most, so that a kill loses little; chosen, not tuned


class Pace:
    """How long the rest of a run takes, judged by what it has done."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._start = total, 0, time.monotonic()

    def remaining_seconds(self, done: int) -> float | None:
        """Return the seconds left when ``done`` of the total are done; None before anything is."""
        elapsed = time.monotonic() - self._start
        return elapsed / done * (self._total - done) if done else None


@dataclass(frozen=True)
class Batches:
    """Consecutive rows: batches that are worked on at once, in blocks that are kept together.

    They depend on the number of rows alone and not on the ranks, so that results do not either, and
    a run may be resumed with more or fewer of them.

    ``number``: rows in all. ``size``: rows of a batch. ``in_block``: batches of a block.
    """

    number: int
    size: int
    in_block: int = 1

    @classmethod
    def in_blocks(cls, number: int, size: int) -> Batches:
        """Return batches in blocks that are few enough to be written quickly, and enough to be shared."""
        batches = -(-number // size)
        return cls(number, size, max(1, min(batches // _BLOCKS, _BATCHES_A_BLOCK)))

    def blocks(self) -> list[slice]:
        """Return the rows of all blocks."""
        return _steps(0, self.number, self.size * self.in_block)

    def of(self, block: slice) -> list[slice]:
        """Return the rows of a block's batches."""
        return _steps(block.start, block.stop, self.size)


def _steps(start: int, stop: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def work_through(
    batches: Batches,
    ranks: Ranks,
    journal: Finished,
    read: Callable[[slice], InputT],
    work: Callable[[slice, InputT], Arrays],
    doing: str,
    at_once: int = 1,
) -> Generator[Progress, None, None]:
    """Work on this rank's blocks that the journal does not have, and put them there.

    - ``batches``: all rows.
    - ``ranks``: who works; waited for at the end, so that the journal is complete then.
    - ``journal``: where finished blocks go.
    - ``read``: from a batch's rows to its inputs; called in another thread.
    - ``work``: from rows and inputs to arrays with one entry a row.
    - ``doing``: what is said to be done, as in "aligned 20 of 48 particles".
    - ``at_once``: how many batches are worked on at the same time, each read and worked on in a
      thread of its own.
    """
    mine = ranks.share(batches.blocks())
    missing = [block for block in mine if block.start not in journal]
    total = mine[-1].stop - mine[0].start if mine else 0
    kept = total - sum(block.stop - block.start for block in missing)
    ends = {block.stop: block.start for block in missing}
    pace, done, parts = Pace(total - kept), 0, list[Arrays]()
    todo = [rows for block in missing for rows in batches.of(block)]
    if at_once > 1:
        results = prefetched(lambda rows: work(rows, read(rows)), todo, at_once, at_once)
    else:
        results = ((rows, work(rows, inputs)) for rows, inputs in prefetched(read, todo))
    for rows, arrays in results:
        parts.append(arrays)
        if rows.stop in ends:
            journal.write(ends[rows.stop], joined(parts))
            parts.clear()
        done += rows.stop - rows.start
        share = (kept + done) / total
        count = (
            f"{kept + done} of {total}" if ranks.count > 1 else f"{rows.stop} of {batches.number}"
        )
        yield Progress(
            share, f"{doing} {count} particles", remaining_seconds=pace.remaining_seconds(done)
        )
    ranks.wait()


def finished(batches: Batches, journal: Finished, names: tuple[str, ...]) -> Iterator[Arrays]:
    """Yield some results of every block, in the order of the rows."""
    return (journal.read(block.start, names) for block in batches.blocks())


def joined(parts: Iterable[Arrays]) -> Arrays:
    """Return the arrays of consecutive rows as one of each name."""
    several = list(parts)
    if len(several) == 1:
        return several[0]
    return {name: np.concatenate([part[name] for part in several]) for name in several[0]}
