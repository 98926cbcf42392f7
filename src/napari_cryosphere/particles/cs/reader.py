"""From a .cs file to the tables that a STAR file would hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._checks import Place, counted, in_legal_ranges, listed
from napari_cryosphere.particles.cs.aberrations import EVEN, ODD, aberration_columns
from napari_cryosphere.particles.cs.fields import (
    CARRIED,
    CTF,
    DEFAULTS,
    NAMES,
    OF_GROUP,
    OPTICS_CARRIED,
    OTHER,
    TYPES,
)
from napari_cryosphere.particles.cs.locations import filament_columns, location_columns
from napari_cryosphere.particles.cs.poses import alignment_columns, refuse_degrees
from napari_cryosphere.particles.cs.records import Records, read_records, shortest

__all__ = ["tables_of_cs"]

_MOST_COMPONENTS = 64  # of a field that is kept, a column each; chosen, not tuned
_OPTIONAL = ("rlnPhaseShift", "rlnCtfBfactor")
_VOLUMES = ("map", "map_half_A", "map_sharp", "mask")  # groups of fields
# Paths that may be marked as relative to the project's folder.
_MARKED = ("blob/path", "location/micrograph_path")


def tables_of_cs(path: Path) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Read a .cs file, with the fields that it lacks from the passthrough file next to it; or a group.

    Returns the blocks ``optics`` and ``particles`` under RELION's names and in its units, and
    warnings. Other fields are kept in columns ``cryosparc/...``. Raises `FileFormatError` as
    :func:`napari_cryosphere.particles.cs.read_cs`; `MetadataError` if there are no particles, no
    images, or a value that is used is not a finite number.
    """
    read = read_records(path)
    if "blob/path" not in read and any(name.startswith("micrograph_blob") for name in read.fields):
        raise MetadataError(
            f"{path} holds micrographs (micrograph_blob), not particles; extract particles first"
        )
    volumes = next((name for name in read.fields if name.partition("/")[0] in _VOLUMES), None)
    if "blob/path" not in read and volumes is not None:
        raise MetadataError(
            f"{path} holds volumes ({volumes}), not particles; give the .mrc file that it names"
        )
    if "blob/path" not in read or "blob/idx" not in read:
        raise MetadataError(
            f"{path} has no images: no field blob/path or blob/idx, here or in a passthrough file next to "
            "it; put the job's passthrough_particles.cs there, or export the particles' blobs"
        )
    columns: dict[str, Any] = {"rlnImageName": _image_names(read)}
    optics, groups = _optics(read)
    columns["rlnOpticsGroup"] = groups
    columns |= _defocus(read)
    columns |= alignment_columns(read)
    columns |= location_columns(read) | filament_columns(read)
    if "location/micrograph_path" in read:
        codes, paths = read.texts("location/micrograph_path")
        columns["rlnMicrographName"] = np.array(
            [_project_path(name) for name in paths], dtype=object
        )[codes]
    _note_what_is_not_applied(read)
    columns |= dict(_carried(read))
    return {"optics": optics, "particles": pd.DataFrame(columns)}, tuple(read.notes)


def _image_names(read: Records) -> list[str]:
    """Return ``000001@path`` of each row."""
    codes, paths = read.texts("blob/path")
    names = [_project_path(path) for path in paths]
    indices = read.numbers("blob/idx")
    if indices.dtype.kind == "f" or indices.min() < 0:
        raise MetadataError(f"{read.path}: blob/idx must be integers from 0 on")
    return [
        f"{index + 1:06d}@{names[code]}"
        for index, code in zip(indices.tolist(), codes.tolist(), strict=True)
    ]


def _project_path(path: str) -> str:
    """Return a path without the ``>`` that cryoSPARC writes before one relative to the project's folder."""
    return path.removeprefix(">")


def _optics(read: Records) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the optics table, and the group of each row: one for each exposure group and set of values."""
    values: dict[str, NDArray[Any]] = {}
    if "ctf/exp_group_id" in read:
        values[CARRIED + "ctf/exp_group_id"] = read.numbers("ctf/exp_group_id")
    for name, column in OF_GROUP.items():
        if name in read:
            values[column] = read.numbers(name)
    in_legal_ranges(Place(read.path, "", NAMES), pd.DataFrame(values))  # before these are used
    aberrations = aberration_columns(read)
    if "blob/shape" in read:
        shape = read.numbers("blob/shape", 2)
        odd = shape[:, 0] != shape[:, 1]
        if odd.any():
            row = int(odd.argmax())
            raise MetadataError(
                f"{Place(read.path, '').row(row)}: blob/shape is {shape[row]}; images must be square"
            )
        values["rlnImageSize"] = shape[:, 0]
    for kept in (ODD, EVEN):
        if not any(OPTICS_CARRIED + name in read for name in kept):  # they say more
            values |= {name: aberrations[name] for name in kept if name in aberrations}
    values |= {name: aberrations[name] for name in aberrations if name not in (*ODD, *EVEN)}
    _, warnings = in_legal_ranges(Place(read.path, "", NAMES), pd.DataFrame(values))
    read.notes += warnings
    for name in read.fields:
        if name.startswith(OPTICS_CARRIED) and read.fields[name].ndim == 1:
            values[name.removeprefix(OPTICS_CARRIED)] = _plain(read, name)
    table = pd.DataFrame(
        {name: shortest(column) for name, column in values.items()}, index=range(read.number)
    )
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


def _defocus(read: Records) -> dict[str, NDArray[np.float64]]:
    columns = {}
    for name, (column, unit) in CTF.items():
        if name in read:
            values = read.numbers(name).astype(np.float64)
            if column not in _OPTIONAL or values.any():
                if unit == "rad":
                    refuse_degrees(Place(read.path, ""), name, values)
                columns[column] = np.degrees(values) if unit == "rad" else values
    return columns


def _note_what_is_not_applied(read: Records) -> None:
    """Name a shift of the beam, which is kept, and images that are dark on light."""
    if "ctf/shift_A" in read and read.numbers("ctf/shift_A", 2).any():
        read.used.discard("ctf/shift_A")
        read.notes.append(f"{read.path}: field ctf/shift_A kept but not applied")
    if "blob/sign" in read and (read.numbers("blob/sign") < 0).any():
        read.used.discard("blob/sign")
        read.notes.append(
            f"{read.path}: blob/sign is -1 (particles dark on light); images are multiplied by it"
        )


def _carried(read: Records) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the fields that no column of RELION holds, one column per component."""
    for name in _MARKED:
        if name in read:
            codes, paths = read.texts(name)
            if any(path.startswith(">") for path in paths):
                yield CARRIED + name, np.array(paths, dtype=object)[codes]
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
        read.notes.append(
            f"{read.path}: {counted(len(left_out), 'field')} left out: {listed(left_out)}"
        )


def _is_default(name: str, values: NDArray[Any]) -> bool:
    """Return whether a field says nothing: it would be written with the same values if it were not kept."""
    if name not in TYPES or name in ("uid", "blob/import_sig") or name.startswith("location/"):
        return False
    return bool((values == DEFAULTS.get(name, b"" if values.dtype.kind == "S" else 0)).all())


def _plain(read: Records, name: str) -> NDArray[Any]:
    """Return a field of numbers as it is, one of text as text."""
    if read.fields[name].dtype.kind not in "SU":
        read.used.add(name)
        return read.fields[name]
    codes, words = read.texts(name)
    return np.array(words, dtype=object)[codes]
