"""Particle stacks: a table of metadata, one row per particle, and images that are read when asked for."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.particles._checks import Place
from napari_cryosphere.particles._data_set import data_set_of_blocks, read_data_set
from napari_cryosphere.particles._half_sets import half_set_warnings, tubes_of
from napari_cryosphere.particles._image_source import ImageSource
from napari_cryosphere.particles._joining import joined_tables
from napari_cryosphere.particles._oddities import duplicate_warnings, grid_warnings
from napari_cryosphere.particles._poses import (
    ANGLES,
    ORIGINS,
    is_pose_column,
    moved_to_poses,
    state_probabilities,
    uncertainty_columns,
)
from napari_cryosphere.particles._selection import rows_where
from napari_cryosphere.particles._stack_files import ArrayStack, micrograph_shapes, renamed
from napari_cryosphere.particles._tables import (
    GROUP,
    PIXEL_SIZE,
    Tables,
    check_particles,
    described_optics,
)
from napari_cryosphere.particles.cs import write_cs
from napari_cryosphere.particles.cs.fields import SIGN
from napari_cryosphere.particles.cs.writer import records_of_tables
from napari_cryosphere.particles.ctf_parameters import CtfParameters
from napari_cryosphere.particles.image_grid import (
    ImageGrid,
    grids_of_groups,
    refuse_unlike,
    resample,
)
from napari_cryosphere.particles.mrc import write_stack
from napari_cryosphere.particles.star import write_star
from napari_cryosphere.particles.star.file import block_of_table, table_of_block
from napari_cryosphere.so3.rotations import rotation_from_relion_angles

if TYPE_CHECKING:
    from napari_cryosphere.so3.distributions import PoseDistribution
    from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = ["ParticleStack"]

logger = logging.getLogger(__name__)

_SHOWN_IMAGES = 6  # in a notebook

_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_CTF_FIELDS = [field.name for field in fields(CtfParameters)][:6]
_CTF_OPTIONAL = {
    "phase_shift_degrees": "rlnPhaseShift",
    "b_factor_angstrom2": "rlnCtfBfactor",
    "scale_factor": "rlnCtfScalefactor",
}


class ParticleStack:
    """Particles with their metadata; a value: what changes something returns a new stack.

    Slicing, masking, joining and splitting touch the table only, never a pixel, and no file is held
    open. Made by :meth:`read`.

    Optics groups may differ in box and pixel size. All images come on one grid, the finest pixel
    size and the widest field among the groups that the file's (or the joined files') particles are
    in; :attr:`box` and :attr:`pixel_size_angstrom` are this grid's, and slicing keeps it.

    - ``particles``: one row per particle; RELION's names without the underscore, such as
      ``rlnAngleRot``. Units are RELION's: degrees, A.
    - ``optics``: one row per optics group, with ``rlnOpticsGroup`` and, where known, its own
      ``rlnImagePixelSize`` and ``rlnImageSize``. RELION 3.0 files, which have no such table, get
      one.
    - ``other_blocks``: all other blocks of the STAR file, carried through.
    - ``source``: the file that was read; the first where stacks were joined.
    - ``grids``: box and pixel size of each optics group as its images are stored; empty where they
      are not known.
    """

    def __init__(
        self,
        tables: Tables,
        images: ImageSource,
        grids: Mapping[int, ImageGrid],
        grid: ImageGrid | None = None,
    ) -> None:
        self._tables = tables
        self._images = images
        self.particles: pd.DataFrame = tables.particles
        self.optics: pd.DataFrame = tables.optics
        self.other_blocks: dict[str, pd.DataFrame] = dict(tables.others)
        self.source: Path = tables.place.path
        self.grids: dict[int, ImageGrid] = dict(grids)
        self._grid = ImageGrid.common(grids.values()) if grids and grid is None else grid

    @classmethod
    def read(
        cls,
        path: str | PathLike[str],
        data_dir: str | PathLike[str] | None = None,
        *,
        require_images: bool = True,
        open_images: bool = True,
    ) -> ParticleStack:
        """Read a STAR file of RELION 3.0 or later, a cryoSPARC .cs file, or a bare stack of images.

        Every number that is used is checked here, and the header of every stack; pixels are not
        read. Raises `FileFormatError` if a file is missing or not what it should be;
        `MetadataError` if a table or a value in it cannot be used: file, row, column and value are
        named.

        - ``path``: ``.star``, ``.cs``, ``.mrcs`` or ``.mrc``; STAR files and stacks also as ``.gz``
          or ``.bz2``. What a .cs file lacks is taken from its job's passthrough file in the same
          folder.
        - ``data_dir``: folder of the images if they have moved. Stacks are looked for relative to
          it, to the file's folder and to its parents, and last in ``data_dir`` without the name's
          leading folders.
        - ``require_images``: whether stacks that are missing are an error; if False they are a
          warning, and :meth:`images` raises. Enough for work on poses alone.
        - ``open_images``: whether stacks are looked for and their headers read; if False no file of
          images is touched, and box and pixel size are known only where the table names them.
        """
        folder = None if data_dir is None else Path(data_dir)
        data = read_data_set(Path(path), folder, require_images and open_images, open_images)
        images = data.images
        if SIGN in data.tables.particles:
            images = images.inverted(data.tables.particles[SIGN].to_numpy() < 0)
        stack = cls._on_common_grid(data.tables, images)
        for warning in stack.warnings:
            logger.info(warning)
        return stack

    @classmethod
    def from_tables(
        cls,
        tables: pd.DataFrame | Mapping[str, pd.DataFrame | Mapping[str, Any]],
        images: ArrayLike | None = None,
        data_dir: str | PathLike[str] | None = None,
        *,
        require_images: bool = True,
    ) -> ParticleStack:
        """Take tables as ``starfile.read`` returns them, checked as :meth:`read` checks a file.

        Raises `FileFormatError`, `MetadataError` as :meth:`read`.

        - ``tables``: the particle table, or blocks by name: ``optics`` and ``particles`` of RELION
          3.1, each a table, or a mapping of labels to values for a block without ``loop_``.
        - ``images``: ``(n, box, box)``, one for each row, in memory; rlnImageName then need not be
          there. None looks for the stacks that rlnImageName names.
        - ``data_dir``: folder that the stacks' names are relative to; the working folder without
          it.
        - ``require_images``: see :meth:`read`.
        """
        given = {"particles": tables} if isinstance(tables, pd.DataFrame) else dict(tables)
        blocks = {name: table_of_block(block) for name, block in given.items()}
        folder = Path() if data_dir is None else Path(data_dir)
        held = None if images is None else ArrayStack(images)
        data = data_set_of_blocks(
            folder / "tables in memory", blocks, (), folder, require_images, images=held
        )
        return cls._on_common_grid(data.tables, data.images)

    def to_tables(self) -> dict[str, pd.DataFrame | dict[str, Any]]:
        """Return the blocks as ``starfile.write`` takes them: optics, particles, then all others.

        Blocks that a file had without ``loop_`` are dictionaries, as ``starfile.read`` gives them.
        """
        others = {name: block_of_table(table) for name, table in self.other_blocks.items()}
        return {"optics": self.optics.copy(), "particles": self.particles.copy(), **others}

    @classmethod
    def _on_common_grid(cls, tables: Tables, images: ImageSource) -> ParticleStack:
        images = images.dealt(tubes_of(tables.particles, images.file_of))
        grids = grids_of_groups(tables.optics, tables.particles[GROUP].unique())
        refuse_unlike(tables.place.path, grids.values())
        return cls(tables, images, grids)

    @classmethod
    def join(cls, stacks: Sequence[ParticleStack]) -> ParticleStack:
        """Return the particles of several stacks, one after the other.

        Optics groups that are equal in all their values become one, others get new numbers. Columns
        that not all stacks have are left out and named in a warning; half sets are kept, or made
        where only some stacks have them. Other blocks are the first stack's. Raises `MetadataError`
        if there are no stacks, or only some of their optics tables know the pixel size or the box.
        """
        if not stacks:
            raise MetadataError("no stacks to join; give at least one")
        splits = any("rlnRandomSubset" in stack.particles for stack in stacks)
        parts = [stack.with_half_sets() if splits else stack for stack in stacks]
        return cls._on_common_grid(
            joined_tables([part._current_tables for part in parts]),
            ImageSource.joined([part._images for part in parts]),
        )

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.particles)

    def __repr__(self) -> str:
        """Return a short description."""
        return f"ParticleStack({len(self)} particles from {self.source})"

    def _repr_html_(self) -> str:
        """Return a table and the first images, for notebooks; images that are not there are left out."""
        from napari_cryosphere._html import grey, page

        said = self.summary()
        names = ("particles", "box", "pixel_size_angstrom", "optics_groups", "source")
        entries = {name: said[name] for name in (*names, "has_poses", "has_ctf")}
        entries |= {f"warning {number}": text for number, text in enumerate(self.warnings, 1)}
        shown = min(len(self), _SHOWN_IMAGES)
        try:
            images = self.images(slice(shown))
        except CryosphereError:
            images = np.zeros((0, 2, 2), dtype=np.float32)
        labels = self.image_names()[:shown]
        pictures = [grey(image, 96, label) for image, label in zip(images, labels, strict=False)]
        return page("Particle stack", entries, pictures)

    def __getitem__(self, indices: Any) -> ParticleStack:
        """Return some particles: a slice, a boolean mask ``(n,)``, integers ``(k,)``, or one integer."""
        # a slice copies nothing
        rows = indices if isinstance(indices, slice) else self._rows(indices)
        return self._with(self.particles.iloc[rows].reset_index(drop=True), self._images[rows])

    def _rows(self, indices: Any) -> NDArray[np.int64]:
        """Return the row numbers that ``indices`` mean."""
        every = np.arange(len(self))
        if indices is None:
            return every
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            if indices.size == 0:
                indices = indices.astype(np.int64)
        return np.atleast_1d(every[indices])

    @property
    def _current_tables(self) -> Tables:
        tables = copy.copy(self._tables)
        tables.particles, tables.optics = self.particles, self.optics
        tables.others = self.other_blocks
        return tables

    def _with(self, particles: pd.DataFrame, images: ImageSource | None = None) -> ParticleStack:
        tables = self._current_tables
        tables.particles = particles
        return ParticleStack(
            tables, self._images if images is None else images, self.grids, self._grid
        )

    def on_grid(self, grid: ImageGrid) -> ParticleStack:
        """Return the particles with images that are Fourier-rescaled to a grid when they are read.

        The same field in a smaller box leaves out what is finer than two of its pixels; poses and
        shifts, which are in angstrom, stay. Raises `MetadataError` if box or pixel size of the
        images are not known.
        """
        if grid.matches(self.grid):
            return self
        return ParticleStack(self._current_tables, self._images, self.grids, grid)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """One line for each oddity that does not prevent use."""
        of_images = (
            grid_warnings(self.source, self.grids, self._grid) if self._grid is not None else ()
        )
        return (
            *self._tables.warnings,
            *of_images,
            *duplicate_warnings(self.source, self.particles, self._images),
            *half_set_warnings(self._tables.place, self.particles, self.filaments()),
        )

    @property
    def grid(self) -> ImageGrid:
        """The grid that all images are brought to. Raises MetadataError if box or pixel size is not known."""
        return ImageGrid(self.box, self.pixel_size_angstrom)

    @property
    def box(self) -> int:
        """Edge of an image in pixels; even. Raises MetadataError if neither stack nor table says it."""
        if self._grid is not None:
            return self._grid.box
        if "rlnImageSize" not in self.optics:
            raise MetadataError(
                f"{self.source}: the box is not known; add rlnImageSize to data_optics"
            )
        box = int(self.optics["rlnImageSize"].max())
        return box + box % 2

    @property
    def pixel_size_angstrom(self) -> float:
        """Pixel size of all images. Raises MetadataError if neither table nor header says it."""
        if self._grid is not None:
            return self._grid.pixel_size_angstrom
        if PIXEL_SIZE not in self.optics:
            raise MetadataError(
                f"{self.source}: the pixel size is not known; add {PIXEL_SIZE} to data_optics"
            )
        return float(self.optics[PIXEL_SIZE].min())

    def images(self, indices: Any = None) -> NDArray[np.float32]:
        """Read images.

        ``indices``: an integer, slice, mask or array of integers; None for all. Returns
        ``(k, box, box)`` float32, axes ``[y, x]``, always three-dimensional, on the stack's grid:
        images of optics groups with another box or pixel size are Fourier-rescaled, with grey
        values kept. Images whose ``cryosparc/blob/sign`` is -1 are multiplied by it. Neighbours in
        one stack are read in one go, whatever order they are asked for in. Raises `CryosphereError`
        if an image cannot be read or has pixels that are not finite; STAR row and stack are named.
        """
        if isinstance(indices, (int, np.integer)) and self._as_stored:
            return self._images.read_one(range(len(self))[indices])
        parts = list(self.images_by_grid(indices))
        if self._grid is None or (len(parts) == 1 and parts[0][2].matches(self._grid)):
            return parts[0][1]
        number, box = sum(len(rows) for rows, _, _ in parts), self._grid.box
        images = np.empty((number, box, box), dtype=np.float32)
        for rows, own, grid in parts:
            images[rows] = resample(own, grid, self._grid)
        return images

    @cached_property
    def _as_stored(self) -> bool:
        """Whether all images are stored on the stack's own grid."""
        return bool(self.grids) and all(grid.matches(self.grid) for grid in self.grids.values())

    def images_by_grid(
        self, indices: Any = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], ImageGrid]]:
        """Read images as they are stored, optics groups of one box and pixel size together.

        Yields which of the images asked for these are, ``(j,)``; the images, ``(j, box, box)``
        float32; their grid. An odd box is padded to the next even one. Raises `CryosphereError` as
        :meth:`images`.
        """
        chosen = self._rows(indices)
        source = self._images[chosen]
        if len(set(self.grids.values())) < 2:
            own = next(iter(self.grids.values()), None)
            images = source.read(self.box if own is None else own.box)
            stored = ImageGrid(self.box, 1.0) if own is None else own
            yield np.arange(len(chosen)), resample(images, stored, stored.even()), stored.even()
            return
        groups = self.optics_groups()[chosen]
        for grid in dict.fromkeys(self.grids.values()):
            mine = np.flatnonzero(
                np.isin(groups, [group for group in self.grids if self.grids[group] == grid])
            )
            if len(mine):
                yield mine, resample(source[mine].read(grid.box), grid, grid.even()), grid.even()

    @property
    def has_poses(self) -> bool:
        """Whether all three Euler angles are there."""
        return all(column in self.particles for column in ANGLES)

    @property
    def has_shifts(self) -> bool:
        """Whether both origins are there."""
        return all(column in self.particles for column in ORIGINS)

    @property
    def has_ctf(self) -> bool:
        """Whether all parameters of the CTF are there."""
        return not self._missing_ctf()

    def _named(self, columns: Sequence[str]) -> str:
        """Return columns by the names that the file itself has for them."""
        return ", ".join(dict.fromkeys(map(self._tables.place.name, columns)))

    def _missing_ctf(self) -> list[str]:
        missing = [column for column in _DEFOCUS if column not in self.particles]
        return missing + [
            name for name in _MICROSCOPE if name not in self.optics and name not in self.particles
        ]

    def rotations(self) -> NDArray[np.float64]:
        """Return the poses, ``(n, 3, 3)``; each matrix takes image coordinates (x, y, z) to map coordinates.

        Raises `MetadataError` if an Euler angle's column is missing.
        """
        missing = [column for column in ANGLES if column not in self.particles]
        if missing:
            raise MetadataError(
                f"{self.source}: no poses: no column {self._named(missing)}; run inference first"
            )
        return rotation_from_relion_angles(self.particles[list(ANGLES)].to_numpy(dtype=np.float64))

    def shifts_angstrom(self) -> NDArray[np.float64]:
        """Return rlnOriginX/YAngst, ``(n, 2)`` in x, y order; 0 where a column is missing.

        The particle's centre is at minus this shift from pixel ``box // 2``.
        """
        zeros = np.zeros(len(self))
        columns = [self.particles.get(name, zeros) for name in ORIGINS]
        return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=-1)

    def ctf_parameters(self) -> CtfParameters:
        """Return the parameters of each particle's CTF; its own row goes before its optics group.

        A missing phase shift or B-factor is 0, a missing scale factor 1. Raises `MetadataError` if
        a column is missing; it is named.
        """
        missing = self._missing_ctf()
        if missing:
            raise MetadataError(
                f"{self.source}: no CTF: no column {self._named(missing)}; add it to the file"
            )
        values = dict(
            zip(_CTF_FIELDS, map(self._ctf_value, (*_DEFOCUS, *_MICROSCOPE)), strict=True)
        )
        for name, column in _CTF_OPTIONAL.items():
            if column in self.particles or column in self.optics:
                values[name] = self._ctf_value(column)
        return CtfParameters(**values)

    def _ctf_value(self, column: str) -> NDArray[np.float64]:
        """Return a value for each particle: its own, else its optics group's, as RELION takes them."""
        if column in self.particles:
            return np.asarray(self.particles[column], dtype=np.float64)
        return self._value_of_group(column)

    def _value_of_group(self, column: str) -> NDArray[np.float64]:
        """Return a value for each particle: its optics group's, else its own."""
        if column in self.optics and column not in _DEFOCUS:
            of_group = self.optics.set_index(GROUP)[column]
            return np.asarray(of_group.loc[self.particles[GROUP]], dtype=np.float64)
        return np.asarray(self.particles[column], dtype=np.float64)

    def half_sets(self) -> NDArray[np.int64]:
        """Return the half set of each particle, ``(n,)`` of 1 and 2.

        From rlnRandomSubset. Without it the different images of the file are split in turn, in the
        order of its rows, and whole filaments where there is rlnHelicalTubeID: the same file gives
        the same halves, slicing keeps them, and an image that is there twice is in one of them
        only.
        """
        if "rlnRandomSubset" in self.particles:
            return np.asarray(self.particles["rlnRandomSubset"], dtype=np.int64)
        return self._images.half_of.astype(np.int64)

    def state_probabilities(self) -> NDArray[np.float64] | None:
        """Return the probabilities of several states, ``(n, k)``; None where the table has none.

        Raises `MetadataError` if a column of them is missing, or a particle's are no probabilities.
        """
        try:
            return state_probabilities(self.particles)
        except MetadataError as error:
            raise MetadataError(f"{self.source}: {error}") from error

    def filaments(self) -> NDArray[np.int64] | None:
        """Return which filament each segment is of, ``(n,)`` numbers from 0; None for particles."""
        return tubes_of(self.particles, self._images.file_of)

    def with_new_half_sets(self) -> ParticleStack:
        """Return a stack whose rlnRandomSubset splits these particles, whatever it was before."""
        images = self._images.dealt(self.filaments())
        return self._with(self.particles.assign(rlnRandomSubset=images.half_of.astype(np.int64)))

    def with_half_sets(self) -> ParticleStack:
        """Return a stack with the column rlnRandomSubset, from :meth:`half_sets` where there was none."""
        return (
            self
            if "rlnRandomSubset" in self.particles
            else self._with(self.particles.assign(rlnRandomSubset=self.half_sets()))
        )

    def halves(self) -> tuple[ParticleStack, ParticleStack]:
        """Return the particles of half set 1 and those of half set 2, with their half set as a column."""
        stack = self.with_half_sets()
        of = stack.half_sets()
        return stack[of == 1], stack[of == 2]

    def select(self, expression: str) -> ParticleStack:
        """Return the particles for which an expression is true, with their optics.

        ``expression``: a condition on columns as :meth:`pandas.DataFrame.query` takes it, with the
        names that the file has: ``"rlnClassNumber == 3 and rlnDefocusU < 20000"``. Columns of the
        optics table may be named too. Names with characters such as ``/`` go in backticks. Raises
        `MetadataError` if the expression cannot be evaluated, is no condition, or is true for no
        particle.
        """
        return self[self.rows_where(expression)]

    def rows_where(self, expression: str) -> NDArray[np.bool_]:
        """Return for which particles an expression is true, ``(n,)``; see :meth:`select`."""
        table = self.particles
        extra = [name for name in self.optics if name not in table]
        if extra:
            of_group = self.optics.set_index(GROUP)[extra].loc[table[GROUP]]
            table = table.assign(**{str(name): of_group[name].to_numpy() for name in extra})
        return rows_where(self.source, table.reset_index(drop=True), expression)

    def inverted(self) -> ParticleStack:
        """Return a stack whose images come with inverted contrast; files stay as they are."""
        return self._with(self.particles, self._images.inverted())

    def image_names(self) -> NDArray[np.object_]:
        """Return rlnImageName, ``(n,)``: the number of the image in its stack, @, and the stack's path."""
        return np.asarray(self.particles["rlnImageName"], dtype=object)

    def image_files(self) -> list[Path]:
        """Return the stacks that the particles are in."""
        return [stack.path for stack in self._images.used]

    def optics_groups(self) -> NDArray[np.int64]:
        """Return rlnOpticsGroup, ``(n,)``: a key of :attr:`grids` where boxes and pixel sizes are known."""
        return np.asarray(self.particles[GROUP], dtype=np.int64)

    def micrographs(self) -> NDArray[np.object_] | None:
        """Return rlnMicrographName, ``(n,)``, or None if there is no such column."""
        if "rlnMicrographName" not in self.particles:
            return None
        return np.asarray(self.particles["rlnMicrographName"], dtype=object)

    def with_columns(self, columns: Mapping[str, Any]) -> ParticleStack:
        """Return a stack with columns added or replaced.

        ``columns``: ``(n,)`` values by name, without underscore; RELION's numbers are checked as on
        reading. Raises `MetadataError` if a length is wrong, a value not legal, or the column is
        rlnImageName, rlnOpticsGroup or one of a pose, which :meth:`with_poses` writes.
        """
        fixed = sorted({"rlnImageName", GROUP} & set(columns))
        if fixed:
            raise MetadataError(
                f"the column {fixed[0]} says where the images are and cannot be replaced"
            )
        poses = next(filter(is_pose_column, columns), None)
        if poses is not None:
            raise MetadataError(
                f"the column {poses} belongs to a pose; write poses with with_poses, which moves "
                "priors too"
            )
        for name, values in columns.items():
            if np.shape(values) != (len(self),):
                raise MetadataError(
                    f"column {name} has shape {np.shape(values)}; expected ({len(self)},)"
                )
        added = {name: np.asarray(values) for name, values in columns.items()}
        if len(self):
            check_particles(Tables(Place(self.source, "new"), pd.DataFrame(added), pd.DataFrame()))
        return self._with(self.particles.assign(**added))

    def with_poses(
        self, rotations: ArrayLike, shifts_angstrom: ArrayLike | None = None, symmetry: str = "C1"
    ) -> ParticleStack:
        """Return a stack with new poses, and with what is tied to them.

        RELION's priors of angles and origins, where they are there, become the new pose; origins in
        pixels become the new ones; the class becomes 1. Statistics of the earlier pose
        (likelihoods, cryoSPARC's ``alignments3D/...``) are taken away. All that the input file had
        is kept as ``cryosphereInputAngleRot``, ``cryosphereInputOriginXAngst`` and so on; such
        columns that are already there stay.

        ``rotations``: ``(n, 3, 3)``; image to map coordinates. ``shifts_angstrom``: ``(n, 2)`` in
        x, y order, as rlnOriginX/YAngst; None keeps the origins as they are. ``symmetry``: point
        group of the map. Of a pose and its equivalents the one inside RELION's asymmetric unit is
        written: RELION's local searches lose poses outside it. Raises `MetadataError` if a shape is
        wrong, a matrix is no rotation or a shift is not finite; `SymmetryError` if there is no such
        point group.
        """
        pixel_sizes = self._value_of_group(PIXEL_SIZE) if PIXEL_SIZE in self.optics else None
        return self._with(
            moved_to_poses(self.particles, rotations, shifts_angstrom, pixel_sizes, symmetry)
        )

    def with_block(self, name: str, table: pd.DataFrame | None) -> ParticleStack:
        """Return a stack with another block of its STAR file added or replaced; None removes it."""
        stack = self._with(self.particles)
        stack.other_blocks.pop(name, None)
        if table is not None:
            stack.other_blocks[name] = table
        return stack

    def with_distribution(self, distribution: PoseDistribution) -> ParticleStack:
        """Return the particles at the best poses of their distributions, with how sure these are.

        Adds rlnMaxValueProbDistribution, cryosphereEntropy, cryosphereSpread and
        cryosphereConfidence, see `PoseSummary`, and of a point group other than C1
        cryosphereSymmetry; origins stay as they are. Raises `MetadataError` if there are not as
        many distributions as particles.
        """
        return self.with_summary(distribution.summary(), distribution.symmetry)

    def with_summary(
        self, summary: PoseSummary, symmetry: str, shifts_angstrom: ArrayLike | None = None
    ) -> ParticleStack:
        """Return the particles at the poses of a summary, see :meth:`with_distribution`.

        ``shifts_angstrom``, ``(n, 2)``, is as in :meth:`with_poses`.
        """
        posed = self.with_poses(summary.rotations, shifts_angstrom, symmetry)
        return posed.with_columns(uncertainty_columns(summary, symmetry))

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write a STAR file in RELION 3.1's layout, or a cryoSPARC .cs file; images stay where they are.

        Images in memory are written to a stack next to it, with the suffix .mrcs.

        Image paths are written so that they hold from the new file: unchanged inside the same
        RELION project, else relative to the new file's folder. RELION takes them relative to the
        folder that it runs in. A .cs file has one table; other blocks are left out.

        ``path``: the file to write: .cs for cryoSPARC, any other suffix for STAR. Raises
        `OutputExistsError` if the file exists and ``overwrite`` is False.
        """
        target = Path(path)
        new = renamed(self._images.files, target)
        refuse_overwrite(target, overwrite)
        for number, file in enumerate(self._images.files):
            if isinstance(file.stack, ArrayStack):
                path = target.with_name(new[number])
                write_stack(file.stack.read(), path, self.pixel_size_angstrom, overwrite)
        images = zip(self._images.file_of.tolist(), self._images.index_of.tolist(), strict=True)
        names = [f"{index + 1:06d}@{new[file]}" for file, index in images]
        particles = self.particles.assign(rlnImageName=names)
        if target.suffix.lower() == ".cs":
            write_cs(
                records_of_tables(target, particles, self.optics, self._micrograph_shapes()),
                target,
                overwrite,
            )
            return
        write_star(
            {"optics": self.optics, "particles": particles, **self.other_blocks}, target, overwrite
        )

    def _micrograph_shapes(self) -> NDArray[np.int64] | None:
        """Return rows and columns of the micrographs, ``(n, 2)``, where coordinates need them."""
        names = self.micrographs()
        if names is None or "rlnCoordinateX" not in self.particles:
            return None
        return micrograph_shapes(self.source, pd.Series(names))

    def summary(self) -> dict[str, Any]:
        """Return what there is to say about the stack, ready for JSON; see the command ``info``."""
        halves, optics = self.half_sets(), described_optics(self.particles, self.optics)
        units = "images" if self.filaments() is None else "filaments"
        split = (
            "rlnRandomSubset" if "rlnRandomSubset" in self.particles else f"order of the {units}"
        )
        return {
            "kind": "particles",
            "particles": len(self),
            "box": self.box if "rlnImageSize" in self.optics else None,
            "pixel_size_angstrom": self.pixel_size_angstrom if PIXEL_SIZE in self.optics else None,
            "optics_groups": len(optics),
            "optics": optics,
            "has_poses": self.has_poses,
            "has_shifts": self.has_shifts,
            "has_ctf": self.has_ctf,
            "half_sets": {str(half): int((halves == half).sum()) for half in (1, 2)},
            "half_sets_from": split,
            "warnings": list(self.warnings),
            "source": str(self.source),
            "size_bytes": sum(stack.file_bytes for stack in self._images.used),
        }
