"""cryoSPARC's own fields in the columns of a STAR file, ``cryosparc/...``.

What RELION has columns for is translated, so that files converted without are read alike.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere._ranges import RANGES
from napari_cryosphere.particles.cs.aberrations import aberration_columns
from napari_cryosphere.particles.cs.fields import CARRIED, TYPES
from napari_cryosphere.particles.cs.locations import filament_columns, location_columns
from napari_cryosphere.particles.cs.records import Records

__all__ = ["carried_fields", "with_translated_fields"]

_COMPONENT = re.compile(r"(.+)\[(\d+)\]")
_GROUP = "rlnOpticsGroup"
# Fields that RELION's columns replace; of the others they are a part only.
_REPLACED = (
    *("ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag", "ctf/bfactor"),
    *("filament/filament_pose", "filament/position_A"),
)
_PARTS = ("filament/filament_uid", "location/center_x_frac")


def carried_fields(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Return the fields that the columns ``cryosparc/...`` keep, ``(n,)`` or ``(n, components)``."""
    components: dict[str, list[tuple[int, str]]] = {}
    for name in table:
        if name.startswith(CARRIED):
            field = name.removeprefix(CARRIED)
            match = _COMPONENT.fullmatch(field)
            key, number = (match[1], int(match[2])) if match else (field, -1)
            components.setdefault(key, []).append((number, name))
    fields = {}
    for field, parts in components.items():
        columns = [table[name].to_numpy() for _, name in sorted(parts)]
        fields[field] = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    return fields


def with_translated_fields(path: Path, blocks: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the blocks of a STAR file with RELION's columns for cryoSPARC's fields in it.

    Columns that are already there stay as they are. Aberrations that all particles of an optics group
    share go to the optics table, where RELION looks for them.
    """
    particles, optics = blocks.get("particles"), blocks.get("optics")
    names = {f"{CARRIED}{name}" for name in (*_REPLACED, *_PARTS)}
    if (
        particles is None
        or particles.empty
        or not any(column.partition("[")[0] in names for column in map(str, particles))
    ):
        return blocks
    fields = {
        name: values
        for name, values in carried_fields(particles).items()
        if _as_in_cs(name, values)
    }
    fields |= _microscope(particles, optics)
    if "rlnMicrographName" in particles:
        fields["location/micrograph_path"] = particles["rlnMicrographName"].to_numpy()
    read = Records(path, len(particles), fields)
    columns: dict[str, Any] = location_columns(read) | filament_columns(read)
    if "ctf/bfactor" in fields and np.any(fields["ctf/bfactor"]):
        columns["rlnCtfBfactor"] = read.numbers("ctf/bfactor")
    columns |= aberration_columns(read)
    added = {name: values for name, values in columns.items() if name not in particles}
    replaced = [
        name
        for name in particles
        if (field := str(name).removeprefix(CARRIED).partition("[")[0]) in _REPLACED
        and field in read.used
    ]
    particles = particles.drop(columns=replaced).assign(**added)
    if optics is not None and {_GROUP} <= set(particles) & set(optics):
        particles, optics = _shared_to_optics(particles, optics, list(aberration_columns(read)))
        blocks = blocks | {"optics": optics}
    return blocks | {"particles": particles}


def _as_in_cs(name: str, values: NDArray[Any]) -> bool:
    """Return whether a field has the shape of cryoSPARC's, and finite numbers where that has them."""
    kind, components = TYPES.get(name, ("", 0))
    if kind == "S":
        return True
    shape = (len(values),) if components == 1 else (len(values), components)
    return values.dtype.kind in "iuf" and values.shape == shape and bool(np.isfinite(values).all())


def _microscope(
    particles: pd.DataFrame, optics: pd.DataFrame | None
) -> dict[str, NDArray[np.float64]]:
    """Return voltage and spherical aberration of each particle, where all are there and legal."""
    found: dict[str, NDArray[np.float64]] = {}
    for field, column in (("ctf/accel_kv", "rlnVoltage"), ("ctf/cs_mm", "rlnSphericalAberration")):
        values = particles.get(column)
        if values is None and optics is not None and column in optics and _GROUP in optics:
            of_group = optics.drop_duplicates(_GROUP).set_index(_GROUP)[column]
            values = particles.get(_GROUP, pd.Series(index=particles.index)).map(of_group)
        if values is not None:
            numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
            legal = RANGES[column]
            if ((numbers >= legal.lowest) & (numbers <= legal.highest)).all():
                found[field] = numbers
    return found


def _shared_to_optics(
    particles: pd.DataFrame, optics: pd.DataFrame, names: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Move columns that are the same for all particles of each group to the optics table."""
    shared = [
        name
        for name in names
        if name in particles
        and name not in optics
        and (particles.groupby(_GROUP)[name].nunique() <= 1).all()
    ]
    first = particles.drop_duplicates(_GROUP).set_index(_GROUP)
    known = optics[_GROUP].isin(first.index).all()
    if not shared or not known:
        return particles, optics
    moved = {name: optics[_GROUP].map(first[name]) for name in shared}
    return particles.drop(columns=shared), optics.assign(**moved)
