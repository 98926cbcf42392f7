"""The way from particles to a map, as a row of steps: done ones are ticked, the next one is highlighted."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_cryosphere.widgets.docks.kit.style import enable, push_button, restyle
from napari_cryosphere.widgets.docks.kit.workbench import Seat
from napari_cryosphere.widgets.plugin.open_docks import (
    COMMANDS,
    GALLERY,
    ORIENTATIONS,
    SCATTER,
    TRAINING,
    open_dock,
)

if TYPE_CHECKING:
    from napari_cryosphere.widgets.control.controller import Controller
    from napari_cryosphere.widgets.state.session import Session

__all__ = ["STEPS", "WayBar", "steps_done"]

STEPS = {
    "Data": "Open particles: a STAR or .cs file, or an MRC stack",
    "Poses": "Find poses from the images, predict them with a model, or import them with the particles",
    "Inspect": "Look at particles: the most uncertain ones first, and reject what is none",
    "Map": "Reconstruct a map at the poses",
    "Export": "Save the particles with their poses as a STAR file",
}
_NEED_POSES = {"Inspect", "Export"}
_DOCKS = {
    "Training": (TRAINING, "Train a model of the loaded particles, and follow runs"),
    "Gallery": (GALLERY, "All particles as tiles: sort, filter, keep and reject"),
    "Scatter": (SCATTER, "Particles by two quantities: draw around some to select them"),
    "Orientations": (ORIENTATIONS, "Which views there are, and which are missing"),
    "Commands": (COMMANDS, "Every command of the command line, by a form"),
}
_SIDES = 12  # pixels to the left and right of a dock's name, together
_INSPECTED = 3  # particles looked at, until the step counts as done; chosen


def steps_done(controller: Controller, looked_at: int) -> dict[str, bool]:
    """Return which steps are done for the chosen particles.

    ``controller``: of the viewer. ``looked_at``: at how many particles a person has looked since
    they have poses.
    """
    session = controller.session
    if session is None:
        return dict.fromkeys(STEPS, False)
    posed = bool(session.store.predicted.any()) or session.store.known is not None
    return {
        "Data": True,
        "Poses": posed,
        "Inspect": posed and (looked_at >= _INSPECTED or bool(session.choices.flags.any())),
        "Map": bool(controller.map_layers),
        "Export": session.saved,
    }


class WayBar(QWidget):
    """The steps, and below them the docks by name. ``go``: called with the name of a step pressed."""

    def __init__(
        self, seat: Seat, go: Callable[[str], object], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._controller = controller = seat.controller
        self._looked_at: weakref.WeakKeyDictionary[Session, set[int]] = weakref.WeakKeyDictionary()
        self.steps: dict[str, QPushButton] = {}
        self.docks: dict[str, QPushButton] = {}
        row, below, column = QHBoxLayout(), QHBoxLayout(), QVBoxLayout(self)
        row.setSpacing(2)
        below.setSpacing(2)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for name, tip in STEPS.items():
            self.steps[name] = push_button(name, tip, lambda _=False, name=name: go(name))
            row.addWidget(self.steps[name], 1)
        for name, (dock, tip) in _DOCKS.items():
            open_it = partial(open_dock, controller.viewer, dock)
            button = push_button(name, tip, lambda _=False, do=open_it: do(), "step")
            self.docks[name] = button
            below.addWidget(button, button.fontMetrics().horizontalAdvance(name) + _SIDES)
        column.addLayout(row)
        column.addLayout(below)
        for signal in (
            controller.layers_changed,
            controller.session_changed,
            controller.predictions_changed,
            controller.particle_changed,
            controller.saved,
        ):
            seat.connect(signal, self._show)
        self._show()

    @property
    def next(self) -> str | None:
        """The step that comes next; None after the last."""
        done = steps_done(self._controller, self._number_looked_at())
        return next((name for name, there in done.items() if not there), None)

    def _number_looked_at(self) -> int:
        """Count the particle under the slider once there are poses, and return their number."""
        shown = self._controller.shown
        if shown is None:
            return 0
        session, index = shown
        seen = self._looked_at.setdefault(session, set())
        if session.store.predicted.any():
            seen.add(index)
        return len(seen)

    def _show(self, *_: object) -> None:
        done, next_one = steps_done(self._controller, self._number_looked_at()), self.next
        for name, button in self.steps.items():
            button.setText(f"✓ {name}" if done[name] else name)
            if name in _NEED_POSES:
                enable(button, (not done["Poses"], "Find or predict poses first"))
            restyle(button, "next" if name == next_one else "step")
