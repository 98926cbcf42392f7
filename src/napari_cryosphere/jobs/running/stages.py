"""The stages of a long job: done once, timed, and remembered in its folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from napari_cryosphere._files import write_json
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result, between, part_of

__all__ = ["ONE_HALF", "Stages", "result_of"]

ONE_HALF = "half-maps need both"
"""Said of particles that are all in one half set, as those of a half are."""

T = TypeVar("T")


class Stages:
    """What is done of a job, and the time that each part took; kept in ``stages.json``.

    Raises `MetadataError` if there is a run to resume that had other settings that matter.

    - ``folder``: the job's folder.
    - ``settings``: its config, ready for JSON.
    - ``matters``: the settings that finished stages depend on.
    - ``resume``: whether stages that an earlier run finished are left out.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], matters: Sequence[str], resume: bool
    ) -> None:
        self._file, self._settings = folder / "stages.json", settings
        self.times: dict[str, dict[str, float]] = {}
        if not resume or not self._file.is_file():
            return
        stored = json.loads(self._file.read_text())
        changed = [name for name in matters if stored["config"].get(name) != settings[name]]
        if changed:
            raise MetadataError(
                f"{folder}: the run to resume had other settings ({', '.join(changed)}); give the same "
                "ones, or leave --resume out to start again"
            )
        self.times = stored["done"]

    def once(
        self, name: str, work: Generator[Event, None, T], start: float, share: float
    ) -> Generator[Event, None, None]:
        """Do a stage unless an earlier run did."""
        if name in self.times:
            work.close()
            yield Note(f"{name} was done before")
            return
        yield from self.timed(name, work, start, share)
        write_json({"config": self._settings, "done": self.times}, self._file, overwrite=True)

    def timed(
        self, name: str, work: Generator[Event, None, T], start: float, share: float
    ) -> Generator[Event, None, T]:
        """Do a stage, keep its time, and return what it returns.

        Its progress is shown as the part of the whole from ``start`` on that is ``share`` long. CPU
        seconds are those of all threads and of the programs that were run.
        """
        began, cpu = time.monotonic(), _cpu_seconds()
        found = yield from part_of(work, between(start, start + share))
        seconds = {"seconds": time.monotonic() - began, "cpu_seconds": _cpu_seconds() - cpu}
        self.times[name] = {kind: round(value, 2) for kind, value in seconds.items()}
        return found

    def markdown(self) -> str:
        """Return the stages' times as a section of a report."""
        lines = ["## Time\n", "| stage | seconds | CPU seconds |", "|---|---|---|"]
        for name, times in self.times.items():
            lines.append(f"| {name} | {times['seconds']:.1f} | {times['cpu_seconds']:.1f} |")
        return "\n".join(lines) + "\n\n"


def _cpu_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def result_of(events: Events, what: str, expected: str = "") -> Generator[Event, None, Result]:
    """Pass on what a job says, named, and return its result; closing this closes the job.

    Notes with the text ``expected``, if any, say what is meant to be and are left out. Raises
    `RuntimeError` if the job ends without a result.
    """
    result: Result | None = None
    try:
        for event in events:
            if isinstance(event, Result):
                result = event
            elif isinstance(event, Note) and expected and expected in event.text:
                continue
            elif isinstance(event, Progress):
                yield Progress(event.fraction, f"{what}: {event.message}", event.metrics)
            else:
                yield event
    finally:
        events.close()
    if result is None:
        raise RuntimeError(f"{what} ended without a result")
    return result
