"""Where the pixels of each particle are: stacks and indices, and reading them in as few goes as possible."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError, FileFormatError, MetadataError
from napari_cryosphere.particles._columns import Place, refuse
from napari_cryosphere.particles._messages import listed, shown
from napari_cryosphere.particles.mrc import MrcStack

__all__ = ["ImageSource", "StackFile", "locate_images", "parse_image_names"]


@dataclass(frozen=True)
class StackFile:
    """One stack as the STAR file names it, and where it was found.

    Attributes
    ----------
    name
        The path as written in the STAR file.
    folder
        The folder that ``name`` is relative to; None if the stack was found otherwise.
    stack
        The opened stack; None if it was not looked for or not found.
    in_project
        Whether ``folder`` is not the STAR file's own but one above it: a RELION project's.
    """

    name: str
    folder: Path | None = None
    stack: MrcStack | None = None
    in_project: bool = False


@dataclass(frozen=True)
class ImageSource:
    """Stack and index of each particle; slicing costs a few integers.

    Attributes
    ----------
    files
        All stacks of the data set.
    file_of
        ``(n,)``: which of ``files`` a particle is in.
    index_of
        ``(n,)``: its index there, from 0.
    row_of
        ``(n,)``: its row in the STAR file, from 0, for messages.
    image_of
        ``(n,)``: number of its image among the different ones, from 0 in the order of the rows; rows with
        the same image have the same number.
    place_of
        ``(n,)``: which of ``places`` its row is in.
    places
        The tables that rows are from; several where stacks were joined.
    """

    files: tuple[StackFile, ...]
    file_of: NDArray[np.int64]
    index_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    image_of: NDArray[np.int64]
    place_of: NDArray[np.int32]
    places: tuple[Place, ...]

    @classmethod
    def of_file(
        cls,
        place: Place,
        files: tuple[StackFile, ...],
        file_of: NDArray[np.int64],
        index_of: NDArray[np.int64],
    ) -> ImageSource:
        """Return the source of all rows of one table."""
        number = len(file_of)
        where = np.zeros(number, dtype=np.int32)
        return cls(
            files, file_of, index_of, np.arange(number), _image_numbers(file_of, index_of), where, (place,)
        )

    @classmethod
    def joined(cls, sources: Sequence[ImageSource]) -> ImageSource:
        """Return the source of the particles of several sources, one after the other."""
        files: dict[Path | str, StackFile] = {}
        places: dict[Place, None] = {}
        for source in sources:
            for key, file in source._by_path():
                files.setdefault(key, file)
            places |= dict.fromkeys(source.places)
        file_numbers = {key: number for number, key in enumerate(files)}
        place_numbers = {place: number for number, place in enumerate(places)}
        file_of, place_of = [], []
        for source in sources:
            new_files = np.array([file_numbers[key] for key, _ in source._by_path()], dtype=np.int64)
            new_places = np.array([place_numbers[place] for place in source.places], dtype=np.int32)
            file_of.append(new_files[source.file_of])
            place_of.append(new_places[source.place_of])
        all_files, index_of = np.concatenate(file_of), np.concatenate([source.index_of for source in sources])
        return cls(
            tuple(files.values()),
            all_files,
            index_of,
            np.concatenate([source.row_of for source in sources]),
            _image_numbers(all_files, index_of),
            np.concatenate(place_of),
            tuple(places),
        )

    def __getitem__(self, indices: Any) -> ImageSource:
        """Return the source of some particles."""
        return replace(
            self,
            file_of=self.file_of[indices],
            index_of=self.index_of[indices],
            row_of=self.row_of[indices],
            image_of=self.image_of[indices],
            place_of=self.place_of[indices],
        )

    def _by_path(self) -> list[tuple[Path | str, StackFile]]:
        """Return the stacks with what tells them apart: their path, or the name of one not found."""
        return [(file.name if file.stack is None else file.stack.path.resolve(), file) for file in self.files]

    @property
    def missing(self) -> list[str]:
        """Names of the stacks that particles are in and that were not found."""
        return [
            self.files[number].name for number in np.unique(self.file_of) if self.files[number].stack is None
        ]

    @property
    def used(self) -> list[MrcStack]:
        """The stacks that particles are in."""
        stacks = [self.files[number].stack for number in np.unique(self.file_of)]
        return [stack for stack in stacks if stack is not None]

    def read(self, box: int) -> NDArray[np.float32]:
        """Return the images of all particles, ``(n, box, box)`` float32.

        Raises
        ------
        CryosphereError
            If a stack is missing, has changed, or holds pixels that are not finite.
        """
        images = np.empty((len(self.file_of), box, box), dtype=np.float32)
        if not len(images):
            return images
        order = np.argsort(self.file_of, kind="stable")
        starts = np.flatnonzero(np.diff(self.file_of[order], prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            rows = order[start:end]
            file = self.files[self.file_of[rows[0]]]
            if file.stack is None:
                raise MetadataError(f"{self._where(rows[0])}: the stack {shown(file.name)} was not found")
            try:
                pixels: NDArray[np.float32] = file.stack.read(self.index_of[rows])
                if len(rows) == len(images):
                    return pixels
                images[rows] = pixels
            except FileFormatError as error:
                raise FileFormatError(f"{self._where(self._first_bad(file.stack, rows))}: {error}") from error
        return images

    def _where(self, particle: Any) -> str:
        return self.places[self.place_of[particle]].row(int(self.row_of[particle]))

    def _first_bad(self, stack: MrcStack, rows: NDArray[Any]) -> Any:
        """Return the first of ``rows`` whose image cannot be read."""
        for row in rows:
            try:
                stack.read(self.index_of[row])
            except CryosphereError:
                return row
        return rows[0]


def _image_numbers(file_of: NDArray[np.int64], index_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which of the different images each row has, ``(n,)``, numbered in the order of the rows."""
    if not len(index_of):
        return np.zeros(0, dtype=np.int64)
    codes, different = pd.factorize(index_of)  # an index of 18 digits would not leave room for the file
    return np.asarray(pd.factorize(file_of * len(different) + codes)[0], dtype=np.int64)


