"""Poses, shifts, half sets and classes of a .cs file."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._checks import Place, first_row
from napari_cryosphere.particles._poses import pose_columns
from napari_cryosphere.particles.cs.records import Records, shortest
from napari_cryosphere.so3.rotations import rotation_from_vector

__all__ = ["alignment_columns", "refuse_degrees"]

_LARGEST_RADIANS = 4 * np.pi  # as many turns as RELION's angles of a CTF may have
_CLASS = re.compile(r"(alignments_class_?\w*?\d+)/pose")


def alignment_columns(read: Records) -> dict[str, NDArray[Any]]:
    """Return the columns of poses, shifts, half sets and classes, ``(n,)`` each."""
    group = _alignment_group(read)
    if group is None:
        if any(name.startswith("alignments2D/") for name in read.fields):
            read.notes.append(f"{read.path}: no 3D poses, only those of 2D classes (alignments2D)")
        return {}
    vectors = read.numbers(f"{group}/pose", 3).astype(np.float64)
    refuse_degrees(Place(read.path, ""), f"{group}/pose", np.linalg.norm(vectors, axis=1))
    size = next((name for name in (f"{group}/psize_A", "blob/psize_A") if name in read), None)
    shifts = None
    if f"{group}/shift" in read and size is not None:
        in_pixels = read.numbers(f"{group}/shift", 2).astype(np.float64)
        shifts = in_pixels * shortest(read.numbers(size))[:, None]
    columns: dict[str, NDArray[Any]] = dict(pose_columns(rotation_from_vector(vectors), shifts))
    for name, column in (("split", "rlnRandomSubset"), ("class", "rlnClassNumber")):
        if f"{group}/{name}" in read:
            columns[column] = read.numbers(f"{group}/{name}").astype(np.int64) + 1
    halves = columns.get("rlnRandomSubset", np.zeros(0))
    if len(halves) > 1 and (halves == halves[0]).all():
        del columns["rlnRandomSubset"]
        read.notes.append(
            f"{read.path}: {group}/split is {halves[0] - 1} for all particles: no half sets"
        )
    return columns


def refuse_degrees(place: Place, name: str, angles: NDArray[np.float64]) -> None:
    """Refuse angles beyond two turns, or lengths of rotation vectors, ``(n,)``: they are in radians.

    Raises `MetadataError` names the first row.
    """
    beyond = np.abs(angles) > _LARGEST_RADIANS
    if beyond.any():
        raise MetadataError(
            first_row(place, angles, name, beyond, "are these degrees? The unit is radians")
        )


def _alignment_group(read: Records) -> str | None:
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
            if len({getattr(read.fields.get(f"{one}/{name}"), "shape", None) for one in classes})
            == 1
        }
    else:
        return None
    likelihood = columns.get("class_posterior", np.zeros(0))
    if likelihood.ndim != 2 or likelihood.dtype.kind != "f" or not likelihood.size:
        return None
    best = likelihood.argmax(axis=1)
    every = np.arange(read.number)
    for name, values in columns.items():
        chosen = (
            values[every, best]
            if values.ndim > 1 and values.shape[1] == likelihood.shape[1]
            else values
        )
        read.fields[f"{group}/{name}"] = chosen
        read.used.add(f"{group}/{name}")
    read.notes.append(
        f"{read.path}: poses in {likelihood.shape[1]} classes; each particle has its likeliest"
    )
    return group
