"""The viewer's data sets: which particle layer is chosen, its session, and the particle under the slider."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cryosphere.widgets.control.arrangement import Arrangement
from napari_cryosphere.widgets.control.flat_guard import is_in_space, keep_flat, show_flat
from napari_cryosphere.widgets.control.map_controller import MapController
from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.control.work import SAMPLE_MODEL
from napari_cryosphere.widgets.state.layer_data import map_of, particles_of
from napari_cryosphere.widgets.state.lazy_frames import LazyFrames
from napari_cryosphere.widgets.state.questions import Question
from napari_cryosphere.widgets.state.session import Session
from napari_cryosphere.widgets.state.sphere_layer import SphereFrames
from napari_cryosphere.widgets.state.viewer_context import context_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = ["DataSets", "add_sphere_layer"]


class DataSets:
    """Follows the viewer's layers and slider; a session holds what is known of each particle layer."""

    layers_changed = Signal()
    """Particle or map layers came, went or were renamed."""
    session_changed = Signal()
    particle_changed = Signal()
    """The slider moved, or the shown particle's prediction is new."""
    predictions_changed = Signal()
    model_changed = Signal(object)
    """Sent with the path of the chosen particles' model, None for none."""
    symmetry_changed = Signal(str)
    question_changed = Signal()
    """There is something to decide about the chosen particles, or no longer."""
    saved = Signal()
    """The chosen particles were saved as a file."""
    finding_wanted = Signal()
    """A person wants poses of the chosen particles from their images alone."""
    training_wanted = Signal()
    """A person wants to train on the chosen particles."""
    dropped = Signal(object)
    """Particles came, or a map is to be shown that would cover particles: sent with the layer."""

    def __init__(self, viewer: ViewerModel, runner: Runner) -> None:
        self.viewer = viewer
        self.runner = runner
        self._last_model: Path | None = None
        self.session: Session | None = None
        self.image_folder = context_of(viewer).image_folder
        self.maps = MapController(viewer, runner)
        self.arrangement = Arrangement(viewer)
        self._sessions: dict[Layer, Session] = {}
        self._index: int | None = None
        keep_flat(viewer)
        self._connections = [
            (viewer.layers.events.inserted, self._on_inserted),
            (viewer.layers.events.removed, self._on_removed),
            (viewer.layers.events.reordered, self._on_reordered),
            (viewer.layers.selection.events.active, self._on_active),
            (viewer.dims.events.point, self._on_slider),
            (viewer.dims.events.range, self._fit_slider),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        for layer in viewer.layers:
            self._follow(layer)
        self.maps.mode_changed.connect(self._on_mode)
        text = viewer.canvas.overlays.text
        self._former_text = (text.visible, text.text, text.box)
        # a new text gives its box a new width: napari then compiles the box's shaders again, which
        # makes a step of the slider 1.7 times as long
        text.box = False

    def close(self, viewer_stays: bool = True) -> None:
        """Let go of the viewer; flags that are not on disk yet are written.

        A viewer that stays gets its former text and slider back. One that does not may be gone in
        part: what is set in it would be drawn on a canvas that is deleted.
        """
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        for layer in self.viewer.layers:
            self._follow(layer, False)
        self._connections = []
        if viewer_stays:
            text = self.viewer.canvas.overlays.text
            text.visible, text.text, text.box = self._former_text
            self._fit_slider(zeroth=False)
        self.arrangement.close()
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
        """Work on the particles of a layer and show them alone; None for none."""
        former = self.session
        stack = particles_of(layer)
        if layer is None or stack is None:
            self.session = None
        else:
            if layer not in self._sessions:
                self._sessions[layer] = Session.of(layer, stack)
                self._sessions[layer].data_dir = self.image_folder.path
                if self._sessions[layer].model_path is None:
                    self._sessions[layer].model_path = self._last_model
            self.session = self._sessions[layer]
            if self.session.store.predicted.any():
                self.show_sphere(self.session)
        if self.session is not None and self.session is not former:
            self._raise(self.session)
        self._index = None
        self.session_changed.emit()
        self.symmetry_changed.emit(self.symmetry)
        self.model_changed.emit(self.model_path)
        self.question_changed.emit()
        self._on_slider()

    @property
    def model_path(self) -> Path | None:
        """Model file or run folder of the chosen particles; None for none."""
        return self._last_model if self.session is None else self.session.model_path

    def choose_model(self, path: Path | None, session: Session | None = None) -> None:
        """Predict the poses of the chosen particles, or of others, with a model from now on.

        It is proposed for the next particles too, unless it is the package's, which knows its sample
        particles alone.
        """
        self._last_model = None if path == SAMPLE_MODEL else path
        session = session or self.session
        if session is not None:
            session.model_path = path
            self.ask(session, None)
        if session is self.session:
            self.model_changed.emit(path)

    def note_saved(self, session: Session) -> None:
        """Note that particles are on disk as they are."""
        session.saved = True
        if session is self.session:
            self.saved.emit()

    def ask(self, session: Session, question: Question | None) -> None:
        """Ask something about particles; None once it is answered."""
        session.question = question
        if session is self.session:
            self.question_changed.emit()

    @property
    def symmetry(self) -> str:
        """Point group of the chosen particles, as it was typed; C1 without particles."""
        return "C1" if self.session is None else self.session.symmetry

    def choose_symmetry(self, name: str, known: bool = True) -> None:
        """Take another point group for the chosen particles; ``known``: somebody said so."""
        session = self.session
        if session is None or (name == session.symmetry and session.symmetry_known >= known):
            return
        session.choose_symmetry(name, known)
        self.symmetry_changed.emit(name)
        self.predictions_changed.emit()
        self.name_particle()

    def adopt_symmetry(self, session: Session, name: str) -> None:
        """Take the point group of a model or of distributions where none is known yet."""
        if not session.symmetry_known:
            session.choose_symmetry(name, known=name != "C1")
            if session is self.session:
                self.symmetry_changed.emit(name)

    def look_in(self, folder: Path | None) -> None:
        """Look for images that have moved in a folder, and open the files that have waited for one."""
        waiting = self.image_folder.choose(folder)
        if waiting and folder is not None:
            self.viewer.open([str(file) for file in waiting], plugin="napari-cryosphere")

    @property
    def index(self) -> int | None:
        """The chosen layer's particle under the slider; None if there is none."""
        place, session = self._place, self.session
        if place is None or session is None or not 0 <= place < len(session.stack):
            return None
        return place

    @property
    def _place(self) -> int | None:
        """Where the slider is along the chosen layer, the first particle at 0; None where it is not used."""
        if self.session is None:
            return None
        layer, dims = self.session.layer, self.viewer.dims
        if layer not in self.viewer.layers or is_in_space(self.viewer, layer):
            return None
        axis = dims.ndim - layer.ndim
        return round((dims.point[axis] - layer.translate[0]) / layer.scale[0])

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
        """Show the spheres next to the particles."""
        if session.sphere is None or session.sphere not in self.viewer.layers:
            session.sphere = add_sphere_layer(self.viewer, session.layer, session.frames)
            if session is self.session:
                self.arrangement.choose(session.layer)
                self.arrangement.put(sphere=session.sphere)
        session.sphere.refresh()

    def _on_slider(self, event: Any = None) -> None:
        place = self._place
        if place is not None and place < 0 and not self.maps.view.active:
            self.show_particle(0)  # heard of again, from there
            return
        if self.index != self._index or event is None:
            self._index = self.index
            self.name_particle()
            self.particle_changed.emit()

    # ------------------------------------------------------------------ one data set at a time

    def _raise(self, session: Session) -> None:
        """Show a data set alone: its layers, its length of the slider, and the view fitted to it."""
        if self.maps.view.active:
            return
        self._hide_others()
        own = (session.layer, session.sphere)
        shown = [layer for layer in own if layer is not None and layer in self.viewer.layers]
        for layer in shown:
            if not is_in_space(self.viewer, layer):
                show_flat(layer)
        self._fit_slider()
        if session.layer in self.viewer.layers:
            self.viewer.layers.selection.active = session.layer
        self.arrangement.choose(session.layer)
        if session.sphere is not None:
            self.arrangement.put(sphere=session.sphere)
        else:
            self.arrangement.fit()

    def _hide_others(self) -> None:
        """Hide maps and the layers of other data sets: they share the slider, and cover the particle."""
        mine = () if self.session is None else (self.session.layer, self.session.sphere)
        for layer in self.viewer.layers:
            theirs = isinstance(layer.data, LazyFrames) or map_of(layer) is not None
            if theirs and layer not in mine and layer.visible:
                layer.visible = False

    def _fit_slider(self, event: Any = None, zeroth: bool = True) -> None:
        """Let the slider run over the chosen particles alone; napari's runs to the longest layer's end.

        napari numbers the slider's places from 0. With a place before the first particle (``zeroth``),
        which is never stayed at, it shows the particles' numbers, and their number at its end.
        """
        session, dims = self.session, self.viewer.dims
        if session is None or self.maps.view.active or session.layer not in self.viewer.layers:
            return
        layer, axis = session.layer, dims.ndim - session.layer.ndim
        first, step, number = float(layer.translate[0]), float(layer.scale[0]), len(session.stack)
        start = first - step if zeroth and number > 1 else first
        wanted = (start, first + (number - 1) * step, step)
        if tuple(dims.range[axis]) != wanted:
            dims.set_range(axis, wanted)

    def name_particle(self) -> None:
        """Name particle, model and symmetry on the canvas, and the data set where there are several."""
        text, session = self.viewer.canvas.overlays.text, self.session
        text.visible = session is not None and self._index is not None
        if session is None or self._index is None:
            return
        number = f"particle {self._index + 1:,} of {len(session.stack):,}"
        parts = [session.layer.name, number] if len(self.particle_layers) > 1 else [number]
        if session.store.predicted.any():
            parts += [session.model_name, session.store.symmetry]
        if session.states is not None:
            parts.append(session.states.text(self._index))
        text.text = " · ".join(part for part in parts if part)

    def _on_mode(self, maps: bool) -> None:
        """Keep maps hidden once the particles are back."""
        if maps:
            self.viewer.canvas.overlays.text.visible = False
        elif self.session is not None:
            self._hide_others()
            self._fit_slider()
            self.name_particle()

    def _on_active(self, event: Any = None) -> None:
        """Choose the data set whose layer is selected in napari's list."""
        layer = self.viewer.layers.selection.active
        if layer is None or self.maps.view.active:
            return
        by_sphere = {one.sphere: one.layer for one in self.sessions if one.sphere is not None}
        layer = by_sphere.get(layer, layer)
        chosen = None if self.session is None else self.session.layer
        if particles_of(layer) is not None and layer != chosen:
            self.choose(layer)

    def _on_visible(self, event: Any) -> None:
        self._on_map_visible(event.source)

    def _on_map_visible(self, layer: Layer, new: bool = False) -> None:
        """Let a map that would cover the particle be shown by itself, and a new one next to others."""
        covers = layer.visible and map_of(layer) is not None and self.session is not None
        beside = new and layer.visible and self.maps.view.active
        if beside or (covers and not self.maps.view.active):
            layer.visible = False
            self.dropped.emit(layer)

    # ------------------------------------------------------------------ what the viewer says

    def _follow(self, layer: Layer, follow: bool = True) -> None:
        """Listen to a layer's name and visibility, or no longer."""
        for emitter, callback in (
            (layer.events.name, self._on_name),
            (layer.events.visible, self._on_visible),
        ):
            (emitter.connect if follow else emitter.disconnect)(callback)

    def _on_name(self, event: Any) -> None:
        if particles_of(event.source) is not None or map_of(event.source) is not None:
            self.layers_changed.emit()

    def _on_reordered(self, event: Any = None) -> None:
        self.layers_changed.emit()

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        self._follow(layer)
        if particles_of(layer) is not None:
            self.choose(layer)
            self.show_particle(0)  # napari begins in the middle
            self.layers_changed.emit()
            self.dropped.emit(layer)
        elif map_of(layer) is not None:
            self.layers_changed.emit()
            self._on_map_visible(layer, new=True)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        self._follow(layer, False)
        self.maps.forget(layer)
        gone = self._sessions.pop(layer, None)
        if gone is not None:
            gone.kept.close()
            if gone.sphere is not None and gone.sphere in self.viewer.layers:
                self.viewer.layers.remove(gone.sphere)
            if gone is self.session:
                self.choose(next(iter(self.particle_layers), None))
        if particles_of(layer) is not None or map_of(layer) is not None:
            self.layers_changed.emit()


def add_sphere_layer(viewer: ViewerModel, particle_layer: Image, frames: SphereFrames) -> Image:
    """Add the spheres of a particle layer; the particle layer stays the selected one."""
    options: dict[str, Any] = {
        "name": f"{particle_layer.name} poses",
        "rgb": True,
        "multiscale": False,
        "scale": (particle_layer.scale[0], 1.0, 1.0),
        "translate": (particle_layer.translate[0], 0.0, 0.0),
        "units": particle_layer.units,
        "axis_labels": particle_layer.axis_labels,
        "interpolation2d": "linear",
        "visible": particle_layer.visible,
    }
    keep_flat(viewer)
    active = viewer.layers.selection.active
    layer: Image = viewer.add_image(frames, **options)
    viewer.layers.selection.active = particle_layer if active is None or active is layer else active
    return layer
