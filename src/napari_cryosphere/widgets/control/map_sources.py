"""Which particles, at which poses, a map is made from."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.map_work import Recipe
from napari_cryosphere.widgets.state.particle_choices import Flag

if TYPE_CHECKING:
    from napari_cryosphere.so3.distributions import PoseDistribution
    from napari_cryosphere.widgets.state.predictions import PredictionStore
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["MISSING", "Poses", "Subset", "chosen_rows", "posed_rows", "recipe"]


class Poses(Enum):
    """Where a particle is inserted."""

    PREDICTED = "predicted poses"
    REFINED = "refined poses"
    INPUT = "input poses"


class Subset(Enum):
    """Which particles count."""

    ALL = "all particles"
    SELECTED = "the selection"
    NOT_REJECTED = "all but rejected"
    KEPT = "flagged keep"


_SHORT = {Subset.SELECTED: "selection", Subset.NOT_REJECTED: "not rejected", Subset.KEPT: "kept"}
"""Subsets in the name of a layer, which has to be short."""
MISSING = {  # what to do where particles have no such pose
    Poses.PREDICTED: "nothing is predicted yet; press Predict poses first",
    Poses.REFINED: "nothing is refined yet; press Refine, or open a file that infer --refine or align wrote",
    Poses.INPUT: "the file came without poses; predict them first",
}


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


def posed_rows(session: Session, poses: Poses) -> NDArray[np.bool_]:
    """Return whether each particle of a session has such a pose, ``(n,)``."""
    if poses is Poses.PREDICTED:
        return session.store.predicted.copy()
    known = (
        session.refined is not None if poses is Poses.REFINED else session.store.known is not None
    )
    return np.full(len(session.stack), known)


def _rotations(session: Session, poses: Poses, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the poses of some particles that have one, ``(k, 3, 3)``."""
    if poses is Poses.PREDICTED:
        summary = session.store.summary()
        given = None if summary is None else summary.rotations[rows[session.store.predicted]]
    else:
        known = session.frames.refined if poses is Poses.REFINED else session.store.known
        given = None if known is None else known[rows]
    if given is None:
        raise CryosphereError(MISSING[poses])
    return given


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

    Raises `CryosphereError` if there are no particles, no such poses, or no point group of that
    name.

    - ``session``: the particles; None for none.
    - ``poses``, ``subset``: where they are inserted, and which of them.
    - ``weigh``: insert each at samples of its predicted distribution instead of its best pose.
    - ``symmetry``: point group of the map.
    - ``half_maps``, ``cones``: see `Recipe`.
    - ``name_data``: whether the map's name tells whose particles it is made from.
    """
    from napari_cryosphere.so3.symmetry import normalise_group_name

    if session is None:
        raise CryosphereError("no particles are loaded; open a STAR file first")
    posed = posed_rows(session, poses)
    if not posed.any():
        raise CryosphereError(MISSING[poses])
    rows = chosen_rows(session, subset) & posed
    if not rows.any():
        raise CryosphereError(f"no particle is left among {subset.value}; choose others")
    weighed = weigh and poses is Poses.PREDICTED
    # refined poses come with the shifts that were refined with them
    refined = session.refined if poses is Poses.REFINED else None
    where = "distributions" if weighed else poses.value.removesuffix(" poses")
    which = "" if subset is Subset.ALL else f", {_SHORT[subset]}"
    whose = f" of {session.layer.name}" if name_data else ""
    return Recipe(
        name=f"map{whose}, {where}{which}",
        stack=(session.stack if refined is None else refined)[rows],
        rotations=_rotations(session, poses, rows),
        symmetry=normalise_group_name(symmetry),
        half_maps=half_maps,
        cones=cones and half_maps,
        distributions=partial(_distributions, session.store, rows) if weighed else None,
    )


def _distributions(store: PredictionStore, rows: NDArray[np.bool_]) -> list[PoseDistribution]:
    """Return the distributions of some predicted particles, batch by batch; they may have to be read."""
    batches = store.distributions(rows)
    known, wanted = sum(map(len, batches)), int(rows.sum())
    if known != wanted:
        raise CryosphereError(
            f"only {known:,} of {wanted:,} particles have their distribution here; predict them again, or "
            "reconstruct at their best poses"
        )
    return batches
