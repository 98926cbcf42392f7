"""From a .cs file to the tables that a STAR file would hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.particles._columns import Place
from napari_cryosphere.particles._cs_fields import (
    CARRIED,
    CTF,
    DEFAULTS,
    OF_GROUP,
    OPTICS_CARRIED,
    OTHER,
    TYPES,
)
from napari_cryosphere.particles._messages import counted, listed
from napari_cryosphere.particles.cs import read_cs
from napari_cryosphere.so3.rotations import relion_angles_from_rotation, rotation_from_vector

__all__ = ["tables_of_cs"]

_MOST_COMPONENTS = 64
_DECIMALS = 8
_NEEDED = ("blob/path", "blob/idx", "ctf/df1_A", "alignments3D/pose")
_NOT_APPLIED = ("ctf/shift_A", "ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag", "ctf/bfactor")
_CLASS = re.compile(r"(alignments_class_?\w*?\d+)/pose")


@dataclass
class _Records:
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

        Raises
        ------
        MetadataError
            If it has another shape, is text, or a value is not finite: file, row and field are named.
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
        """Return which of the different texts each row has, and those."""
        values = self.fields[name]
        if values.dtype.kind not in "SU" or values.ndim != 1:
            raise MetadataError(f"{self.path}: {name} has {values.dtype}; expected text")
        self.used.add(name)
        words = np.empty(self.number, dtype=object)
        words[:] = values.tolist()
        codes, different = pd.factorize(words)
        return codes.astype(np.int64), [_text(word) for word in different]


def tables_of_cs(path: Path) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Read a .cs file, with the fields that it lacks from the passthrough file beside it.

    Returns
    -------
    The blocks ``optics`` and ``particles`` under RELION's names and in its units, and warnings. Other fields
    are kept in columns ``cryosparc/...``.

    Raises
    ------
    FileFormatError
        As :func:`napari_cryosphere.particles.cs.read_cs`.
    MetadataError
        If there are no particles, no images, or a value that is used is not a finite number.
    """
    records = read_cs(path)
    if not len(records):
        raise MetadataError(f"{path} has no particles (fields but no rows)")
    read = _Records(path, len(records), {name: records[name] for name in _names(records)})
    _pass_through(read)
    if "blob/path" not in read or "blob/idx" not in read:
        raise MetadataError(
            f"{path} has no images: no field blob/path or blob/idx, here or in a passthrough file beside it; "
            "put the job's passthrough_particles.cs there, or export the particles' blobs"
        )
    columns: dict[str, Any] = {"rlnImageName": _image_names(read)}
    optics, groups = _optics(read)
    columns["rlnOpticsGroup"] = groups
    columns |= _defocus(read)
    columns |= _alignment(read)
    if "location/micrograph_path" in read:
        codes, paths = read.texts("location/micrograph_path")
        columns["rlnMicrographName"] = np.array([_project_path(name) for name in paths], dtype=object)[codes]
    _note_what_is_not_applied(read)
    columns |= dict(_carried(read))
    return {"optics": optics, "particles": pd.DataFrame(columns)}, tuple(read.notes)


def _pass_through(read: _Records) -> None:
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


def _image_names(read: _Records) -> list[str]:
    """Return ``000001@path`` of each row."""
    codes, paths = read.texts("blob/path")
    names = [_project_path(path) for path in paths]
    indices = read.numbers("blob/idx")
    if indices.dtype.kind == "f" or indices.min() < 0:
        raise MetadataError(f"{read.path}: blob/idx must be integers from 0 on")
    return [
        f"{index + 1:06d}@{names[code]}" for index, code in zip(indices.tolist(), codes.tolist(), strict=True)
    ]


def _project_path(path: str) -> str:
    """Return a path without the ``>`` that cryoSPARC writes before one relative to the project's folder."""
    return path.removeprefix(">")


