"""Half sets where a table names none: whole filaments, or images in turn.

Segments of one filament overlap: in different halves they would share noise, and the FSC would never
fall. RELION keeps the segments of a tube together, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.particles._checks import Place, counted

__all__ = ["TUBE", "dealt_halves", "half_set_warnings", "tubes_of"]

TUBE = "rlnHelicalTubeID"
_SUBSET = "rlnRandomSubset"


def tubes_of(particles: pd.DataFrame, file_of: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the filament of each segment, ``(n,)`` numbers from 0 in the order of the rows.

    Tubes are numbered within a micrograph; without rlnMicrographName, within a stack: ``file_of`` is
    ``(n,)``. None where the particles are no segments.
    """
    if TUBE not in particles:
        return None
    where = particles.get("rlnMicrographName", pd.Series(file_of, index=particles.index))
    keys = pd.DataFrame({"where": where, "tube": particles[TUBE]})
    return keys.groupby(["where", "tube"], sort=False, dropna=False).ngroup().to_numpy(np.int64)


def dealt_halves(images: NDArray[np.int64], tubes: NDArray[np.int64] | None) -> NDArray[np.int8]:
    """Return the half set of each row, ``(n,)`` of 1 and 2.

    Different images in turn; of filaments each goes to the half that has fewer segments so far.
    """
    if tubes is None:
        return (images % 2 + 1).astype(np.int8)
    sizes = np.zeros(2, dtype=np.int64)
    half_of = np.empty(int(tubes.max(initial=-1)) + 1, dtype=np.int8)
    for tube, size in enumerate(np.bincount(tubes, minlength=len(half_of))):
        half_of[tube] = 1 + int(sizes[1] < sizes[0])
        sizes[half_of[tube] - 1] += size
    return half_of[tubes]


def half_set_warnings(
    place: Place, particles: pd.DataFrame, tubes: NDArray[np.int64] | None
) -> Iterator[str]:
    """Say how halves are made where a table names none, and which filaments are in both."""
    path, column = place.path, place.name(_SUBSET)
    bare = any(suffix.lower() in (".mrc", ".mrcs") for suffix in path.suffixes[-2:])
    if _SUBSET not in particles:
        if tubes is not None:
            yield f"{path}: no column {column}; filaments were split whole into half sets"
        elif not bare:  # a stack of images has no columns
            yield (
                f"{path}: no column {column}; images were split in turn, the first into half set "
                "1, the second into half set 2 and so on"
            )
    elif tubes is not None:
        halves = pd.Series(particles[_SUBSET].to_numpy()).groupby(tubes).nunique()
        torn = int((halves > 1).sum())
        if torn:
            yield (
                f"{path}: segments of {counted(torn, 'filament')} are in both half sets, which makes "
                f"the FSC too high; remove {column} for a split by filament"
            )
