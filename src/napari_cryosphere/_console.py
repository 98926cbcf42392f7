"""How the command line shows a job's events."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from napari_cryosphere.jobs.events import Event

__all__ = ["Console"]

_PLAIN_SECONDS = 5.0


class Console:
    """Shows progress as a bar on a terminal, as a line every few seconds where output is piped."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._last_line = 0.0

    def __enter__(self) -> Console:
        if sys.stderr.isatty() and not self._quiet:
            self._bar = _progress_bar()
            self._bar.start()
            self._bar.add_task("starting", total=1.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Show one event; results are printed by the command itself."""
        from napari_cryosphere.jobs.events import Note
        from napari_cryosphere.jobs.events import Progress as Step

        if isinstance(event, Note):
            if event.warning or not self._quiet:
                self.line(f"warning: {event.text}" if event.warning else event.text)
        elif isinstance(event, Step) and not self._quiet:
            if self._bar is not None:
                self._bar.update(
                    self._bar.task_ids[0], completed=event.fraction, description=event.message
                )
            elif event.fraction >= 1 or time.monotonic() - self._last_line >= _PLAIN_SECONDS:
                self._last_line = time.monotonic()
                left = (
                    ""
                    if event.remaining_seconds is None
                    else f", {event.remaining_seconds:.0f} s left"
                )
                self.line(f"{event.fraction:4.0%} {event.message}{left}")

    def line(self, text: str) -> None:
        """Write a line to stderr, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            sys.stderr.write(text + "\n")


def _progress_bar() -> Progress:
    """Return a bar on stderr. Without a terminal nobody waits for rich to be imported."""
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=RichConsole(stderr=True, highlight=False), transient=True)
