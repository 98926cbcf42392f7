"""CryoSphere orientations: where views fall on the sphere, how even they are, and who is there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.control.export import Which, rows_to_export
from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.control.view_spikes import ViewSpikes
from napari_cryosphere.widgets.docks.kit.seated_dock import scrolled, single_shot
from napari_cryosphere.widgets.docks.kit.session_dock import SessionDock
from napari_cryosphere.widgets.docks.kit.style import dock_style, enable_all
from napari_cryosphere.widgets.docks.kit.workers import ThreadBackground
from napari_cryosphere.widgets.docks.orientations.panels import (
    BrushPanel,
    EvennessPanel,
    SpikesPanel,
)
from napari_cryosphere.widgets.state.particle_states import ParticleStates, state_colour
from napari_cryosphere.widgets.state.view_statistics import ViewMap, ViewStatistics

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["OrientationsDock"]

_BITE = 64
_SLICE_SECONDS = 0.4  # of work between two pictures
_LATER_MS = 200


class OrientationsDock(SessionDock):
    """The views of all, the shown or the selected particles; works on whatever is loaded, and on nothing.

    Parameters are those of `SeatedDock`.
    """

    wide = 360

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self._background = ThreadBackground()
        self._statistics: ViewStatistics | None = None
        self._asked = 0
        self.shown: ViewMap | None = None
        self.evenness = EvennessPanel(viewer.theme)
        self.brush = BrushPanel()
        self.spikes_panel = SpikesPanel()
        self.spikes = ViewSpikes(viewer)
        self._later = single_shot(self, _LATER_MS, self.update_views)
        self._lay_out()
        self._connect()
        self._on_theme()
        self._on_layers()
        self._on_session()

    def _lay_out(self) -> None:
        panels = scrolled(self.evenness, self.brush, self.spikes_panel)
        panels.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self._column().addWidget(panels)

    def _connect(self) -> None:
        controller = self.controller
        for signal, callback in (
            (controller.session_changed, self._on_session),
            (controller.layers_changed, self._on_layers),
            (controller.maps.mode_changed, self._on_mode),
            (controller.symmetry_changed, self.update_views),
            (self._viewer.events.theme, self._on_theme),
        ):
            self._seat.connect(signal, callback)
        self.evenness.which_changed.connect(self.update_views)
        self.evenness.map.brushed.connect(self._on_region)
        self.brush.lasso_changed.connect(lambda on: setattr(self.evenness.map, "lasso", on))
        self.brush.share_changed.connect(lambda: self._on_region(self.evenness.map.region))
        self.spikes_panel.wanted_changed.connect(self._on_spikes)
        self.destroyed.connect(self._background.close)

    def _leave(self) -> None:
        self._later.stop()
        self._background.close()
        self.spikes.hide()
        super()._leave()

    # ------------------------------------------------------------------ the session

    def _show_session(self) -> None:
        session = self._session
        self._statistics = None if session is None else ViewStatistics(session.stack, session.store)
        self.evenness.map.show_region(None)
        self.evenness.offer_states(None if session is None else session.states)
        self.brush.say(None)
        self.update_views()

    def _on_choices(self) -> None:
        if self.evenness.which is not None:
            self._ask_later()

    def _on_filter(self) -> None:
        self._on_choices()

    def _on_predictions(self, rows: slice) -> None:
        if self._statistics is not None:
            self._statistics.forget(rows)
        self._ask_later()

    def _ask_later(self) -> None:
        if not self._later.isActive():
            self._later.start()

    def _symmetry(self) -> str:
        """Return the point group that the predictions have, or the one that is set."""
        from napari_cryosphere.so3.symmetry import normalise_group_name

        if self._session is not None and self._session.store.predicted.any():
            return self._session.store.symmetry
        try:
            return normalise_group_name(self.controller.symmetry)
        except CryosphereError:
            return "C1"  # what is being typed

    def rows(self) -> NDArray[np.int64]:
        """Return the particles that are chosen above the map."""
        if self._session is None:
            return np.empty(0, dtype=np.int64)
        which = self.evenness.which
        return (
            np.arange(len(self._session.stack))
            if which is None
            else rows_to_export(self._session, which)
        )

    # ------------------------------------------------------------------ the views

    def update_views(self) -> None:
        """Work out where the chosen particles' views fall, and show them as they come."""
        statistics = self._statistics
        self._asked += 1
        if statistics is None:
            self._show(None, 0, 0)
            return
        symmetry = self._symmetry()
        if symmetry != statistics.symmetry:
            statistics.symmetry = symmetry
            statistics.forget()
        self._work(statistics, self.rows(), self._asked)

    def _work(self, statistics: ViewStatistics, rows: NDArray[np.int64], asked: int) -> None:
        """Do a slice of the work in the background, show what there is, and go on until all is done."""
        states = None if self._session is None else self._session.states
        by_state = states if self.evenness.by_state.isChecked() else None

        def work() -> tuple[ViewMap | None, int, NDArray[np.float64] | None]:
            missing = statistics.missing(rows)
            until, done = time.monotonic() + _SLICE_SECONDS, 0
            while done < len(missing) and time.monotonic() < until:
                statistics.fill(missing[done : done + _BITE])
                done += _BITE
            hues = None if by_state is None else _hues(statistics, rows, by_state)
            return statistics.summarise(rows), max(0, len(missing) - done), hues

        def take(made: tuple[ViewMap | None, int, NDArray[np.float64] | None]) -> None:
            if asked != self._asked:
                return
            shown, left, hues = made
            self._show(shown, len(rows), left, hues)
            if left:
                self._work(statistics, rows, asked)

        self._background.run("views", work, take)

    def _show(
        self, shown: ViewMap | None, chosen: int, left: int, hues: NDArray[np.float64] | None = None
    ) -> None:
        self.shown = shown
        self.evenness.show_views(shown, chosen, left, self._symmetry() if shown else "", hues)
        enable_all(self.brush, (shown is None, "There are no views yet: predict poses first"))
        if self.spikes.shown and shown is not None:
            self._draw_spikes()

    # ------------------------------------------------------------------ brushing

    def _on_region(self, region: NDArray[np.bool_] | None) -> None:
        """Select the particles whose views lie in a region of the map, or in its equivalents."""
        statistics, session = self._statistics, self._session
        if statistics is None or session is None:
            return
        whole = None if region is None else statistics.symmetrised(region)
        self.evenness.map.show_region(whole)
        if whole is None:
            self.brush.say(None)
            return
        # selecting must not change which particles are on the map while they are being selected
        rows = (
            np.arange(len(session.stack)) if self.evenness.which is Which.SELECTED else self.rows()
        )
        share = self.brush.share

        def take(found: NDArray[np.int64]) -> None:
            if session is self._session:
                session.choices.select(found)
                self.brush.say(len(found), float(whole.mean()))

        self._background.run("region", lambda: statistics.inside(whole, rows, share), take)

    # ------------------------------------------------------------------ spikes

    def _on_layers(self) -> None:
        self.spikes_panel.layers.set_layers(self.controller.map_layers)
        self.spikes_panel.update_enabled()

    def _on_spikes(self, wanted: bool) -> None:
        layer = self.spikes_panel.layers.layer()
        if wanted and layer is not None and self.shown is not None:
            self.controller.maps.show(layer)
            self._draw_spikes()
        else:
            self.spikes.hide()
            if not wanted:
                self.controller.maps.show()

    def _draw_spikes(self) -> None:
        layer: Any = self.spikes_panel.layers.layer()
        if layer is not None and self.shown is not None:
            self.spikes.show(self.shown.density, layer)

    def _on_mode(self, maps: bool) -> None:
        if not maps:
            self.spikes.hide()
            self.spikes_panel.wanted.setChecked(False)

    def _on_theme(self, event: Any = None) -> None:
        self.setStyleSheet(dock_style(self._viewer.theme))
        self.evenness.map.set_theme(self._viewer.theme)


def _hues(
    statistics: ViewStatistics, rows: NDArray[np.int64], states: ParticleStates
) -> NDArray[np.float64]:
    """Return the mixed colours of the states that are seen from each direction, ``(n_views, 3)``."""
    colours = np.array([state_colour(number) for number in np.unique(states.numbers).tolist()])
    return np.asarray(statistics.shares(rows, states.numbers).T @ colours, dtype=np.float64)
