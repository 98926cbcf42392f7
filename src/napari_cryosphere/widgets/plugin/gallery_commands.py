"""What the command palette offers of the gallery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari

    from napari_cryosphere.widgets.state.particle_choices import Flag

__all__ = ["keep_selected", "reject_selected", "select_shown", "undo_choice"]


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
    """Take the last flag or selection back."""
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
        _tell("no particles are selected; select some in the gallery")


def _session(viewer: napari.Viewer) -> Any:
    """Return the session that the gallery shows; opens the gallery."""
    from napari_cryosphere.widgets.plugin.open_docks import GALLERY, open_dock

    session = open_dock(viewer, GALLERY).controller.session
    if session is None:
        _tell("no particles are loaded; open a STAR or .cs file")
    return session


def _tell(text: str) -> None:
    from napari_cryosphere.widgets.state.notices import tell_error

    tell_error(text)
