"""The CryoSphere sphere: the shown particle's distribution and its map, large, turned with the mouse."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QBoxLayout, QHBoxLayout

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.docks.kit.seated_dock import SeatedDock, single_shot
from napari_cryosphere.widgets.docks.kit.style import caption, check_box, dock_style, wrapped
from napari_cryosphere.widgets.docks.sphere.map_view import TurnedMap
from napari_cryosphere.widgets.docks.sphere.view import Mark, SphereView
from napari_cryosphere.widgets.state.notices import tell_error
from napari_cryosphere.widgets.state.sphere_layer import (
    CROSS_COLOUR,
    DIAMOND_COLOUR,
    POINT_COLOUR,
    RING_COLOUR,
)
from napari_cryosphere.widgets.state.surface import Surface, surface_of

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["SphereDock", "marks_of"]

_REST_MS = 40
_EMPTY = "No particle is shown. Open particles and predict their poses."
_UNKNOWN = "nothing is predicted of this particle"
_NO_MAP = "No map: open one, or reconstruct it, and it is shown from the particle's view"
_COMING = "The map's surface is being made…"
_SAME_DEGREES = 0.5  # a pose nearer to a marked one is not marked itself
_TURN_MS = 40  # between two updates during a drag; chosen, not tuned


class SphereDock(SeatedDock):
    """Follows the particle under the slider; works on whatever is loaded, and on nothing.

    Next to the sphere the map is seen as the particle shows it. A drag of the map moves a mark over the
    spheres, a click on one of them turns the map. Parameters are those of `SeatedDock`.
    """

    high = 560

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self.sphere, self.map = SphereView(viewer.theme), TurnedMap(viewer.theme)
        self.text = wrapped(caption())
        tip = "Turn the predicted view to the front whenever another particle is shown"
        self.follow = check_box("turn to the prediction", tip, True)
        row = QHBoxLayout()
        row.addWidget(self.follow)
        row.addStretch(1)
        row.addWidget(caption("drag: turn · click: look there"))
        self._both = QBoxLayout(QBoxLayout.Direction.TopToBottom)
        self._both.addWidget(self.sphere, 1)
        self._both.addWidget(self.map, 1)
        column = self._column()
        column.addLayout(self._both, 1)
        column.addLayout(row)
        column.addWidget(self.text)
        self._later = single_shot(self, _REST_MS, self._draw)
        self._turn_later = single_shot(self, _TURN_MS, self._tell_turn)
        self._wanted: object = None
        self.map.show_surface(None, _NO_MAP)
        self.sphere.clicked.connect(self._on_click)
        self.map.turned.connect(self._on_turned)
        self.map.released.connect(self._on_released)
        controller = self.controller
        for signal in (
            controller.particle_changed,
            controller.session_changed,
            controller.predictions_changed,
            controller.inspector.changed,
            controller.projection.changed,
            controller.layers_changed,
            controller.model_changed,
        ):
            self._seat.connect(signal, self._ask)
        self._seat.connect(viewer.events.theme, self._on_theme)
        self._faced: tuple[Session, int] | None = None
        self._on_theme()
        self._draw()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Put sphere and map next to each other where the dock is wide."""
        super().resizeEvent(event)
        wide = self.width() > self.height()
        direction = QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom
        if self._both.direction() != direction:
            self._both.setDirection(direction)

    def _leave(self) -> None:
        self._later.stop()
        self._turn_later.stop()
        super()._leave()

    def _ask(self, *_: object) -> None:
        """Draw once the slider rests; its steps wait for nothing here."""
        self._later.start()

    def _draw(self) -> None:
        """Draw the particle under the slider, and the map as it shows it."""
        self._draw_map()
        shown = self.controller.inspector.shown
        if shown is None:
            self.sphere.show_views(None)
            self.sphere.show_marks([])
            self.text.setText(_EMPTY)
            return
        from napari_cryosphere.widgets.state.sphere_density import views_of
        from napari_cryosphere.widgets.state.sphere_picture import view_colours

        session, index = shown
        coloured, outlined = session.frames.distributions(index)
        distribution = outlined if coloured is None else coloured
        self.sphere.show_views(
            None if distribution is None else view_colours(views_of(distribution))
        )
        marks = marks_of(session, index)
        self.sphere.show_marks([*marks, *self._looked_at(marks)])
        if self.follow.isChecked() and marks and self._faced != shown:
            self.sphere.look_from(marks[0].direction)
            self._faced = shown
        reading = self.controller.inspector.reading
        said = (
            _UNKNOWN if distribution is None else "" if reading is None else reading.verdict.words
        )
        self.text.setText(f"particle {index + 1:,} · {said}" if said else f"particle {index + 1:,}")

    def _looked_at(self, marks: list[Mark]) -> list[Mark]:
        """Return a mark for the pose that is looked at, unless it has one."""
        pose = self.controller.projection.pose
        if pose is None:
            return []
        view = pose[:, 2]
        same = np.cos(np.radians(_SAME_DEGREES))
        if any(float(mark.direction @ view) > same for mark in marks):
            return []
        return [Mark(view, "point", POINT_COLOUR)]

    # ------------------------------------------------------------------ the map

    def _draw_map(self) -> None:
        """Turn the map to the pose that is looked at; another map's surface is made in the background."""
        projection = self.controller.projection
        reference = projection.reference
        if reference is not self._wanted:
            self._wanted = reference
            self.map.show_surface(None, _NO_MAP if reference is None else _COMING)
            if reference is not None:
                self.controller.background.run(
                    "surface", lambda: _surface(reference), partial(self._take, reference)
                )
        if projection.pose is not None and not self.map.dragging:
            self.map.turn_to(projection.pose)

    def _take(self, reference: DensityMap | Path, surface: Surface) -> None:
        if reference is self._wanted:
            self.map.show_surface(surface)

    def _on_click(self, direction: NDArray[np.float64]) -> None:
        try:
            self.controller.projection.show(direction)
        except CryosphereError as error:
            tell_error(error)

    def _on_turned(self, pose: NDArray[np.float64]) -> None:
        if not self._turn_later.isActive():  # the spheres follow as fast as they are drawn
            self._turn_later.start()

    def _tell_turn(self) -> None:
        self.controller.projection.turn(self.map.pose, ended=not self.map.dragging)

    def _on_released(self, pose: NDArray[np.float64]) -> None:
        self._turn_later.stop()
        self._tell_turn()

    def _on_theme(self, event: Any = None) -> None:
        self.setStyleSheet(dock_style(self._viewer.theme))
        self.sphere.set_theme(self._viewer.theme)
        self.map.set_theme(self._viewer.theme)


def _surface(reference: DensityMap | Path) -> Surface:
    """Return the surface of a map, or of a map's file."""
    from napari_cryosphere.particles import DensityMap

    return surface_of(
        reference if isinstance(reference, DensityMap) else DensityMap.read(reference)
    )


def marks_of(session: Session, index: int) -> list[Mark]:
    """Return the views that are known of a particle, the predicted one first."""
    known = (
        ("ring", session.store.rotation(index), RING_COLOUR),
        ("diamond", session.frames.refined_rotation(index), DIAMOND_COLOUR),
        ("cross", session.store.known_rotation(index), CROSS_COLOUR),
    )
    return [Mark(pose[:, 2], shape, colour) for shape, pose, colour in known if pose is not None]
