"""From the tables of a stack to the records of a .cs file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._checks import Place
from napari_cryosphere.particles._poses import ANGLES, ORIGINS
from napari_cryosphere.particles._stack_files import parse_image_names
from napari_cryosphere.particles._tables import GROUP
from napari_cryosphere.particles.cs.aberrations import aberration_fields
from napari_cryosphere.particles.cs.carried import carried_fields
from napari_cryosphere.particles.cs.fields import (
    CARRIED,
    CTF,
    DEFAULTS,
    OF_GROUP,
    OPTICS_CARRIED,
    OTHER,
    TYPES,
)
from napari_cryosphere.particles.cs.locations import filament_fields, location_fields
from napari_cryosphere.so3.rotations import rotation_from_relion_angles, vector_from_rotation

__all__ = ["records_of_tables"]

_NO_DEFAULT = {
    *OF_GROUP,
    *("blob/shape", "blob/import_sig", "alignments3D/split", "alignments3D/psize_A"),
}


def records_of_tables(
    path: Path,
    particles: pd.DataFrame,
    optics: pd.DataFrame,
    micrograph_shapes: NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Return the ``(n,)`` records of particles under RELION's names.

    Coordinates become fractions of the micrographs, whose rows and columns are
    ``micrograph_shapes``, ``(n, 2)``, where the table itself does not keep them.

    Columns that cryoSPARC has no field for are kept in fields ``relion/...`` and
    ``relion_optics/...``.

    Raises `MetadataError` if the pixel size is not known but shifts are, or a value fits no field.
    """
    fields = carried_fields(particles)
    if micrograph_shapes is not None:
        fields.setdefault("location/micrograph_shape", micrograph_shapes)
    group_rows = optics.set_index(GROUP).loc[particles[GROUP]].reset_index()
    own = {name.removeprefix(CARRIED): name for name in optics if name.startswith(CARRIED)}
    fields |= {field: group_rows[name].to_numpy() for field, name in own.items()}
    fields.setdefault("ctf/exp_group_id", particles[GROUP].to_numpy())
    names, codes, indices = parse_image_names(Place(path, "particles"), particles)
    fields["blob/path"] = np.array([name.encode() for name in names])[codes]
    fields["blob/idx"] = indices
    used = {"rlnImageName", GROUP} | {name for name in particles if name.startswith(CARRIED)}
    used_optics = {GROUP, "rlnImageSize", *own.values()}
    if "rlnImageSize" in optics:
        fields["blob/shape"] = np.repeat(group_rows[["rlnImageSize"]].to_numpy(), 2, axis=1)
    for field, column in OF_GROUP.items():
        if column in optics:
            fields[field] = group_rows[column].to_numpy()
            used_optics.add(column)
    for field, (column, unit) in CTF.items():
        if column in particles:
            values = particles[column].to_numpy(dtype=np.float64)
            fields[field] = np.radians(values) if unit == "rad" else values
            used.add(column)
    used |= _add_alignment(path, particles, fields)
    # the optics table's values go before a row's
    own_rows = particles[[name for name in particles if name not in optics]].reset_index(drop=True)
    for found, columns in (
        location_fields(particles, fields),
        filament_fields(particles, fields),
        aberration_fields(group_rows.combine_first(own_rows)),
    ):
        fields |= found
        used |= columns
        used_optics |= columns
    if "rlnMicrographName" in particles:
        fields["location/micrograph_path"] = particles["rlnMicrographName"].to_numpy()
        used.add("rlnMicrographName")
    _mark_paths(particles, fields)
    if "uid" not in fields:
        fields["uid"] = _uids(particles["rlnImageName"].tolist())
    _add_defaults(fields, len(particles))
    fields |= {OTHER + name: particles[name].to_numpy() for name in particles if name not in used}
    # Group numbers are kept next to cryoSPARC's own, which count from 0.
    fields |= {
        OPTICS_CARRIED + name: group_rows[name].to_numpy()
        for name in optics
        if name == GROUP or name not in used_optics
    }
    return _records(path, fields, len(particles))


def _mark_paths(particles: pd.DataFrame, fields: dict[str, NDArray[Any]]) -> None:
    """Give paths back the ``>`` of a path relative to the project, where they are still those."""
    for field in ("blob/path", "location/micrograph_path"):
        if CARRIED + field in particles:
            kept = particles[CARRIED + field].astype(str).tolist()
            now = [
                word.decode() if isinstance(word, bytes) else str(word)
                for word in fields[field].tolist()
            ]
            fields[field] = np.array(
                [
                    (old if old.removeprefix(">") == new else new).encode()
                    for old, new in zip(kept, now, strict=True)
                ]
            )


