"""What is odd about a data set and does not prevent its use: one line each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from napari_cryosphere.particles._checks import counted, first_row, listed
from napari_cryosphere.particles._image_source import ImageSource
from napari_cryosphere.particles._tables import GROUP, PIXEL_SIZE, Tables
from napari_cryosphere.particles.image_grid import ImageGrid

__all__ = [
    "duplicate_warnings",
    "grid_warnings",
    "note_oddities",
    "one_half_warning",
]

# Focus is never that near for all particles; in micrometres a defocus is 0.1 to 10.
_SMALLEST_DEFOCUS_ANGSTROM = 100.0
_ENOUGH_ANGLES = 20  # poses of which none has an angle above 6.3 degrees by chance
_POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_CTF = (
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"),
    *("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
)


def note_oddities(tables: Tables, images: ImageSource | None) -> None:
    """Add warnings about the stacks and columns of a file that has been read."""
    path = tables.place.path
    if images is not None:
        _note_stacks(tables, images)
    tables.warnings += [
        *_incomplete(tables),
        *_other_units(tables),
        *_outside_box(tables),
        *one_half_warning(path, tables.particles),
    ]


def _note_stacks(tables: Tables, images: ImageSource) -> None:
    path = tables.place.path
    if images.missing:
        tables.warnings.append(
            f"{path}: {counted(len(images.missing), 'stack')} not found: {listed(images.missing)}"
        )
    odd = [warning for stack in images.used for warning in stack.warnings]
    if odd:
        more = f" (and {counted(len(odd) - 1, 'more stack')} like it)" if len(odd) > 1 else ""
        tables.warnings.append(odd[0] + more)


def duplicate_warnings(path: Path, particles: pd.DataFrame, images: ImageSource) -> Iterator[str]:
    """Say whether images are there twice, and whether the same image is in both half sets."""
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
    place, particles = tables.place, tables.particles
    for what, columns in (("poses are", _POSE), ("the CTF is", _CTF)):
        missing = [name for name in columns if name not in particles and name not in tables.optics]
        if missing and any(name in particles for name in columns[:3]):
            names = ", ".join(dict.fromkeys(map(place.name, missing)))
            yield f"{place.path}: {what} incomplete: no column {names}"


def _other_units(tables: Tables) -> Iterator[str]:
    """Say if defocus looks to be in micrometres, or angles in radians: no single value tells."""
    place, particles = tables.place, tables.particles
    if "rlnDefocusU" in particles:
        largest = float(np.abs(particles["rlnDefocusU"].to_numpy()).max())
        if 0 < largest < _SMALLEST_DEFOCUS_ANGSTROM:
            yield (
                f"{place.path}: {place.name('rlnDefocusU')} is below {_SMALLEST_DEFOCUS_ANGSTROM:.0f} A "
                f"for all particles (largest {largest:g}); is it in micrometres? The unit is A"
            )
    if set(_POSE) <= set(particles.columns) and len(particles) >= _ENOUGH_ANGLES:
        angles = np.abs(particles[list(_POSE)].to_numpy(dtype=np.float64))
        if angles.max() <= 2 * np.pi and angles[:, 1].max() > 1:
            yield (
                f"{place.path}: {place.name('rlnAngleTilt')} is {angles[:, 1].max():.3g} at most, and "
                "no angle is above 6.3; are they in radians? The unit is degrees"
            )


def _outside_box(tables: Tables) -> Iterator[str]:
    """Name the first particle whose shift puts its centre outside its own image."""
    place, particles, optics = tables.place, tables.particles, tables.optics
    if "rlnImageSize" not in optics or PIXEL_SIZE not in optics:
        return
    field = (optics["rlnImageSize"] * optics[PIXEL_SIZE]).set_axis(optics[GROUP])
    half = field.loc[particles[GROUP]].to_numpy() / 2
    for column in ("rlnOriginXAngst", "rlnOriginYAngst"):
        if column in particles:
            outside = np.abs(particles[column].to_numpy()) > half
            if outside.any():
                edge = 2 * half[outside.argmax()]
                said = f"the particle's centre lies outside its image of {edge:g} A"
                yield first_row(place, particles[column], column, outside, said)


def one_half_warning(path: Path, particles: pd.DataFrame) -> Iterator[str]:
    """Say if one half set has no particles."""
    if "rlnRandomSubset" in particles and len(particles) > 1:
        halves = particles["rlnRandomSubset"].to_numpy()
        if (halves == halves[0]).all():
            yield f"{path}: all particles are in half set {int(halves[0])}; half-maps need both"


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
