"""Particles of a session file: predictions kept beside it, flags in runs. Knows no Qt."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_cryosphere.widgets.control.controller import Controller
    from napari_cryosphere.widgets.control.session_file import SavedParticles
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["flags_of", "kept_predictions", "restore_particles", "runs_of"]


def runs_of(flags: NDArray[np.uint8]) -> tuple[tuple[int, int], ...]:
    """Return flags as runs of equal ones, (flag, length); empty if there is none."""
    if not flags.any():
        return ()
    return tuple((int(flag), sum(1 for _ in run)) for flag, run in groupby(flags))


def flags_of(runs: tuple[tuple[int, int], ...], number: int) -> NDArray[np.uint8]:
    """Invert `runs_of`; what the runs do not reach has no flag."""
    flags = np.zeros(number, dtype=np.uint8)
    if runs:
        values = np.repeat([flag for flag, _ in runs], [length for _, length in runs])[:number]
        flags[: len(values)] = values
    return flags


def kept_predictions(session: Session, folder: Path) -> tuple[Path, dict[str, Path]]:
    """Return the file of a data set and the folders of its distributions; what is in memory alone is written.

    Predictions of all particles go to ``folder``: a STAR file with their poses, and their
    distributions. A run that was stopped half-way is not kept: it is predicted again in less time
    than it takes to explain.
    """
    store, files = session.store, dict(session.distribution_files)
    summary = store.summary()
    on_disk = "harmonic" in files or set(session.stack.particles.columns) >= {"cryosphereSpread"}
    if summary is None or on_disk or not store.predicted.all():
        return session.stack.source, files
    from napari_cryosphere.jobs.infer import with_predictions
    from napari_cryosphere.so3.distribution_store import write_distributions

    name = session.stack.source.name.split(".")[0]
    star, zarr = folder / f"{name}_predicted.star", folder / f"{name}_predicted.zarr"
    with write_distributions(zarr, overwrite=True) as writer:
        for part in store.distributions(store.predicted):
            writer.append(part)
    with_predictions(session.stack, summary, store.symmetry).save(star, overwrite=True)
    return star, {**files, "harmonic": zarr}


def restore_particles(controller: Controller, layer: Layer, saved: SavedParticles) -> list[str]:
    """Give a layer its flags, selection and distributions back; returns the names of folders not found."""
    from napari_cryosphere.errors import CryosphereError
    from napari_cryosphere.so3.distribution_store import DistributionStore

    session = next(one for one in controller.sessions if one.layer == layer)
    number, lost = len(session.stack), []
    if number == saved.number:
        selected = np.zeros(number, dtype=bool)
        selected[[row for row in saved.selected if row < number]] = True
        session.choices.restore(flags_of(saved.flags, number), selected)
    for path in saved.distributions.values():
        try:
            controller.intake.attach(session, DistributionStore(path), path)
        except CryosphereError:
            lost.append(path.name)
    return lost
