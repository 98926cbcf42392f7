"""The CryoSphere sphere: the shown particle's distribution, large, to be turned with the mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QHBoxLayout

from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.docks.kit.seated_dock import SeatedDock, single_shot
from napari_cryosphere.widgets.docks.kit.style import caption, dock_style, wrapped
from napari_cryosphere.widgets.docks.sphere.view import Mark, SphereView
from napari_cryosphere.widgets.state.sphere_layer import (
    CROSS_COLOUR,
    DIAMOND_COLOUR,
    RING_COLOUR,
)

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.widgets.state.session import Session

__all__ = ["SphereDock", "marks_of"]

_REST_MS = 40
_EMPTY = "No particle is shown. Open particles and predict their poses."
_UNKNOWN = "nothing is predicted of this particle"


class SphereDock(SeatedDock):
    """Follows the particle under the slider; works on whatever is loaded, and on nothing.

    Parameters are those of `SeatedDock`.
    """

    high = 430

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self.sphere = SphereView(viewer.theme)
        self.text = wrapped(caption())
        self.follow = QCheckBox("turn to the prediction")
        self.follow.setChecked(True)
        self.follow.setToolTip(
            "Turn the predicted view to the front whenever another particle is shown"
        )
        row = QHBoxLayout()
        row.addWidget(self.follow)
        row.addStretch(1)
        row.addWidget(caption("drag: turn · wheel: zoom"))
        column = self._column()
        column.addWidget(self.sphere, 1)
        column.addLayout(row)
        column.addWidget(self.text)
        self._later = single_shot(self, _REST_MS, self._draw)
        controller = self.controller
        for signal in (
            controller.particle_changed,
            controller.session_changed,
            controller.predictions_changed,
            controller.inspector.changed,
        ):
            self._seat.connect(signal, self._ask)
        self._seat.connect(viewer.events.theme, self._on_theme)
        self._faced: tuple[Session, int] | None = None
        self._on_theme()
        self._draw()

    def _leave(self) -> None:
        self._later.stop()
        super()._leave()

    def _ask(self, *_: object) -> None:
        """Draw once the slider rests; its steps wait for nothing here."""
        self._later.start()

    def _draw(self) -> None:
        """Draw the particle under the slider."""
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
        self.sphere.show_marks(marks)
        if self.follow.isChecked() and marks and self._faced != shown:
            self.sphere.look_from(marks[0].direction)
            self._faced = shown
        reading = self.controller.inspector.reading
        said = (
            _UNKNOWN if distribution is None else "" if reading is None else reading.verdict.words
        )
        self.text.setText(f"particle {index + 1:,} · {said}" if said else f"particle {index + 1:,}")

    def _on_theme(self, event: Any = None) -> None:
        self.setStyleSheet(dock_style(self._viewer.theme))
        self.sphere.set_theme(self._viewer.theme)


def marks_of(session: Session, index: int) -> list[Mark]:
    """Return the views that are known of a particle, the predicted one first."""
    known = (
        ("ring", session.store.rotation(index), RING_COLOUR),
        ("diamond", session.frames.refined_rotation(index), DIAMOND_COLOUR),
        ("cross", session.store.known_rotation(index), CROSS_COLOUR),
    )
    return [Mark(pose[:, 2], shape, colour) for shape, pose, colour in known if pose is not None]
