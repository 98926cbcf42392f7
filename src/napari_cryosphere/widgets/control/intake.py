"""Dropped files that are no layers: models, runs, distributions and session files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.state.fsc_curves import Curve, resolution_of
from napari_cryosphere.widgets.state.kinds import kind_of
from napari_cryosphere.widgets.state.notices import tell_error, tell_note
from napari_cryosphere.widgets.state.viewer_context import context_of

if TYPE_CHECKING:
    from napari_cryosphere.widgets.control.data_sets import DataSets
    from napari_cryosphere.widgets.control.pose_controller import PoseController
    from napari_cryosphere.widgets.control.session_file import SessionFile
    from napari_cryosphere.widgets.control.training_run import TrainingRun
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["Intake"]

_FSC_THRESHOLD = 0.143  # of half-maps (Rosenthal & Henderson 2003)


class Intake:
    """Models are chosen, runs followed, distributions paired with their particles, session files restored.

    ``data``: the viewer's data sets, for which models are chosen. ``training``: follows runs.
    ``session_file``: restores sessions.
    """

    def __init__(
        self,
        data: DataSets,
        poses: PoseController,
        training: TrainingRun,
        session_file: SessionFile,
    ) -> None:
        self._data = data
        self._poses = poses
        self._training = training
        self._session_file = session_file
        self._waiting: list[Path] = []
        self._inbox = context_of(data.viewer).inbox
        self._inbox.arrived.connect(self.take)
        data.session_changed.connect(self._pair)

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
            self._training.follow(path)
            if (path / "model.safetensors").is_file():
                self._choose_model(path)
        elif kind == "distributions":
            self._waiting.append(path)
            self._pair()
        elif kind == "session":
            self._session_file.restore(path)
        elif kind == "images":
            self._add_curves(path)
        else:
            raise CryosphereError(f"CryoSphere cannot open {path.name}")

    def _add_curves(self, path: Path) -> None:
        """Show the FSC curves of RELION's postprocess.star or a refinement's model.star.

        Raises `FileFormatError` if it holds none.
        """
        from napari_cryosphere.reconstruction.relion_files import read_fsc_star

        name = f"{path.absolute().parent.name}/{path.name}"
        curves = [
            Curve(name, kind.replace("_", " "), fsc, _FSC_THRESHOLD, kind != "phase_randomised")
            for kind, fsc in read_fsc_star(path).items()
        ]
        self._data.maps.add_curves(curves, ())
        best = curves[0]
        tell_note(f"{name}: {best.kind} FSC {_FSC_THRESHOLD:g} at {resolution_of(best)}")

    def _choose_model(self, path: Path) -> None:
        """Choose a model after a look at it. Raises `ModelError` if it is broken."""
        from napari_cryosphere.model.pose_model import PoseModel

        card = PoseModel.load(path).card
        self._data.choose_model(path)
        if self._data.session is not None:
            self._data.adopt_symmetry(self._data.session, card.symmetry)
        tell_note(f"{path.name} chosen: press Predict poses")

    # ------------------------------------------------------------------ distributions

    def _pair(self) -> None:
        """Give distributions to the data set with as many particles; others wait for it."""
        if not self._waiting:
            return  # before the import, which brings torch
        from napari_cryosphere.so3.distributions.store import DistributionStore

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
                self._poses.attach(session, folder, path)
            elif self._data.session is not None:
                number = len(self._data.session.stack)
                tell_note(
                    f"{path.name}: {len(folder):,} distributions, {number:,} particles; it waits for its own"
                )

    def _partner(self, number: int) -> Session | None:
        """Return the data set of a number of particles, the chosen one first."""
        chosen = self._data.session
        sessions = [*([] if chosen is None else [chosen]), *self._data.sessions]
        return next((session for session in sessions if len(session.stack) == number), None)
