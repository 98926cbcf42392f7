"""From the blocks of a STAR file of any RELION version to one particle table and one optics table.

RELION 3.1 and later keep an optics table; RELION 3.0 writes its values in every row, the pixel size
as ``rlnDetectorPixelSize * 1e4 / rlnMagnification`` (um and a factor) and origins in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._checks import Place, in_legal_ranges, listed, numbers, refuse

__all__ = ["Tables", "described_optics", "tables_from_blocks"]

PIXEL_SIZE = "rlnImagePixelSize"
GROUP = "rlnOpticsGroup"
_OPTICS_COLUMNS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_OLD_PIXEL_SIZE = ("rlnDetectorPixelSize", "rlnMagnification")
_PIXEL_SIZES = (PIXEL_SIZE, "rlnPixelSize")
_SHOWN = {
    "voltage_kv": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "pixel_size_angstrom": PIXEL_SIZE,
    "box": "rlnImageSize",
}
_LARGEST_GROUP = 2**31 - 1  # RELION counts groups in 32 bits


@dataclass
class Tables:
    """The particle table, the optics table and what is left, with warnings."""

    place: Place
    particles: pd.DataFrame
    optics: pd.DataFrame
    others: dict[str, pd.DataFrame] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def tables_from_blocks(
    path: Path, blocks: dict[str, pd.DataFrame], names: Mapping[str, str] | None = None
) -> Tables:
    """Find and check the tables; ``names`` are what the file calls columns, see `Place`.

    Raises `MetadataError` if there is no particle table, it has no rows, or a value that is used is
    not legal.
    """
    name = _particle_block(path, blocks)
    particles = blocks[name].reset_index(drop=True)
    place = Place(path, name, names or {})
    others = {key: table for key, table in blocks.items() if key not in (name, "optics")}
    tables = Tables(place, particles, pd.DataFrame(), others)
    if particles.empty:
        raise MetadataError(f"{path}: data_{name} has no particles (labels but no rows)")
    check_particles(tables)
    if "optics" in blocks and not blocks["optics"].empty:
        tables.optics = blocks["optics"].reset_index(drop=True)
        _check_groups(tables)
    else:
        _build_optics(tables)
    _check_optics(tables)
    return tables


def _particle_block(path: Path, blocks: dict[str, pd.DataFrame]) -> str:
    """Return the name of the block that holds particles."""
    candidates = [
        name
        for name, table in blocks.items()
        if "rlnImageName" in table.columns and name != "optics"
    ]
    if "particles" in candidates:
        return "particles"
    if len(candidates) == 1 and "particles" not in blocks:
        return candidates[0]
    if "particles" in blocks:
        raise MetadataError(
            f"{path}: data_particles has no column rlnImageName, so there are no images"
        )
    names = listed([f"data_{name}" for name in blocks])
    if candidates:
        raise MetadataError(
            f"{path} has several blocks with rlnImageName ({names}); name one of them data_particles"
        )
    raise MetadataError(
        f"{path} has no particle table: none of its blocks ({names}) has the column rlnImageName"
    )


def check_particles(tables: Tables) -> None:
    """Check every column that has a legal range; these are float64 afterwards."""
    particles, place = tables.particles, tables.place
    columns, warnings = in_legal_ranges(place, particles)
    tables.warnings += warnings
    particles = particles.assign(**columns)
    if "rlnRandomSubset" in particles:
        subset = numbers(place, particles, "rlnRandomSubset")
        bad = (subset != 1) & (subset != 2)
        refuse(place, particles, "rlnRandomSubset", bad, "a half set is 1 or 2")
        particles = particles.assign(rlnRandomSubset=subset.astype(np.int64))
    tables.particles = particles


def _check_groups(tables: Tables) -> None:
    """Check that every particle's optics group is in the optics table."""
    place, optics, path = tables.place, tables.optics, tables.place.path
    if GROUP not in optics:
        if len(optics) > 1:
            raise MetadataError(
                f"{path}: data_optics has {len(optics)} rows but no column {GROUP}; number the groups"
            )
        optics = tables.optics = optics.assign(**{GROUP: 1})
    in_optics = place.in_block("optics")
    known = _group_numbers(in_optics, optics)
    repeated = optics[GROUP].duplicated().to_numpy()
    refuse(in_optics, optics, GROUP, repeated, "each group may be there once")
    if GROUP not in tables.particles:
        if len(optics) > 1:
            raise MetadataError(
                f"{place.path}: particles have no column {GROUP}, but there are {len(optics)} groups"
            )
        tables.particles = tables.particles.assign(**{GROUP: int(known[0])})
        tables.warnings.append(
            f"{path}: particles have no column {GROUP}; all were put in the only group"
        )
    groups = _group_numbers(place, tables.particles)
    there = listed([f"{group:g}" for group in known])
    legal = f"the optics table has only {there}; add the group to data_optics"
    refuse(place, tables.particles, GROUP, ~np.isin(groups, known), legal)
    tables.optics = optics.assign(**{GROUP: known})
    tables.particles = tables.particles.assign(**{GROUP: groups})


