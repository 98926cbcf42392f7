"""Writing files so that a crash never leaves half of one behind."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_cryosphere.errors import CryosphereError, OutputExistsError


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Raise OutputExistsError if ``path`` exists and ``overwrite`` is False."""
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} already exists; choose another output or pass --overwrite")


@contextmanager
def atomic_path(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without an error.

    The temporary file is flushed to disk (fsync) before it is renamed; on an error it is removed
    and whatever stood at ``path`` before is untouched. The suffix is kept, since writers look at
    it.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and ``overwrite`` is False.
    CryosphereError
        If the folder cannot be written to.
    """
    path = Path(path)
    refuse_overwrite(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise CryosphereError(
            f"cannot write to {path.parent}: {error.strerror or error}"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's umask (which can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(value: Any, path: Path, *, overwrite: bool) -> None:
    """Write a JSON file."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n")
