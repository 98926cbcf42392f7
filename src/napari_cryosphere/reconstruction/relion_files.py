"""RELION's tables and job folders, read with starfile: FSC curves, and what a job left.

Particles are read by `ParticleStack.read`, whose errors name file, row and column. These tables are
small, and their columns are RELION's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation

__all__ = ["RelionJob", "holds_fsc", "read_fsc_star", "read_relion_tables"]

_CURVES = {
    "rlnFourierShellCorrelationCorrected": "corrected",
    "rlnFourierShellCorrelationUnmaskedMaps": "unmasked",
    "rlnFourierShellCorrelationMaskedMaps": "masked",
    "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": "phase_randomised",
    "rlnGoldStandardFsc": "gold_standard",
}
"""Columns of postprocess.star (block fsc) and of model.star (blocks model_class_N), and our names."""

_MARKS = ("job.star", "run.job", "job_pipeline.star", "default_pipeline.star")
"""Files of which RELION writes one into every job folder; the last is a project's."""

_PARTICLES = (
    *("run_data.star", "run_it*_data.star", "shiny.star", "particles_ctf_refine.star"),
    *("particles.star", "join_particles.star"),
)
_MAPS = (
    *("postprocess.mrc", "run_class*.mrc", "run_it*_half1_class*.mrc", "run_it*_class*.mrc"),
    *("initial_model.mrc", "mask.mrc"),
)
_HALVES = ("run_half1_class*_unfil.mrc", "run_it*_half1_class*_unfil.mrc")
_FSC = ("postprocess.star", "run_model.star", "run_it*_half1_model.star", "run_it*_model.star")
_ITERATION = re.compile(r"_it(\d+)_")


def read_relion_tables(path: Path) -> dict[str, pd.DataFrame | dict[str, Any]]:
    """Read all blocks of a STAR file as starfile does: tables, and label-value pairs as dictionaries.

    Raises `FileFormatError` if the file is missing or no STAR file.
    """
    import starfile

    if not path.is_file():
        raise FileFormatError(f"{path} does not exist; give one of RELION's STAR files")
    try:
        blocks: dict[str, pd.DataFrame | dict[str, Any]] = starfile.read(path, always_dict=True)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(f"{path} is no STAR file that can be read: {reason}") from error
    if not blocks:
        raise FileFormatError(f"{path} has no data_ block; it is not a STAR file")
    return blocks


def holds_fsc(path: Path) -> bool:
    """Return whether a STAR file's first columns are those of an FSC; looks at its beginning only."""
    try:
        with path.open("rb") as stream:
            head = stream.read(1 << 16)
    except OSError:
        return False
    return any(b"_" + column.encode() in head for column in _CURVES)


def read_fsc_star(path: Path) -> dict[str, FourierShellCorrelation]:
    """Read the FSC curves of relion_postprocess's postprocess.star or a refinement's model.star.

    Returns the curves by name: ``corrected``, ``unmasked``, ``masked`` and ``phase_randomised`` of
    a post-processing, ``gold_standard`` of a refinement (``gold_standard_2`` of its second class,
    and so on). Curves that are zero beyond the origin, as RELION writes where it has no half-maps,
    are left out. Raises `FileFormatError` if the file holds no curve.
    """
    curves: dict[str, FourierShellCorrelation] = {}
    for block, table in read_relion_tables(path).items():
        number = block.removeprefix("model_class_")
        end = f"_{number}" if number.isdigit() and number != "1" else ""
        if isinstance(table, pd.DataFrame) and "rlnResolution" in table and len(table) > 1:
            curves |= {name + end: curve for name, curve in _curves_of(path, table).items()}
    if not curves:
        wanted = ", ".join(_CURVES)
        raise FileFormatError(f"{path} holds no FSC: no block has a column of {wanted} with values")
    return curves


def _curves_of(path: Path, table: pd.DataFrame) -> dict[str, FourierShellCorrelation]:
    """Return the curves of one table with a row for every shell from 0 to half the box."""
    try:
        box = 2 * (len(table) - 1)
        pixel_size_angstrom = 0.5 / float(table["rlnResolution"].iloc[-1])  # Nyquist
        columns = {
            name: table[column].to_numpy(dtype=np.float64)
            for column, name in _CURVES.items()
            if column in table
        }
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise FileFormatError(f"{path}: a value of its FSC is no number: {error}") from error
    return {
        name: FourierShellCorrelation(values, box, pixel_size_angstrom)
        for name, values in columns.items()
        if values[1:].any()
    }


@dataclass(frozen=True)
class RelionJob:
    """A folder of RELION's: what kind of job it is, and its newest particles, map, half-maps and FSC.

    ``folder``: such as ``Refine3D/job012``. ``kind``: RELION's name of the job, such as
    ``Refine3D``; that of the folder above, or empty. ``files``: paths by role: ``particles``,
    ``map``, ``half1``, ``half2`` and ``fsc``, those that are there. Of a job that is still running
    they are the last finished iteration's.
    """

    folder: Path
    kind: str
    files: Mapping[str, Path]

    @classmethod
    def open(cls, folder: Path) -> RelionJob:
        """Look into a job's folder; nothing is read but names.

        Raises `FileFormatError` if RELION has left no job there, or nothing of it can be shown.
        """
        if not cls.is_one(folder):
            raise FileFormatError(
                f"{folder} is no RELION job: it has none of {', '.join(_MARKS[:3])}"
            )
        found = {
            "particles": _newest(folder, _PARTICLES),
            "map": _newest(folder, _MAPS),
            "half1": _newest(folder, _HALVES),
            "fsc": _newest(folder, _FSC),
        }
        half1 = found["half1"]
        found["half2"] = (
            None if half1 is None else half1.with_name(half1.name.replace("half1", "half2"))
        )
        files = {role: path for role, path in found.items() if path is not None and path.is_file()}
        if not files:
            raise FileFormatError(
                f"{folder}: this RELION job has left no particles, map or FSC yet"
            )
        return cls(folder, folder.absolute().parent.name, files)

    @staticmethod
    def is_one(folder: Path) -> bool:
        """Return whether a folder is one of RELION's jobs."""
        return folder.is_dir() and any((folder / name).is_file() for name in _MARKS[:3])

    @cached_property
    def particles(self) -> ParticleStack:
        """The particles. Raises FileFormatError if the job has none."""
        return ParticleStack.read(self._file("particles"))

    @cached_property
    def density(self) -> DensityMap:
        """The map. Raises FileFormatError if the job has none."""
        return DensityMap.read(self._file("map"))

    @cached_property
    def halves(self) -> tuple[DensityMap, DensityMap]:
        """The unfiltered half-maps. Raises FileFormatError if the job has none."""
        return DensityMap.read(self._file("half1")), DensityMap.read(self._file("half2"))

    @cached_property
    def curves(self) -> dict[str, FourierShellCorrelation]:
        """The FSC curves by name, see `read_fsc_star`. Raises FileFormatError if the job has none."""
        return read_fsc_star(self._file("fsc"))

    def _file(self, role: str) -> Path:
        if role not in self.files:
            there = ", ".join(self.files)
            raise FileFormatError(f"{self.folder} has no {role}; it has {there}")
        return self.files[role]


def _newest(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    """Return the first pattern's file with the highest iteration, and the first class's of these."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return max(found, key=lambda path: (_iteration(path), -found.index(path)))
    return None


def _iteration(path: Path) -> int:
    match = _ITERATION.search(path.name)
    return int(match[1]) if match else 0
