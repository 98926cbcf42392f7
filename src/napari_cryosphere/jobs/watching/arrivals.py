"""Files that appear in a folder: which are new, and how long they have been left alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Arrival", "Arrivals"]


@dataclass(frozen=True)
class Arrival:
    """A file as it was when the folder was looked at.

    - ``name``: its path from the folder, with slashes.
    - ``path``: where it is.
    - ``size``, ``modified_ns``: tell whether it is written to.
    - ``quiet_seconds``: how long it has been as it is.
    """

    name: str
    path: Path
    size: int
    modified_ns: int
    quiet_seconds: float

    def unchanged(self) -> bool:
        """Return whether the file is still as it was."""
        try:
            now = self.path.stat()
        except OSError:
            return False
        return (now.st_size, now.st_mtime_ns) == (self.size, self.modified_ns)


class Arrivals:
    """Looks at a folder again and again.

    ``folder``: where files appear. ``pattern``: which files count, as for `pathlib.Path.glob`.
    Hidden ones never do: they are somebody's temporary files. ``without``: a folder whose files do
    not count.
    """

    def __init__(self, folder: Path, pattern: str, without: Path) -> None:
        self._folder, self._pattern, self._without = folder, pattern, without.resolve()
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        self._settled: dict[str, tuple[int, int]] = {}
        self.last_change = time.monotonic()
        """When a file last appeared or changed, on the monotonic clock."""

    def look(self) -> list[Arrival]:
        """Return the files that are not done with as they are now, by name."""
        found = sorted(self._files(), key=lambda file: file.name)
        return [
            file for file in found if self._settled.get(file.name) != (file.size, file.modified_ns)
        ]

    def done(self, arrival: Arrival) -> None:
        """Do not return a file again until it changes."""
        self._settled[arrival.name] = (arrival.size, arrival.modified_ns)

    def _files(self) -> Iterator[Arrival]:
        now, wall = time.monotonic(), time.time()
        for path in self._folder.glob(self._pattern):
            name = path.relative_to(self._folder).as_posix()
            if any(part.startswith(".") for part in Path(name).parts) or self._excluded(path):
                continue
            try:
                status = path.stat()
            except OSError:
                continue  # it has gone again
            state = (status.st_size, status.st_mtime_ns)
            known, since = self._seen.get(name, (None, now))
            if known != state:
                self._seen[name] = (state, now)
                since = self.last_change = now
            # a file that was there before us has been quiet for as long as its date says
            quiet = max(now - since, wall - status.st_mtime)
            yield Arrival(name, path, *state, quiet)

    def _excluded(self, path: Path) -> bool:
        return path.is_dir() or self._without in path.resolve().parents
