"""Flags and selection of a data set on disk, so that a crash loses none of them.

One small JSON file per data set, in the user's own state folder ($XDG_STATE_HOME/napari-cryosphere,
by default ~/.local/state/napari-cryosphere), and not next to the particles: a project is often
shared or read-only, two people do not flag alike, and a pipeline's folders stay what its programs
made them. The name is a hash of the particles' file and of its image names in order, so that flags
never land on other particles.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.state.particle_choices import ParticleChoices

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack

__all__ = ["ChoicesFile", "choices_path", "read_choices", "state_folder", "write_choices"]

_VERSION = 1


def state_folder() -> Path:
    """Return the folder of what the plugin remembers from one start to the next."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "napari-cryosphere"


def choices_path(stack: ParticleStack) -> Path:
    """Return where the choices of a data set are kept."""
    digest = hashlib.blake2b(str(stack.source.absolute()).encode(), digest_size=12)
    digest.update("\n".join(map(str, stack.image_names())).encode())
    return state_folder() / "choices" / f"{digest.hexdigest()}.json"


def write_choices(path: Path, choices: ParticleChoices, source: str = "") -> None:
    """Write flags and selection, whole or not at all. Raises `CryosphereError` if that is impossible."""
    _write(path, _content(choices, source))


def read_choices(path: Path, choices: ParticleChoices) -> None:
    """Set flags and selection from a file.

    Raises `CryosphereError` if the file is none of ours, or of another number of particles.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != _VERSION or content["particles"] != choices.number:
            raise ValueError("another version, or another number of particles")
        flags = np.frombuffer(zlib.decompress(base64.b64decode(content["flags"])), dtype=np.uint8)
        packed = np.frombuffer(
            zlib.decompress(base64.b64decode(content["selected"])), dtype=np.uint8
        )
        selected = np.unpackbits(packed, count=choices.number)
        choices.restore(flags, selected)
    except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise CryosphereError(
            f"{path}: these flags cannot be read ({error}); all flags are cleared"
        ) from error


def _content(choices: ParticleChoices, source: str) -> bytes:
    """Return the file's content: counts for people, the arrays packed (100,000 particles make some 40 kB)."""
    packed = {"flags": choices.flags.tobytes(), "selected": np.packbits(choices.selected).tobytes()}
    content = {
        "version": _VERSION,
        "source": source,
        "particles": choices.number,
        "counts": {flag.name.lower(): number for flag, number in choices.counts().items()},
        **{
            name: base64.b64encode(zlib.compress(data, 1)).decode() for name, data in packed.items()
        },
    }
    return json.dumps(content, indent=1).encode()


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise CryosphereError(f"cannot write {path}: {error.strerror or error}") from error


class ChoicesFile:
    """Keeps choices on disk while they change.

    Every change is written at once by a thread of its own, so that a slow disk holds up nobody; of
    changes that come while one is being written, only the last is written.

    ``path``: the file. ``problem``: why the choices are not kept; empty while they are.
    """

    problem_changed = Signal()

    def __init__(self, stack: ParticleStack, choices: ParticleChoices) -> None:
        self.path = choices_path(stack)
        self.problem = ""
        self._source = str(stack.source.absolute())
        self._choices = choices
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cryosphere-choices")
        self._lock = threading.Lock()
        self._waiting: bytes | None = None
        self._last: Future[None] | None = None
        if self.path.exists():
            try:
                read_choices(self.path, choices)
            except CryosphereError as error:
                self.problem = str(error)
        choices.flags_changed.connect(self._on_changed)
        choices.selection_changed.connect(self._on_changed)

    def _on_changed(self) -> None:
        content = _content(self._choices, self._source)
        with self._lock:
            idle = self._waiting is None
            self._waiting = content
        if idle:
            self._last = self._writer.submit(self._write_waiting)

    def _write_waiting(self) -> None:
        with self._lock:
            content, self._waiting = self._waiting, None
        if content is None:
            return
        try:
            _write(self.path, content)
            problem = ""
        except CryosphereError as error:
            problem = str(error)
        if problem != self.problem:
            self.problem = problem
            self.problem_changed.emit()  # in the writer's thread

    def flush(self) -> None:
        """Wait until all is written."""
        if self._last is not None:
            self._last.result()

    def close(self) -> None:
        """Write what is left and stop listening."""
        self._choices.flags_changed.disconnect(self._on_changed)
        self._choices.selection_changed.disconnect(self._on_changed)
        self.flush()
        self._writer.shutdown()