def _optics(read: _Records) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the optics table, and the group of each row: one for each exposure group and set of values."""
    values: dict[str, NDArray[Any]] = {}
    if "ctf/exp_group_id" in read:
        values[CARRIED + "ctf/exp_group_id"] = read.numbers("ctf/exp_group_id")
    for name, column in OF_GROUP.items():
        if name in read:
            values[column] = read.numbers(name)
    if "blob/shape" in read:
        shape = read.numbers("blob/shape", 2)
        odd = shape[:, 0] != shape[:, 1]
        if odd.any():
            row = int(odd.argmax())
            raise MetadataError(
                f"{Place(read.path, '').row(row)}: blob/shape is {shape[row]}; images must be square"
            )
        values["rlnImageSize"] = shape[:, 0]
    for name in read.fields:
        if name.startswith(OPTICS_CARRIED) and read.fields[name].ndim == 1:
            values[name.removeprefix(OPTICS_CARRIED)] = _plain(read, name)
    table = pd.DataFrame({name: _short(column) for name, column in values.items()}, index=range(read.number))
    if table.empty and not values:
        groups = np.zeros(read.number, dtype=np.int64)
    else:
        groups = table.groupby(list(table), sort=False, dropna=False).ngroup().to_numpy()
    first = np.unique(groups, return_index=True)[1]
    optics = table.iloc[first].reset_index(drop=True)
    numbers = np.arange(1, len(optics) + 1)
    if "rlnOpticsGroup" in optics:
        given = pd.to_numeric(optics["rlnOpticsGroup"], errors="coerce")
        numbers = given.to_numpy() if given.is_unique and given.notna().all() else numbers
    optics["rlnOpticsGroup"] = numbers
    if np.array_equal(optics.get(CARRIED + "ctf/exp_group_id", ()), numbers):
        del optics[CARRIED + "ctf/exp_group_id"]
    if "rlnOpticsGroupName" not in optics:
        optics.insert(0, "rlnOpticsGroupName", [f"opticsGroup{number}" for number in numbers])
    return optics, np.asarray(numbers)[groups]


def _short(column: NDArray[Any]) -> NDArray[Any]:
    """Return single precision as the shortest decimal number that means it: 2.7, not 2.700000047683716."""
    if column.dtype.kind != "f" or column.dtype.itemsize >= 8:
        return column
    different, codes = np.unique(column, return_inverse=True)
    return np.array([float(str(value)) for value in different])[codes]


def _defocus(read: _Records) -> dict[str, NDArray[np.float64]]:
    columns = {}
    for name, (column, unit) in CTF.items():
        if name in read:
            values = read.numbers(name).astype(np.float64)
            if column != "rlnPhaseShift" or values.any():
                columns[column] = np.degrees(values) if unit == "rad" else values
    return columns


def _alignment(read: _Records) -> dict[str, NDArray[Any]]:
    """Return poses, shifts, half sets and classes."""
    group = _alignment_group(read)
    if group is None:
        if any(name.startswith("alignments2D/") for name in read.fields):
            read.notes.append(f"{read.path}: no 3D poses, only those of 2D classes (alignments2D)")
        return {}
    vectors = read.numbers(f"{group}/pose", 3).astype(np.float64)
    angles = relion_angles_from_rotation(rotation_from_vector(vectors)).round(_DECIMALS)
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    columns: dict[str, NDArray[Any]] = {name: angles[:, axis] for axis, name in enumerate(names)}
    size = next((name for name in (f"{group}/psize_A", "blob/psize_A") if name in read), None)
    if f"{group}/shift" in read and size is not None:
        shifts = read.numbers(f"{group}/shift", 2).astype(np.float64) * _short(read.numbers(size))[:, None]
        columns |= {f"rlnOrigin{axis}Angst": shifts[:, number] for number, axis in enumerate("XY")}
    for name, column in (("split", "rlnRandomSubset"), ("class", "rlnClassNumber")):
        if f"{group}/{name}" in read:
            columns[column] = read.numbers(f"{group}/{name}").astype(np.int64) + 1
    halves = columns.get("rlnRandomSubset", np.zeros(0))
    if len(halves) > 1 and (halves == halves[0]).all():
        del columns["rlnRandomSubset"]
        read.notes.append(f"{read.path}: {group}/split is {halves[0] - 1} for all particles: no half sets")
    return columns


def _alignment_group(read: _Records) -> str | None:
    """Return the group of fields with the 3D poses; of several classes the likelier is put in one group."""
    if "alignments3D/pose" in read:
        return "alignments3D"
    group = "likeliest class"
    classes = sorted(match[1] for name in read.fields if (match := _CLASS.fullmatch(name)))
    if read.fields.get("alignments3D_multi/pose", np.zeros(0)).ndim == 3:
        columns = {
            name.split("/")[1]: values
            for name, values in read.fields.items()
            if name.startswith("alignments3D_multi/")
        }
    elif classes:
        shared = [name.split("/")[1] for name in read.fields if name.startswith(classes[0] + "/")]
        columns = {
            name: np.stack([read.fields[f"{one}/{name}"] for one in classes], axis=1)
            for name in shared
            if len({getattr(read.fields.get(f"{one}/{name}"), "shape", None) for one in classes}) == 1
        }
    else:
        return None
    likelihood = columns.get("class_posterior", np.zeros(0))
    if likelihood.ndim != 2 or likelihood.dtype.kind != "f" or not likelihood.size:
        return None
    best = likelihood.argmax(axis=1)
    every = np.arange(read.number)
    for name, values in columns.items():
        chosen = values[every, best] if values.ndim > 1 and values.shape[1] == likelihood.shape[1] else values
        read.fields[f"{group}/{name}"] = chosen
        read.used.add(f"{group}/{name}")
    read.notes.append(f"{read.path}: poses in {likelihood.shape[1]} classes; each particle has its likeliest")
    return group


def _note_what_is_not_applied(read: _Records) -> None:
    """Name aberrations that are carried, and images that are dark on light."""
    there = [
        name
        for name in _NOT_APPLIED
        if name in read and read.fields[name].dtype.kind == "f" and np.any(read.fields[name])
    ]
    if there:
        fields = "field" if len(there) == 1 else "fields"
        read.notes.append(f"{read.path}: {fields} {', '.join(there)} kept but not applied")
    if "blob/sign" in read and (read.numbers("blob/sign") < 0).any():
        read.used.discard("blob/sign")
        read.notes.append(
            f"{read.path}: blob/sign is -1, particles are dark on light; images are used as they are stored"
        )


def _carried(read: _Records) -> Iterator[tuple[str, NDArray[Any]]]:
    """Give the fields that no RELION column stands for, one column a component."""
    left_out = []
    for name, values in read.fields.items():
        if name in read.used or _is_default(name, values):
            continue
        label = name.removeprefix(OTHER) if name.startswith(OTHER) else CARRIED + name
        components = int(np.prod(values.shape[1:], dtype=np.int64))
        if values.dtype.kind not in "iufbSU" or components > _MOST_COMPONENTS:
            left_out.append(name)
        elif values.ndim == 1:
            yield label, _plain(read, name)
        else:
            flat = values.reshape(read.number, components)
            for component in range(components):
                yield f"{label}[{component}]", flat[:, component]
    if left_out:
        read.notes.append(f"{read.path}: {counted(len(left_out), 'field')} left out: {listed(left_out)}")


def _is_default(name: str, values: NDArray[Any]) -> bool:
    """Return whether a field says nothing: it would be written with the same values if it were not kept."""
    if name not in TYPES or name in ("uid", "blob/import_sig") or name.startswith("location/"):
        return False
    return bool((values == DEFAULTS.get(name, b"" if values.dtype.kind == "S" else 0)).all())


def _plain(read: _Records, name: str) -> NDArray[Any]:
    """Return a field of numbers as it is, one of text as text."""
    if read.fields[name].dtype.kind not in "SU":
        read.used.add(name)
        return read.fields[name]
    codes, words = read.texts(name)
    return np.array(words, dtype=object)[codes]


def _text(word: bytes | str) -> str:
    if isinstance(word, str):
        return word
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        return word.decode("latin-1")
