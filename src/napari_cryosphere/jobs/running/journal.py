"""Batches of a long run on disk, so that a run that was stopped can go on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path, clear_leftovers, temporary_folder, write_json
from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.jobs.running.outputs import this_run
from napari_cryosphere.jobs.running.ranks import Ranks

__all__ = ["Finished", "Journal", "MemoryJournal", "changed_settings"]

_ABOUT = "run.json"


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
    """A folder next to an output with one file per finished batch.

    ``run.json`` says which run it is: an identity, its process and computer, since when, and all
    settings. A run that finds another's identity there ends; so results of two runs never mix, also
    where the file system has no locks. Raises `MetadataError` if there is a journal to resume, but
    of a run with other settings.

    - ``folder``: where batches go; made when the first is written.
    - ``settings``: everything that the run's results depend on. A journal with other settings is
      not continued.
    - ``resume``: go on with a journal that is there. Otherwise it is begun again.
    - ``ranks``: the processes that share it, if several do: rank 0 begins it, the others wait for
      that.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], resume: bool, ranks: Ranks | None = None
    ) -> None:
        self.folder = folder
        self._settings = json.loads(json.dumps(settings, default=str))
        self._run: dict[str, str] = json.loads(
            (ranks or Ranks()).of_first(lambda: json.dumps(self._begin(resume)))
        )

    def _begin(self, resume: bool) -> dict[str, str]:
        """Take the journal over, or remove it; returns the identity of this run."""
        self._run = {"id": uuid4().hex, "by": this_run()}
        found = self._found() if resume else None
        if found is None:
            self.remove()
            return self._run
        changed = changed_settings(found.get("settings", {}), self._settings)
        if changed:
            raise MetadataError(
                f"{self.folder}: the run to resume had other settings ({', '.join(changed)}); "
                "give the same ones, or leave --resume out to begin again"
            )
        clear_leftovers(self.folder)
        self._describe()
        return self._run

    def _found(self) -> dict[str, Any] | None:
        path = self.folder / _ABOUT
        return json.loads(path.read_text()) if path.is_file() else None

    def _describe(self) -> None:
        about = {"run": self._run, "settings": self._settings}
        write_json(about, self.folder / _ABOUT, overwrite=True)

    def _path(self, first: int) -> Path:
        return self.folder / f"batch_{first:09d}.npz"

    def __contains__(self, first: int) -> bool:
        return self._path(first).is_file()

    def write(self, first: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Keep the results of the batch that begins with particle ``first``.

        Raises `CryosphereError` if it cannot be written, or another run has taken the journal over.
        """
        found = self._found()
        if found is not None and found["run"] != self._run:
            raise CryosphereError(
                f"{self.folder} was taken over by {found['run']['by']}; this run ends, that one goes on"
            )
        try:
            if found is None:  # another rank may write the same at the same time
                self._describe()
            with (
                atomic_path(self._path(first), overwrite=True) as temporary,
                temporary.open("wb") as stream,
            ):
                np.savez(stream, allow_pickle=False, **arrays)
        except CryosphereError as error:
            raise CryosphereError(
                f"{error}; finished batches are kept: the same command with --resume goes on"
            ) from error

    def read(self, first: int, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return some results of a batch; the others are not read."""
        with np.load(self._path(first), allow_pickle=False) as stored:
            return {name: stored[name] for name in names}

    def remove(self) -> None:
        """Delete the folder; stopped at any moment, none of it is taken for a journal again."""
        if (self.folder / _ABOUT).is_file():
            with temporary_folder(self.folder.parent) as gone:
                os.replace(self.folder, gone / "journal")


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the names of the settings that differ."""
    return sorted(name for name in before | now if before.get(name) != now.get(name))
