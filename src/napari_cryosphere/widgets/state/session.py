"""A layer of particles with all that is known of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cryosphere.errors import CryosphereError, SymmetryError
from napari_cryosphere.so3.symmetry import normalise_group_name
from napari_cryosphere.widgets.state.choices_file import ChoicesFile
from napari_cryosphere.widgets.state.particle_choices import ParticleChoices
from napari_cryosphere.widgets.state.particle_filter import ParticleFilter
from napari_cryosphere.widgets.state.particle_states import ParticleStates
from napari_cryosphere.widgets.state.posteriors import Posteriors
from napari_cryosphere.widgets.state.predictions import PredictionStore
from napari_cryosphere.widgets.state.questions import Question
from napari_cryosphere.widgets.state.sphere_layer import SphereFrames
from napari_cryosphere.widgets.state.stored_poses import StoredPoses

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_cryosphere.imaging.preprocess import Preprocessing
    from napari_cryosphere.jobs.running.model_fit import ModelFit
    from napari_cryosphere.particles import ParticleStack

__all__ = ["MODEL", "Session", "listen_to", "proposed_model", "session_in"]

_KEY = "cryosphere_session"
MODEL = "cryosphere_model"
"""Where the metadata of a layer of sample particles name the model that was trained for them."""


@dataclass(eq=False)
class Session:
    """A particle layer with what is known of its particles.

    - ``layer``, ``sphere``: the layer of the images, and that of their pose distributions.
    - ``stack``, ``store``: the particles and what has been predicted of them.
    - ``contrast``: contrast sign of the images, see `napari_cryosphere.imaging.inspection`.
    - ``warnings``: what is odd about the table and the images.
    - ``choices``, ``kept``: flags and selection, and the file that keeps them.
    - ``filter``: which particles the gallery shows, and in which order.
    - ``states``: the states that the particles were assigned to; None if their file has none.
    - ``posteriors``, ``frames``: what a map says of their poses, and the pictures of their spheres.
    - ``distribution_files``: folders that distributions are read from, by their kind.
    - ``data_dir``: where the images were looked for, in addition to the folder of their file.
    - ``steps_shown``: preprocessing after which the images are shown, and the resolution in
      angstrom to which they are low-passed; None as they are stored.
    - ``model_name``: what predicted the poses; empty where the file does not say.
    - ``model_path``: the model chosen for these particles; None for none.
    - ``fit``: what was found when the model was last tried on them; None before.
    - ``saved``: whether the particles were saved since their poses last changed.
    - ``question``: what is to be decided about them; None for nothing.
    - ``refined``: the particles with poses and shifts refined against a map: their file's, or those
      made here.
    - ``symmetry``, ``symmetry_known``: point group of the molecule as it was typed, and whether the
      file or a person said so; otherwise C1 stands in until a model or distributions say more.
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
        self.layer.metadata[_KEY] = weakref.ref(self)  # weakly: a copy of the layer has no session
        self.filter = ParticleFilter(self.stack, self.store, self.choices)
        self.store.changed.connect(self.filter.refresh)
        self.posteriors = Posteriors()
        given = self.store.refined
        self.refined: ParticleStack | None = None if given is None else self.stack
        self.states = ParticleStates.of(self.stack)
        rotations = None if given is None else given.rotations
        self.frames = SphereFrames(self.store, self.posteriors, rotations, self.states)
        self.distribution_files: dict[str, Path] = {}
        self.data_dir: Path | None = None
        self.steps_shown: tuple[Preprocessing | None, float | None] = (None, None)
        self.model_name = ""
        self.model_path = proposed_model(self.layer)
        self.question: Question | None = None
        self.fit: ModelFit | None = None
        self.saved = False
        self.store.changed.connect(self._on_poses)
        self.symmetry = self.store.symmetry
        self.symmetry_known = self.symmetry != "C1"

    def _on_poses(self, rows: slice) -> None:
        self.saved = False

    def choose_symmetry(self, name: str, known: bool = True) -> None:
        """Take a point group; errors follow once the name is one."""
        self.symmetry, self.symmetry_known = name, known
        with suppress(SymmetryError):
            self.store.symmetry = normalise_group_name(name)

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

    def refresh_sphere(self, viewer: ViewerModel) -> None:
        """Redraw the sphere, if it is shown."""
        if self.sphere is not None and self.sphere in viewer.layers:
            self.sphere.refresh()

    def take_refined(self, stack: ParticleStack | None) -> None:
        """Take the particles with refined poses; None forgets those that are known."""
        given = None if stack is None else StoredPoses.of(stack).refined
        self.refined = None if given is None else stack
        self.frames.refined = None if given is None else given.rotations
        self.store.take_refined(given)


def proposed_model(layer: Image) -> Path | None:
    """Return the model that a layer of sample particles comes with; None for other particles."""
    model = layer.metadata.get(MODEL)
    return None if model is None else Path(model)


def listen_to(
    session: Session | None,
    former: Session | None,
    chosen: Callable[[], Any],
    filtered: Callable[[], Any],
    predicted: Callable[[slice], Any],
) -> None:
    """Listen to a session's flags, selection, filter and predictions, and no longer to the former one's."""
    for one, connect in ((former, False), (session, True)):
        if one is None:
            continue
        for signal, callback in (
            (one.choices.flags_changed, chosen),
            (one.choices.selection_changed, chosen),
            (one.filter.changed, filtered),
            (one.store.changed, predicted),
        ):
            (signal.connect if connect else signal.disconnect)(callback)


def session_in(metadata: Mapping[str, Any]) -> Session | None:
    """Return the session of the layer with this metadata; None if there is none any more."""
    noted = metadata.get(_KEY)
    return None if noted is None else noted()
