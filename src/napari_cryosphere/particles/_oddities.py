"""What is odd about a data set and does not prevent its use: one line each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from napari_cryosphere.particles._checks import counted, first_row, listed
from napari_cryosphere.particles._half_sets import TUBE
from napari_cryosphere.particles._image_source import ImageSource
from napari_cryosphere.particles._poses import ANGLE_PRIORS, ANGLES, ORIGIN_PRIORS, ORIGINS
from napari_cryosphere.particles._tables import GROUP, PIXEL_SIZE, Tables
from napari_cryosphere.particles.image_grid import ImageGrid
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, rotation_from_relion_angles

__all__ = ["duplicate_warnings", "grid_warnings", "note_oddities", "one_half_warning"]

# Focus is never that near; in micrometres a defocus is 0.1 to 10.
_SMALLEST_DEFOCUS_ANGSTROM = 100.0
# Below the 0.01 mm that is written for corrected lenses; in metres a lens has 0.001 to 0.005.
_SMALLEST_CS_MM = 0.005
_ENOUGH_ANGLES = 20  # poses of which none has an angle above 6.3 degrees by chance
# Half of the priors lie further from the poses than refinement moves these; chosen, not tuned.
_FAR_PRIOR_DEGREES, _FAR_PRIOR_PX = 1.0, 1.0
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
        *_defocus(tables),
        *_far_priors(tables),
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
    times = pd.Series(images.image_of).value_counts()
    expanded = (
        f" (each of {len(times)} images is in {times.iloc[0]} rows, as after symmetry expansion)"
        if len(times) > 1 and times.iloc[0] == times.iloc[-1]
        else ""
    )
    yield f"{path}: {counted(repeats, 'row')} with the image of an earlier row{expanded}{both}"


def _incomplete(tables: Tables) -> Iterator[str]:
    """Name what is missing of poses or a CTF that are there in part."""
    place, particles = tables.place, tables.particles
    for what, columns in (("poses are", ANGLES), ("the CTF is", _CTF)):
        missing = [name for name in columns if name not in particles and name not in tables.optics]
        if missing and any(name in particles for name in columns[:3]):
            names = ", ".join(dict.fromkeys(map(place.name, missing)))
            yield f"{place.path}: {what} incomplete: no column {names}"


def _other_units(tables: Tables) -> Iterator[str]:
    """Say if a Cs looks to be in metres, or angles in radians: legal values that nothing has."""
    place, particles, optics = tables.place, tables.particles, tables.optics
    if _CTF[4] in optics:
        cs = optics[_CTF[4]].to_numpy()
        small = (cs != 0) & (np.abs(cs) < _SMALLEST_CS_MM)
        if small.any():
            value = cs[small.argmax()]
            said = f"is it in metres? {value:g} m would be {value * 1e3:g} mm"
            yield first_row(place.in_block("optics"), cs, _CTF[4], small, said)
    for columns, column in ((ANGLES, ANGLES[1]), (_CTF[2:3], _CTF[2])):
        if set(columns) <= set(particles.columns):
            angles = np.abs(particles[list(columns)].to_numpy(dtype=np.float64))
            several = len(np.unique(angles[:, -1])) >= _ENOUGH_ANGLES
            largest = np.abs(particles[column].to_numpy()).max()
            if several and angles.max() <= 2 * np.pi and largest > 1:
                yield (
                    f"{place.path}: {place.name(column)} is {largest:.3g} at most, and no angle is above "
                    "6.3; are they in radians? The unit is degrees"
                )


def _defocus(tables: Tables) -> Iterator[str]:
    """Name a defocus that no particle has: in another unit, of the other sign, or never estimated."""
    place, particles = tables.place, tables.particles
    columns = [name for name in _CTF[:2] if name in particles]
    if not columns:
        return
    values = particles[columns].to_numpy(dtype=np.float64)
    first, least = place.name(columns[0]), _SMALLEST_DEFOCUS_ANGSTROM
    small = (values != 0) & (np.abs(values) < least)
    if not values.any():
        yield f"{place.path}: {first} is 0 for all particles; their defocus was never estimated"
    elif np.abs(values).max() < least:
        yield (
            f"{place.path}: {first} is below {least:.0f} A for all particles (largest "
            f"{np.abs(values).max():g}); is it in micrometres? The unit is A"
        )
    elif small.any():
        axis = int(small.any(axis=0).argmax())
        said = f"others are up to {np.abs(values).max():g}; is it in micrometres? The unit is A"
        yield first_row(place, values[:, axis], columns[axis], small[:, axis], said)
    elif (values < 0).all():
        yield (
            f"{place.path}: {first} is negative for all particles, which is overfocus; underfocus is "
            "positive in RELION and cryoSPARC"
        )


def _far_priors(tables: Tables) -> Iterator[str]:
    """Say if priors are not those of the poses; a filament's come from its tube and may be others."""
    place, particles = tables.place, tables.particles
    there, found = set(particles.columns), list[str]()
    if TUBE in there:
        return
    if {*ANGLES, *ANGLE_PRIORS} <= there:
        poses, priors = (
            rotation_from_relion_angles(particles[list(names)].to_numpy(dtype=np.float64))
            for names in (ANGLES, ANGLE_PRIORS)
        )
        degrees = geodesic_distance_degrees(poses, priors)
        if np.median(degrees) > _FAR_PRIOR_DEGREES:
            found.append(f"{degrees.max():.3g} degrees")
    if {*ORIGINS, *ORIGIN_PRIORS} <= there and PIXEL_SIZE in tables.optics:
        moved = particles[list(ORIGINS)].to_numpy() - particles[list(ORIGIN_PRIORS)].to_numpy()
        angstrom = np.hypot(*moved.T)
        if np.median(angstrom) > _FAR_PRIOR_PX * tables.optics[PIXEL_SIZE].min():
            found.append(f"{angstrom.max():.3g} A")
    if found:
        yield (
            f"{place.path}: priors (rln...Prior) are up to {' and '.join(found)} from the poses; "
            "RELION's local searches begin at the priors, not at the poses"
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
