"""Takes what was dropped and is no layer to where it belongs. Knows no Qt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.steps import Step, Steps
from napari_cryosphere.widgets.state.inbox import inbox
from napari_cryosphere.widgets.state.kinds import kind_of
from napari_cryosphere.widgets.state.notices import tell_error, tell_note

if TYPE_CHECKING:
    from napari_cryosphere.so3.distribution import PoseSummary
    from napari_cryosphere.so3.distribution_store import DistributionStore
    from napari_cryosphere.widgets.control.controller import Controller
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["Intake"]

_BATCH = 64


class Intake:
    """Models are chosen, runs followed, distributions paired with their particles, session files restored.

    Parameters
    ----------
    controller
        Of the viewer.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._waiting: list[Path] = []
        self._inbox = inbox(controller.viewer)
        self._inbox.arrived.connect(self.take)
        controller.session_changed.connect(self._pair)

    def take(self) -> None:
        """Take what has come; what cannot be used is said."""
        for path in self._inbox.take():
            try:
                self._take(path)
            except (CryosphereError, OSError) as error:
                tell_error(error)

    def _take(self, path: Path) -> None:
        kind = kind_of(path)
        if kind == "model":
            self._choose_model(path)
        elif kind == "run":
            self._controller.training.follow(path)
            if (path / "model.safetensors").is_file():
                self._choose_model(path)
        elif kind == "distributions":
            self._waiting.append(path)
            self._pair()
        elif kind == "session":
            from napari_cryosphere.widgets.control.session_file import restore_session

            restore_session(self._controller, path)
        else:
            raise CryosphereError(f"{path.name} is nothing that CryoSphere opens")

    def _choose_model(self, path: Path) -> None:
        """Choose a model after a look at it, so that a broken one is refused now.

        Raises
        ------
        ModelError
            If it is no model.
        """
        from napari_cryosphere.model.pose_model import PoseModel

        card = PoseModel.load(path).card
        self._controller.choose_model(path)
        if self._controller.symmetry == "C1":
            self._controller.choose_symmetry(card.symmetry)
        tell_note(f"{path.name} chosen: press Predict poses")

    # ------------------------------------------------------------------ distributions

    def _pair(self) -> None:
        """Give distributions to the data set with as many particles; others wait for it."""
        if not self._waiting:
            return  # before the import, which brings torch
        from napari_cryosphere.so3.distribution_store import DistributionStore

        for path in list(self._waiting):
            try:
                folder = DistributionStore(path)
            except CryosphereError as error:
                self._waiting.remove(path)
                tell_error(error)
                continue
            session = self._partner(len(folder))
            if session is not None:
                self._waiting.remove(path)
                self.attach(session, folder, path)
            elif self._controller.session is not None:
                number = len(self._controller.session.stack)
                tell_note(
                    f"{path.name}: {len(folder):,} distributions, {number:,} particles; it waits for its own"
                )

    def _partner(self, number: int) -> Session | None:
        """Return the data set of a number of particles, the chosen one first."""
        chosen = self._controller.session
        sessions = [*([] if chosen is None else [chosen]), *self._controller.sessions]
        return next((session for session in sessions if len(session.stack) == number), None)

    def attach(self, session: Session, folder: DistributionStore, path: Path) -> None:
        """Read a data set's distributions from a folder: predictions, or posteriors given a map."""
        session.distribution_files[folder.kind] = path
        if folder.kind != "harmonic":
            session.posteriors.read_from(folder)
            self._controller.show_sphere(session)
            self._controller.inspector.show_source(
                "map" if session.store.summary() is None else "both"
            )
            return
        summary = session.store.summary()
        if summary is not None and len(summary) == len(session.stack):
            self._take_all(session, folder, summary)
        else:
            self._summarise(session, folder)

    def _take_all(self, session: Session, folder: DistributionStore, summary: PoseSummary) -> None:
        """Take distributions whose summaries the STAR file holds: none is read before it is shown."""
        session.store.clear()
        session.store.add(slice(0, len(session.stack)), folder, summary)
        self._controller.show_sphere(session)
        self._controller.predictions_changed.emit()
        self._controller.particle_changed.emit()

    def _summarise(self, session: Session, folder: DistributionStore) -> None:
        """Read all distributions for their summaries, batch by batch, as if they were predicted now."""

        def steps() -> Steps:
            for start in range(0, len(folder), _BATCH):
                rows = slice(start, min(start + _BATCH, len(folder)))
                part = folder[rows]
                message = f"read {rows.stop:,} of {len(folder):,} distributions"
                yield Step(rows.stop / len(folder), message, (rows, part, part.summary()))

        session.store.clear()
        self._controller.show_sphere(session)
        self._controller.poses.run(session, f"Reading {session.layer.name}", steps)
