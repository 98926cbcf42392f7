"""The fields of .cs files: checked when they are used, merged with those of passthrough files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError, FileFormatError, MetadataError
from napari_cryosphere.particles._checks import Place, shown
from napari_cryosphere.particles._opening import reading
from napari_cryosphere.particles.cs.file import read_cs

__all__ = ["Records", "read_records", "shortest"]

_LARGEST_GROUP_BYTES = 1 << 20  # a group has some ten results of 100 bytes
_NEEDED = ("blob/path", "blob/idx", "ctf/df1_A", "alignments3D/pose")


@dataclass
class Records:
    """The fields of one file, and of those merged into it; what has been used is noted."""

    path: Path
    number: int
    fields: dict[str, NDArray[Any]]
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def numbers(self, name: str, components: int = 1) -> NDArray[Any]:
        """Return a field as ``(n,)`` or ``(n, components)`` finite numbers in the type it is stored in.

        Raises `MetadataError` if it has another shape, is text, or a value is not finite: file, row
        and field are named.
        """
        values = self.fields[name]
        shape = (self.number,) if components == 1 else (self.number, components)
        if values.dtype.kind not in "iuf" or values.shape != shape:
            raise MetadataError(
                f"{self.path}: {name} has {values.dtype} of shape {values.shape}; expected numbers of {shape}"
            )
        bad = ~np.isfinite(values.reshape(self.number, -1)).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise MetadataError(
                f"{Place(self.path, '').row(row)}: {name} is {values[row]}; expected finite numbers"
            )
        self.used.add(name)
        return values

    def texts(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return which of the different texts each row has, ``(n,)``, and those.

        Raises `MetadataError` if it is no text, or one has control characters.
        """
        values = self.fields[name]
        if values.dtype.kind not in "SU" or values.ndim != 1:
            raise MetadataError(f"{self.path}: {name} has {values.dtype}; expected text")
        self.used.add(name)
        words = np.empty(self.number, dtype=object)
        words[:] = values.tolist()
        codes, different = pd.factorize(words)
        texts = [_text(word) for word in different]
        for code, text in enumerate(texts):
            if any(character < " " for character in text):
                row = int((codes == code).argmax())
                raise MetadataError(
                    f"{Place(self.path, '').row(row)}: {name} is {shown(text)}; expected text "
                    "without control characters"
                )
        return codes.astype(np.int64), texts


def read_records(path: Path) -> Records:
    """Read a .cs file, with the fields that it lacks from the passthrough file next to it; or a group.

    Raises `FileFormatError` as :func:`napari_cryosphere.particles.cs.read_cs`; `MetadataError` if
    there are no rows.
    """
    if path.suffix.lower() == ".csg":
        return _read_group(path)
    records = read_cs(path)
    if not len(records):
        raise MetadataError(f"{path} has no particles (fields but no rows)")
    read = Records(path, len(records), {name: records[name] for name in _names(records)})
    _pass_through(read)
    return read


def _read_group(path: Path) -> Records:
    """Return the fields of a group (.csg), each from the file that the group names, merged by uid."""
    read: Records | None = None
    results = _metafiles_of(path)
    for file in dict.fromkeys(file for file, _ in results.values()):
        names = {name for name in results if results[name][0] == file}
        records = read_cs(file)
        if not len(records):
            raise MetadataError(f"{file} has no particles (fields but no rows)")
        promised = next((items for at, items in results.values() if at == file and items), None)
        if promised not in (None, len(records)):
            raise MetadataError(
                f"{path}: num_items is {promised} for {file.name}, which has {len(records)}; "
                "export the group again"
            )
        mine = [name for name in _names(records) if name == "uid" or name.split("/")[0] in names]
        if read is None:
            read = Records(path, len(records), {name: records[name] for name in mine})
            continue
        rows = _rows_by_uid(read.fields["uid"], records) if "uid" in read else None
        if rows is None:
            raise MetadataError(
                f"{path}: {file.name} does not have the particles (uid) of the group's other files; "
                "export the group again"
            )
        read.fields |= {name: records[name][rows] for name in mine if name not in read}
    assert read is not None
    return read


def _metafiles_of(path: Path) -> dict[str, tuple[Path, int | None]]:
    """Return the .cs file of each result of a group (``blob``, ``ctf``, ...), and its number of items.

    The number is None where the group does not say it. Raises `FileFormatError` if the file is
    missing or no group of particles.
    """
    results = _parsed(path).get("results")
    if not isinstance(results, dict) or not results:
        raise FileFormatError(f"{path} is no group of results: it names none")
    files: dict[str, tuple[Path, int | None]] = {}
    for name, result in results.items():
        metafile = result.get("metafile") if isinstance(result, dict) else None
        if not isinstance(name, str) or not isinstance(metafile, str) or "\0" in metafile:
            raise FileFormatError(
                f"{path}: the result {shown(name)} has no metafile; export the group again"
            )
        # A leading > means the group's own folder.
        items = result.get("num_items")
        number = items if isinstance(items, int) and not isinstance(items, bool) else None
        files[name] = path.parent / metafile.removeprefix(">"), number
    return files


def _parsed(path: Path) -> dict[str, Any]:
    """Return the content of a group of results (.csg)."""
    import yaml

    with reading(path):
        if path.stat().st_size > _LARGEST_GROUP_BYTES:
            raise FileFormatError(f"{path} is too large for a group of results (.csg)")
        text = path.read_bytes()
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError) as error:
        raise FileFormatError(
            f"{path} is no group of results (.csg): it is not YAML; export the group again"
        ) from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path} is no group of results (.csg): it has no results")
    return content


def _pass_through(read: Records) -> None:
    """Add the fields that are missing from passthrough files of the same job, merged by uid."""
    if all(name in read for name in _NEEDED) or "uid" not in read:
        return
    job = re.search(r"J\d+", read.path.name)
    for path in sorted(read.path.parent.glob("*passthrough*.cs")):
        if path == read.path or (job and job[0] not in re.findall(r"J\d+", path.name)):
            continue
        try:
            other = read_cs(path)
        except CryosphereError as error:
            read.notes.append(str(error))
            continue
        rows = _rows_by_uid(read.fields["uid"], other)
        new = [name for name in _names(other) if name not in read]
        if rows is None or not new:
            continue
        read.fields |= {name: other[name][rows] for name in new}
        groups = sorted({name.split("/")[0] for name in new})
        read.notes.append(f"{read.path}: {', '.join(groups)} taken from {path.name}, by uid")


def _names(records: NDArray[Any]) -> tuple[str, ...]:
    return records.dtype.names or ()


def _rows_by_uid(wanted: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return the rows of ``other`` that have the uids; None if some are not there or several are."""
    if "uid" not in _names(other):
        return None
    uids = other["uid"]
    if np.array_equal(uids, wanted):
        return np.arange(len(uids))
    index = pd.Index(uids)
    if not index.is_unique:
        return None
    rows = index.get_indexer(pd.Index(wanted))
    return None if (rows < 0).any() else rows


def shortest(column: NDArray[Any]) -> NDArray[Any]:
    """Return single precision, ``(n,)``, as the shortest decimal that means it: 2.7, not 2.700000047."""
    if column.dtype.kind != "f" or column.dtype.itemsize >= 8:
        return column
    different, codes = np.unique(column, return_inverse=True)
    return np.array([float(str(value)) for value in different])[codes]


def _text(word: bytes | str) -> str:
    if isinstance(word, str):
        return word
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        return word.decode("latin-1")
