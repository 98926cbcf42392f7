"""What the dock does, without its buttons: which data set is chosen, what is known of it, what runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.inspector import Inspector
from napari_cryosphere.widgets.control.intake import Intake
from napari_cryosphere.widgets.control.map_controller import MapController
from napari_cryosphere.widgets.control.pose_controller import PoseController
from napari_cryosphere.widgets.control.training_run import TrainingRun
from napari_cryosphere.widgets.docks.kit.background import Background, SynchronousBackground
from napari_cryosphere.widgets.docks.kit.workers import Runner
from napari_cryosphere.widgets.state.flat_guard import is_in_space, keep_flat
from napari_cryosphere.widgets.state.image_folder import image_folder
from napari_cryosphere.widgets.state.layer_data import map_of, particles_of
from napari_cryosphere.widgets.state.session import Session
from napari_cryosphere.widgets.state.sphere_layer import SphereFrames, add_sphere_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_cryosphere.widgets.state.training_choices import TrainingChoices

__all__ = ["Controller", "Session"]


class Controller:
    """Follows the viewer's layers and runs work on them; results stay with the layer they came from.

    Parameters
    ----------
    viewer
        The viewer.
    runner
        Runs long work.
    background
        Does short work that the window must not wait for; without one it is done at once.
    """

    layers_changed = Signal()
    """Particle or map layers came, went or were renamed."""
    session_changed = Signal()
    particle_changed = Signal()
    """The slider moved, or the shown particle's prediction is new."""
    predictions_changed = Signal()
    model_changed = Signal(object)
    """Sent with the path of the model that is chosen, None for the package's."""
    symmetry_changed = Signal(str)
    dropped = Signal(object)
    """Particles came, or a visible map onto particles: sent with the layer."""

    def __init__(
        self, viewer: ViewerModel, runner: Runner, background: Background | None = None
    ) -> None:
        self.viewer = viewer
        self.runner = runner
        self.background = background or SynchronousBackground()
        self.model_path: Path | None = None
        self.symmetry = "C1"
        self.session: Session | None = None
        self.image_folder = image_folder(viewer)
        self.maps = MapController(viewer, runner)
        self.poses = PoseController(self)
        self.training = TrainingRun(runner)
        self.training.finished.connect(self.choose_model)
        self._sessions: dict[Layer, Session] = {}
        self._index: int | None = None
        self.inspector = Inspector(self, self.background)
        keep_flat(viewer)
        self._connections = [
            (viewer.layers.events.inserted, self._on_inserted),
            (viewer.layers.events.removed, self._on_removed),
            (viewer.layers.events.reordered, self._on_renamed),
            (viewer.dims.events.point, self._on_slider),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        for layer in viewer.layers:
            layer.events.name.connect(self._on_renamed)
        self.intake = Intake(self)
        self.choose(next(iter(self.particle_layers), None))
        self.intake.take()

    def close(self, viewer_stays: bool = True) -> None:
        """Let go of the viewer and stop what runs; a viewer that stays gets its former view back."""
        self.runner.stop()
        self.background.close()
        if viewer_stays:
            self.inspector.leave()
            self.maps.view.leave()
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        for layer in self.viewer.layers:
            layer.events.name.disconnect(self._on_renamed)
        self._connections = []
        for session in self._sessions.values():
            session.kept.close()

    @property
    def sessions(self) -> list[Session]:
        """The particle layers that have been looked at."""
        return list(self._sessions.values())

    @property
    def particle_layers(self) -> list[Image]:
        """The viewer's layers of particles, the topmost first."""
        return [layer for layer in reversed(self.viewer.layers) if particles_of(layer) is not None]

    @property
    def map_layers(self) -> list[Image]:
        """The viewer's layers of maps, the topmost first."""
        return self.maps.layers

    def choose(self, layer: Layer | None) -> None:
        """Work on the particles of a layer; None for none."""
        stack = particles_of(layer)
        if layer is None or stack is None:
            self.session = None
        else:
            if layer not in self._sessions:
                self._sessions[layer] = Session.of(layer, stack)
                self._sessions[layer].data_dir = self.image_folder.path
            self.session = self._sessions[layer]
            if self.session.store.predicted.any():
                self.show_sphere(self.session)
        self._index = None
        self.session_changed.emit()
        self._on_slider()

    def choose_model(self, path: Path | None) -> None:
        """Predict with a model file or a run folder's model from now on; None for the package's."""
        self.model_path = path
        self.model_changed.emit(path)

    def choose_symmetry(self, name: str) -> None:
        """Take another point group for training, maps and posteriors."""
        if name != self.symmetry:
            self.symmetry = name
            self.symmetry_changed.emit(name)

    def look_in(self, folder: Path | None) -> None:
        """Look for images that have moved in a folder, and open the files that have waited for one."""
        waiting = self.image_folder.choose(folder)
        if waiting and folder is not None:
            self.viewer.open([str(file) for file in waiting], plugin="napari-cryosphere")

    @property
    def index(self) -> int | None:
        """The chosen layer's particle under the slider; None if there is none."""
        if self.session is None:
            return None
        layer, dims = self.session.layer, self.viewer.dims
        if layer not in self.viewer.layers or is_in_space(self.viewer, layer):
            return None
        axis = dims.ndim - layer.ndim
        index = round((dims.point[axis] - layer.translate[0]) / layer.scale[0])
        return index if 0 <= index < len(self.session.stack) else None

    def show_particle(self, index: int) -> None:
        """Move the slider to one of the chosen particles."""
        if self.session is None or self.session.layer not in self.viewer.layers:
            return
        layer, dims = self.session.layer, self.viewer.dims
        dims.set_point(dims.ndim - layer.ndim, layer.translate[0] + index * layer.scale[0])

    def open_particle(self, index: int) -> None:
        """Show one of the chosen particles, whatever was shown before."""
        self.maps.show()
        if self.session is not None and not is_in_space(self.viewer, self.session.layer):
            self.session.layer.visible = True
        self.show_particle(index)

    def show_sphere(self, session: Session) -> None:
        """Show the spheres beside the particles."""
        if session.sphere is None or session.sphere not in self.viewer.layers:
            session.sphere = add_sphere_layer(self.viewer, session.layer, session.frames)
        session.sphere.refresh()

    def _point_group(self) -> str:
        from napari_cryosphere.so3.symmetry import normalise_group_name

        return normalise_group_name(self.symmetry)

    def train(self, choices: TrainingChoices) -> None:
        """Train on the chosen particles.

        Raises
        ------
        CryosphereError
            If no particles are chosen, `symmetry` is no point group, or what is chosen cannot be
            trained on.
        """
        if self.session is None:
            raise CryosphereError("no particles are loaded; open a STAR file with poses first")
        if self.runner.busy:
            return
        stack = self.session.stack
        self.training.start(stack, choices.config(stack, self._point_group()))

    def _on_slider(self, event: Any = None) -> None:
        if self.index != self._index or event is None:
            self._index = self.index
            self.particle_changed.emit()

    def _on_renamed(self, event: Any = None) -> None:
        self.layers_changed.emit()

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        layer.events.name.connect(self._on_renamed)
        if particles_of(layer) is not None:
            self.choose(layer)
            self.layers_changed.emit()
            self.dropped.emit(layer)
        elif map_of(layer) is not None:
            self.layers_changed.emit()
            if layer.visible and self.session is not None:
                self.dropped.emit(layer)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        layer.events.name.disconnect(self._on_renamed)
        self.maps.forget(layer)
        gone = self._sessions.pop(layer, None)
        if gone is not None:
            gone.kept.close()
            if gone.sphere is not None and gone.sphere in self.viewer.layers:
                self.viewer.layers.remove(gone.sphere)
            if gone is self.session:
                self.choose(next(iter(self.particle_layers), None))
        if not isinstance(layer.data, SphereFrames):
            self.layers_changed.emit()
