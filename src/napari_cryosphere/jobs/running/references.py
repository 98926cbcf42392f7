"""Maps and masks as jobs take them: opened, checked against each other and against the particles."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.map_mask import (
    map_radius_angstrom,
    masked_map,
    particle_mask,
    soft_sphere,
)
from napari_cryosphere.jobs.configs.bases import ComparedMaps, MapsInput
from napari_cryosphere.jobs.events import Note
from napari_cryosphere.particles import DensityMap, ImageGrid
from napari_cryosphere.reconstruction import resampled_map

__all__ = [
    "Opened",
    "checked_mask",
    "mask_on_grid",
    "open_map",
    "open_mask",
    "open_reference",
    "pixel_size_notes",
    "solvent_mask",
]

_SAME_SIZE = 1e-3
"""Relative difference of pixel sizes that moves nothing: a tenth of a pixel in 100."""
_PROBABLY_WRONG = 0.03
"""Relative difference in one box from which a header is taken to be wrong: calibrations of one
microscope differ by 1 to 2 %."""
_UNSET_ANGSTROM, _UNSET_REACH = 1.0, 1e-4  # what programs write that do not know
_FEWEST_INSIDE = (
    33  # voxels of a mask: a sphere of 2 voxels' radius, the finest detail that a grid holds
)
_ROUNDING = 1e-3  # of a mask's values
_CONSTANT = 1e-6  # of the largest grey value


class Opened(NamedTuple):
    """A map, what there is to say about it, and the same map with its solvent, by which it is judged."""

    density: DensityMap
    notes: list[Note]
    whole: DensityMap


def open_map(config: MapsInput, path: Path, symmetry: str = "C1") -> DensityMap:
    """Return a map with the pixel size that a config gives, or its header's.

    Raises `CryosphereError` if the file cannot be read, or the map is constant.
    """
    density = DensityMap.read(path, symmetry, pixel_size_angstrom=config.map_pixel_size_angstrom)
    lowest, highest = float(density.voxels.min()), float(density.voxels.max())
    if highest - lowest <= _CONSTANT * max(abs(lowest), abs(highest)):
        raise MetadataError(
            f"{path} is {lowest:g} everywhere: there is no structure in it; give another map"
        )
    return density


def open_mask(path: Path, grid: ImageGrid, of: str) -> Opened:
    """Return a mask for maps on a grid from a file; see `checked_mask`."""
    return checked_mask(DensityMap.read(path), f"the mask {path}", grid, of)


def checked_mask(mask: DensityMap, name: str, grid: ImageGrid, of: str) -> Opened:
    """Return a mask for maps on a grid.

    ``mask``, ``name``: the mask, and what it is called in messages. ``grid``: box and pixel size of
    what it is for. ``of``: what that is called in messages. Raises `MetadataError` if its box or
    its pixel size is another one, its values are not from 0 to 1, or next to nothing is inside.
    """
    if mask.box != grid.box:
        raise MetadataError(
            f"{name} has a box of {mask.box}, {of} one of {grid.box}; make the mask from this map"
        )
    lowest, highest = float(mask.voxels.min()), float(mask.voxels.max())
    if lowest < -_ROUNDING or highest > 1 + _ROUNDING or highest <= _ROUNDING:
        raise MetadataError(
            f"{name} has values from {lowest:.3g} to {highest:.3g}; "
            "they must be from 0 (outside) to 1 (inside)"
        )
    inside = int((mask.voxels > 0.5).sum())
    if inside < _FEWEST_INSIDE:
        raise MetadataError(
            f"{name} holds {inside} voxels above 0.5, too few for any structure; give another mask"
        )
    size, wanted = mask.pixel_size_angstrom, grid.pixel_size_angstrom
    apart, notes = abs(size / wanted - 1), list[Note]()
    if apart > _PROBABLY_WRONG and abs(size - _UNSET_ANGSTROM) > _UNSET_REACH:
        raise MetadataError(
            f"{name} says {size:.5g} A a voxel, {of} {wanted:.5g} A, both in a box of {grid.box}: "
            "one is probably wrong; make the mask from this map, or correct its header (convert "
            f"--map-pixel-size {wanted:.5g})"
        )
    if apart > _SAME_SIZE:
        text = f"{name} says {size:.5g} A a voxel, {of} {wanted:.5g} A; taken as {wanted:.5g} A"
        notes.append(Note(text, warning=True))
    clipped = DensityMap(np.clip(mask.voxels, 0, 1), wanted)
    return Opened(clipped, notes, clipped)


def mask_on_grid(mask: DensityMap, box: int, pixel_size_angstrom: float) -> NDArray[np.float32]:
    """Return a mask on another grid, ``(box, box, box)``, 0 to 1."""
    return np.clip(resampled_map(mask, box, pixel_size_angstrom).voxels, 0, 1)


def solvent_mask(
    density: DensityMap, choice: Path | str, given: DensityMap | None
) -> DensityMap | None:
    """Return the mask that is given, or ones where ``choice`` is "none", on a map's grid; None for auto."""
    size = density.pixel_size_angstrom
    if given is not None:
        return DensityMap(mask_on_grid(given, density.box, size), size)
    return DensityMap(np.ones_like(density.voxels), size) if choice == "none" else None


