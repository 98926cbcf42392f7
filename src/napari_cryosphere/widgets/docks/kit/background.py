"""Short pieces of work beside the window, of which only the latest of a kind counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Protocol

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.state.notices import tell_error

__all__ = ["Background", "SynchronousBackground", "ThreadBackground"]

Work = Callable[[], Any]
Take = Callable[[Any], None]


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


class ThreadBackground:
    """Two threads, one for a kind of work at a time; errors that are ours are shown, cause first."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Work, Take]] = {}
        self._running: set[str] = set()
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._relay: Any = None
        self._closed = False

    def run(self, kind: str, work: Work, take: Take) -> None:
        """Do ``work`` unless newer work of its kind comes first."""
        if self._closed:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(2, thread_name_prefix="cryosphere")
            self._relay = _make_relay(self._hear)
        with self._lock:
            self._waiting[kind] = work, take
        self._pool.submit(self._do, kind)

    def _do(self, kind: str) -> None:
        """Do the latest work of a kind, in the thread."""
        with self._lock:
            found = None if kind in self._running else self._waiting.pop(kind, None)
            if found is None:
                return
            self._running.add(kind)
        work, take = found
        try:
            made, error = work(), None
        except Exception as failed:  # the border of a thread: raised again in the window's
            made, error = None, failed
        if not self._closed:
            self._relay.done.emit((take, made, error))
        with self._lock:
            self._running.discard(kind)
        self._do(kind)  # what has come meanwhile

    def _hear(self, result: tuple[Take, Any, Exception | None]) -> None:
        """Take a result, in the window's thread."""
        take, made, error = result
        if self._closed:
            return
        if isinstance(error, (CryosphereError, OSError)):
            tell_error(error)
        elif error is not None:
            raise error
        else:
            take(made)

    def close(self) -> None:
        """Forget what waits; nothing is taken any more."""
        self._closed = True
        with self._lock:
            self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _make_relay(hear: Callable[[Any], None]) -> Any:
    """Return an object whose signal ``done`` is heard in the thread that calls this."""
    from qtpy.QtCore import QObject, Signal, Slot

    class Relay(QObject):
        done = Signal(object)

        @Slot(object)
        def hear(self, result: Any) -> None:
            hear(result)

    relay = Relay()
    relay.done.connect(relay.hear)
    return relay
