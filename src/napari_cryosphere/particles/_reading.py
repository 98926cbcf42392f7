"""Reading a data set: tables, stacks, and the checks that need both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from napari_cryosphere.errors import FileFormatError, MetadataError
from napari_cryosphere.particles._image_source import ImageSource, locate_images, parse_image_names
from napari_cryosphere.particles._messages import counted, listed
from napari_cryosphere.particles._star_reader import parse_star
from napari_cryosphere.particles._tables import (
    GROUP,
    PIXEL_SIZE,
    Tables,
    origins_in_angstrom,
    tables_from_blocks,
)
from napari_cryosphere.particles.mrc import MrcStack

__all__ = ["DataSet", "read_data_set"]

_POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_CTF = (
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"),
    *("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
)
_STACK_SUFFIXES = (".mrc", ".mrcs")


@dataclass(frozen=True)
class DataSet:
    """What a file of particles holds, checked."""

    tables: Tables
    images: ImageSource


def read_data_set(path: Path, data_dir: Path | None, require_images: bool) -> DataSet:
    """Read a STAR file or a bare stack. See :meth:`ParticleStack.read`."""
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; expected a .star file or an .mrcs stack")
    if path.suffix.lower() == ".cs":
        raise FileFormatError(
            f"{path} is a cryoSPARC file, which is not read here; export its particles as .star"
        )
    notes: tuple[str, ...] = ()
    if any(suffix.lower() in _STACK_SUFFIXES for suffix in path.suffixes[-2:]):
        blocks = _blocks_of_stack(path)
    else:
        blocks, notes = parse_star(path)
    tables = tables_from_blocks(path, blocks)
    tables.warnings[:0] = notes
    names, file_of, index_of = parse_image_names(tables.place, tables.particles)
    files = locate_images(tables.place, names, file_of, data_dir, require_images)
    images = ImageSource(tables.place, files, file_of, index_of, np.arange(len(file_of)))
    _check_images(tables, images)
    _complete_optics(tables, images, require_images)
    pixel_size = float(tables.optics[PIXEL_SIZE].iloc[0]) if PIXEL_SIZE in tables.optics else None
    origins_in_angstrom(tables, pixel_size)
    _note_oddities(tables, images)
    return DataSet(tables, images)


def _blocks_of_stack(path: Path) -> dict[str, pd.DataFrame]:
    """Return the particle table that describes a bare stack: image names, nothing else."""
    stack = MrcStack(path)
    if stack.header.is_volume and len(set(stack.shape)) == 1 and path.suffix.lower() == ".mrc":
        raise FileFormatError(f"{path} is a 3D map of {len(stack)} voxels an edge, not a stack of particles")
    names = [f"{number:06d}@{path.name}" for number in range(1, len(stack) + 1)]
    return {"particles": pd.DataFrame({"rlnImageName": names})}


def _check_images(tables: Tables, images: ImageSource) -> None:
    """Check indices against the number of images, and that all images are square and of one even box."""
    place = tables.place
    counts = np.array([np.inf if file.stack is None else len(file.stack) for file in images.files])
    beyond = images.index_of >= counts[images.file_of]
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        stack = images.files[images.file_of[row]].stack
        assert stack is not None
        raise MetadataError(
            f"{place.row(row)}: image {images.index_of[row] + 1} of {stack.path}, which has {len(stack)}; "
            "export the STAR file again, or remove the row"
        )
    boxes: dict[int, MrcStack] = {}
    for stack in images.used:
        _, rows, columns = stack.shape
        if rows != columns:
            raise FileFormatError(
                f"{stack.path} has images of {columns} x {rows} pixels; images must be square"
            )
        boxes.setdefault(columns, stack)
    if len(boxes) > 1:
        (first, a), (second, b) = list(boxes.items())[:2]
        raise FileFormatError(
            f"{place.path}: stacks with different boxes ({a.path} has {first} px, {b.path} has {second} px); "
            "process them apart, or extract the particles again with one box"
        )
    for box, stack in boxes.items():
        if box % 2:
            raise FileFormatError(
                f"{stack.path} has an odd box of {box} px; pad or crop the images to an even box, "
                f"for example with relion_image_handler --new_box {box + 1}"
            )


def _complete_optics(tables: Tables, images: ImageSource, required: bool) -> None:
    """Compare rlnImageSize with the stacks; take box and pixel size from their headers where missing."""
    optics, path, used = tables.optics, tables.place.path, images.used
    if used:
        box = used[0].shape[1]
        if "rlnImageSize" in optics:
            wrong = optics["rlnImageSize"][
                optics[GROUP].isin(tables.particles[GROUP]) & (optics["rlnImageSize"] != box)
            ]
            if len(wrong):
                raise MetadataError(
                    f"{path}: rlnImageSize is {wrong.iloc[0]}, but the images in {used[0].path} have "
                    f"{box} px; one of the two files is not the right one"
                )
        else:
            optics = optics.assign(rlnImageSize=box, rlnImageDimensionality=2)
    if PIXEL_SIZE not in optics and used:
        sizes = sorted({round(stack.pixel_size_angstrom or 0.0, 4) for stack in used})
        if len(sizes) == 1 and sizes[0] > 0:
            size = float(f"{used[0].pixel_size_angstrom:.6g}")  # the header's float32 has no more digits
            optics = optics.assign(**{PIXEL_SIZE: size})
            if path != used[0].path:
                header = f"the header of {used[0].path}"
                tables.warnings.append(f"{path}: no {PIXEL_SIZE}; {size:g} A was taken from {header}")
        elif required and path == used[0].path:
            raise MetadataError(f"{path}: no pixel size in the header; give a STAR file with {PIXEL_SIZE}")
        elif required:
            found = (
                "stacks with different pixel sizes"
                if len(sizes) > 1
                else "no pixel size in the stack's header"
            )
            raise MetadataError(
                f"{path}: no pixel size: no column {PIXEL_SIZE} in data_optics (nor rlnDetectorPixelSize and "
                f"rlnMagnification), and {found}; add {PIXEL_SIZE} to data_optics"
            )
    tables.optics = optics


def _note_oddities(tables: Tables, images: ImageSource) -> None:
    """Add warnings about images that stand twice, odd stack files, incomplete CTFs and missing half sets."""
    path, particles = tables.place.path, tables.particles
    if images.missing:
        tables.warnings.append(
            f"{path}: {counted(len(images.missing), 'stack')} not found: {listed(images.missing)}"
        )
    odd = [warning for stack in images.used for warning in stack.warnings]
    if odd:
        more = f" (and {counted(len(odd) - 1, 'more stack')} like it)" if len(odd) > 1 else ""
        tables.warnings.append(odd[0] + more)
    keys = pd.DataFrame({"file": images.file_of, "index": images.index_of})
    repeats = int(keys.duplicated().sum())
    if repeats:
        both = ""
        if "rlnRandomSubset" in particles:
            halves = keys.assign(half=particles["rlnRandomSubset"].to_numpy()).drop_duplicates()
            if halves.duplicated(["file", "index"]).any():
                both = "; some are in both half sets, which makes the FSC too high"
        tables.warnings.append(f"{path}: {counted(repeats, 'row')} with the image of an earlier row{both}")
    for what, columns in (("poses are", _POSE), ("the CTF is", _CTF)):
        missing = [name for name in columns if name not in particles and name not in tables.optics]
        if missing and any(name in particles for name in columns[:3]):
            tables.warnings.append(f"{path}: {what} incomplete: no column {', '.join(missing)}")
    if "rlnRandomSubset" not in particles:
        tables.warnings.append(
            f"{path}: no column rlnRandomSubset; odd rows are half set 1, even rows half set 2"
        )