def open_reference(config: ComparedMaps, path: Path, particles: ImageGrid | None) -> Opened:
    """Return a map that particles are compared with: without its background, inside a mask.

    ``config``: the pixel size, where the header is wrong, and the mask. ``path``: the map.
    ``particles``: their grid, where it is known; see `pixel_size_notes`. Raises `CryosphereError`
    if a file cannot be read, the mask does not fit the map, or the map's header not the particles.
    """
    density = open_map(config, path)
    given = config.map_pixel_size_angstrom is not None
    notes = [] if given or particles is None else pixel_size_notes(path, density, particles)
    grid = ImageGrid(density.box, density.pixel_size_angstrom)
    mask: NDArray[np.float32] | None = None
    if config.mask_radius_angstrom is not None:
        mask = soft_sphere(grid.box, config.mask_radius_angstrom / grid.pixel_size_angstrom)
    elif config.mask == "auto":
        mask = particle_mask(density.voxels, grid.pixel_size_angstrom)
    elif isinstance(config.mask, Path):
        opened = open_mask(config.mask, grid, f"the map {path}")
        mask, notes = opened.density.voxels, notes + opened.notes
    masked = masked_map(density, mask)
    if not masked.voxels.any():
        raise MetadataError(f"nothing of the map {path} is inside the mask {config.mask}")
    if config.mask == "auto" and config.mask_radius_angstrom is None:
        notes.append(
            Note(
                f"{path.name} is compared inside a soft mask made from it, radius "
                f"{map_radius_angstrom(masked):.0f} A (--mask or --mask-radius for another)"
            )
        )
    return Opened(masked, notes, density)


def pixel_size_notes(path: Path, density: DensityMap, particles: ImageGrid) -> list[Note]:
    """Return a warning if a map's pixel size is not the particles'.

    Raises `MetadataError` if both have one box and the sizes are so different that a header must be
    wrong.
    """
    size, wanted = density.pixel_size_angstrom, particles.pixel_size_angstrom
    apart = abs(size / wanted - 1)
    if apart <= _SAME_SIZE:
        return []
    unset = abs(size - _UNSET_ANGSTROM) < _UNSET_REACH
    if density.box == particles.box and (apart > _PROBABLY_WRONG or unset):
        raise MetadataError(
            f"{path} says {size:.5g} A a voxel, the particles have {wanted:.5g} A a pixel, both in a box of "
            f"{density.box}: one is probably wrong; give --map-pixel-size {wanted:.5g} if the map is on the "
            f"particles' grid, --map-pixel-size {size:.5g} if its header is right"
        )
    text = (
        f"{path} says {size:.5g} A a voxel (box {density.box}), the particles have {wanted:.5g} A a pixel "
        f"(box {particles.box}): the map is resampled; if its header is wrong, give --map-pixel-size"
    )
    return [Note(text, warning=True)]
