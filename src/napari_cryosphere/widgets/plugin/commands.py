"""Commands of the command palette and of the Layers and File menus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cryosphere.widgets.plugin.open_docks import GALLERY, MAIN, MAPS, open_dock
from napari_cryosphere.widgets.state.kinds import SESSION_SUFFIX
from napari_cryosphere.widgets.state.notices import tell_error, tell_note

if TYPE_CHECKING:
    import napari

    from napari_cryosphere.widgets.state.particle_choices import Flag

__all__ = [
    "align_maps",
    "compare_maps",
    "keep_selected",
    "next_uncertain",
    "open_session",
    "predict_poses",
    "previous_uncertain",
    "reconstruct",
    "reject_selected",
    "save_session",
    "select_shown",
    "show_particles",
    "show_slices",
    "show_surfaces",
    "subtract_maps",
    "undo_choice",
]

_SESSION_FILES = f"CryoSphere sessions (*{SESSION_SUFFIX})"


def predict_poses(viewer: napari.Viewer) -> None:
    """Open the dock and predict the poses of the chosen particles."""
    open_dock(viewer, MAIN).poses.predict.click()


def next_uncertain(viewer: napari.Viewer) -> None:
    """Go to the next particle in order of falling spread."""
    open_dock(viewer, MAIN).inspector.next.click()


def previous_uncertain(viewer: napari.Viewer) -> None:
    """Go back in order of falling spread."""
    open_dock(viewer, MAIN).inspector.back.click()


# ---------------------------------------------------------------------- maps


def reconstruct(viewer: napari.Viewer) -> None:
    """Open the dock of the maps and reconstruct with its present settings."""
    button = open_dock(viewer, MAPS).reconstruction.reconstruct
    if button.isEnabled():
        button.click()
    else:
        tell_error(button.toolTip())


def compare_maps(viewer: napari.Viewer) -> None:
    """Measure the FSC of the two chosen maps."""
    _press(viewer, "compare")


def subtract_maps(viewer: napari.Viewer) -> None:
    """Subtract the reference from the chosen map."""
    _press(viewer, "subtract")


def align_maps(viewer: napari.Viewer) -> None:
    """Align the chosen map with the reference and check its hand."""
    _press(viewer, "align")


def show_surfaces(viewer: napari.Viewer) -> None:
    """Show the chosen maps in 3D, side by side."""
    _show(viewer, slices=False)


def show_slices(viewer: napari.Viewer) -> None:
    """Show three slices of each of the chosen maps."""
    _show(viewer, slices=True)


def show_particles(viewer: napari.Viewer) -> None:
    """Go back from the maps to the particles."""
    open_dock(viewer, MAPS).controller.maps.show()


def _press(viewer: napari.Viewer, button: str) -> None:
    pressed = getattr(open_dock(viewer, MAPS).maps, button)
    if pressed.isEnabled():
        pressed.click()
    else:
        tell_error(pressed.toolTip())


def _show(viewer: napari.Viewer, slices: bool) -> None:
    dock = open_dock(viewer, MAPS)
    if dock.controller.map_layers:
        dock.show_maps(slices)
    else:
        tell_error("no map is loaded; reconstruct one or open an MRC file")


# ---------------------------------------------------------------------- flags and selection


def keep_selected(viewer: napari.Viewer) -> None:
    """Flag the selected particles to be kept."""
    from napari_cryosphere.widgets.state.particle_choices import Flag

    _flag(viewer, Flag.KEEP)


def reject_selected(viewer: napari.Viewer) -> None:
    """Flag the selected particles to be rejected."""
    from napari_cryosphere.widgets.state.particle_choices import Flag

    _flag(viewer, Flag.REJECT)


def select_shown(viewer: napari.Viewer) -> None:
    """Select all particles that pass the gallery's filters."""
    session = _session(viewer)
    if session is not None:
        session.choices.select(session.filter.rows)


def undo_choice(viewer: napari.Viewer) -> None:
    """Undo the last flag or selection."""
    session = _session(viewer)
    if session is not None:
        session.choices.undo()


def _flag(viewer: napari.Viewer, flag: Flag) -> None:
    session = _session(viewer)
    if session is None:
        return
    if session.choices.selected.any():
        session.choices.flag_selected(flag)
    else:
        tell_error("no particles are selected; select some in the gallery")


def _session(viewer: napari.Viewer) -> Any:
    """Return the session that the gallery shows; opens the gallery."""
    session = open_dock(viewer, GALLERY).controller.session
    if session is None:
        tell_error("no particles are loaded; open a STAR or .cs file")
    return session


# ---------------------------------------------------------------------- sessions


def save_session(viewer: napari.Viewer) -> None:
    """Ask for a file and save layers, model, flags, selection, curves and the current particle."""
    from qtpy.QtWidgets import QFileDialog

    from napari_cryosphere.errors import CryosphereError

    dock = open_dock(viewer, MAIN)
    chosen, _ = QFileDialog.getSaveFileName(
        dock, "Save session", f"session{SESSION_SUFFIX}", _SESSION_FILES
    )
    if not chosen:
        return
    path = Path(chosen if chosen.endswith(SESSION_SUFFIX) else f"{chosen}{SESSION_SUFFIX}")
    try:
        dock.controller.session_file.save(path)
    except (CryosphereError, OSError) as error:
        tell_error(error)
    else:
        tell_note(f"{path.name} saved")


def open_session(viewer: napari.Viewer) -> None:
    """Ask for a session file and restore it."""
    from qtpy.QtWidgets import QFileDialog

    from napari_cryosphere.widgets.state.viewer_context import context_of

    dock = open_dock(viewer, MAIN)
    chosen, _ = QFileDialog.getOpenFileName(dock, "Restore session", "", _SESSION_FILES)
    if chosen:
        context_of(viewer).inbox.put(Path(chosen))
