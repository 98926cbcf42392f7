"""Some of a session's particles as a new STAR or .cs file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.events import Note, Progress
from napari_cryosphere.widgets.control.work import Events
from napari_cryosphere.widgets.state.particle_choices import Flag

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["Which", "chosen_stack", "export_work", "number_to_export", "rows_to_export"]


class Which(StrEnum):
    """Which particles go into the new file."""

    SELECTED = "selected"
    SHOWN = "shown"
    KEPT = "kept"
    NOT_REJECTED = "not rejected"


def rows_to_export(session: Session, which: Which) -> NDArray[np.int64]:
    """Return the particles that a choice means, in the file's order."""
    choices = session.choices
    if which is Which.SELECTED:
        return np.flatnonzero(choices.selected)
    if which is Which.SHOWN:
        return np.sort(session.filter.rows)
    if which is Which.KEPT:
        return choices.rows(Flag.KEEP)
    return np.flatnonzero(choices.flags != Flag.REJECT)


def number_to_export(session: Session, which: Which) -> int:
    """Return how many particles a choice means, without listing them."""
    choices = session.choices
    if which is Which.SELECTED:
        return int(np.count_nonzero(choices.selected))
    if which is Which.SHOWN:
        return len(session.filter.rows)
    counts = choices.counts()
    return counts[Flag.KEEP] if which is Which.KEPT else choices.number - counts[Flag.REJECT]


def chosen_stack(session: Session, rows: NDArray[np.int64]) -> ParticleStack:
    """Return some particles with all that their file says of them, and their predictions if all have one.

    Where they were refined here, their poses and shifts are the refined ones, the network's next to
    them. Predicted and given poses are never mixed in a file: it would not say which is which.
    Raises `CryosphereError` if there are no such particles.
    """
    if not len(rows):
        raise CryosphereError("no particles to save; select or flag some first")
    if session.refined is not None and session.refined is not session.stack:
        return session.refined[rows]
    stack, store = session.stack[rows], session.store
    summary = store.summary()
    if summary is None or store.of_file or not store.predicted[rows].all():
        return stack
    at = np.cumsum(store.predicted)[rows] - 1
    return stack.with_summary(summary[at], store.symmetry)


def export_work(session: Session, rows: NDArray[np.int64], path: Path) -> Events:
    """Write particles to a .cs file or, with any other suffix, to a STAR file; a `Note` says what came.

    Raises `CryosphereError` if there are none, or the file is the one that they came from.
    """
    yield Progress(0.0, f"collecting {len(rows):,} particles")
    if path.exists() and path.samefile(session.stack.source):
        raise CryosphereError(
            f"{path.name} is the file that the particles came from; choose another name"
        )
    stack = chosen_stack(session, rows)
    target = path if path.suffix in (".cs", ".star") else path.with_name(f"{path.name}.star")
    yield Progress(0.3, f"writing {target.name}")
    stack.save(target, overwrite=True)
    some = int(session.store.predicted[rows].sum())
    said = f"{len(rows):,} particles in {target.name}"
    if 0 < some < len(rows):
        said += f", with the poses of their file: only {some:,} of them are predicted"
    yield Note(said)
    yield Progress(1.0, said)
