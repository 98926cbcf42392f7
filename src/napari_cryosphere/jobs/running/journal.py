"""Batches of a long run on disk, so that a run that was stopped can go on where it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.running.ranks import Ranks

__all__ = ["Finished", "Journal", "MemoryJournal"]


class Finished(Protocol):
    """Where the finished batches of a run are kept: a folder, or memory."""

    def __contains__(self, first: int) -> bool:
        """Return whether the batch that begins with particle ``first`` is finished."""

    def write(self, first: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Keep the results of a batch."""

    def read(self, first: int, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return some results of a batch."""


class MemoryJournal:
    """The finished batches of a run that begins and ends in memory."""

    def __init__(self) -> None:
        self._batches: dict[int, dict[str, NDArray[Any]]] = {}

    def __contains__(self, first: int) -> bool:
        return first in self._batches

    def write(self, first: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Keep the results of the batch that begins with particle ``first``."""
        self._batches[first] = arrays

    def read(self, first: int, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return some results of a batch."""
        return {name: self._batches[first][name] for name in names}


class Journal:
    """A folder beside an output with one file a finished batch.

    Parameters
    ----------
    folder
        Where batches go; made when the first is written.
    description
        What the run is: everything its results depend on. A journal of another run is not
        continued.
    resume
        Go on with a journal that is there. Otherwise it is begun anew.
    ranks
        The processes that share it, if several do: rank 0 begins it anew, the others wait for that.

    Raises
    ------
    MetadataError
        If there is a journal to resume, but of a run that differs.
    """

    def __init__(
        self, folder: Path, description: dict[str, Any], resume: bool, ranks: Ranks | None = None
    ) -> None:
        self.folder = folder
        self._description = json.loads(json.dumps(description, default=str))
        found = self._found()
        if resume and found is not None and found != self._description:
            changed = sorted(
                key
                for key in found | self._description
                if found.get(key) != self._description.get(key)
            )
            raise MetadataError(
                f"{folder}: the run to resume had other settings ({', '.join(changed)}); "
                f"give the same ones, or leave --resume out to begin anew"
            )
        together = ranks or Ranks()
        if together.first and (not resume or found is None):
            self.remove()
        together.wait()

    def _found(self) -> dict[str, Any] | None:
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def _path(self, first: int) -> Path:
        return self.folder / f"batch_{first:09d}.npz"

    def __contains__(self, first: int) -> bool:
        return self._path(first).is_file()

    def write(self, first: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Keep the results of the batch that begins with particle ``first``."""
        if not (
            self.folder / "run.json"
        ).is_file():  # another rank may write the same at the same time
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / "run.json", overwrite=True) as temporary:
                temporary.write_text(json.dumps(self._description, indent=2) + "\n")
        with (
            atomic_path(self._path(first), overwrite=True) as temporary,
            temporary.open("wb") as stream,
        ):
            np.savez(stream, allow_pickle=False, **arrays)

    def read(self, first: int, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return some results of a batch; the others are not read."""
        with np.load(self._path(first), allow_pickle=False) as stored:
            return {name: stored[name] for name in names}

    def remove(self) -> None:
        """Delete the folder; stopped at any moment, none of it is taken for a journal again."""
        if (self.folder / "run.json").is_file():
            gone = self.folder.with_name(f".{self.folder.name}-removed")
            shutil.rmtree(gone, ignore_errors=True)
            os.replace(self.folder, gone)
            shutil.rmtree(gone)
