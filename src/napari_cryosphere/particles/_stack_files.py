"""The files that hold the images: names in a table, where they are found, what they are called elsewhere."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.errors import FileFormatError, MetadataError, MissingImagesError
from napari_cryosphere.particles._checks import Place, listed, refuse, shown
from napari_cryosphere.particles.mrc import MrcStack
from napari_cryosphere.particles.mrc.header import read_header

__all__ = [
    "ArrayStack",
    "StackFile",
    "locate_images",
    "micrograph_shapes",
    "parse_image_names",
    "renamed",
]


_NUMBERS = itertools.count(1)


class ArrayStack:
    """Images in memory, with the attributes that `MrcStack` has.

    ``images``: ``(n, box, box)``, axes ``[y, x]``; kept as float32. Raises `MetadataError` if the
    shape is another, or a pixel is not finite.
    """

    warnings: tuple[str, ...] = ()
    pixel_size_angstrom: float | None = None  # which the optics table knows

    def __init__(self, images: ArrayLike) -> None:
        self._images = np.ascontiguousarray(images, dtype=np.float32)
        self.path = Path(f"memory-{next(_NUMBERS)}.mrcs")
        if self._images.ndim != 3 or self._images.shape[1] != self._images.shape[2]:
            raise MetadataError(f"images must be (n, box, box), not {self._images.shape}")
        odd = np.flatnonzero(~np.isfinite(self._images).all(axis=(1, 2)))
        if len(odd):
            raise MetadataError(f"image {odd[0] + 1} has pixels that are not finite")
        self.shape: tuple[int, int, int] = self._images.shape
        self.file_bytes = self._images.nbytes

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def read(self, indices: Any = None) -> NDArray[np.float32]:
        """Return a copy of images, ``(k, box, box)``: integers counted from 0, one integer, or all."""
        every = np.arange(len(self))
        return self._images[np.atleast_1d(every if indices is None else indices)]


_MOST_PLACES = 3  # that a message names


@dataclass(frozen=True)
class StackFile:
    """One stack as the STAR file names it, and where it was found.

    - ``name``: the path as written in the STAR file.
    - ``folder``: the folder that ``name`` is relative to; None if the stack was found by a part of
      its name.
    - ``stack``: the opened stack, in a file or in memory; None if it was not looked for or not
      found.
    - ``in_project``: whether ``folder`` is not the STAR file's own but one above it: a RELION
      project's.
    """

    name: str
    folder: Path | None = None
    stack: MrcStack | ArrayStack | None = None
    in_project: bool = False


def parse_image_names(
    place: Place, table: pd.DataFrame
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Split ``000001@path`` of the column rlnImageName.

    Returns the different paths; ``(n,)`` which of them each row has; ``(n,)`` the image's index,
    from 0. A name without ``@`` is the only image of a file. Raises `MetadataError` if the number
    is not one from 1 on, or several rows name one file without a number.
    """
    parts = [name.partition("@") for name in table["rlnImageName"].tolist()]
    _refuse_repeated_files(place, table, np.array([not at for _, at, _ in parts]))
    numbers = [number if at else "1" for number, at, _ in parts]
    paths = [path if at else number for number, at, path in parts]
    if not _all_numbers(numbers):
        bad = np.array([not _all_numbers([number]) for number in numbers])
        legal = "expected a number from 1 on, @ and the path of a stack"
        refuse(place, table, "rlnImageName", bad, legal)
    indices = np.array(list(map(int, numbers)), dtype=np.int64) - 1
    refuse(place, table, "rlnImageName", indices < 0, "images are counted from 1")
    words = np.empty(len(paths), dtype=object)
    words[:] = paths
    codes, names = pd.factorize(words)
    missing = np.array([not name for name in names])[codes]
    refuse(place, table, "rlnImageName", missing, "the path is missing")
    return [str(name) for name in names], codes.astype(np.int64), indices


def _refuse_repeated_files(place: Place, table: pd.DataFrame, whole: NDArray[np.bool_]) -> None:
    """Refuse rows that name a file without the number of an image, as another row does."""
    if not whole.any():
        return
    repeated = whole & table["rlnImageName"].where(whole).duplicated(keep=False).to_numpy()
    legal = (
        "several rows name this stack without the number of an image; write 000001@ and its path"
    )
    refuse(place, table, "rlnImageName", repeated, legal)


def _all_numbers(words: list[str]) -> bool:
    """Return whether all words are decimal numbers of 1 to 18 digits."""
    joined = "".join(words)
    lengths = list(map(len, words))
    return joined.isascii() and joined.isdigit() and min(lengths) > 0 and max(lengths) < 19


