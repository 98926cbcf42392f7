"""The viewer's data sets: which particle layer is chosen, its session, and the particle under the slider."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_cryosphere.widgets.control.flat_guard import is_in_space, keep_flat
from napari_cryosphere.widgets.control.map_controller import MapController
from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.state.layer_data import map_of, particles_of
from napari_cryosphere.widgets.state.session import Session
from napari_cryosphere.widgets.state.sphere_layer import HEIGHT, SphereFrames
from napari_cryosphere.widgets.state.viewer_context import context_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = ["DataSets", "add_sphere_layer"]

_GAP = 0.06  # between particle and sphere, as a fraction of the particle's height


class DataSets:
    """Follows the viewer's layers and slider; a session holds what is known of each particle layer.

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
    model_changed = Signal(object)
    """Sent with the path of the model that is chosen, None for the package's."""
    symmetry_changed = Signal(str)
    dropped = Signal(object)
    """Particles came, or a visible map onto particles: sent with the layer."""

    def __init__(self, viewer: ViewerModel, runner: Runner) -> None:
        self.viewer = viewer
        self.runner = runner
        self.model_path: Path | None = None
        self.symmetry = "C1"
        self.session: Session | None = None
        self.image_folder = context_of(viewer).image_folder
        self.maps = MapController(viewer, runner)
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

    def close(self) -> None:
        """Let go of the viewer; flags that are not on disk yet are written."""
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

    @property
    def shown(self) -> tuple[Session, int] | None:
        """The chosen particles and the one under the slider; None if there is none."""
        session, index = self.session, self.index
        return None if session is None or index is None else (session, index)

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


def add_sphere_layer(viewer: ViewerModel, particle_layer: Image, frames: SphereFrames) -> Image:
    """Add the spheres of a particle layer to the right of the particle, as tall as it is.

    The view is fitted to both, and the particle layer stays the selected one.
    """
    box = particle_layer.data.shape[-1]
    pixel = float(particle_layer.scale[-1])
    scale = box * pixel / HEIGHT
    corner = np.asarray(particle_layer.translate) - np.array([0, pixel / 2, pixel / 2])
    translate = corner + np.array([0, scale / 2, scale / 2 + box * pixel * (1 + _GAP)])
    options: dict[str, Any] = {
        "name": f"{particle_layer.name} poses",
        "rgb": True,
        "multiscale": False,
        "scale": (particle_layer.scale[0], scale, scale),
        "translate": translate,
        "units": particle_layer.units,
        "axis_labels": particle_layer.axis_labels,
        "interpolation2d": "linear",
        "visible": particle_layer.visible,
    }
    keep_flat(viewer)
    active = viewer.layers.selection.active
    layer: Image = viewer.add_image(frames, **options)
    viewer.layers.selection.active = particle_layer if active is None or active is layer else active
    viewer.reset_view()
    return layer
