"""The particles' poses: predicted, refined against a map, or read from a folder of distributions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.widgets.control import work
from napari_cryosphere.widgets.control.export import chosen_stack
from napari_cryosphere.widgets.state.questions import Answer, Question

if TYPE_CHECKING:
    from napari_cryosphere.jobs.running.model_fit import ModelFit
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.so3.distributions.store import DistributionStore
    from napari_cryosphere.widgets.control.data_sets import DataSets
    from napari_cryosphere.widgets.control.inspector import Inspector
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["PoseController"]

_BATCH = 64  # distributions read at a time: a step of some tenths of a second


class PoseController:
    """Predicts, refines and reads poses; results stay with the layer that they came from.

    ``inspector``: shows the posteriors of a folder that was read.
    """

    def __init__(self, data: DataSets, inspector: Inspector) -> None:
        self._data = data
        self._inspector = inspector

    def predict(self, accepted: frozenset[str] = frozenset()) -> None:
        """Predict the poses of the chosen particles and show their spheres as they come.

        First some particles are looked at: where the model seems to be another molecule's, or of
        another point group, a person is asked, and earlier poses stay meanwhile.

        ``accepted``: what has been accepted, see `work.prediction_work`.
        """
        data = self._data
        session = data.session
        if session is None or session.model_path is None or data.runner.busy:
            return
        data.maps.show()
        data.ask(session, None)
        path, stack = session.model_path, session.stack
        symmetry = session.store.symmetry if session.symmetry_known else None
        title = f"Predicting {session.layer.name}"
        self.run(
            session, title, lambda: work.prediction_work(stack, path, symmetry, accepted), accepted
        )

    def refine(self, reference: DensityMap | None) -> None:
        """Refine the predicted poses of the chosen particles, and find their shifts.

        Stopped before its end it leaves nothing.

        ``reference``: the map to refine against; None for that of the model's run.
        """
        data = self._data
        session = data.session
        if session is None or session.model_path is None or data.runner.busy:
            return
        from napari_cryosphere.particles import ParticleStack

        path, stack = session.model_path, session.stack

        def take(event: object) -> None:
            if session.layer not in data.viewer.layers:
                data.runner.stop()
            elif isinstance(event, ParticleStack):
                session.take_refined(event)
                session.refresh_sphere(data.viewer)

        data.runner.start(
            f"Refining {session.layer.name}",
            lambda: work.refinement_work(stack, path, reference),
            take,
            data.predictions_changed.emit,
        )

    def _begin(self, session: Session, fit: ModelFit, accepted: frozenset[str]) -> None:
        """Make room for new predictions, or ask first whether they are wanted."""
        data = self._data
        session.fit = fit
        if fit.foreign and "model" not in accepted:
            data.ask(session, self._foreign(session, fit, accepted))
            return
        if fit.symmetry_differs and "symmetry" not in accepted:
            data.ask(session, self._other_symmetry(session, fit, accepted))
            return
        data.adopt_symmetry(session, fit.model_symmetry)
        session.take_refined(None)
        session.store.clear()
        assert session.model_path is not None
        session.model_name = work.model_name(session.model_path)
        data.show_sphere(session)
        data.predictions_changed.emit()

    def _foreign(self, session: Session, fit: ModelFit, accepted: frozenset[str]) -> Question:
        """Return the question that comes before predictions by a model of something else."""
        train = Answer(
            "Train on loaded data",
            self._data.training_wanted.emit,
            "Train a model of these particles",
        )
        find = Answer(
            "Find poses from the images",
            self._data.finding_wanted.emit,
            "Without a model: a coarse map and poses from these images alone",
        )
        predict = Answer(
            "Predict anyway",
            lambda: self.predict(accepted | {"model"}),
            "Its poses and confidences mean little",
        )
        ways = (train, find) if session.stack.has_poses else (find,)
        return Question(fit.verdict, (*ways, predict))

    def _other_symmetry(
        self, session: Session, fit: ModelFit, accepted: frozenset[str]
    ) -> Question:
        """Return the question which point group holds."""
        theirs, own = fit.model_symmetry, session.store.symmetry

        def take() -> None:
            session.choose_symmetry(theirs)
            self._data.symmetry_changed.emit(theirs)
            self.predict(accepted)

        return Question(
            f"These particles are set to {own}, the model was trained with {theirs}.",
            (
                Answer(
                    f"Predict, keep {own}",
                    lambda: self.predict(accepted | {"symmetry"}),
                    f"The sphere shows what the {theirs} model says; errors and maps are modulo {own}",
                ),
                Answer(f"Set to {theirs} and predict", take),
            ),
        )

    def run(
        self,
        session: Session,
        title: str,
        predicting: Callable[[], work.Events],
        accepted: frozenset[str] = frozenset(),
    ) -> None:
        """Run work that predicts, and show the spheres of a data set as they come."""
        data = self._data
        data.runner.start(
            title,
            predicting,
            lambda event: self._take(session, event, accepted),
            data.predictions_changed.emit,
        )

    def _take(self, session: Session, event: object, accepted: frozenset[str]) -> None:
        """Keep a batch with the layer it came from; stop if that layer is gone."""
        data = self._data
        if session.layer not in data.viewer.layers:
            data.runner.stop()
            return
        from napari_cryosphere.jobs.running.model_fit import ModelFit

        if isinstance(event, ModelFit):
            self._begin(session, event, accepted)
        if not isinstance(event, work.Predicted):
            return
        data.adopt_symmetry(session, event.distribution.symmetry)
        session.store.add(*event)
        session.refresh_sphere(data.viewer)
        if session is data.session:
            data.predictions_changed.emit()
            data.particle_changed.emit()

    def attach(self, session: Session, folder: DistributionStore, path: Path) -> None:
        """Read a data set's distributions from a folder: predictions, or posteriors given a map."""
        session.distribution_files[folder.kind] = path
        self._data.adopt_symmetry(session, folder.symmetry)
        if folder.kind != "harmonic":
            session.posteriors.read_from(folder)
            self._data.show_sphere(session)
            self._inspector.show_source("map" if session.store.summary() is None else "both")
            return
        summary = session.store.summary()
        if summary is not None and len(summary) == len(session.stack):
            self._take_all(session, folder)
        else:
            self._summarise(session, folder)

    def _take_all(self, session: Session, folder: DistributionStore) -> None:
        """Take distributions whose summaries the STAR file holds: none is read before it is shown."""
        session.store.attach(folder)
        self._data.show_sphere(session)
        self._data.predictions_changed.emit()
        self._data.particle_changed.emit()

    def _summarise(self, session: Session, folder: DistributionStore) -> None:
        """Read all distributions for their summaries, batch by batch, as if they were predicted now."""

        def reading() -> work.Events:
            for start in range(0, len(folder), _BATCH):
                rows = slice(start, min(start + _BATCH, len(folder)))
                part = folder[rows]
                message = f"read {rows.stop:,} of {len(folder):,} distributions"
                yield work.Predicted(rows, part, part.summary())
                yield Progress(rows.stop / len(folder), message)

        session.store.clear()
        self._data.show_sphere(session)
        self.run(session, f"Reading {session.layer.name}", reading)

    def stack(self) -> ParticleStack:
        """Return the chosen particles that have been predicted, with their poses as columns.

        Raises `CryosphereError` if nothing has been predicted.
        """
        session = self._data.session
        if session is None or not session.store.predicted.any():
            raise CryosphereError("nothing is predicted yet; press Predict poses first")
        return chosen_stack(session, np.flatnonzero(session.store.predicted))
