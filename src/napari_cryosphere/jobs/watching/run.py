"""The run folder of a watch: what is certain, what follows from it, and what is shown.

- ``parts/``: one STAR file for each file that was taken, with its poses, its half sets, and what
  the file was (a checksum). It appears whole or not at all, and its appearing is the moment at
  which the file counts. All else follows from the parts.
- ``sums.safetensors``: the half sets' sums with the names of the files in them, written at times; a
  part that they lack is inserted again, and where they hold what is no part any more they are made
  again.
- ``particles.star``, the maps, their FSC and ``state.json``: what the parts give, written again as
  they grow.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from napari_cryosphere._files import append_line, clear_leftovers, write_json
from napari_cryosphere.errors import (
    CryosphereError,
    FileFormatError,
    MetadataError,
    OutputExistsError,
)
from napari_cryosphere.jobs.running.halves import Halves, Reconstruction
from napari_cryosphere.jobs.running.journal import changed_settings
from napari_cryosphere.jobs.running.run_folder import OF_ANY_STATE, ending_of_state, remove_stale
from napari_cryosphere.jobs.watching.running_sums import RunningSums
from napari_cryosphere.particles import ImageGrid, ParticleStack

__all__ = ["WatchRun"]

Values: TypeAlias = dict[str, float | int | str]

_OF_STATES = f"map*{OF_ANY_STATE}.*"
_HANDED = ".sums-of-rank{}.safetensors"
_SOURCE = "cryosphere_source"
_WRITTEN = {
    "star": "particles.star",
    "map": "map.mrc",
    "half1": "map_half1.mrc",
    "half2": "map_half2.mrc",
    "fsc": "map_fsc.csv",
}


class WatchRun:
    """What a watch has done so far, kept in a folder.

    Raises `MetadataError` if the folder holds a watch with other settings; `OutputExistsError` if
    it holds something else.

    - ``folder``: the run folder.
    - ``description``: all that results depend on, but the particles. A folder of another run is not
      continued.
    - ``config``: kept next to it for the reader.
    - ``overwrite``: start again where there is a run.
    """

    def __init__(
        self, folder: Path, description: dict[str, Any], config: dict[str, Any], *, overwrite: bool
    ) -> None:
        self.folder = folder
        self._described = json.loads(json.dumps(description, default=str))
        found = self._found()
        if overwrite and found is not None:
            self._clear()
        elif found is not None and found != self._described:
            changed = changed_settings(found, self._described)
            raise MetadataError(
                f"{folder}: the watch there had other settings ({', '.join(changed)}); give the same ones to "
                "go on, another folder, or --overwrite to start again"
            )
        if overwrite or found is None:  # watch.json is the first file of a run and the last to go
            write_json(self._described, self.folder / "watch.json", overwrite=True)
            write_json(config, self.folder / "config.json", overwrite=True)
        self.parts: dict[str, ParticleStack] = {}
        self.identities: dict[str, str] = {}
        self.sums: RunningSums | None = None

    def _found(self) -> dict[str, Any] | None:
        path = self.folder / "watch.json"
        if path.is_file():
            return json.loads(path.read_text())
        if self.folder.is_dir() and all(
            held.name.startswith(".") for held in self.folder.iterdir()
        ):
            return None
        if self.folder.exists():
            raise OutputExistsError(
                f"{self.folder} holds something that is no watch; choose another folder"
            )
        return None

    def _clear(self) -> None:
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        shown = ("state.json", "log.jsonl", "config.json", *_WRITTEN.values())
        remove_stale(self.folder, [_OF_STATES], [])
        for name in ("sums.safetensors", *shown, "watch.json"):
            (self.folder / name).unlink(missing_ok=True)

    def load(self) -> None:
        """Read the parts, and the sums if they fit them; remove what a killed run left."""
        for path in self.folder.glob(_HANDED.format("*")):
            path.unlink(missing_ok=True)
        parts = self.folder / "parts"
        for folder in (self.folder, parts, *(each for each in parts.glob("**/") if each != parts)):
            clear_leftovers(folder)
        for path in sorted((self.folder / "parts").glob("**/*.star")):
            if not path.name.startswith("."):
                self.take_up(path.relative_to(self.folder / "parts").as_posix())
        self.load_sums()

    def load_sums(self) -> None:
        """Read the sums, if they hold nothing but parts."""
        path = self.folder / "sums.safetensors"
        if path.is_file():
            try:
                sums = RunningSums.load(path)
            except FileFormatError:
                return  # they can be made again
            if sums.holds_only(self.identities):
                self.sums = sums

    def part(self, name: str) -> Path:
        """Return where the part of a file is."""
        return self.folder / "parts" / name

    def commit(self, name: str, identity: str, posed: ParticleStack) -> None:
        """Keep the particles of a file with their poses: from now on they count."""
        # without half sets in the file its checksum says which half begins: many small files stay even
        if "rlnRandomSubset" not in posed.particles:
            turned = int(identity[-1], 16) % 2
            posed = posed.with_columns(
                {"rlnRandomSubset": (posed.half_sets() - 1 + turned) % 2 + 1}
            )
        posed.other_blocks[_SOURCE] = pd.DataFrame(
            {"cryosphereSource": [name], "cryosphereSha": [identity]}
        )
        posed.save(self.part(name), overwrite=True)

    def take_up(self, name: str) -> None:
        """Read a part that was committed. What is on disk counts, not what was in memory."""
        path = self.part(name)
        part = ParticleStack.read(path, require_images=False)
        source = part.other_blocks.pop(_SOURCE, None)
        if source is None:
            raise FileFormatError(f"{path} was not written by a watch; remove it")
        if name in self.identities and self.sums is not None and name in self.sums.included:
            self.sums = None  # the file has changed: what it gave before must not count
        self.parts[name], self.identities[name] = part, str(source["cryosphereSha"].iloc[0])

    def give_up(self, name: str) -> None:
        """Let a file no longer count."""
        self.part(name).unlink(missing_ok=True)
        del self.parts[name], self.identities[name]

    def missing_from_sums(self) -> list[str]:
        """Return the files whose particles have still to be inserted, by name."""
        included = {} if self.sums is None else self.sums.included
        return sorted(name for name in self.identities if name not in included)

    def insert(self, name: str, symmetry: str, padding: int, states: int) -> None:
        """Insert the particles of a part; stopped in the middle, the sums in memory are given up.

        Raises `CryosphereError` if images cannot be read or summed.
        """
        part = self.parts[name]
        before, self.sums = self.sums, None
        sums = before or RunningSums(part.grid, symmetry, padding, states)
        try:
            sums.add(name, self.identities[name], part)
        except CryosphereError:
            self.sums = before  # nothing was added
            raise
        self.sums = sums

    def hand_over(self, rank: int) -> None:
        """Write this rank's sums for rank 0, and go on from nothing."""
        if self.sums is not None:
            self.sums.save(self._handed(rank))
        self.sums = None

    def take_over(self, rank: int) -> None:
        """Add the sums that another rank handed over, if they hold what counts and is not yet in ours."""
        path = self._handed(rank)
        if not path.is_file():
            return
        theirs = RunningSums.load(path)
        path.unlink()
        mine = {} if self.sums is None else self.sums.included
        if not theirs.holds_only(self.identities) or theirs.included.keys() & mine.keys():
            return  # they will be inserted again
        if self.sums is None:
            self.sums = theirs
        else:
            self.sums.join(theirs)

    def _handed(self, rank: int) -> Path:
        return self.folder / _HANDED.format(rank)

    @property
    def grid(self) -> ImageGrid | None:
        """The grid of the run's images: that of its first file."""
        return next(iter(self.parts.values())).grid if self.parts else None

    @property
    def particles(self) -> int:
        """Number of particles that count."""
        return sum(map(len, self.parts.values()))

    def publish(
        self, state: dict[str, Any]
    ) -> tuple[Reconstruction | None, dict[str, Path], Values]:
        """Write the sums, and what the parts give so far.

        ``state``: what else ``state.json`` says. Returns the maps, None before any particle counts;
        the files written, by role; values.
        """
        made, files = None, dict[str, Path]()
        values: Values = {"files": len(self.parts), "particles": self.particles}
        if self.sums is not None:
            self.sums.save(self.folder / "sums.safetensors")
            files["star"] = self.folder / _WRITTEN["star"]
            ParticleStack.join([self.parts[name] for name in sorted(self.parts)]).save(
                files["star"], True
            )
            made = self.sums.halves().solve(half_maps=True)
            files |= self._written(made)
            if made.curve is not None:
                values["half_map_resolution_0143_angstrom"] = made.curve.resolution_angstrom(0.143)
            if self.sums.states > 1:
                for number in range(1, self.sums.states + 1):
                    more, found = self._published(self.sums.halves(number), number)
                    files |= more
                    values |= found
        write_json(values | state, self.folder / "state.json", overwrite=True)
        return made, files, values

    def _published(self, halves: Halves, state: int) -> tuple[dict[str, Path], Values]:
        """Write the maps of a state; returns the files and values, none while it has no particles."""
        inserted = sum(half.inserted for half in halves.pair)
        values: Values = {f"share_of_state_{state}": inserted / self.particles}
        if not inserted:
            return {}, values
        made, ending = halves.solve(half_maps=True), ending_of_state(state)
        if made.curve is not None:
            values[f"resolution_of_state_{state}_angstrom"] = made.curve.resolution_angstrom(0.143)
        return self._written(made, ending), values

    def _written(self, made: Reconstruction, ending: str = "") -> dict[str, Path]:
        """Write map, half-maps and FSC; returns the files by role, the map's alone while a half is empty."""
        files = {role: self.folder / name for role, name in _WRITTEN.items()}
        files = {role: path.with_stem(path.stem + ending) for role, path in files.items()}
        return {role + ending: path for role, path in made.save(files, overwrite=True).items()}

    def log(self, entry: dict[str, Any]) -> None:
        """Add a line to the log."""
        line = json.dumps({"time": round(time.time(), 1), **entry})
        append_line(self.folder / "log.jsonl", line)