def _add_alignment(
    path: Path, particles: pd.DataFrame, fields: dict[str, NDArray[Any]]
) -> set[str]:
    """Add poses, shifts, half sets and classes if there are poses; return the columns that were used."""
    if not all(name in particles for name in ANGLES):
        return set()
    rotations = rotation_from_relion_angles(particles[list(ANGLES)].to_numpy(dtype=np.float64))
    fields["alignments3D/pose"] = vector_from_rotation(rotations)
    used = set(ANGLES)
    if all(name in particles for name in ORIGINS):
        if "blob/psize_A" not in fields:
            raise MetadataError(
                f"{path}: shifts in pixels need the pixel size; add rlnImagePixelSize to data_optics"
            )
        sizes = np.asarray(fields["blob/psize_A"], dtype=np.float64)
        fields["alignments3D/psize_A"] = sizes
        shifts = particles[list(ORIGINS)].to_numpy(dtype=np.float64)
        fields["alignments3D/shift"] = shifts / sizes[:, None]
        used |= set(ORIGINS)
    for column, field in (("rlnRandomSubset", "split"), ("rlnClassNumber", "class")):
        if (
            column in particles
            and particles[column].dtype.kind in "iu"
            and particles[column].min() >= 1
        ):
            fields[f"alignments3D/{field}"] = particles[column].to_numpy() - 1
            # All in one half set means none to cryoSPARC: RELION's column is kept, too.
            if field == "class" or particles[column].nunique() > 1:
                used.add(column)
    return used


def _uids(names: list[str]) -> NDArray[np.uint64]:
    """Return a number for each particle that depends on its image, and on how often that came before."""
    repeats = pd.Series(names).groupby(names).cumcount().tolist()
    digests = (
        hashlib.blake2b(f"{name}#{repeat}".encode(), digest_size=8).digest()
        for name, repeat in zip(names, repeats, strict=True)
    )
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _add_defaults(fields: dict[str, NDArray[Any]], number: int) -> None:
    """Add the fields that cryoSPARC expects in the groups that are there."""
    marks = {"blob": "blob/path", "ctf": "ctf/df1_A", "alignments3D": "alignments3D/pose"}
    groups = {group for group, mark in marks.items() if mark in fields}
    for name, (kind, components) in TYPES.items():
        if name not in fields and name.split("/")[0] in groups and name not in _NO_DEFAULT:
            shape = (number,) if components == 1 else (number, components)
            fields[name] = np.full(shape, DEFAULTS.get(name, b"" if kind == "S" else 0))


def _records(path: Path, fields: dict[str, NDArray[Any]], number: int) -> NDArray[Any]:
    """Put the fields into records, cryoSPARC's own first and in its types."""
    order = [name for name in TYPES if name in fields] + sorted(
        name for name in fields if name not in TYPES
    )
    columns = {name: _column(path, name, fields[name]) for name in order}
    dtype = np.dtype([(name, column.dtype, column.shape[1:]) for name, column in columns.items()])
    records = np.zeros(number, dtype=dtype)
    for name, column in columns.items():
        records[name] = column
    return records


def _column(path: Path, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return a field's values in the type that they are written in."""
    kind = TYPES[name][0] if name in TYPES else ""
    if kind == "S" or (not kind and values.dtype.kind not in "iufb"):
        if values.dtype.kind == "S":
            return values
        return np.array([str(value).encode() for value in values.tolist()])
    if not kind:
        return values.astype(values.dtype.newbyteorder("<"))
    try:
        numbers = np.asarray(values, dtype=None if values.dtype.kind in "iufb" else np.float64)
        limits = np.iinfo(kind) if kind[1] in "iu" else None
        if limits is not None and not (
            numbers.dtype.kind in "iub"
            and int(numbers.min()) >= limits.min
            and int(numbers.max()) <= limits.max
        ):
            raise ValueError(f"integers from {limits.min} to {limits.max}")
        with np.errstate(over="raise"):
            return numbers.astype(kind)
    except (ValueError, FloatingPointError) as error:
        raise MetadataError(
            f"{path}: a value does not fit cryoSPARC's field {name} ({kind}): {error}; check the column"
        ) from error