def parse_image_names(
    place: Place, table: pd.DataFrame
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Split ``000001@path`` of the column rlnImageName.

    Returns
    -------
    The different paths; ``(n,)`` which of them each row has; ``(n,)`` the image's index, from 0. A name
    without ``@`` is the first image of a file.

    Raises
    ------
    MetadataError
        If the number is not one from 1 on.
    """
    parts = [name.partition("@") for name in table["rlnImageName"].tolist()]
    numbers = [number if at else "1" for number, at, _ in parts]
    bad = np.array([not (number.isascii() and number.isdigit() and len(number) < 19) for number in numbers])
    refuse(place, table, "rlnImageName", bad, "expected a number from 1 on, @ and the path of a stack")
    indices = np.array([int(number) for number in numbers], dtype=np.int64) - 1
    refuse(place, table, "rlnImageName", indices < 0, "images are counted from 1")
    paths = [path if at else number for number, at, path in parts]
    refuse(place, table, "rlnImageName", np.array([not path for path in paths]), "the path is missing")
    codes, names = pd.factorize(np.array(paths, dtype=object))
    return [str(name) for name in names], codes.astype(np.int64), indices


def locate_images(
    place: Place, names: Sequence[str], file_of: NDArray[np.int64], data_dir: Path | None, required: bool
) -> tuple[StackFile, ...]:
    """Find and open (header only) the stacks.

    Raises
    ------
    FileFormatError
        If a stack is not where it is looked for and ``required``, or is not an MRC file; the row is named.
    """
    first_row = np.full(len(names), -1)
    first_row[file_of[::-1]] = np.arange(len(file_of))[::-1]
    files = []
    for name, row in zip(names, first_row, strict=True):
        path, folder, tried = _find(name, place.path, data_dir)
        if path is None:
            if required:
                raise FileFormatError(
                    f"{place.row(int(row))}: no stack {shown(name)}; tried {listed(list(map(str, tried)))}; "
                    "if the images have moved, give their folder with --data-dir"
                )
            files.append(StackFile(name))
            continue
        try:
            in_project = folder is not None and folder != _folder_of(place.path)
            files.append(StackFile(name, folder, MrcStack(path), in_project))
        except FileFormatError as error:
            raise FileFormatError(f"{place.row(int(row))}: {error}") from error
    return tuple(files)


def _find(name: str, star: Path, data_dir: Path | None) -> tuple[Path | None, Path | None, list[Path]]:
    """Return the path of a stack, the folder that its name is relative to, and the paths tried.

    Tried are the STAR file's folder, then its parents (the folder of a RELION project is one of them),
    then ``data_dir`` with the whole name and with its last part.
    """
    here = _folder_of(star)
    tried = []
    folders = [here] if Path(name).is_absolute() else [here, *here.parents]
    for folder in folders:
        tried.append(folder / name)
        if tried[-1].exists():
            return tried[-1], folder, tried
    if data_dir is not None:
        extra = [Path(data_dir) / name.lstrip("/"), Path(data_dir) / Path(name).name]
        for path in dict.fromkeys(extra):
            tried.insert(0, path)
            if path.exists():
                return path, None, tried
    return None, None, tried


def _folder_of(path: Path) -> Path:
    """Return the absolute folder of a file, symbolic links kept: its parents may be links' parents."""
    return Path(os.path.abspath(path)).parent  # noqa: PTH100


def renamed(file: StackFile, target: Path) -> str:
    """Return the name under which a STAR file at ``target`` refers to the stack.

    A name relative to the folder of a RELION project stays as it is while the new STAR file is inside the
    same project; otherwise it becomes relative to the new STAR file's folder, or absolute if that would lead
    over the root of the file system.
    """
    if file.stack is None or Path(file.name).is_absolute():
        return file.name
    new = _folder_of(target)
    if file.folder is not None and (file.folder == new or (file.in_project and file.folder in new.parents)):
        return file.name
    stack = file.stack.path.parent.resolve() / file.stack.path.name
    try:
        common = Path(os.path.commonpath([stack, new.resolve()]))
    except ValueError:  # different drives
        return stack.as_posix()
    if common == Path(common.anchor):
        return stack.as_posix()
    return Path(os.path.relpath(stack, new.resolve())).as_posix()
