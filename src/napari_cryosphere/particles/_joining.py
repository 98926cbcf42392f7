"""Joining the tables of several particle stacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._checks import listed
from napari_cryosphere.particles._oddities import one_half_warning
from napari_cryosphere.particles._tables import GROUP, PIXEL_SIZE, Tables

__all__ = ["joined_tables"]

_NAME = "rlnOpticsGroupName"


def joined_tables(parts: Sequence[Tables]) -> Tables:
    """Return one particle table and one optics table. See :meth:`ParticleStack.join`.

    Raises `MetadataError` if only some optics tables have a pixel size or a box.
    """
    optics, numbers, dropped = _joined_optics(parts)
    tables = [
        part.particles.assign(**{GROUP: part.particles[GROUP].map(new)})
        for part, new in zip(parts, numbers, strict=True)
    ]
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    dropped += dict.fromkeys(name for table in tables for name in table if name not in shared)
    particles = pd.concat([table[shared] for table in tables], ignore_index=True)
    warnings = [
        line
        for part in parts  # the other half set may be in another part
        for line in part.warnings
        if line not in one_half_warning(part.place.path, part.particles)
    ]
    if dropped:
        warnings.append(
            f"{parts[0].place.path}: not all joined stacks have the column "
            f"{listed(dropped, 8)}, which was left out"
        )
    return Tables(
        parts[0].place, particles, optics, dict(parts[0].others), list(dict.fromkeys(warnings))
    )


def _joined_optics(parts: Sequence[Tables]) -> tuple[pd.DataFrame, list[dict[int, int]], list[str]]:
    """Return the groups of all parts, equal ones once; each part's new numbers by old; columns left out."""
    columns = list(dict.fromkeys(name for part in parts for name in part.optics))
    for name in (PIXEL_SIZE, "rlnImageSize"):
        without = next((part for part in parts if name not in part.optics), None)
        if name in columns and without is not None:
            raise MetadataError(
                f"{without.place.path}: no {name} in data_optics, which stacks to join it with have; add it"
            )
    shared = [name for name in columns if all(name in part.optics for part in parts)]
    table = pd.concat([part.optics[shared] for part in parts], ignore_index=True)
    values = [name for name in shared if name not in (GROUP, _NAME)]
    codes = (
        table.groupby(values, sort=False, dropna=False).ngroup().to_numpy()
        if values
        else np.zeros(len(table), dtype=np.int64)
    )
    ends = np.cumsum([len(part.optics) for part in parts])[:-1]
    numbers = [
        dict(zip(part.optics[GROUP].tolist(), (mine + 1).tolist(), strict=True))
        for part, mine in zip(parts, np.split(codes, ends), strict=True)
    ]
    optics = table.iloc[np.unique(codes, return_index=True)[1]].reset_index(drop=True)
    optics[GROUP] = np.arange(1, len(optics) + 1)
    if _NAME in shared:
        taken: set[str] = set()
        optics[_NAME] = [_unique_name(str(name), taken) for name in optics[_NAME]]
    return optics, numbers, [name for name in columns if name not in shared]


def _unique_name(name: str, taken: set[str]) -> str:
    """Return a group's name, with a number behind it if another group has it: RELION goes by names."""
    candidates = (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
    chosen = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(chosen)
    return chosen