def locate_images(
    place: Place,
    names: Sequence[str],
    file_of: NDArray[np.int64],
    data_dir: Path | None,
    required: bool,
) -> tuple[StackFile, ...]:
    """Find and open (header only) the stacks.

    Raises `MissingImagesError` if a stack is not where it is looked for and ``required``; the row
    is named; `FileFormatError` if a stack is not an MRC file; the row is named.
    """
    first_row = np.full(len(names), -1)
    first_row[file_of[::-1]] = np.arange(len(file_of))[::-1]
    files = []
    shortened: dict[Path, str] = {}
    for name, row in zip(names, first_row, strict=True):
        found = _find(name, place.path, data_dir)
        if found is None:
            if required:
                tried = _tried(name, place.path, data_dir)
                looked = f"; tried {tried}" if tried else ""
                raise MissingImagesError(
                    f"{place.row(int(row))}: no stack {shown(name)}{looked}; {_remedy(name)}"
                )
            files.append(StackFile(name))
            continue
        path, folder = found
        if folder is None and shortened.setdefault(path, name) != name:
            raise FileFormatError(
                f"{place.row(int(row))}: {shown(name)} and {shown(shortened[path])} are both {path} under "
                "--data-dir; give the folder that their whole names are relative to"
            )
        try:
            in_project = folder is not None and folder != _folder_of(place.path)
            files.append(StackFile(name, folder, MrcStack(path), in_project))
        except FileFormatError as error:
            raise FileFormatError(f"{place.row(int(row))}: {error}") from error
    return tuple(files)


def micrograph_shapes(star: Path, names: pd.Series) -> NDArray[np.int64] | None:
    """Return rows and columns of each particle's micrograph, ``(n, 2)``, from the files' headers.

    None if not all micrographs are where a table at ``star`` names them.
    """
    codes, different = pd.factorize(names.astype(str))
    shapes = np.zeros((len(different), 2), dtype=np.int64)
    for number, name in enumerate(different):
        found = _find(name, star, None)
        if found is None:
            return None
        try:
            shapes[number] = read_header(found[0]).shape[1:]
        except FileFormatError:
            return None
    return shapes[codes]


def _tried(name: str, star: Path, data_dir: Path | None) -> str:
    """Return the first places where a stack was looked for."""
    paths = dict.fromkeys(str(path) for path, _ in _candidates(name, star, data_dir))
    return listed(list(paths), _MOST_PLACES)


def _remedy(name: str) -> str:
    """Return what to do about a stack that was not found."""
    if PureWindowsPath(name).drive or "\\" in name:
        return "this is a path of Windows: give the folder of the images here with --data-dir"
    return "if the images have moved, give their folder with --data-dir"


def _find(name: str, star: Path, data_dir: Path | None) -> tuple[Path, Path | None] | None:
    """Return the path of a stack and the folder that its whole name is relative to, if any."""
    for path, folder in _candidates(name, star, data_dir):
        try:
            if path.exists():
                return path, folder
        except (OSError, ValueError):  # a name that is too long for any file
            continue
    return None


def _candidates(name: str, star: Path, data_dir: Path | None) -> Iterator[tuple[Path, Path | None]]:
    """Give the paths where a stack may be, the likeliest first, each with the folder it is relative to.

    First the whole name, in ``data_dir``, the STAR file's folder and its parents (the folder of a
    RELION project is one of them); then in ``data_dir`` what is left when leading folders are
    dropped. A name with backslashes is also tried with slashes.
    """
    here = _folder_of(star)
    spellings = [name] if "\\" not in name else [name, name.replace("\\", "/")]
    if PureWindowsPath(name).drive:
        spellings = []  # such as C:\\data: nowhere in this file system
    for spelling in spellings:
        if PurePosixPath(spelling).is_absolute():
            yield Path(spelling), here
            continue
        folders = [*([] if data_dir is None else [_folder_of(data_dir / "x")]), here, *here.parents]
        yield from ((folder / spelling, folder) for folder in folders)
    if data_dir is not None:
        windows = PureWindowsPath(name)
        pure = windows if windows.drive else PurePosixPath(spellings[-1])
        parts = [part for part in pure.parts if part not in (pure.anchor, "..")]
        yield from ((data_dir.joinpath(*parts[start:]), None) for start in range(len(parts)))


def _folder_of(path: Path) -> Path:
    """Return the absolute folder of a file, symbolic links kept: its parents may be links' parents."""
    return Path(os.path.abspath(path)).parent  # noqa: PTH100


def renamed(files: Sequence[StackFile], target: Path) -> list[str]:
    """Return the names under which a STAR file at ``target`` refers to its stacks.

    Images in memory are written next to the STAR file, under its name with the suffix .mrcs.
    """
    number = 0
    names = []
    for file in files:
        if not isinstance(file.stack, ArrayStack):
            names.append(_renamed(file, target))
            continue
        number += 1
        names.append(f"{target.stem}.mrcs" if number == 1 else f"{target.stem}_{number}.mrcs")
    return names


def _renamed(file: StackFile, target: Path) -> str:
    """Return the name under which a STAR file at ``target`` refers to a stack.

    A name relative to the folder of a RELION project stays as it is while the new STAR file is
    inside the same project; otherwise it becomes relative to the new STAR file's folder, or
    absolute if that would lead over the root of the file system.
    """
    if file.stack is None or Path(file.name).is_absolute():
        return file.name
    new = _folder_of(target)
    if file.folder is not None and (
        file.folder == new or (file.in_project and file.folder in new.parents)
    ):
        return file.name
    stack = file.stack.path.parent.resolve() / file.stack.path.name
    try:
        common = Path(os.path.commonpath([stack, new.resolve()]))
    except ValueError:  # different drives
        return stack.as_posix()
    if common == Path(common.anchor):
        return stack.as_posix()
    return Path(os.path.relpath(stack, new.resolve())).as_posix()
