"""Saving and restoring the workbench, from the menus and the command palette."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

__all__ = ["open_session", "save_session"]

_FILTER = "CryoSphere sessions (*.cryosphere.json)"


def save_session(viewer: napari.Viewer) -> None:
    """Ask for a file and save layers, model, flags, selection, curves and the current particle."""
    from qtpy.QtWidgets import QFileDialog

    from napari_cryosphere.errors import CryosphereError
    from napari_cryosphere.widgets.control import session_file
    from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock
    from napari_cryosphere.widgets.state.kinds import SESSION_SUFFIX
    from napari_cryosphere.widgets.state.notices import tell_error, tell_note

    dock = open_dock(viewer, MAIN)
    chosen, _ = QFileDialog.getSaveFileName(
        dock, "Save session", f"session{SESSION_SUFFIX}", _FILTER
    )
    if not chosen:
        return
    path = Path(chosen if chosen.endswith(SESSION_SUFFIX) else f"{chosen}{SESSION_SUFFIX}")
    try:
        session_file.save_session(dock.controller, path)
    except (CryosphereError, OSError) as error:
        tell_error(error)
    else:
        tell_note(f"{path.name} saved")


def open_session(viewer: napari.Viewer) -> None:
    """Ask for a session file and restore it."""
    from qtpy.QtWidgets import QFileDialog

    from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock
    from napari_cryosphere.widgets.state.inbox import inbox

    dock = open_dock(viewer, MAIN)
    chosen, _ = QFileDialog.getOpenFileName(dock, "Restore session", "", _FILTER)
    if chosen:
        inbox(viewer).put(Path(chosen))
