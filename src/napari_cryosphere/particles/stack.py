"""Particle stacks: a table of metadata, one row a particle, and images that are read when asked for."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._columns import Place
from napari_cryosphere.particles._image_source import ImageSource, renamed
from napari_cryosphere.particles._poses import ANGLES, ORIGINS, pose_columns
from napari_cryosphere.particles._reading import read_data_set
from napari_cryosphere.particles._tables import GROUP, PIXEL_SIZE, Tables, check_particles
from napari_cryosphere.particles.ctf_parameters import CtfParameters
from napari_cryosphere.particles.star import write_star
from napari_cryosphere.so3.rotations import rotation_from_relion_angles

__all__ = ["ParticleStack"]

logger = logging.getLogger(__name__)

_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_CTF_FIELDS = [field.name for field in fields(CtfParameters)][:6]
_CTF_OPTIONAL = {
    "phase_shift_degrees": "rlnPhaseShift",
    "b_factor_angstrom2": "rlnCtfBfactor",
    "scale_factor": "rlnCtfScalefactor",
}


class ParticleStack:
    """Particles with their metadata; slicing never touches pixels, and no file is held open.

    Made by :meth:`read`. Treat it as immutable: methods that change something return a new stack.

    Attributes
    ----------
    particles
        One row a particle; RELION's names without the underscore, such as ``rlnAngleRot``. Units are
        RELION's: degrees, A.
    optics
        One row an optics group, with ``rlnOpticsGroup`` and, where known, ``rlnImagePixelSize``. RELION 3.0
        files, which have no such table, get one.
    other_blocks
        All other blocks of the STAR file, carried through.
    source
        The file that was read.
    warnings
        One line for each oddity that does not prevent use.
    """

    def __init__(self, tables: Tables, images: ImageSource) -> None:
        self._tables = tables
        self._images = images
        self.particles: pd.DataFrame = tables.particles
        self.optics: pd.DataFrame = tables.optics
        self.other_blocks: dict[str, pd.DataFrame] = dict(tables.others)
        self.source: Path = tables.place.path
        self.warnings: tuple[str, ...] = tuple(tables.warnings)

    @classmethod
    def read(
        cls,
        path: str | PathLike[str],
        data_dir: str | PathLike[str] | None = None,
        *,
        require_images: bool = True,
    ) -> ParticleStack:
        """Read a STAR file of RELION 3.0 or later (also gzip-compressed), or a bare stack of images.

        Every number that is used is checked here, and the header of every stack; pixels are not read.

        Parameters
        ----------
        path
            ``.star``, ``.star.gz``, ``.mrcs`` or ``.mrc``.
        data_dir
            Folder of the images if they have moved. Stacks are looked for relative to the STAR file's
            folder, to its parents, and last in ``data_dir``, by whole name and by its last part.
        require_images
            Whether stacks that are missing are an error; if False they are a warning, and :meth:`images`
            raises. Enough for work on poses alone.

        Raises
        ------
        FileFormatError
            If a file is missing or not what it should be.
        MetadataError
            If a table or a value in it cannot be used: file, row, column and value are named.
        """
        folder = None if data_dir is None else Path(data_dir)
        data = read_data_set(Path(path), folder, require_images)
        for warning in data.tables.warnings:
            logger.info(warning)
        return cls(data.tables, data.images)

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.particles)

    def __repr__(self) -> str:
        """Return a short description."""
        return f"ParticleStack({len(self)} particles from {self.source})"

    def __getitem__(self, indices: Any) -> ParticleStack:
        """Return some particles: a slice, a boolean mask ``(n,)``, integers ``(k,)``, or one integer."""
        rows = self._rows(indices)
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

    def _with(self, particles: pd.DataFrame, images: ImageSource | None = None) -> ParticleStack:
        tables = copy.copy(self._tables)
        tables.particles, tables.optics, tables.others = particles, self.optics, self.other_blocks
        tables.warnings = list(self.warnings)
        return ParticleStack(tables, self._images if images is None else images)

    @property
    def box(self) -> int:
        """Edge of an image in pixels; even. Raises MetadataError if neither stack nor table says it."""
        sizes = self._group_values("rlnImageSize")
        if sizes is None:
            raise MetadataError(f"{self.source}: the box is not known; add rlnImageSize to data_optics")
        return int(sizes[0])

    @property
    def pixel_size_angstrom(self) -> float:
        """Pixel size of all images. Raises MetadataError if neither table nor header says it."""
        sizes = self._group_values(PIXEL_SIZE)
        if sizes is None:
            raise MetadataError(
                f"{self.source}: the pixel size is not known; add {PIXEL_SIZE} to data_optics"
            )
        return float(sizes[0])

    def _group_values(self, column: str) -> NDArray[Any] | None:
        """Return a column of the optics table, groups with particles first; None if there is none."""
        if column not in self.optics:
            return None
        if not len(self):
            return np.asarray(self.optics[column])
        return np.asarray(self.optics[column][self.optics[GROUP] == self.particles[GROUP].iloc[0]])

    def images(self, indices: Any = None) -> NDArray[np.float32]:
        """Read images.

        Parameters
        ----------
        indices
            An integer, slice, mask or array of integers; None for all.

        Returns
        -------
        ``(k, box, box)`` float32, axes ``[y, x]``, always three-dimensional. Neighbours in one stack are read
        in one go, whatever order they are asked for in.

        Raises
        ------
        CryosphereError
            If an image cannot be read or has pixels that are not finite; STAR row and stack are named.
        """
        return self._images[self._rows(indices)].read(self.box)

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

    def _missing_ctf(self) -> list[str]:
        missing = [column for column in _DEFOCUS if column not in self.particles]
        return missing + [
            name for name in _MICROSCOPE if name not in self.optics and name not in self.particles
        ]

    def rotations(self) -> NDArray[np.float64]:
        """Return the poses, ``(n, 3, 3)``; each matrix takes image coordinates (x, y, z) to map coordinates.

        Raises
        ------
        MetadataError
            If an Euler angle's column is missing.
        """
        missing = [column for column in ANGLES if column not in self.particles]
        if missing:
            raise MetadataError(
                f"{self.source}: no poses: no column {', '.join(missing)}; run inference first"
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
        """Return the parameters of each particle's CTF; what stands in its row goes before its optics group.

        A missing phase shift or B-factor is 0, a missing scale factor 1.

        Raises
        ------
        MetadataError
            If a column is missing; it is named.
        """
        missing = self._missing_ctf()
        if missing:
            raise MetadataError(
                f"{self.source}: no CTF: no column {', '.join(missing)}; add it to the STAR file"
            )
        values = dict(zip(_CTF_FIELDS, map(self._ctf_value, (*_DEFOCUS, *_MICROSCOPE)), strict=True))
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

        From rlnRandomSubset; without it odd rows of the file are 1 and even rows 2, which slicing keeps.
        """
        if "rlnRandomSubset" in self.particles:
            return np.asarray(self.particles["rlnRandomSubset"], dtype=np.int64)
        return self._images.row_of % 2 + 1

    def micrographs(self) -> NDArray[np.object_] | None:
        """Return rlnMicrographName, ``(n,)``, or None if there is no such column."""
        if "rlnMicrographName" not in self.particles:
            return None
        return np.asarray(self.particles["rlnMicrographName"], dtype=object)

    def with_columns(self, columns: Mapping[str, Any]) -> ParticleStack:
        """Return a stack with columns added or replaced.

        Parameters
        ----------
        columns
            ``(n,)`` values by name, without underscore; RELION's numbers are checked as on reading.

        Raises
        ------
        MetadataError
            If a length is wrong, a value not legal, or the column is rlnImageName or rlnOpticsGroup.
        """
        fixed = sorted({"rlnImageName", GROUP} & set(columns))
        if fixed:
            raise MetadataError(f"the column {fixed[0]} says where the images are and cannot be replaced")
        for name, values in columns.items():
            if np.shape(values) != (len(self),):
                raise MetadataError(f"column {name} has shape {np.shape(values)}; expected ({len(self)},)")
        added = {name: np.asarray(values) for name, values in columns.items()}
        if len(self):
            check_particles(Tables(Place(self.source, "new"), pd.DataFrame(added), pd.DataFrame()))
        return self._with(self.particles.assign(**added))

    def with_poses(self, rotations: ArrayLike, shifts_angstrom: ArrayLike | None = None) -> ParticleStack:
        """Return a stack with new poses.

        Poses that the input file had are kept as ``cryosphereInputAngleRot``, ``...Tilt``, ``...Psi`` and
        ``cryosphereInputOriginXAngst``, ``...YAngst``; such columns that are already there stay.

        Parameters
        ----------
        rotations
            ``(n, 3, 3)``; image to map coordinates.
        shifts_angstrom
            ``(n, 2)`` in x, y order, as rlnOriginX/YAngst; None keeps the origins as they are.

        Raises
        ------
        MetadataError
            If a shape is wrong, a matrix is no rotation or a shift is not finite.
        """
        pixel_size = self._group_values(PIXEL_SIZE)
        added = pose_columns(
            self.particles, rotations, shifts_angstrom, None if pixel_size is None else float(pixel_size[0])
        )
        return self._with(self.particles.assign(**added))

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write a STAR file in RELION 3.1's layout; images stay where they are.

        Image paths are written so that they hold from the new file: unchanged inside the same RELION project,
        else relative to the new file's folder. RELION takes them relative to the folder that it runs in.

        Raises
        ------
        OutputExistsError
            If the file exists and ``overwrite`` is False.
        """
        target = Path(path)
        new = [renamed(file, self.source, target) for file in self._images.files]
        images = zip(self._images.file_of.tolist(), self._images.index_of.tolist(), strict=True)
        names = [f"{index + 1:06d}@{new[file]}" for file, index in images]
        particles = self.particles.assign(rlnImageName=names)
        write_star({"optics": self.optics, "particles": particles, **self.other_blocks}, target, overwrite)

    def summary(self) -> dict[str, Any]:
        """Return what there is to say about the stack, ready for JSON."""
        size, box = self._group_values(PIXEL_SIZE), self._group_values("rlnImageSize")
        half_sets = self.half_sets()
        return {
            "kind": "particles",
            "particles": len(self),
            "box": None if box is None else int(box[0]),
            "pixel_size_angstrom": None if size is None else float(size[0]),
            "optics_groups": int(self.particles[GROUP].nunique()),
            "has_poses": self.has_poses,
            "has_ctf": self.has_ctf,
            "half_sets": {"1": int((half_sets == 1).sum()), "2": int((half_sets == 2).sum())},
            "warnings": list(self.warnings),
            "source": str(self.source),
            "size_bytes": sum(stack.file_bytes for stack in self._images.used),
        }
