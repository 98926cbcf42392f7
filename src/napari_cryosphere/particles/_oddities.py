"""What is odd about a data set and does not prevent its use: one line each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from napari_cryosphere.particles._image_source import ImageSource
from napari_cryosphere.particles._messages import counted, listed
from napari_cryosphere.particles._tables import Tables
from napari_cryosphere.particles.image_grid import ImageGrid

__all__ = [
    "duplicate_warnings",
    "grid_warnings",
    "note_oddities",
    "one_half_warning",
    "split_warning",
]

_POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_CTF = (
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"),
    *("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
)


def note_oddities(tables: Tables, images: ImageSource) -> None:
    """Add warnings about the stacks and columns of a file that has been read."""
    path = tables.place.path
    if images.missing:
        tables.warnings.append(
            f"{path}: {counted(len(images.missing), 'stack')} not found: {listed(images.missing)}"
        )
    odd = [warning for stack in images.used for warning in stack.warnings]
    if odd:
        more = f" (and {counted(len(odd) - 1, 'more stack')} like it)" if len(odd) > 1 else ""
        tables.warnings.append(odd[0] + more)
    tables.warnings += [
        *_incomplete(tables),
        *one_half_warning(path, tables.particles),
    ]


def duplicate_warnings(path: Path, particles: pd.DataFrame, images: ImageSource) -> Iterator[str]:
    """Say whether images stand twice, and whether the same image is in both half sets."""
    repeats = len(images.image_of) - len(pd.unique(images.image_of))
    if not repeats:
        return
    both = ""
    if "rlnRandomSubset" in particles:
        signed = images.image_of * 2 + (particles["rlnRandomSubset"].to_numpy() == 2)
        if len(pd.unique(signed)) > len(images.image_of) - repeats:
            both = "; some are in both half sets, which makes the FSC too high"
    yield f"{path}: {counted(repeats, 'row')} with the image of an earlier row{both}"


def _incomplete(tables: Tables) -> Iterator[str]:
    """Name what is missing of poses or a CTF that are there in part."""
    path, particles = tables.place.path, tables.particles
    for what, columns in (("poses are", _POSE), ("the CTF is", _CTF)):
        missing = [name for name in columns if name not in particles and name not in tables.optics]
        if missing and any(name in particles for name in columns[:3]):
            yield f"{path}: {what} incomplete: no column {', '.join(missing)}"


def one_half_warning(path: Path, particles: pd.DataFrame) -> Iterator[str]:
    """Say if one half set has no particles."""
    if "rlnRandomSubset" in particles and len(particles) > 1:
        halves = particles["rlnRandomSubset"].to_numpy()
        if (halves == halves[0]).all():
            yield f"{path}: all particles are in half set {int(halves[0])}; half-maps need both"


def split_warning(path: Path, particles: pd.DataFrame) -> Iterator[str]:
    """Say how the halves are made where a table names none; a bare stack of images has none to name."""
    bare = any(suffix.lower() in (".mrc", ".mrcs") for suffix in path.suffixes[-2:])
    if "rlnRandomSubset" not in particles and not bare:
        yield (
            f"{path}: no column rlnRandomSubset; images were split in turn, the first into half set 1, the "
            "second into half set 2 and so on"
        )


def grid_warnings(path: Path, grids: dict[int, ImageGrid], common: ImageGrid) -> Iterator[str]:
    """Say what is done to images that are not on the stack's own grid."""
    different = list(
        dict.fromkeys(grid for grid in grids.values() if not grid.even().matches(common))
    )
    if different:
        shown = [
            f"{grid.box} px of {grid.pixel_size_angstrom:.6g} A"
            for grid in dict.fromkeys(grids.values())
        ]
        yield (
            f"{path}: optics groups of {listed(shown)}; images are brought to {common.box} px of "
            f"{common.pixel_size_angstrom:.6g} A by Fourier rescaling"
        )
    odd = sorted({grid.box for grid in grids.values() if grid.box % 2})
    if odd:
        yield (
            f"{path}: odd box of {odd[0]} px; images are padded to {odd[0] + 1} px with the mean of their "
            "border, so that the particle stays centred"
        )
