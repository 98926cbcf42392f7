"""A data set as it is read: tables, stacks, and the checks that need both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from napari_cryosphere.errors import FileFormatError, MetadataError
from napari_cryosphere.particles._image_source import ImageSource
from napari_cryosphere.particles._oddities import note_oddities
from napari_cryosphere.particles._other_kinds import (
    WARP_SERIES,
    is_warp_series,
    refuse_other_files,
    refuse_other_tables,
)
from napari_cryosphere.particles._stack_files import (
    ArrayStack,
    StackFile,
    locate_images,
    parse_image_names,
)
from napari_cryosphere.particles._tables import (
    GROUP,
    PIXEL_SIZE,
    Tables,
    origins_in_angstrom,
    tables_from_blocks,
)
from napari_cryosphere.particles.cs.carried import with_translated_fields
from napari_cryosphere.particles.cs.fields import NAMES
from napari_cryosphere.particles.cs.reader import tables_of_cs
from napari_cryosphere.particles.mrc import MrcStack
from napari_cryosphere.particles.star.reader import parse_star

__all__ = ["DataSet", "data_set_of_blocks", "read_data_set"]

_STACK_SUFFIXES = (".mrc", ".mrcs")
_CRYOSPARC_SUFFIXES = (".cs", ".csg")
_UNSET_PIXEL_SIZE = 1.0  # A; what programs write that know none
_SAME_PIXEL_SIZE = 0.01  # calibrations change a pixel size by less


@dataclass(frozen=True)
class DataSet:
    """What a file of particles holds, checked."""

    tables: Tables
    images: ImageSource


def read_data_set(
    path: Path, data_dir: Path | None, require_images: bool, open_images: bool
) -> DataSet:
    """Read a STAR file, a .cs file or a bare stack. See :meth:`ParticleStack.read`."""
    if data_dir is not None and not data_dir.is_dir():
        raise FileFormatError(f"the folder of images {data_dir} (--data-dir) is not there")
    if path.is_dir():
        raise FileFormatError(
            f"{path} is a folder; expected a .star, .cs or .csg file or an .mrcs stack"
        )
    if path.exists() and not path.is_file():  # a pipe's or device's end may never come
        raise FileFormatError(f"{path} is a pipe or device; write what comes out of it to a file")
    notes: tuple[str, ...] = ()
    if path.suffix.lower() in _CRYOSPARC_SUFFIXES:
        blocks, notes = tables_of_cs(path)
    elif any(suffix.lower() in _STACK_SUFFIXES for suffix in path.suffixes[-2:]):
        blocks = _blocks_of_stack(path)
        open_images = True  # the file itself is one
    else:
        blocks, notes = parse_star(path)
    return data_set_of_blocks(path, blocks, notes, data_dir, require_images, open_images)


def data_set_of_blocks(
    path: Path,
    blocks: dict[str, pd.DataFrame],
    notes: tuple[str, ...] = (),
    data_dir: Path | None = None,
    require_images: bool = True,
    open_images: bool = True,
    images: ArrayStack | None = None,
) -> DataSet:
    """Check the blocks of a STAR file and find the images. See :meth:`ParticleStack.from_tables`.

    - ``path``: the file, for messages and as the place to look for stacks from.
    - ``blocks``: its tables by name.
    - ``notes``: warnings to begin with.
    - ``data_dir``, ``require_images``, ``open_images``: see :meth:`ParticleStack.read`.
    - ``images``: the images of all rows, in order; None looks for the stacks that the rows name.
    """
    if images is not None:
        blocks = _naming(images, path, blocks)
    refuse_other_tables(path, blocks)
    blocks = with_translated_fields(path, blocks)
    own_names = NAMES if path.suffix.lower() in _CRYOSPARC_SUFFIXES else {}
    tables = tables_from_blocks(path, blocks, own_names)
    tables.warnings[:0] = notes
    names, file_of, index_of = parse_image_names(tables.place, tables.particles)
    series = f"{path}: {WARP_SERIES}" if is_warp_series(tables.particles) else ""
    files: tuple[StackFile, ...]
    if images is not None:
        files = (StackFile(names[0], None, images),)
    elif open_images:
        files = locate_images(tables.place, names, file_of, data_dir, require_images)
    else:
        files = tuple(map(StackFile, names))
    source = ImageSource.of_file(tables.place, files, file_of, index_of)
    if series and require_images:
        raise MetadataError(series)
    tables.warnings += filter(None, [series])
    _check_images(tables, source)
    _complete_optics(tables, source, require_images)
    origins_in_angstrom(tables)
    note_oddities(tables, source if open_images else None)
    return DataSet(tables, source)


def _naming(
    images: ArrayStack, path: Path, blocks: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Return the blocks with rlnImageName of the rows of images in memory."""
    name = "particles" if "particles" in blocks else next(iter(blocks), "")
    table = blocks.get(name, pd.DataFrame(index=range(len(images))))
    if len(table) != len(images):
        raise MetadataError(
            f"{path}: data_{name} has {len(table)} rows for {len(images)} images; give one row each"
        )
    named = [f"{number:06d}@{images.path.name}" for number in range(1, len(images) + 1)]
    return blocks | {name or "particles": table.assign(rlnImageName=named)}


def _blocks_of_stack(path: Path) -> dict[str, pd.DataFrame]:
    """Return the particle table that describes a bare stack: image names, nothing else."""
    stack = MrcStack(path)
    refuse_other_files(stack, bare=True)
    names = [f"{number:06d}@{path.name}" for number in range(1, len(stack) + 1)]
    return {"particles": pd.DataFrame({"rlnImageName": names})}


