"""How long and short work is run: the protocols, and runners that do it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from psygnal import Signal

from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.widgets.control.work import Events

__all__ = [
    "Background",
    "OnEnd",
    "OnEvent",
    "Runner",
    "SynchronousBackground",
    "SynchronousRunner",
    "Take",
    "Work",
]

OnEvent: TypeAlias = Callable[[object], None]
OnEnd: TypeAlias = Callable[[], None]
Work: TypeAlias = Callable[[], Any]
Take: TypeAlias = Callable[[Any], None]


class Runner(Protocol):
    """Runs one piece of work at a time.

    ``on_event`` hears of every event and ``on_end`` of the end, whatever it was, both in the caller's
    thread.
    """

    busy_changed: Any
    progressed: Any

    @property
    def busy(self) -> bool:
        """Whether work is going on."""

    @property
    def paused(self) -> bool:
        """Whether the work that goes on is held."""

    def start(
        self,
        title: str,
        work: Callable[[], Events],
        on_event: OnEvent,
        on_end: OnEnd,
        whole: bool = False,
    ) -> None:
        """Start work.

        - ``title``: shown while it goes on.
        - ``work``: makes the generator of its events.
        - ``on_event``, ``on_end``: take each event, and the end.
        - ``whole``: whether only `stop` may cut it short, and not the closing of the window: a file
          that is being saved.
        """

    def stop(self) -> None:
        """Ask the work to end after its present step; what it has made is kept."""

    def close(self) -> None:
        """Stop because nobody is there any more; work that must be whole is finished first."""

    def pause(self, paused: bool = True) -> None:
        """Hold the work after its present step, or let it go on."""


class SynchronousRunner:
    """Runs work to its end before it returns: for scripts and tests without an event loop."""

    busy_changed = Signal(bool)
    progressed = Signal(float, str)
    busy = False
    paused = False

    def start(
        self,
        title: str,
        work: Callable[[], Events],
        on_event: OnEvent,
        on_end: OnEnd,
        whole: bool = False,
    ) -> None:
        """Run the work to its end; errors are raised."""
        try:
            for event in work():
                if isinstance(event, Progress):
                    self.progressed.emit(event.fraction, event.message)
                on_event(event)
        finally:
            on_end()

    def stop(self) -> None:
        """Do nothing: there is never work to stop."""

    def close(self) -> None:
        """Do nothing: there is never work to stop."""

    def pause(self, paused: bool = True) -> None:
        """Do nothing: there is never work to hold."""


class Background(Protocol):
    """Runs short work; while a piece of a kind waits, a newer one of that kind takes its place."""

    def run(self, kind: str, work: Work, take: Take) -> None:
        """Do ``work`` and give what it returns to ``take`` in the caller's thread."""

    def close(self) -> None:
        """Forget what waits; nothing is taken any more."""


class SynchronousBackground:
    """Does the work at once: for scripts and tests without an event loop."""

    def run(self, kind: str, work: Work, take: Take) -> None:
        """Do the work; errors are raised."""
        take(work())

    def close(self) -> None:
        """Do nothing: nothing ever waits."""
