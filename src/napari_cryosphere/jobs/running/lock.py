"""A lock on a folder, held by one process at a time and freed by the system however the process ends."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_cryosphere.errors import CryosphereError

__all__ = ["folder_lock"]

_NAME = ".napari-cryosphere-watch.lock"
_NO_WRITING = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; yields False where the folder cannot be written to, and so not be locked.

    Raises
    ------
    CryosphereError
        If another process holds it; the message names it.
    """
    path = folder / _NAME
    try:
        handle = _opened(path)
    except OSError as error:
        if error.errno not in _NO_WRITING:
            raise CryosphereError(f"cannot lock {folder}: {error.strerror or error}") from error
        yield False
        return
    try:
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield True
    finally:
        with suppress(OSError):  # Windows does not remove an open file
            path.unlink()  # while it is held, so that nobody else's is removed
        os.close(handle)


def _opened(path: Path) -> int:
    """Return the handle of the lock file, locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        except FileNotFoundError:
            pass  # removed by the one who held it: it is no lock any more
        except BlockingIOError as error:
            holder = b""
            with suppress(OSError):  # Windows does not let others read what is locked
                holder = os.read(handle, 200)
            os.close(handle)
            who = holder.decode(errors="replace").strip() or "another process"
            raise CryosphereError(
                f"{path.parent} is already in use by {who}; one watcher a folder: stop that one first"
            ) from error
        os.close(handle)


def _lock(handle: int) -> None:
    """Lock a file for this process alone. Raises BlockingIOError if another holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            raise BlockingIOError from error
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
