"""A layer of particles with all that is known of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.state.choices_file import ChoicesFile
from napari_cryosphere.widgets.state.particle_choices import ParticleChoices
from napari_cryosphere.widgets.state.particle_filter import ParticleFilter
from napari_cryosphere.widgets.state.posteriors import Posteriors
from napari_cryosphere.widgets.state.predictions import PredictionStore
from napari_cryosphere.widgets.state.sphere_layer import SphereFrames
from napari_cryosphere.widgets.state.stored_poses import StoredPoses

if TYPE_CHECKING:
    import numpy as np
    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_cryosphere.imaging.preprocess import Preprocessing
    from napari_cryosphere.particles import ParticleStack

__all__ = ["Session", "listen_to", "session_in"]

_KEY = "cryosphere_session"


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
    filter
        Which particles the gallery shows, and in which order.
    posteriors, frames
        What a map says of their poses, and the pictures of their spheres.
    distribution_files
        Folders that distributions are read from, by their kind.
    data_dir
        Where the images were looked for, in addition to the folder of their file.
    steps_shown
        Preprocessing after which the images are shown; None as they are stored.
    model_name
        What predicted the poses; empty where the file does not say.
    refined
        The particles with poses and shifts refined against a map: their file's, or those made here.
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
        refined = StoredPoses.of(self.stack).refined
        self.refined: ParticleStack | None = None if refined is None else self.stack
        self.frames = SphereFrames(self.store, self.posteriors, refined)
        self.distribution_files: dict[str, Path] = {}
        self.data_dir: Path | None = None
        self.steps_shown: Preprocessing | None = None
        self.model_name = ""

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
        """Take the particles with refined poses; None forgets those that were made here."""
        own = StoredPoses.of(self.stack).refined
        self.refined = stack if stack is not None or own is None else self.stack
        self.frames.refined = own if stack is None else stack.rotations()
        self.frames.forget()

    def refined_errors_degrees(self) -> NDArray[np.float64] | None:
        """Return the angles between known and refined poses, ``(n,)``; None if either is not known."""
        if self.frames.refined is None or self.store.known is None:
            return None
        from napari_cryosphere.so3.symmetry import angular_error_degrees

        return angular_error_degrees(self.store.known, self.frames.refined, self.store.symmetry)


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
