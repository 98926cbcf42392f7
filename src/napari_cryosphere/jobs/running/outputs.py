"""Claims on outputs: one run at a time writes an output, and its place is checked before the work."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_cryosphere._files import clear_leftovers
from napari_cryosphere.errors import CryosphereError, OutputExistsError
from napari_cryosphere.jobs.running.ranks import current_ranks

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs import JobConfig
    from napari_cryosphere.jobs.events import Events

__all__ = ["claimed", "claims", "locked", "this_run"]

ConfigT = TypeVar("ConfigT", bound="JobConfig")

_LOCK = ".napari-cryosphere.lock"


def this_run() -> str:
    """Return who runs here, since now: ``process 4711 on microscope since 2026-11-28 20:45:35 UTC``."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file until the block ends; the system frees it however the process ends.

    Raises `CryosphereError` if another run holds it: ``what`` is in use, by whom and since when;
    `OSError` if the file cannot be made.
    """
    from filelock import FileLock, Timeout

    path.touch()  # filelock takes some errors of the system for another's lock
    lock = FileLock(path, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        holder = ""
        with suppress(OSError):  # Windows does not let others read what is locked
            holder = path.read_text().strip()
        raise CryosphereError(
            f"{what} is in use by {holder or 'another run'}; wait for it, stop it, or choose another output"
        ) from error
    # where the system has no locks, filelock changes to one that writes its own text and removes it
    of_system = isinstance(lock, FileLock)
    try:
        if of_system:
            path.write_text(f"{this_run()}\n")
        yield
    finally:
        if of_system and os.name != "nt":
            path.unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
        lock.release()


@contextmanager
def claimed(
    files: Iterable[Path] = (), stores: Iterable[Path] = (), folders: Iterable[Path] = ()
) -> Iterator[None]:
    """Check the places of outputs and hold their locks; what killed runs left there is removed.

    Under torchrun rank 0 does so, and the others wait for it.

    ``files``: files that will be written. Their folders are made; if nothing is written, they go
    again. ``stores``: zarr folders that will be written, each replaced as a whole. ``folders``: run
    folders. Raises `CryosphereError` if two outputs are one, or one is in use by another run, is a
    folder where a file is to be or the other way round, or its folder cannot be made or written to.
    """
    files, stores, folders = list(files), list(stores), list(folders)
    _refuse_one_place_for_two([*files, *stores, *folders])
    ranks = current_ranks()
    with ExitStack() as held:
        if ranks.first:
            for path in files:
                if path.is_dir():
                    raise OutputExistsError(
                        f"{path} is a folder; give the name of a file, in it or elsewhere"
                    )
                _claim(path.parent, path, f".{path.name}{_LOCK}", held)
            for path in stores:
                if path.exists() and not (path / "zarr.json").is_file():
                    raise OutputExistsError(
                        f"{path} is not a zarr folder and is not replaced; choose another output"
                    )
                _claim(path.parent, path, f".{path.name}{_LOCK}", held)
            for path in folders:
                _claim(path, path, _LOCK, held)
        ranks.wait()
        yield


def _refuse_one_place_for_two(outputs: Sequence[Path]) -> None:
    """Refuse outputs of which two are the same path."""
    places = [path.resolve() for path in outputs]
    for path, place in zip(outputs, places, strict=True):
        if places.count(place) > 1:
            raise OutputExistsError(f"{path} is named for two outputs; give each its own place")


def _claim(folder: Path, output: Path, name: str, held: ExitStack) -> None:
    """Make a folder if need be, and lock an output there."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    held.callback(_remove_empty, missing)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(folder / name, str(output)))
    except FileExistsError as error:
        raise OutputExistsError(
            f"{folder} is a file where a folder is to be; choose another output"
        ) from error
    except OSError as error:
        raise CryosphereError(
            f"cannot write to {folder}: {error.strerror or error}; choose another output"
        ) from error
    clear_leftovers(folder)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that nothing was written to, the innermost first."""
    with suppress(OSError):  # not empty
        for folder in folders:
            folder.rmdir()


def claims(
    *, files: Sequence[str] = (), stores: Sequence[str] = (), folders: Sequence[str] = ()
) -> Callable[[Callable[[ConfigT], Events]], Callable[[ConfigT], Events]]:
    """Return a decorator of a job that claims its outputs while it runs, see `claimed`.

    ``files``, ``stores``, ``folders``: the config's fields that name them; what is None is left
    out.
    """

    def decorate(job: Callable[[ConfigT], Events]) -> Callable[[ConfigT], Events]:
        @wraps(job)
        def run(config: ConfigT) -> Events:
            def paths(names: Sequence[str]) -> list[Path]:
                every = [getattr(config, name) for name in names]
                return [path for path in every if path is not None]

            with claimed(paths(files), paths(stores), paths(folders)):
                yield from job(config)

        return run

    return decorate
