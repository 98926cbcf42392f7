"""The CryoSphere gallery: all particles as tiles, to sort, filter, flag and save."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QDockWidget, QMenu, QPushButton

from napari_cryosphere.widgets.control.running import Runner
from napari_cryosphere.widgets.docks.gallery.filters import GalleryFilters
from napari_cryosphere.widgets.docks.gallery.tile_painter import TilePainter
from napari_cryosphere.widgets.docks.gallery.tile_pictures import TilePictures
from napari_cryosphere.widgets.docks.gallery.tile_view import TileView
from napari_cryosphere.widgets.docks.kit.choice_actions import ChoiceActions
from napari_cryosphere.widgets.docks.kit.seated_dock import single_shot
from napari_cryosphere.widgets.docks.kit.session_dock import SessionDock
from napari_cryosphere.widgets.docks.kit.style import caption, dock_style, wrapped
from napari_cryosphere.widgets.docks.kit.workers import ThreadBackground
from napari_cryosphere.widgets.state.notices import cause_first
from napari_cryosphere.widgets.state.particle_choices import Flag

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["GalleryDock"]

_BITE = 4  # tiles made in one go
_PAUSE_MS = 60  # without scrolling, before tiles are made
_LATER_MS = 300  # predictions come faster than a gallery need be sorted
_EDGES = {"Small tiles": 64, "Medium tiles": 96, "Large tiles": 144}
_EMPTY = "No particles are loaded. Drop a STAR or .cs file into the viewer."


class GalleryDock(SessionDock):
    """Tiles of the chosen data set's particles; works on whatever is loaded, and on nothing.

    Parameters are those of `SeatedDock`.
    """

    wide, high = 360, 640

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self._background = ThreadBackground()
        self._pictures: TilePictures | None = None
        self._making = False
        self.painter = TilePainter(viewer.theme)
        self.view = TileView(self.painter)
        self.filters = GalleryFilters(viewer.theme)
        self.look = QPushButton("View")
        self.look.setToolTip("How tiles look, and the gallery as a window of its own")
        self.look.setMenu(self._look_menu())
        self.actions_bar = ChoiceActions(self.view, self.controller, self.look)
        self.status = wrapped(caption())
        self._later = single_shot(self, _LATER_MS, self._update_rows)
        self._pause = single_shot(self, _PAUSE_MS, self._make_pictures)
        self._lay_out()
        self._connect()
        self._on_theme()
        self._on_session()

    def _lay_out(self) -> None:
        column = self._column()
        column.setSpacing(6)
        column.addWidget(self.filters)
        column.addWidget(self.status)
        column.addWidget(self.view, 1)
        column.addWidget(self.actions_bar)

    def _look_menu(self) -> QMenu:
        menu = QMenu(self)
        low_pass = menu.addAction("Low-pass to 20 Å")
        low_pass.setCheckable(True)
        low_pass.setChecked(True)
        low_pass.toggled.connect(self._on_low_pass)
        menu.addSeparator()
        for name, edge in _EDGES.items():
            menu.addAction(name, partial(self._on_edge, edge))
        menu.addSeparator()
        self.float = menu.addAction("Window of its own")
        self.float.setCheckable(True)
        self.float.triggered.connect(self._on_float)
        menu.aboutToShow.connect(self._show_floating)
        return menu

    def _on_float(self, floating: bool) -> None:
        """Make the gallery a window of its own, which is painted without OpenGL, or a dock again."""
        container = self.parent()
        if isinstance(container, QDockWidget):
            container.setFloating(floating)

    def _show_floating(self) -> None:
        container = self.parent()
        self.float.setChecked(isinstance(container, QDockWidget) and container.isFloating())

    def _connect(self) -> None:
        controller = self.controller
        for signal, callback in (
            (controller.session_changed, self._on_session),
            (controller.particle_changed, self._on_particle),
            (controller.runner.busy_changed, self._update_status),
            (self._viewer.events.theme, self._on_theme),
        ):
            self._seat.connect(signal, callback)
        self.view.row_chosen.connect(controller.show_particle)
        self.view.row_opened.connect(controller.open_particle)
        self.view.sight_changed.connect(self._pause.start)
        self.destroyed.connect(self._background.close)

    def _leave(self) -> None:
        self._background.close()
        super()._leave()

    # ------------------------------------------------------------------ the session

    def _show_session(self) -> None:
        session = self._session
        self._pictures = None if session is None else TilePictures(session.stack, session.store)
        self.painter.picture_of = (
            (lambda row: None) if self._pictures is None else self._pictures.get
        )
        self.painter.text_of = self._text
        self.painter.states = None if session is None else session.states
        self.view.set_choices(None if session is None else session.choices)
        self.filters.set_session(session)
        self._update_rows()
        self._on_particle()

    def _text(self, row: int) -> str:
        if self._session is None:
            return ""
        chosen = self._session.filter
        return (
            ""
            if chosen.sort_name == "file order"
            else chosen.quantities[chosen.sort_name].text(row)
        )

    def _on_filter(self) -> None:
        """Show other particles: at once, but not while predictions pour in."""
        if self.controller.runner.busy:
            if not self._later.isActive():
                self._later.start()
        else:
            self._update_rows(from_top=True)

    def _on_predictions(self, rows: slice) -> None:
        if self._pictures is not None:
            self._pictures.forget(rows)

    def _update_rows(self, from_top: bool = False) -> None:
        session = self._session
        spheres = session is not None and bool(session.store.predicted.any())
        if spheres != self.painter.spheres:
            self.painter.spheres = spheres
        rows = np.empty(0, dtype=np.int64) if session is None else session.filter.rows
        self.view.set_rows(rows, from_top)
        self._make_pictures()
        self.filters.update_quantities()
        self._update_status()

    def _on_choices(self) -> None:
        self.view.viewport().update()
        self.filters.update_histogram()
        self._update_status()

    def _on_particle(self) -> None:
        """Frame the particle under the slider; bring it in sight unless it was chosen here."""
        index = self.controller.index
        if index is not None and index != self.view.current_row:
            self.view.set_current(index)

    def _update_status(self) -> None:
        session = self._session
        self.actions_bar.update_enabled()
        if session is None:
            self.status.setText(_EMPTY)
            return
        shown, counts = len(session.filter.rows), session.choices.counts()
        selected = session.choices.selected
        hidden = int(selected.sum()) - int(selected[session.filter.rows].sum())
        parts = [f"{shown:,} of {len(session.stack):,} shown", f"{int(selected.sum()):,} selected"]
        if hidden:
            parts[-1] += f" ({hidden:,} of them not shown)"
        words = {Flag.KEEP: "kept", Flag.REJECT: "rejected", Flag.REVIEW: "to review"}
        parts += [f"{counts[flag]:,} {word}" for flag, word in words.items() if counts[flag]]
        if session.kept.problem:
            parts.append(f"⚠ flags are not kept: {cause_first(session.kept.problem)}")
        self.status.setText(" · ".join(parts))

    # ------------------------------------------------------------------ pictures

    def _make_pictures(self) -> None:
        """Make the pictures in sight that are missing, a few at a time, then those a page above and below.

        None are begun while tiles are scrolled: two threads of Python wait for each other at every
        call of Qt's, so that painting would take several times as long.
        """
        pictures = self._pictures
        if pictures is None or self._making:
            return
        rows = pictures.missing(self.view.rows_in_sight())[:_BITE]
        if not len(rows):
            rows = pictures.missing(self.view.rows_in_sight(pages=1))[:_BITE]
        if not len(rows):
            return
        self._making = True
        version = pictures.version

        def take(made: Any) -> None:
            self._making = False
            pictures.keep(made, version)
            self.view.viewport().update()
            if not self._pause.isActive():
                self._make_pictures()

        self._background.run("tiles", lambda: pictures.make(rows), take)

    def _on_low_pass(self, on: bool) -> None:
        if self._pictures is not None:
            self._pictures.low_pass = on
            self._pictures.forget()
            self.view.refresh()
            self._make_pictures()

    def _on_edge(self, edge: int) -> None:
        self.painter.edge = edge
        self.view.refresh()

    def _on_theme(self, event: Any = None) -> None:
        theme = self._viewer.theme
        self.setStyleSheet(dock_style(theme))
        self.painter.set_theme(theme)
        self.filters.histogram.set_theme(theme)
        self.filters.update_histogram()
        self.view.viewport().update()