def _group_numbers(place: Place, table: pd.DataFrame) -> NDArray[np.int64]:
    """Return the column rlnOpticsGroup; refuse what is no integer."""
    values = numbers(place, table, GROUP)
    odd = (values != np.floor(values)) | (np.abs(values) > _LARGEST_GROUP)
    refuse(place, table, GROUP, odd, "groups are numbered with integers")
    return values.astype(np.int64)


def _build_optics(tables: Tables) -> None:
    """Make the optics table from the columns of the particles, one group for each set of values."""
    particles = tables.particles
    old = PIXEL_SIZE not in particles and all(column in particles for column in _OLD_PIXEL_SIZE)
    if GROUP in particles:
        tables.warnings.append(
            f"{tables.place.path}: particles name optics groups but there is no optics table (data_optics); "
            "values were taken from the particle table where it has them"
        )
    sources = (*_OPTICS_COLUMNS, *_PIXEL_SIZES, *_OLD_PIXEL_SIZE, GROUP)
    keys = [column for column in sources if column in particles]
    particles = particles.assign(
        **{column: numbers(tables.place, particles, column) for column in keys}
    )
    if GROUP in particles:
        particles = particles.assign(**{GROUP: _group_numbers(tables.place, particles)})
    if keys:
        groups = particles.groupby(keys, sort=False).ngroup().to_numpy() + 1
    else:
        groups = np.ones(len(particles), dtype=np.int64)
    first = np.unique(groups, return_index=True)[1]
    optics = particles.iloc[first][keys].reset_index(drop=True)
    if GROUP in optics and optics[GROUP].is_unique:
        groups = particles[GROUP].to_numpy()
    else:
        optics[GROUP] = np.arange(1, len(optics) + 1)
    if old:
        factors = [particles[column].to_numpy() for column in _OLD_PIXEL_SIZE]
        optics[PIXEL_SIZE] = (factors[0] * 1e4 / factors[1])[first]
    elif PIXEL_SIZE not in optics and "rlnPixelSize" in optics:
        optics[PIXEL_SIZE] = optics["rlnPixelSize"]
    keep = [GROUP, *[column for column in (*_OPTICS_COLUMNS, PIXEL_SIZE) if column in optics]]
    optics = optics[keep].astype({GROUP: np.int64})
    optics.insert(0, "rlnOpticsGroupName", [f"opticsGroup{group}" for group in optics[GROUP]])
    tables.optics = optics
    tables.particles = particles.assign(**{GROUP: groups.astype(np.int64)})


def _check_optics(tables: Tables) -> None:
    """Check the numbers of the optics groups."""
    columns, warnings = in_legal_ranges(tables.place.in_block("optics"), tables.optics)
    if not tables.place.names:  # the reader of other files has warned of their rows
        tables.warnings += warnings
    tables.optics = tables.optics.assign(**columns)


def origins_in_angstrom(tables: Tables) -> None:
    """Give the particles rlnOriginX/YAngst: as they are, from rlnOriginX/Y (pixels), or 0 with a warning."""
    missing = []
    for axis in "XY":
        target, old = f"rlnOrigin{axis}Angst", f"rlnOrigin{axis}"
        if target in tables.particles:
            continue
        if old in tables.particles and PIXEL_SIZE in tables.optics:
            pixel_sizes = (
                tables.optics.set_index(GROUP)[PIXEL_SIZE].loc[tables.particles[GROUP]].to_numpy()
            )
            values = tables.particles[old].to_numpy() * pixel_sizes
            tables.particles = tables.particles.assign(**{target: values})
        else:
            missing.append(target)
    if len(missing) == 1 or (missing and "rlnAngleRot" in tables.particles):
        tables.warnings.append(
            f"{tables.place.path}: no column {' and '.join(missing)}; shifts there are taken as 0"
        )


def described_optics(particles: pd.DataFrame, optics: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what is known of each optics group that has particles, and how many it has."""
    counts = particles[GROUP].value_counts()
    groups = []
    for _, row in optics.iterrows():
        number = int(row[GROUP])
        if number not in counts:
            continue
        group: dict[str, Any] = {
            "group": number,
            "name": str(row.get("rlnOpticsGroupName", f"opticsGroup{number}")),
            "particles": int(counts[number]),
        }
        group |= {
            key: float(row[column]) if column in row else None for key, column in _SHOWN.items()
        }
        group["box"] = None if group["box"] is None else int(group["box"])
        groups.append(group)
    return groups
