"""Places on micrographs and filaments, between cryoSPARC's fields and RELION's columns.

| cryoSPARC | RELION |
|---|---|
| ``location/center_x_frac``, ``_y_frac``: fractions of the micrograph | ``rlnCoordinateX/Y``, pixels |
| ``filament/filament_uid`` | ``rlnHelicalTubeID`` |
| ``filament/filament_pose``, radians | ``rlnAnglePsiPrior`` is 90 degrees less it |
| ``filament/position_A`` | ``rlnHelicalTrackLengthAngst`` |

The micrograph's shape is (y, x); cryoSPARC's y points upwards, RELION's downwards. As in pyem
(``csparc2star.py`` with its default, inverted y).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.particles._checks import Place, first_row
from napari_cryosphere.particles._half_sets import TUBE
from napari_cryosphere.particles._poses import PSI_PRIOR
from napari_cryosphere.particles.cs.records import Records

__all__ = ["filament_columns", "filament_fields", "location_columns", "location_fields"]

_X, _Y = "location/center_x_frac", "location/center_y_frac"
_SHAPE = "location/micrograph_shape"
_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY")
_UID, _POSE, _POSITION = "filament/filament_uid", "filament/filament_pose", "filament/position_A"
_TRACK = "rlnHelicalTrackLengthAngst"
_LARGEST_TUBE = 2**31 - 1  # RELION counts in 32 bits


def location_columns(read: Records) -> dict[str, NDArray[Any]]:
    """Return the coordinates on micrographs in whole pixels, ``(n,)``; nothing where fields are missing."""
    if not all(name in read for name in (_X, _Y, _SHAPE)):
        return {}
    fractions = np.stack([read.numbers(_X), 1 - read.numbers(_Y).astype(np.float64)], axis=1)
    for name, values in zip((_X, _Y), fractions.T, strict=True):
        outside = np.asarray((values < 0) | (values > 1))
        if outside.any():
            said = "the particle lies outside its micrograph, which is 0 to 1"
            read.notes.append(
                first_row(Place(read.path, ""), read.fields[name], name, outside, said)
            )
    pixels = fractions * read.numbers(_SHAPE, 2)[:, ::-1]
    read.used -= {_X, _Y, _SHAPE}  # whole pixels do not give them back: they are kept, too
    return {name: pixels[:, axis].round() for axis, name in enumerate(_COORDINATES)}


def location_fields(
    particles: pd.DataFrame, fields: dict[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], set[str]]:
    """Return the fields of coordinates, ``(n,)`` or ``(n, 2)``, and the columns that they replace.

    Fractions that ``fields`` keeps stay where they mean the same pixel. Nothing where the size of
    the micrographs is not known.
    """
    if _SHAPE not in fields or not set(_COORDINATES) <= set(particles.columns):
        return {}, set()
    shape = np.asarray(fields[_SHAPE], dtype=np.float64)
    shape = np.where(shape > 0, shape, 1)
    found: dict[str, NDArray[Any]] = {}
    for column, name, size in zip(_COORDINATES, (_X, _Y), (shape[:, 1], shape[:, 0]), strict=True):
        pixels = pd.to_numeric(particles[column], errors="coerce").to_numpy(np.float64)
        fraction = pixels / size
        fraction = 1 - fraction if name == _Y else fraction
        if name in fields:
            kept = np.asarray(fields[name], dtype=np.float64)
            there = (1 - kept if name == _Y else kept) * size
            fraction = np.where(np.abs(there - pixels) <= 0.5 + 1e-3, kept, fraction)
        if not np.isfinite(fraction).all():
            return {}, set()
        found[name] = fraction
    return found, set(_COORDINATES)


def filament_columns(read: Records) -> dict[str, NDArray[Any]]:
    """Return tube, psi prior (degrees) and track length (A) of segments, ``(n,)``; nothing for particles."""
    columns: dict[str, NDArray[Any]] = {}
    if _UID not in read:
        return columns
    uids = read.numbers(_UID)
    read.used.discard(_UID)  # unique among all micrographs, unlike the number of a tube
    columns[TUBE] = uids.astype(np.int64) if _is_tube(uids) else _numbered(read, uids)
    if _POSE in read:
        degrees = 90 - np.degrees(read.numbers(_POSE).astype(np.float64))
        columns[PSI_PRIOR] = _within_half_turn(degrees)
    if _POSITION in read:
        columns[_TRACK] = read.numbers(_POSITION).astype(np.float64)
    return columns


def _is_tube(uids: NDArray[Any]) -> bool:
    whole = bool((uids == np.floor(uids)).all()) if uids.dtype.kind == "f" else True
    return whole and float(uids.min()) >= 0 and float(uids.max()) <= _LARGEST_TUBE


def _numbered(read: Records, uids: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of tubes, from 1 in each micrograph."""
    names = ("location/micrograph_uid", "location/micrograph_path", "blob/path")
    micrograph = next((list(read.fields[name]) for name in names if name in read), 0)
    table = pd.DataFrame({"micrograph": micrograph, "uid": uids})
    first = table.groupby("micrograph", sort=False)["uid"]
    numbers = first.transform(lambda tubes: pd.factorize(tubes)[0] + 1)
    return numbers.to_numpy(np.int64)


def filament_fields(
    particles: pd.DataFrame, fields: dict[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], set[str]]:
    """Return the fields of filaments, ``(n,)``, and the columns they replace; nothing for particles."""
    if TUBE not in particles:
        return {}, set()
    found: dict[str, NDArray[Any]] = {}
    used = {TUBE}
    if _UID not in fields:
        found[_UID] = _uids(particles)
        used = set() if (found[_UID] != particles[TUBE].to_numpy()).any() else used
    for column, name in ((PSI_PRIOR, _POSE), (_TRACK, _POSITION)):
        if column not in particles:
            continue
        values = pd.to_numeric(particles[column], errors="coerce").to_numpy(np.float64)
        if np.isfinite(values).all():
            found[name] = np.radians(_within_half_turn(90 - values)) if name == _POSE else values
            used.add(column)
    return found, used


def _uids(particles: pd.DataFrame) -> NDArray[np.uint64]:
    """Return a number for each filament that no other micrograph's has: its own, or a digest."""
    tubes = pd.to_numeric(particles[TUBE], errors="coerce").fillna(0).to_numpy(np.float64)
    micrographs = particles.get("rlnMicrographName")
    if (
        micrographs is None
        or not pd.Series(micrographs.to_numpy()).groupby(tubes).nunique().gt(1).any()
    ):
        if (tubes == np.floor(tubes)).all() and tubes.min() >= 0 and tubes.max() < 2**53:
            return tubes.astype(np.uint64)
        micrographs = pd.Series([""] * len(particles))
    names = [f"{micrograph}#{tube}" for micrograph, tube in zip(micrographs, tubes, strict=True)]
    codes, different = pd.factorize(np.array(names, dtype=object))
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in different]
    return np.frombuffer(b"".join(digests), dtype="<u8")[codes]


def _within_half_turn(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles brought between minus and plus half a turn."""
    return 180 - (180 - degrees) % 360
