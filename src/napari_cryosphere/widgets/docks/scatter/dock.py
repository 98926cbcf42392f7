"""The CryoSphere scatter: particles by two quantities, to be picked with a lasso."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_cryosphere.widgets.control.map_sources import Subset
from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.docks.kit.choice_actions import ChoiceActions
from napari_cryosphere.widgets.docks.kit.quantity_combo import QuantityCombo
from napari_cryosphere.widgets.docks.kit.seated_dock import single_shot
from napari_cryosphere.widgets.docks.kit.session_dock import SessionDock
from napari_cryosphere.widgets.docks.kit.style import caption, dock_style, enable, wrapped
from napari_cryosphere.widgets.docks.scatter.plot import SELECTED, ScatterPlot
from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock
from napari_cryosphere.widgets.state.particle_filter import FILE_ORDER

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["ScatterDock"]

_LATER_MS = 300  # predictions come faster than a plot need be drawn
_EMPTY = "No particles are loaded. Drop a STAR or .cs file into the viewer."
_HINT = "Draw around particles to select them; Ctrl or Shift adds. A click shows a particle, the wheel zooms."
_FIRST = (
    ("component 1", "component 2"),
    ("component 1", "error of component 1"),
    ("spread", "novelty"),
    ("spread", "confidence"),
    ("defocus", "log-likelihood"),
    ("defocus", "correlation"),
)
"""What is shown at first: the first two that are known."""


class ScatterDock(SessionDock):
    """A scatter of the chosen data set's particles; works on whatever is loaded, and on nothing.

    Parameters are those of `SeatedDock`.
    """

    wide, high = 380, 560

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self.rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """The particles that have both quantities and pass the filters, in the order of the points."""
        self._shown: tuple[str, str] | None = None
        self.plot = ScatterPlot(viewer.theme)
        self.across, self.up = QuantityCombo("across"), QuantityCombo("up")
        self.fit, self.everything = QToolButton(), QToolButton()
        self.fit.setText("fit")
        self.fit.setToolTip("Show all points again")
        self.everything.setText("show all")
        self.everything.setToolTip("Take all filters away, the gallery's too")
        self.reconstruct = QPushButton("Map…")
        self.reconstruct.setToolTip("Reconstruct a map of the selected particles")
        self.actions_bar = ChoiceActions(self.plot.plot, self.controller, self.reconstruct)
        self.status, self.hint = wrapped(caption()), wrapped(caption(_HINT))
        self.key = wrapped(QLabel())
        self._later = single_shot(self, _LATER_MS, self._update_points)
        self._lay_out()
        self._connect()
        self._on_theme()
        self._on_session()

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setHorizontalSpacing(4)
        grid.setVerticalSpacing(4)
        for line, (name, combo, button) in enumerate(
            (("up", self.up, self.everything), ("across", self.across, self.fit))
        ):
            grid.addWidget(caption(name), line, 0)
            grid.addWidget(combo, line, 1)
            grid.addWidget(button, line, 2)
        grid.setColumnStretch(1, 1)
        content, area = QWidget(), QScrollArea()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 4, 0)
        column.setSpacing(6)
        column.addLayout(grid)
        column.addWidget(self.plot, 1)
        column.addWidget(self.key)
        column.addWidget(self.status)
        column.addWidget(self.hint)
        column.addWidget(self.actions_bar)
        area.setWidgetResizable(True)  # lower than its content where another dock is above it
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(content)
        self._column().addWidget(area)

    def _connect(self) -> None:
        controller = self.controller
        for signal, callback in (
            (controller.session_changed, self._on_session),
            (controller.particle_changed, self._on_particle),
            (controller.runner.busy_changed, self._update_status),
            (self._viewer.events.theme, self._on_theme),
        ):
            self._seat.connect(signal, callback)
        for combo in (self.across, self.up):
            combo.activated.connect(self._on_quantity)
        self.fit.clicked.connect(self.plot.fit)
        self.everything.clicked.connect(self._on_everything)
        self.plot.picked.connect(self._on_picked)
        self.plot.emptied.connect(lambda: self._select([]))
        self.plot.point_clicked.connect(lambda at: controller.open_particle(int(self.rows[at])))
        self.reconstruct.clicked.connect(self._on_reconstruct)

    def _leave(self) -> None:
        self._later.stop()
        super()._leave()

    # ------------------------------------------------------------------ the session

    def _show_session(self) -> None:
        self._shown = None
        states = None if self._session is None else self._session.states
        self.key.setText("" if states is None else states.key)
        self.key.setVisible(states is not None)
        for combo in (self.across, self.up):
            combo.setCurrentIndex(-1)
        self._update_points()

    def _on_filter(self) -> None:
        """Show other particles: at once, but not while predictions pour in."""
        if not self.controller.runner.busy:
            self._update_points()
        elif not self._later.isActive():
            self._later.start()

    def show_quantities(self, across: str, up: str) -> None:
        """Show two quantities, by their names in `quantities_of`."""
        self.across.choose(across)
        self.up.choose(up)
        self._on_quantity()

    def _on_quantity(self) -> None:
        self._update_points()

    def _update_points(self) -> None:
        """Show the particles that pass the filters by the two chosen quantities."""
        session = self._session
        offered = {} if session is None else session.filter.quantities
        for combo in (self.across, self.up):
            combo.offer(offered)
            enable(combo, (not offered, _EMPTY))
        self._choose_first(list(offered))
        if session is None:
            self.rows = np.empty(0, dtype=np.int64)
            self.plot.show_points(np.empty((0, 2)), ("", ""))
        else:
            chosen = offered[self.across.name or FILE_ORDER], offered[self.up.name or FILE_ORDER]
            points = np.stack([quantity.values for quantity in chosen], axis=-1)
            self.rows = np.flatnonzero(session.filter.passing() & np.isfinite(points).all(axis=1))
            names = chosen[0].name, chosen[1].name
            labels = chosen[0].label, chosen[1].label
            self.plot.show_points(points[self.rows], labels, fit=names != self._shown)
            self._shown = names
        self._on_choices()
        self._on_particle()

    def _choose_first(self, known: list[str]) -> None:
        """Choose quantities that say something where none are chosen."""
        if not known or (self.across.name in known and self.up.name in known):
            return
        pairs = [pair for pair in _FIRST if set(pair) <= set(known)]
        across, up = pairs[0] if pairs else (known[0], known[-1])
        self.across.choose(across)
        self.up.choose(up)

    def _on_choices(self) -> None:
        session = self._session
        if session is not None:
            classes = np.where(session.choices.selected, SELECTED, session.choices.flags)
            own = None if session.states is None else session.states.colours[self.rows]
            self.plot.show_classes(classes[self.rows].astype(np.uint8), own)
        self._update_status()

    def _on_particle(self) -> None:
        """Put a ring around the particle under the slider."""
        index = self.controller.index
        found = np.flatnonzero(self.rows == index) if index is not None else self.rows[:0]
        self.plot.show_current(int(found[0]) if found.size else None)

    def _update_status(self, busy: bool = False) -> None:
        session = self._session
        self.actions_bar.update_enabled()
        selected = 0 if session is None else int(session.choices.selected.sum())
        reason = "No particles are selected: draw around some"
        enable(self.reconstruct, (not selected, reason))
        filtered = session is not None and session.filter.active
        enable(self.everything, (not filtered, "No filter is set: all particles are shown"))
        enable(self.fit, (session is None, _EMPTY))
        if session is None:
            self.status.setText(_EMPTY)
            return
        passing = len(session.filter.rows)
        parts = [f"{len(self.rows):,} of {len(session.stack):,} shown", f"{selected:,} selected"]
        if passing > len(self.rows):
            parts.append(f"{passing - len(self.rows):,} without these values")
        self.status.setText(" · ".join(parts))

    # ------------------------------------------------------------------ what the user does

    def _on_picked(self, inside: NDArray[np.bool_], adding: bool) -> None:
        self._select(self.rows[inside], adding)

    def _select(self, rows: Any, adding: bool = False) -> None:
        if self._session is None:
            return
        choices = self._session.choices
        chosen = choices.selected.copy() if adding else np.zeros(choices.number, dtype=bool)
        chosen[np.asarray(rows, dtype=np.int64)] = True
        choices.select(chosen)

    def _on_everything(self) -> None:
        if self._session is not None:
            self._session.filter.clear()

    def _on_reconstruct(self) -> None:
        """Open the dock of the maps with the selection chosen."""
        open_dock(self._viewer, MAPS).reconstruction.choose(Subset.SELECTED)

    def _on_theme(self, event: Any = None) -> None:
        self.setStyleSheet(dock_style(self._viewer.theme))
        self.plot.set_theme(self._viewer.theme)
