"""Files that look like single particles and are not: subtomograms, tilt series, micrographs, movies."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from napari_cryosphere.errors import FileFormatError, MetadataError
from napari_cryosphere.particles.mrc import MrcStack

__all__ = ["WARP_SERIES", "is_warp_series", "refuse_other_files", "refuse_other_tables"]

_TOMOGRAPHY = (
    "this program works on single particles; use RELION's subtomogram averaging, or Warp and M"
)
WARP_SERIES = (
    f"tilt series of Warp (rlnGroupName names a particle, rlnCtfBfactor its tilts); {_TOMOGRAPHY}"
)
_EXTRACT = "extract particles first"
# No particle's image is that large; no detector has fewer pixels along its edge.
_SMALLEST_MICROGRAPH_PX = 1024


def refuse_other_tables(path: Path, blocks: dict[str, pd.DataFrame]) -> None:
    """Refuse tables of subtomograms, tilt series and micrographs.

    Raises `MetadataError` says by which column it is known, and which tool takes it.
    """
    for block, table in blocks.items():
        found = _tomography(table)
        if found:
            where = f"{path}: data_{block}" if block else f"{path}:"
            raise MetadataError(f"{where} holds {found}; {_TOMOGRAPHY}")
    has_images = any("rlnImageName" in table for table in blocks.values())
    for block, table in blocks.items():
        if block == "particles":
            continue
        for column, what in (
            ("rlnMicrographName", "micrographs"),
            ("rlnMicrographMovieName", "movies"),
            ("rlnCoordinateX", "picked coordinates"),
        ):
            if column in table and not has_images:
                raise MetadataError(
                    f"{path}: data_{block} holds {what} ({column} without rlnImageName), not "
                    f"particles; {_EXTRACT}"
                )


def _tomography(table: pd.DataFrame) -> str:
    """Return what a table of tomography holds, and which column says so; empty for others."""
    columns = [str(name) for name in table]
    if "rlnImageDimensionality" in columns:
        dimensions = pd.to_numeric(table["rlnImageDimensionality"], errors="coerce")
        if (dimensions == 3).any():
            return "subtomograms, which are volumes (rlnImageDimensionality is 3)"
    for name in columns:
        if name == "rlnTomoSubTomosAre2DStacks":
            return f"subtomograms as stacks of tilts ({name})"
        if name.startswith("rlnTomo"):
            return f"particles of tomograms ({name})"
        if name == "rlnCtfImage":
            return f"subtomograms with their 3D CTFs ({name})"
        if name.startswith("wrp"):
            return f"a tilt series of Warp ({name})"
    return ""


def is_warp_series(table: pd.DataFrame) -> bool:
    """Return whether rows are tilts of a particle: Warp weighs them by dose, with B-factors below 0."""
    if not {"rlnGroupName", "rlnCtfBfactor", "rlnCtfScalefactor"} <= set(table.columns):
        return False
    b_factors = pd.to_numeric(table["rlnCtfBfactor"], errors="coerce")
    if not (b_factors < 0).any():
        return False
    per_particle = b_factors.groupby(table["rlnGroupName"]).nunique()
    return bool((per_particle > 1).all())


def refuse_other_files(stack: MrcStack, bare: bool = False, named_whole: bool = False) -> None:
    """Refuse a file of one micrograph, a movie, or a volume.

    ``stack``: the file. ``bare``: whether the file itself was given, not a table that names it.
    ``named_whole``: whether a table names it without the number of an image. Raises
    `FileFormatError` says what it is, and what to do.
    """
    sections, rows, columns = stack.shape
    named_mrc = stack.path.suffix.lower() in (".mrc", ".map")
    cube = sections == rows == columns and (bare or named_mrc)  # never of images in memory
    if cube and ((named_mrc and (bare or named_whole)) or stack.header.is_volume):
        raise FileFormatError(
            f"{stack.path} is a 3D map of {rows} voxels an edge, not a stack of particles"
            + (f"; of subtomograms: {_TOMOGRAPHY}" if named_whole else "")
        )
    large = max(rows, columns) >= _SMALLEST_MICROGRAPH_PX
    if sections == 1 and large and (rows != columns or bare):
        raise FileFormatError(f"{stack.path} is a micrograph of {columns} x {rows}; {_EXTRACT}")
    if rows != columns and large:
        raise FileFormatError(
            f"{stack.path} is a movie or tilt series of {sections} frames of {columns} x {rows}; "
            f"{_EXTRACT}"
        )
    if rows != columns:
        raise FileFormatError(
            f"{stack.path} has images of {columns} x {rows} pixels; images must be square"
        )
