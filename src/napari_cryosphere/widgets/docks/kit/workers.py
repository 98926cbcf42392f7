"""Threads next to the window: one for long work, two for short work of which only the latest counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any

from psygnal import Signal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.widgets.control.running import OnEnd, OnEvent, Take, Work
from napari_cryosphere.widgets.control.work import Events
from napari_cryosphere.widgets.state.notices import tell_error

__all__ = ["ThreadBackground", "ThreadRunner"]

_HELD_SECONDS = 0.1  # between two looks at the stop flag
_MOST_SECONDS_TO_END = 60.0  # a batch takes seconds at most; a save of 100,000 particles some ten


class ThreadRunner:
    """Runs steps in one of napari's worker threads; errors that are ours are shown, cause first.

    The docks' feet show how far the work is. napari's own progress bar comes with a picture that
    moves in the status bar: eight times a second the whole window would be redrawn, see
    docs/measurements.md.
    """

    busy_changed = Signal(bool)
    progressed = Signal(float, str)

    def __init__(self) -> None:
        self._stop, self._going = threading.Event(), threading.Event()
        self._ended = threading.Event()
        self._whole = False
        self._worker: Any = None

    @property
    def busy(self) -> bool:
        """Whether work is going on."""
        return self._worker is not None

    def start(
        self,
        title: str,
        work: Callable[[], Events],
        on_event: OnEvent,
        on_end: OnEnd,
        whole: bool = False,
    ) -> None:
        """Start work; does nothing while other work is going on (the dock's buttons are grey then)."""
        if self.busy:
            return
        stop = self._stop = threading.Event()
        going = self._going = threading.Event()
        ended = self._ended = threading.Event()
        going.set()
        self._whole = whole

        def hear(event: object) -> None:
            if isinstance(event, (CryosphereError, OSError)):
                tell_error(event)
                return
            if isinstance(event, Exception):
                raise event  # a bug: napari shows it with its traceback
            if isinstance(event, Progress):
                self.progressed.emit(event.fraction, event.message)
            on_event(event)

        def end() -> None:
            self._worker = None
            on_end()
            self.busy_changed.emit(False)

        titled = _Titled(_stoppable, work, stop, going, ended)
        titled.title = title
        self._worker = _worker(titled, self._ask_to_end)
        self._worker.yielded.connect(hear)
        self._worker.finished.connect(end)
        self.busy_changed.emit(True)
        self.progressed.emit(0.0, title)
        self._worker.start()

    def stop(self) -> None:
        """Ask the work to end after its present step; what it has made is kept."""
        self._stop.set()

    def close(self) -> None:
        """Stop because the docks are gone, and wait for the work's end; what it has made is kept.

        Work that must be whole is finished. Nobody hears of it any more: a worker that went on
        would speak to objects of Qt that are deleted.
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._ask_to_end()
        worker.yielded.disconnect()
        worker.finished.disconnect()
        self._ended.wait(_MOST_SECONDS_TO_END)

    def _ask_to_end(self) -> None:
        """Ask the work to end as the window closes, unless it must be whole."""
        self._going.set()
        if not self._whole:
            self._stop.set()

    @property
    def paused(self) -> bool:
        """Whether the work that goes on is held."""
        return self.busy and not self._going.is_set()

    def pause(self, paused: bool = True) -> None:
        """Hold the work after its present step, or let it go on."""
        if paused:
            self._going.clear()
        else:
            self._going.set()


class _Titled(partial[Iterator[Any]]):
    """A function that is called by a title: napari names it when it asks whether to close a busy window."""

    title = ""

    def __repr__(self) -> str:
        return self.title


def _worker(titled: _Titled, ask_to_end: Callable[[], None]) -> Any:
    """Return napari's worker on a function of events, which ends cleanly when the window is closed.

    napari then calls the worker's ``quit`` and waits for its thread. As napari has it, that drops
    the work where it stands: a network that is being trained would be lost, or a file half saved.
    """
    from napari.qt.threading import GeneratorWorker, create_worker

    class Worker(GeneratorWorker):  # type: ignore[misc]  # napari is not typed
        def quit(self) -> None:
            ask_to_end()

    return create_worker(titled, _worker_class=Worker)


def _stoppable(
    work: Callable[[], Events],
    stop: threading.Event,
    going: threading.Event,
    ended: threading.Event,
) -> Iterator[object]:
    """Pass events on until asked to stop, and hold while paused; an error becomes the last event.

    Every error is caught here, since this is the end of a thread: one that crossed it would be
    shown by napari 0.9 as a TypeError of its own (its callback for failed workers takes one
    argument too few).
    """
    running = work()
    try:
        for event in running:
            yield event
            while not (stop.is_set() or going.wait(_HELD_SECONDS)):
                pass
            if stop.is_set():
                return
    except Exception as error:
        yield error
    finally:
        running.close()
        ended.set()


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
        except Exception as failed:  # the end of a thread: raised again in the window's
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
