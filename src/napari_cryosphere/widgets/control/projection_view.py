"""A map's projection next to the particle: at its best pose, or from where its sphere was clicked."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.inspector import Inspector, last_or_new
from napari_cryosphere.widgets.control.matching import Match, MatchLayers, ParticleMatcher
from napari_cryosphere.widgets.control.running import Background
from napari_cryosphere.widgets.control.work import own_map
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.reading import most_probable_pose

if TYPE_CHECKING:
    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.widgets.control.data_sets import DataSets
    from napari_cryosphere.widgets.state.reading import Reading
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["REFINED", "ProjectionView", "ShownMatch"]

REFINED, _PREDICTED, _KNOWN = "refined view", "predicted view", "known view"
_BEST_FIRST = (REFINED, _PREDICTED, _KNOWN)
_SNAP_DEGREES = 6.0


@dataclass(frozen=True)
class ShownMatch:
    """A projection that is shown next to the particle.

    ``rotation``, ``(3, 3)``: the pose it is seen from. ``what``: what that pose is:
    ``"this view"``, or the name of the mark that was clicked. ``correlation``: with the particle's
    image, over the inscribed circle.
    """

    rotation: NDArray[np.float64]
    what: str
    correlation: float


class ProjectionView:
    """Shows a projection and its residual until the particle, its treatment or the map changes.

    Of the candidates' poses it makes thumbnails.

    ``data``, ``inspector``: the data sets; which particle is shown, and which map is chosen.
    ``background``: compares.
    """

    changed = Signal()
    """A projection came or went, or another pose is looked at."""

    def __init__(self, data: DataSets, inspector: Inspector, background: Background) -> None:
        self._data = data
        self._inspector = inspector
        self._background = background
        self.compared = True
        """Whether a projection is shown whenever the slider rests on a particle with a pose."""
        self.match: ShownMatch | None = None
        self.pose: NDArray[np.float64] | None = None
        """``(3, 3)``: the pose that is looked at, whether it is compared or not; None where none is known."""
        self.thumbnails: NDArray[np.uint8] | None = None
        """``(k, box, box)``: projections at the poses of the reading's candidates, once they are made."""
        self._pictured: Reading | None = None
        self._model: Path | None = None
        self._own: Path | None = None
        self.layers = MatchLayers(data.viewer, data.arrangement)
        self._matchers: weakref.WeakKeyDictionary[Session, list[ParticleMatcher]] = (
            weakref.WeakKeyDictionary()
        )
        inspector.left.connect(self.clear)
        inspector.rested.connect(self._on_rest)
        inspector.went.connect(self._on_went)
        inspector.changed.connect(self._picture)
        data.maps.mode_changed.connect(self._on_mode)

    @property
    def reference(self) -> DensityMap | Path | None:
        """The map that is projected: that of the comparison, or the file of the chosen model's own."""
        chosen, model = map_of(self._inspector.compared_layer), self._data.model_path
        # looked for once, not at every step of the slider
        if chosen is None and model != self._model:
            self._model, self._own = model, own_map(model)
        return self._own if chosen is None else chosen

    def compare(self, compared: bool) -> None:
        """Show projections whenever the slider rests, or only where one clicks."""
        self.compared = compared
        if compared:
            self._on_rest()
        else:
            self.clear()

    def show(self, direction: NDArray[np.float64]) -> None:
        """Show the map's projection from a place on the sphere; near a mark, at the mark's own pose.

        Raises `CryosphereError` if no map is chosen.
        """
        shown = self._inspector.shown
        if shown is None:
            return
        if self.reference is None:
            raise CryosphereError("no map to project: open an MRC map or reconstruct one")
        self._look(shown, *self._pose_at(*shown, direction), marked=True)

    def turn(self, pose: NDArray[np.float64], ended: bool = True) -> None:
        """Look at a pose, ``(3, 3)``, that the map was turned to; it is compared when the turn has ended."""
        shown = self._inspector.shown
        if shown is not None:
            self._look(shown, pose, "this view", marked=True, compared=ended)

    def _on_rest(self) -> None:
        """Look at the best pose that is known."""
        shown = self._inspector.shown
        if shown is None:
            return
        poses = self._poses(*shown)
        for what in _BEST_FIRST:
            rotation = poses[what]
            if rotation is not None:
                self._look(shown, rotation, what, compared=self.compared)
                return

    def _on_went(self, rotation: NDArray[np.float64]) -> None:
        shown = self._inspector.shown
        if shown is not None:
            self._look(shown, rotation, "candidate", compared=self.compared)

    def _look(
        self,
        shown: tuple[Session, int],
        rotation: NDArray[np.float64],
        what: str,
        marked: bool = False,
        compared: bool = True,
    ) -> None:
        """Look at a pose: mark it on the sphere, and compare the particle with the projection there."""
        session, index = shown
        self.pose = rotation
        if marked:
            session.frames.point_at(index, rotation[:, 2])
            session.refresh_sphere(self._data.viewer)
        self.changed.emit()
        if compared:
            self._match(shown, rotation, what)

    def _match(self, shown: tuple[Session, int], rotation: NDArray[np.float64], what: str) -> None:
        """Compare a particle with the projection at a pose, and show both if it is still looked at."""
        inspector, reference = self._inspector, self.reference
        session, index = shown
        if reference is None:
            return
        matcher = self._matcher(session, reference)
        if matcher.failed:
            return
        asked = inspector.steps, inspector.low_pass_angstrom
        posterior = session.posteriors.get(index)
        shift_px = None if posterior is None or what != REFINED else posterior.shift_px

        def take(found: Match) -> None:
            same = inspector.shown == shown and asked == (
                inspector.steps,
                inspector.low_pass_angstrom,
            )
            present = session.layer in self._data.viewer.layers
            if present and same and not self._data.maps.view.active:
                self.match = ShownMatch(rotation, what, found.correlation)
                self.layers.show(session.layer, found.projection, found.residual)
                self.changed.emit()

        self._background.run("match", lambda: matcher(index, rotation, shift_px, *asked), take)

    def _picture(self) -> None:
        """Make thumbnails of the candidates, once for each reading."""
        inspector, reference = self._inspector, self.reference
        reading, shown = inspector.reading, inspector.shown
        if reading is None:
            self.thumbnails = self._pictured = None
        if reading is None or shown is None or reference is None or reading is self._pictured:
            return
        matcher = self._matcher(shown[0], reference)
        if matcher.failed:
            return
        self.thumbnails, self._pictured = None, reading
        poses = np.stack([candidate.rotation for candidate in reading.candidates])

        def take(made: NDArray[np.uint8]) -> None:
            if inspector.reading is reading and self._pictured is reading:
                self.thumbnails = made
                self.changed.emit()

        self._background.run("thumbnails", lambda: matcher.thumbnails(poses), take)

    def _poses(self, session: Session, index: int) -> dict[str, NDArray[np.float64] | None]:
        """Return the poses that are marked on a particle's sphere."""
        return {
            _PREDICTED: session.store.rotation(index),
            _KNOWN: session.store.known_rotation(index),
            REFINED: session.frames.refined_rotation(index),
        }

    def _pose_at(
        self, session: Session, index: int, direction: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], str]:
        """Return the pose at a place of the sphere, and what it is."""
        marks = self._poses(session, index)
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

    def _matcher(self, session: Session, reference: DensityMap | Path) -> ParticleMatcher:
        def fits(matcher: ParticleMatcher) -> bool:
            same_file = isinstance(reference, Path) and matcher.reference == reference
            return matcher.reference is reference or same_file

        kept = self._matchers.setdefault(session, [])
        return last_or_new(kept, fits, lambda: ParticleMatcher(session.stack, reference))

    def _on_mode(self, maps: bool) -> None:
        """Take away what was left hidden while maps were shown, and has become another particle's."""
        if not maps and self.match is None:
            self.layers.hide()

    def clear(self) -> None:
        """Take the projection away; its place stays empty where the next one is to come."""
        if self.compared and self.reference is not None:
            self.layers.hide()
        else:
            self.layers.remove()
        for session in self._data.sessions:
            session.frames.point_at(0, None)
        had = any(one is not None for one in (self.match, self.thumbnails, self.pose))
        self.match = self.thumbnails = self._pictured = self.pose = None
        if had:
            self.changed.emit()
