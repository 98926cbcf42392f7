"""What the dock does, without its buttons: which data set is chosen, what is known of it, what runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets import steps
from napari_cryosphere.widgets.choices_file import ChoicesFile
from napari_cryosphere.widgets.flat_guard import is_in_space, keep_flat
from napari_cryosphere.widgets.image_folder import image_folder
from napari_cryosphere.widgets.layer_data import map_of, particles_of
from napari_cryosphere.widgets.map_controller import MapController
from napari_cryosphere.widgets.particle_choices import ParticleChoices
from napari_cryosphere.widgets.predictions import PredictionStore
from napari_cryosphere.widgets.sphere_layer import SphereFrames, add_sphere_layer
from napari_cryosphere.widgets.training_run import TrainingRun
from napari_cryosphere.widgets.workers import Runner

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_cryosphere.particles import ParticleStack

__all__ = ["Controller", "Session"]


@dataclass(eq=False)
class Session:
    """A particle layer with what is known of its particles.

    Attributes
    ----------
    layer, sphere
        The layer of the images, and that of their pose distributions.
    stack, store
        The particles and what has been predicted of them.
    contrast
        Contrast sign of the images, see `napari_cryosphere.imaging.inspection`.
    warnings
        What is odd about the table and the images.
    choices, kept
        Flags and selection, and the file that keeps them.
    """

    layer: Image
    stack: ParticleStack
    store: PredictionStore
    contrast: str
    warnings: tuple[str, ...]
    sphere: Image | None = None

    def __post_init__(self) -> None:
        self.choices = ParticleChoices(len(self.stack))
        self.kept = ChoicesFile(self.stack, self.choices)

    @classmethod
    def of(cls, layer: Image, stack: ParticleStack) -> Session:
        """Return the session of a layer; a few of its images are read."""
        from napari_cryosphere.imaging.inspection import inspect_images

        try:
            seen = inspect_images(stack)
            contrast, of_images = seen.contrast, seen.warnings
        except CryosphereError as error:
            contrast, of_images = "unclear", (str(error),)
        return cls(layer, stack, PredictionStore.of(stack), contrast, (*stack.warnings, *of_images))


class Controller:
    """Follows the viewer's layers and runs work on them; results stay with the layer they came from.

    Parameters
    ----------
    viewer
        The viewer.
    runner
        Runs long work.
    """

    layers_changed = Signal()
    """Particle or map layers came, went or were renamed."""
    session_changed = Signal()
    particle_changed = Signal()
    """The slider moved, or the shown particle's prediction is new."""
    predictions_changed = Signal()

    def __init__(self, viewer: ViewerModel, runner: Runner) -> None:
        self.viewer = viewer
        self.runner = runner
        self.model_path: Path | None = None
        self.symmetry = "C1"
        self.session: Session | None = None
        self.image_folder = image_folder(viewer)
        self.maps = MapController(viewer, runner)
        self.training = TrainingRun(runner)
        self._sessions: dict[Layer, Session] = {}
        self._index: int | None = None
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
        self.choose(next(iter(self.particle_layers), None))

    def close(self, viewer_stays: bool = True) -> None:
        """Let go of the viewer and stop what runs; a viewer that stays gets its former view back."""
        self.runner.stop()
        if viewer_stays:
            self.maps.view.leave()
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        for layer in self.viewer.layers:
            layer.events.name.disconnect(self._on_renamed)
        self._connections = []
        for session in self._sessions.values():
            session.kept.close()

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
            self.session = self._sessions[layer]
        self._index = None
        self.session_changed.emit()
        self._on_slider()

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

    def predict(self) -> None:
        """Predict the poses of the chosen particles and show their spheres as they come."""
        session = self.session
        if session is None or self.runner.busy:
            return
        self.maps.view.leave()
        session.store.clear()
        self._show_sphere(session)
        self.predictions_changed.emit()
        path, stack = self.model_path, session.stack
        self.runner.start(
            f"Predicting {session.layer.name}",
            lambda: steps.prediction_steps(stack, path),
            lambda step: self._take_predictions(session, step),
            self.predictions_changed.emit,
        )

    def _show_sphere(self, session: Session) -> None:
        if session.sphere is None or session.sphere not in self.viewer.layers:
            session.sphere = add_sphere_layer(self.viewer, session.layer, session.frames)
        session.sphere.refresh()

    def _take_predictions(self, session: Session, step: steps.Step) -> None:
        """Keep a batch with the layer it came from; stop if that layer is gone."""
        if session.layer not in self.viewer.layers:
            self.runner.stop()
            return
        if step.payload is None:
            return
        rows, distribution, summary = step.payload
        session.store.add(rows, distribution, summary)
        if session.sphere is not None and session.sphere in self.viewer.layers:
            session.sphere.refresh()
        if session is self.session:
            self.predictions_changed.emit()
            self.particle_changed.emit()

    def predicted_stack(self) -> ParticleStack:
        """Return the chosen particles that have been predicted, with their predictions as columns.

        Raises
        ------
        CryosphereError
            If nothing has been predicted.
        """
        summary = None if self.session is None else self.session.store.summary()
        if self.session is None or summary is None:
            raise CryosphereError("nothing is predicted yet; press Predict poses first")
        from napari_cryosphere.jobs.infer import with_predictions

        store = self.session.store
        return with_predictions(self.session.stack[store.predicted], summary, store.symmetry)

    def reconstruct(self, predicted: bool, half_maps: bool) -> None:
        """Reconstruct from the chosen particles, at their predicted poses or at those they came with.

        Raises
        ------
        CryosphereError
            If there are no such poses, or `symmetry` is no point group.
        """
        if self.session is None:
            raise CryosphereError("no particles are loaded; open a STAR file first")
        stack = self.predicted_stack() if predicted else self.session.stack
        if not stack.has_poses:
            raise CryosphereError(f"{stack.source} has no poses; predict them first")
        name = f"{self.session.layer.name} map ({'predicted' if predicted else 'input'} poses)"
        self.maps.reconstruct(stack, name, self._point_group(), half_maps)

    def _point_group(self) -> str:
        from napari_cryosphere.so3.symmetry import normalise_group_name

        return normalise_group_name(self.symmetry)

    def train(self, minutes: float, folder: Path) -> None:
        """Train on the chosen particles.

        Raises
        ------
        CryosphereError
            If no particles are chosen, or `symmetry` is no point group.
        """
        if self.session is None:
            raise CryosphereError("no particles are loaded; open a STAR file with poses first")
        self.training.start(self.session.stack, minutes, folder, self._point_group())

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
        elif map_of(layer) is not None:
            self.layers_changed.emit()

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
