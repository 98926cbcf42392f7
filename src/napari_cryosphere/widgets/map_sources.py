"""Which particles, at which poses, a map is made from. Knows no Qt."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.export import chosen_stack
from napari_cryosphere.widgets.map_steps import Recipe
from napari_cryosphere.widgets.particle_choices import Flag

if TYPE_CHECKING:
    from napari_cryosphere.widgets.controller import Session

__all__ = ["Poses", "Subset", "chosen_rows", "recipe"]


class Poses(Enum):
    """Where a particle is inserted."""

    PREDICTED = "predicted poses"
    INPUT = "input poses"


class Subset(Enum):
    """Which particles count."""

    ALL = "all particles"
    SELECTED = "the selection"
    NOT_REJECTED = "all but rejected"
    KEPT = "flagged keep"


def chosen_rows(session: Session, subset: Subset) -> NDArray[np.bool_]:
    """Return whether each particle of a session belongs to a subset, ``(n,)``."""
    choices = session.choices
    if subset is Subset.SELECTED:
        return choices.selected.copy()
    if subset is Subset.NOT_REJECTED:
        return choices.flags != Flag.REJECT
    if subset is Subset.KEPT:
        return choices.flags == Flag.KEEP
    return np.ones(len(session.stack), dtype=bool)


def recipe(
    session: Session | None,
    poses: Poses = Poses.PREDICTED,
    subset: Subset = Subset.ALL,
    weigh: bool = False,
    symmetry: str = "C1",
    half_maps: bool = True,
    cones: bool = False,
    name_data: bool = False,
) -> Recipe:
    """Return what a map of a session's particles is made from.

    Parameters
    ----------
    session
        The particles; None for none.
    poses, subset
        Where they are inserted, and which of them.
    weigh
        Insert each at samples of its predicted distribution instead of its best pose.
    symmetry
        Point group of the map.
    half_maps, cones
        See `Recipe`.
    name_data
        Whether the map's name tells whose particles it is made from.

    Raises
    ------
    CryosphereError
        If there are no particles, no such poses, or no point group of that name.
    """
    from napari_cryosphere.so3.symmetry import normalise_group_name

    if session is None:
        raise CryosphereError("no particles are loaded; open a STAR file first")
    rows = chosen_rows(session, subset)
    predicted = poses is Poses.PREDICTED
    if predicted:
        rows &= session.store.predicted
        if not session.store.predicted.any():
            raise CryosphereError("nothing is predicted yet; press Predict poses first")
    if not rows.any():
        raise CryosphereError(f"no particle is left among {subset.value}; choose others")
    stack = chosen_stack(session, np.flatnonzero(rows)) if predicted else session.stack[rows]
    if not stack.has_poses:
        raise CryosphereError(f"{session.stack.source} has no poses; predict them first")
    weighed = weigh and predicted
    where = "predicted distributions" if weighed else poses.value
    which = "" if subset is Subset.ALL else f", {subset.value}"
    whose = f" of {session.layer.name}" if name_data else ""
    return Recipe(
        name=f"map at {where}{which}{whose}",
        stack=stack,
        symmetry=normalise_group_name(symmetry),
        half_maps=half_maps,
        cones=cones and half_maps,
        distributions=session.store.distributions(rows) if weighed else (),
    )
