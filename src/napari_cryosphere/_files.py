"""Files that appear whole or not at all, and the temporary folders that they are written in.

Whatever is written goes to a temporary folder next to its target first, together with any temporary
files that a library makes on the way, and is renamed when it is complete. A temporary folder is
locked as long as its process lives. One that nobody holds was left by a process that was killed; it
is removed by the next process that writes there.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cryosphere.errors import CryosphereError, OutputExistsError

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from numpy.typing import NDArray

__all__ = [
    "append_line",
    "atomic_path",
    "clear_leftovers",
    "not_written",
    "refuse_beyond_room",
    "refuse_overwrite",
    "temporary_folder",
    "write_json",
    "write_tensors",
]

_PREFIX = ".cryosphere-"
_GIGABYTE = 1e9
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Raise OutputExistsError if ``path`` exists and ``overwrite`` is False."""
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} already exists; choose another output or pass --overwrite")


def refuse_beyond_room(folder: Path, needed_bytes: float, what: str) -> None:
    """Raise CryosphereError if a folder's disk has no room for ``needed_bytes``.

    Of a folder that is not there yet its nearest parent is asked. ``what`` is the message's subject,
    in the plural: "the images".
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if needed_bytes > free:
        raise CryosphereError(
            f"{what} need {needed_bytes / _GIGABYTE:.2g} GB in {folder}, where {free / _GIGABYTE:.2g} GB "
            "are free; make room there, or choose another folder"
        )


def not_written(path: Path, error: OSError) -> CryosphereError:
    """Return the error to raise where the system does not let a file be written."""
    advice = "; make room there, or choose another folder" if error.errno in _FULL else ""
    return CryosphereError(f"cannot write {path}: {error.strerror or error}{advice}")


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in ``parent`` that is removed when the block ends.

    Raises `CryosphereError` if the parent cannot be written to.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _clear_once(parent.resolve())
        folder, lock = _locked_folder(parent)
    except OSError as error:
        raise CryosphereError(f"cannot write to {parent}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        if os.name == "nt":  # where an open file cannot be removed
            lock.release()
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _lock_of(folder: Path) -> BaseFileLock:
    """Return the lock of a temporary folder; asking for it never waits."""
    from filelock import FileLock  # a twentieth of a second: only where something is written

    return FileLock(folder / "lock", blocking=False, thread_local=False)


def _locked_folder(parent: Path) -> tuple[Path, BaseFileLock]:
    """Return a new temporary folder and its lock, held where the file system has locks."""
    from filelock import Timeout

    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = _lock_of(folder)
        try:
            lock.acquire()
        except Timeout:  # another process has found it before it was locked, and removes it
            continue
        except OSError as error:
            if error.errno in _FULL:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return folder, lock


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary folders in ``folder`` whose processes are gone."""
    from filelock import Timeout

    for left in folder.glob(f"{_PREFIX}*"):
        lock = _lock_of(left)
        try:
            lock.acquire()
        except (Timeout, OSError):  # in use, or somebody else's
            continue
        if os.name == "nt":
            lock.release()
        shutil.rmtree(left, ignore_errors=True)
        lock.release()


_clear_once = cache(clear_leftovers)


@contextmanager
def atomic_path(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends without an error.

    The temporary file has the same name in a temporary folder next to ``path``, and is flushed to
    disk (fsync) before it is renamed. On an error it is removed, and what was at ``path`` before is
    untouched. Raises `OutputExistsError` if ``path`` exists and ``overwrite`` is False;
    `CryosphereError` if the file cannot be written: the folder is read-only, the disk is full.
    """
    path = Path(path)
    refuse_overwrite(path, overwrite)
    with temporary_folder(path.parent) as folder:
        temporary = folder / path.name
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        except OSError as error:
            raise not_written(path, error) from error


def _umask() -> int:
    """Return the process's umask (which can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(value: Any, path: Path, *, overwrite: bool) -> None:
    """Write a JSON file."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n")


def write_tensors(
    tensors: Mapping[str, NDArray[Any]], path: Path, metadata: Mapping[str, str], *, overwrite: bool
) -> None:
    """Write arrays and texts to one safetensors file. Raises as `atomic_path`."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with atomic_path(path, overwrite=overwrite) as temporary:
        try:
            save_file(dict(tensors), temporary, dict(metadata))
        except SafetensorError as error:  # from Rust, which has no OSError
            full = "No space left" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, whole or not at all. Raises CryosphereError if it cannot be written."""
    try:
        with path.open("ab", buffering=0) as stream:
            size, data = stream.seek(0, os.SEEK_END), f"{line}\n".encode()
            try:
                if stream.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(stream.fileno(), size)
                raise
    except OSError as error:
        raise not_written(path, error) from error
