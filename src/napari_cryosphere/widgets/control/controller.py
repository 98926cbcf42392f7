"""All that the docks of a viewer do: its data sets, poses, maps, training, inspection and session files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.data_sets import DataSets
from napari_cryosphere.widgets.control.inspector import Inspector
from napari_cryosphere.widgets.control.intake import Intake
from napari_cryosphere.widgets.control.pose_controller import PoseController
from napari_cryosphere.widgets.control.projection_view import ProjectionView
from napari_cryosphere.widgets.control.running import Background, Runner, SynchronousBackground
from napari_cryosphere.widgets.control.session_file import SessionFile, last_session
from napari_cryosphere.widgets.control.training_run import TrainingRun

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cryosphere.widgets.state.session import Session
    from napari_cryosphere.widgets.state.training_choices import TrainingChoices

__all__ = ["Controller"]


class Controller(DataSets):
    """The data sets of a viewer and the work on them; results stay with the layer they came from.

    ``background``: does short work that the window must not wait for; without one it is done at
    once.
    """

    def __init__(
        self, viewer: ViewerModel, runner: Runner, background: Background | None = None
    ) -> None:
        super().__init__(viewer, runner)
        self.background = background or SynchronousBackground()
        self.inspector = Inspector(self, self.background)
        self.projection = ProjectionView(self, self.inspector, self.background)
        self.poses = PoseController(self, self.inspector)
        self.training = TrainingRun(runner)
        self.training.finished.connect(self._on_trained)
        self._trained_on: Session | None = None
        self.session_file = SessionFile(self, self.inspector, self.poses)
        runner.busy_changed.connect(self._keep)
        self.intake = Intake(self, self.poses, self.training, self.session_file)
        self.choose(next(iter(self.particle_layers), None))
        self.intake.take()

    def close(self, viewer_stays: bool = True) -> None:
        """Let go of the viewer and stop what runs; a viewer that stays gets its former view back."""
        self.runner.busy_changed.disconnect(self._keep)
        self.runner.close()
        self.background.close()
        if viewer_stays:
            self.projection.compare(False)
            self.inspector.leave()
            self.maps.view.leave()
        super().close(viewer_stays)

    def _keep(self, busy: bool) -> None:
        """Keep the session on disk after every job, in the background."""
        if not busy and self.sessions:
            writing = self.session_file.prepared(last_session())
            self.background.run("session", writing, lambda _: None)

    def _on_trained(self, folder: Path) -> None:
        """Choose a new model for the particles that it was trained on."""
        session, self._trained_on = self._trained_on, None
        if session is None or session in self.sessions:
            self.choose_model(folder, session)

    def train(self, choices: TrainingChoices) -> None:
        """Train on the chosen particles.

        Raises `CryosphereError` if no particles are chosen, `symmetry` is no point group, or what
        is chosen cannot be trained on.
        """
        from napari_cryosphere.so3.symmetry import normalise_group_name

        if self.session is None:
            raise CryosphereError("no particles are loaded; open a STAR file with poses first")
        if self.runner.busy:
            return
        stack, self._trained_on = self.session.stack, self.session
        self.training.start(stack, choices.config(stack, normalise_group_name(self.symmetry)))
