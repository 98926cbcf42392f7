"""Base of the docks that show many particles of the chosen data set at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cryosphere.widgets.docks.kit.seated_dock import SeatedDock
from napari_cryosphere.widgets.state.session import Session, listen_to

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.widgets.control.running import Runner

__all__ = ["SessionDock"]


class SessionDock(SeatedDock):
    """A dock that shows the chosen data set, and listens to it alone."""

    def __init__(self, viewer: napari.viewer.Viewer, runner: Runner | None = None) -> None:
        super().__init__(viewer, runner)
        self._session: Session | None = None

    def _on_session(self) -> None:
        """Show the chosen data set, unless it is shown already."""
        session = self.controller.session
        if session is self._session and session is not None:
            return
        self._listen(session)
        self._show_session()

    def _listen(self, session: Session | None) -> None:
        """Listen to a session, and no longer to the former one."""
        former, self._session = self._session, session
        listen_to(session, former, self._on_choices, self._on_filter, self._on_predictions)

    def _leave(self) -> None:
        self._listen(None)
        super()._leave()

    def _show_session(self) -> None:
        """Show another data set, or none."""

    def _on_choices(self) -> None:
        """Show other flags, or another selection."""

    def _on_filter(self) -> None:
        """Show other particles."""

    def _on_predictions(self, rows: slice) -> None:
        """Show what was predicted of some particles."""
