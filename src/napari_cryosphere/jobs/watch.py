"""The job ``watch``: a folder followed while particles arrive in it.

The folder is the queue: what has to be done is which of its files have no part in the run folder
yet (see `_watch_run`). A file is taken when it and its images have been left alone for a while, and
again if it has changed since. What cannot be read is waited for, since it may be half written, and
then set aside.

Under torchrun, rank 0 looks at the folder and hands out one file to each rank at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import ExitStack
from typing import TypeAlias

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.configs import WatchConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result, Snapshot
from napari_cryosphere.jobs.running.memory import MemoryLimit, watch_bytes
from napari_cryosphere.jobs.running.outputs import claimed, locked
from napari_cryosphere.jobs.running.ranks import Ranks, current_ranks
from napari_cryosphere.jobs.watching.arrivals import Arrival, Arrivals
from napari_cryosphere.jobs.watching.worker import Outcome, Worker, serve
from napari_cryosphere.particles import ParticleStack

__all__ = ["watch"]

# Maps are written again only when so many times their cost has gone into particles.
_WORK_TO_WRITING = 4.0
_LONGEST_BEFORE_RETRY = 30.0  # seconds; chosen, not tuned
_LOCK = ".napari-cryosphere-watch.lock"  # in the watched folder

_Ready: TypeAlias = tuple[Arrival, ParticleStack, str]


def watch(config: WatchConfig) -> Events:
    """Follow a folder until nothing comes any more, or until stopped.

    Raises `CryosphereError` if the folder or the run is in use by another watcher, or the run is
    one with other settings.
    """
    if not config.folder.is_dir():
        raise CryosphereError(
            f"{config.folder} is no folder to watch; give the one where STAR files appear"
        )
    if config.output.resolve() == config.folder.resolve():
        raise CryosphereError("the run folder cannot be the watched one; give --output another")
    ranks = current_ranks()
    with claimed(folders=[config.output]), ExitStack() as locks:
        if not ranks.first:
            ranks.wait()
            serve(config, ranks)
            yield Result({}, {})
            return
        try:
            locks.enter_context(locked(config.folder / _LOCK, str(config.folder)))
        except OSError:
            text = (
                f"{config.folder} cannot be written to, so not be locked: let nobody else watch it"
            )
            yield Note(text, warning=True)
        watcher = _Watcher(config, ranks)
        ranks.wait()  # the run folder is there now
        yield from watcher.follow()


class _Watcher:
    """Looks at the folder, hands out files and shows what came of them."""

    def __init__(self, config: WatchConfig, ranks: Ranks) -> None:
        self._config, self._ranks = config, ranks
        self._worker = Worker(config, config.overwrite)
        self._run = self._worker.run
        self._arrivals = Arrivals(config.folder, config.pattern, config.output)
        self._aside: dict[str, str] = {}
        self._waiting: dict[str, tuple[Arrival, str]] = {}
        self._ask_again: dict[str, float] = {}
        self._rounds = 0
        self._changed, self._cost = True, 0.0
        self._written = self._worked = time.monotonic()

    def follow(self) -> Events:
        """Work until nothing comes any more; what is there is written if this is stopped before."""
        self._run.load()
        yield from self._insert_missing()
        yield Progress(0.0, f"watching {self._config.folder}")
        ended = False
        try:
            while not self._nothing_comes():
                yield from self._round()
                since = time.monotonic() - self._written
                if self._changed and since > max(
                    self._config.publish_seconds, _WORK_TO_WRITING * self._cost
                ):
                    yield from self._publish()
            for arrival, reason in list(self._waiting.values()):
                if arrival.path.exists():
                    yield self._set_aside(arrival, reason)
            yield from self._publish(end=True)
            ended = True
        finally:
            if not ended and self._ranks.count == 1:
                for _ in self._publish():
                    pass

    def _nothing_comes(self) -> bool:
        """Return whether it is time to end: no file has come, changed or been worked on for long enough."""
        limit = self._config.until_idle_seconds
        if limit is None:
            return False
        if time.monotonic() - max(self._arrivals.last_change, self._worked) < limit:
            return False
        return all(arrival.name in self._waiting for arrival in self._arrivals.look())

    def _round(self) -> Events:
        """Work on files that are ready, one a rank; without any, wait a moment."""
        ready = yield from self._ready(1 if self._run.grid is None else self._ranks.count)
        if not ready:
            time.sleep(self._config.poll_seconds)
            return
        number = self._tell([arrival.name for arrival, _, _ in ready])
        start = time.monotonic()
        arrival, stack, identity = ready[0]
        outcomes = [self._worker.take(arrival.name, stack, identity)]
        for rank in range(1, len(ready)):
            outcomes.append(Outcome(**json.loads(self._ranks.receive(f"round{number}/rank{rank}"))))
            if not outcomes[-1].reason:
                self._run.take_up(outcomes[-1].name)
        for (arrival, _, _), outcome in zip(ready, outcomes, strict=True):
            yield from self._ended(arrival, outcome, time.monotonic() - start)
        left = len(self._arrivals.look())
        done = len(self._run.parts)
        text = f"{done} files, {self._run.particles} particles" + (
            f"; {left} files to come" if left else ""
        )
        yield Progress(done / max(1, done + left), text, {"particles": float(self._run.particles)})

    def _ready(self, most: int) -> Generator[Note, None, list[_Ready]]:
        """Return files that belong to this run and have been left alone."""
        ready: list[_Ready] = []
        for arrival in self._arrivals.look():
            asked = self._ask_again.get(arrival.name, 0.0)
            if arrival.quiet_seconds < self._config.settle_seconds or time.monotonic() < asked:
                continue
            try:
                stack, identity = self._worker.read(arrival.path)
                self._check(arrival.name, stack, identity)
            except CryosphereError as error:
                yield from self._unusable(arrival, str(error))
                continue
            if self._run.identities.get(arrival.name) == identity:
                self._arrivals.done(arrival)
            elif arrival.unchanged() and self._images_settled(stack):
                ready.append((arrival, stack, identity))
            if len(ready) == most:
                break
        return ready

    def _check(self, name: str, stack: ParticleStack, identity: str) -> None:
        """Raise CryosphereError if a file does not belong to this run."""
        twin = next((other for other, its in self._run.identities.items() if its == identity), name)
        if twin != name and (self._config.folder / twin).is_file():
            raise CryosphereError(f"{name} is a copy of {twin}, which counts already")
        grid = self._run.grid
        if grid is None:
            MemoryLimit(self._config.max_memory_gb).refuse_beyond(
                watch_bytes(stack.box, self._config.padding, self._worker.states),
                f"the running sums of {2 * self._worker.states} half-maps of {stack.box} px",
                "allow more, or pad less (--set padding=1)",
            )
        elif not grid.matches(stack.grid):
            raise CryosphereError(
                f"{name} has images of {stack.box} px of {stack.pixel_size_angstrom:.4g} A, this run has "
                f"{grid.box} px of {grid.pixel_size_angstrom:.4g} A; watch it into a run of its own"
            )

    def _images_settled(self, stack: ParticleStack) -> bool:
        now = time.time()
        dates = [path.stat().st_mtime for path in stack.image_files()]
        return all(now - date >= self._config.settle_seconds or date > now + 1 for date in dates)

    def _unusable(self, arrival: Arrival, reason: str) -> Generator[Note, None, None]:
        """Wait for a file that cannot be used; set it aside if it has been as it is for long."""
        if arrival.quiet_seconds >= self._config.patience_seconds:
            yield self._set_aside(arrival, reason)
            return
        pause = min(
            max(arrival.quiet_seconds / 4, self._config.poll_seconds), _LONGEST_BEFORE_RETRY
        )
        self._ask_again[arrival.name] = time.monotonic() + pause
        self._waiting[arrival.name] = arrival, reason

    def _set_aside(self, arrival: Arrival, reason: str) -> Note:
        """Leave a file out, as long as it does not change, and say why."""
        self._arrivals.done(arrival)
        self._waiting.pop(arrival.name, None)
        self._aside[arrival.name] = reason
        self._changed = True
        self._run.log({"file": arrival.name, "set_aside": reason})
        return Note(f"set aside: {reason}", warning=True)

    def _ended(
        self, arrival: Arrival, outcome: Outcome, seconds: float
    ) -> Generator[Note, None, None]:
        """Take note of what became of a file."""
        self._worked = time.monotonic()
        if outcome.reason:
            yield from self._unusable(arrival, outcome.reason)
            return
        self._arrivals.done(arrival)
        self._waiting.pop(arrival.name, None)
        self._aside.pop(arrival.name, None)
        self._changed = True
        self._run.log(
            {"file": arrival.name, "particles": outcome.particles, "seconds": round(seconds, 2)}
        )

    def _insert_missing(self) -> Events:
        """Add to the sums what counts and is not in them, after a stop or when a file has changed.

        A part that cannot be added is given up if its file is there to be taken again.
        """
        missing = self._run.missing_from_sums()
        for number, name in enumerate(missing, start=1):
            try:
                self._worker.insert(name)
            except CryosphereError as error:
                if not (self._config.folder / name).is_file():
                    raise
                self._run.give_up(name)
                yield Note(f"{name} is taken again: {error}", warning=True)
            yield Progress(number / len(missing), f"added {name} to the half-maps again")

    def _publish(self, end: bool = False) -> Events:
        """Write sums, maps, FSC and STAR file."""
        self._tell([], hand_over=True, end=end)
        self._ranks.wait()
        for rank in range(1, self._ranks.count):
            self._run.take_over(rank)
        if self._run.sums is None:
            self._run.load_sums()
        yield from self._insert_missing()
        start = time.monotonic()
        state = {
            "set_aside": self._aside,
            "waiting": {name: reason for name, (_, reason) in self._waiting.items()},
        }
        made, files, metrics = self._run.publish(state)
        self._written, self._changed = time.monotonic(), False
        self._cost = self._written - start
        if made is not None:
            yield Snapshot(1.0 if end else 0.0, made.density, made.particles)
        if end:
            yield Result({"run": self._run.folder, **files}, metrics)

    def _tell(self, names: list[str], hand_over: bool = False, end: bool = False) -> int:
        """Tell the other ranks what this round is, and return its number."""
        number, self._rounds = self._rounds, self._rounds + 1
        if self._ranks.count > 1:
            message = {"names": names, "hand_over": hand_over, "end": end}
            self._ranks.send(f"round{number}", json.dumps(message))
        return number
