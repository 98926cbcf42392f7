"""A map's projection next to the particle, from the place of its sphere that was clicked."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.inspector import Inspector
from napari_cryosphere.widgets.control.matching import Match, MatchLayers, ParticleMatcher
from napari_cryosphere.widgets.control.running import Background
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.reading import most_probable_pose

if TYPE_CHECKING:
    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.widgets.control.data_sets import DataSets
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["REFINED", "ProjectionView", "ShownMatch"]

REFINED = "refined view"
_SNAP_DEGREES = 6.0


@dataclass(frozen=True)
class ShownMatch:
    """A projection that is shown below the particle.

    Attributes
    ----------
    rotation
        ``(3, 3)``: the pose it is seen from.
    what
        What that pose is: ``"this view"``, or the name of the mark that was clicked.
    correlation
        With the particle's image, over the inscribed circle.
    """

    rotation: NDArray[np.float64]
    what: str
    correlation: float


class ProjectionView:
    """Shows a projection and its residual until the particle, its treatment or the map changes.

    Parameters
    ----------
    data, inspector
        The data sets; which particle is shown, and which map is chosen.
    background
        Compares.
    """

    changed = Signal()
    """A projection came or went."""

    def __init__(self, data: DataSets, inspector: Inspector, background: Background) -> None:
        self._data = data
        self._inspector = inspector
        self._background = background
        self.match: ShownMatch | None = None
        self.layers = MatchLayers(data.viewer, data.arrangement)
        self._matchers: weakref.WeakKeyDictionary[Session, ParticleMatcher] = (
            weakref.WeakKeyDictionary()
        )
        inspector.left.connect(self.clear)

    def show(self, direction: NDArray[np.float64]) -> None:
        """Show the map's projection from a place on the sphere; near a mark, at the mark's own pose.

        Raises
        ------
        CryosphereError
            If no map is chosen.
        """
        shown, density = self._inspector.shown, map_of(self._inspector.map_layer)
        if shown is None:
            return
        if density is None:
            raise CryosphereError("no map to project: open an MRC map or reconstruct one")
        session, index = shown
        rotation, what = self._pose_at(session, index, direction)
        session.frames.point_at(index, rotation[:, 2])
        self._inspector.refresh()
        matcher, steps = self._matcher(session, density), self._inspector.steps
        posterior = session.posteriors.get(index)
        shift_px = None if posterior is None or what != REFINED else posterior.shift_px

        def take(found: Match) -> None:
            present = session.layer in self._data.viewer.layers
            if present and self._inspector.shown == shown and self._inspector.steps == steps:
                self.match = ShownMatch(rotation, what, found.correlation)
                self.layers.show(session.layer, found.projection, found.residual)
                self.changed.emit()

        self._background.run("match", lambda: matcher(index, rotation, shift_px, steps), take)

    def _pose_at(
        self, session: Session, index: int, direction: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], str]:
        """Return the pose at a place of the sphere, and what it is."""
        marks = {
            "predicted view": session.store.rotation(index),
            "known view": session.store.known_rotation(index),
            REFINED: session.frames.refined_rotation(index),
        }
        near = {
            what: float(rotation[:, 2] @ direction)
            for what, rotation in marks.items()
            if rotation is not None
            and rotation[:, 2] @ direction > np.cos(np.radians(_SNAP_DEGREES))
        }
        if near:
            what = max(near, key=lambda name: near[name])
            rotation = marks[what]
            assert rotation is not None
            return rotation, what
        return most_probable_pose(self._inspector.probe(), direction), "this view"

    def _matcher(self, session: Session, density: DensityMap) -> ParticleMatcher:
        matcher = self._matchers.get(session)
        if matcher is None or matcher.density is not density:
            matcher = self._matchers[session] = ParticleMatcher(session.stack, density)
        return matcher

    def clear(self) -> None:
        """Take the projection away."""
        if self.match is None:
            return
        self.match = None
        self.layers.remove()
        for session in self._data.sessions:
            session.frames.point_at(0, None)
        self.changed.emit()