def _check_images(tables: Tables, images: ImageSource) -> None:
    """Check that files are stacks of particles, and indices against the number of images."""
    place = tables.place
    whole = ~tables.particles["rlnImageName"].str.contains("@", regex=False).to_numpy(dtype=bool)
    named_whole = set(images.file_of[whole].tolist())
    for number in np.unique(images.file_of).tolist():
        opened = images.files[number].stack
        if opened is not None:
            refuse_other_files(opened, named_whole=number in named_whole)
            if number in named_whole and len(opened) > 1:
                tables.warnings.append(
                    f"{place.path}: {opened.path} has {len(opened)} images and is named without the "
                    f"number of one; the first is taken: write 000001@{opened.path.name}"
                )
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


def _stacks_of_groups(
    tables: Tables, images: ImageSource
) -> dict[int, list[MrcStack | ArrayStack]]:
    """Return the opened stacks that the particles of each optics group are in."""
    numbers, codes = np.unique(tables.particles[GROUP], return_inverse=True)
    pairs = np.sort(pd.unique(codes * len(images.files) + images.file_of))
    found: dict[int, list[MrcStack | ArrayStack]] = {}
    for pair in pairs.tolist():
        code, file = divmod(pair, len(images.files))
        stack = images.files[file].stack
        if stack is not None:
            found.setdefault(int(numbers[code]), []).append(stack)
    return found


def _complete_optics(tables: Tables, images: ImageSource, required: bool) -> None:
    """Compare rlnImageSize with each group's stacks; take boxes and pixel sizes from headers if missing."""
    stacks = _stacks_of_groups(tables, images)
    if not stacks:
        return
    boxes = {group: _box_of_group(tables, group, mine) for group, mine in stacks.items()}
    optics = tables.optics
    if "rlnImageSize" not in optics and len(boxes) == len(optics):
        optics = optics.assign(rlnImageSize=optics[GROUP].map(boxes), rlnImageDimensionality=2)
    tables.optics = optics
    if PIXEL_SIZE in optics:
        tables.warnings += _other_pixel_sizes(tables, stacks)
    else:
        _take_pixel_sizes(tables, stacks, required)


def _box_of_group(tables: Tables, group: int, stacks: list[MrcStack | ArrayStack]) -> int:
    """Return the box of an optics group's stacks; refuse different ones and another rlnImageSize."""
    place, box = tables.place, stacks[0].shape[1]
    path = place.path
    other = next((stack for stack in stacks if stack.shape[1] != box), None)
    if other is not None:
        raise FileFormatError(
            f"{path}: stacks with different boxes in optics group {group} ({stacks[0].path} has {box} px, "
            f"{other.path} has {other.shape[1]} px); give each box an optics group of its own"
        )
    if "rlnImageSize" in tables.optics:
        said = int(tables.optics["rlnImageSize"][tables.optics[GROUP] == group].iloc[0])
        if said != box:
            raise MetadataError(
                f"{path}: {place.name('rlnImageSize')} is {said}, but the images in {stacks[0].path} have "
                f"{box} px; one of the two files is not the right one"
            )
    return box


def _other_pixel_sizes(
    tables: Tables, stacks: dict[int, list[MrcStack | ArrayStack]]
) -> Iterator[str]:
    """Name the first stack of each optics group whose header has another pixel size than the table."""
    place = tables.place
    said = dict(zip(tables.optics[GROUP], tables.optics[PIXEL_SIZE], strict=True))
    for group, mine in stacks.items():
        for stack in mine:
            found = stack.pixel_size_angstrom or _UNSET_PIXEL_SIZE
            if found != _UNSET_PIXEL_SIZE and abs(found / said[group] - 1) > _SAME_PIXEL_SIZE:
                yield (
                    f"{place.path}: {place.name(PIXEL_SIZE)} is {said[group]:g} A in optics group "
                    f"{group}, but {found:g} A in the header of {stack.path}; one of the two is wrong"
                )
                break


def _take_pixel_sizes(
    tables: Tables, stacks: dict[int, list[MrcStack | ArrayStack]], required: bool
) -> None:
    """Take the pixel size of each optics group from the headers of its stacks."""
    path, optics = tables.place.path, tables.optics
    sizes: dict[int, float] = {}
    several = False
    for group, mine in stacks.items():
        found = {round(stack.pixel_size_angstrom or 0.0, 4) for stack in mine}
        several |= len(found) > 1
        if len(found) == 1 and found != {0.0}:
            # the header's float32 has no more digits
            sizes[group] = float(f"{mine[0].pixel_size_angstrom:.6g}")
    first = next(iter(stacks.values()))[0]
    if len(sizes) == len(optics):
        tables.optics = optics.assign(**{PIXEL_SIZE: optics[GROUP].map(sizes)})
        if path != first.path:
            shown = " and ".join(f"{size:g} A" for size in dict.fromkeys(sizes.values()))
            tables.warnings.append(
                f"{path}: no {tables.place.name(PIXEL_SIZE)}; {shown} was taken from the header of "
                f"{first.path}"
            )
    elif required and path == first.path:
        raise MetadataError(
            f"{path}: no pixel size in the header; give a STAR file with {PIXEL_SIZE}"
        )
    elif required:
        found_none = (
            "stacks with different pixel sizes"
            if several
            else "no pixel size in the stack's header"
        )
        if tables.place.names:
            raise MetadataError(
                f"{path}: no pixel size: no field {tables.place.name(PIXEL_SIZE)}, and {found_none}"
            )
        raise MetadataError(
            f"{path}: no pixel size: no column {PIXEL_SIZE} in data_optics (nor rlnDetectorPixelSize and "
            f"rlnMagnification), and {found_none}; add {PIXEL_SIZE} to data_optics"
        )
