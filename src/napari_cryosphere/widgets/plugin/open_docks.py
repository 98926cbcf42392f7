"""The plugin's docks by name, opened once and brought to the front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from napari_cryosphere.widgets.state.viewer_context import context_of, unwrapped

if TYPE_CHECKING:
    import napari.viewer
    from qtpy.QtWidgets import QWidget

__all__ = [
    "COMMANDS",
    "GALLERY",
    "MAIN",
    "MAPS",
    "ORIENTATIONS",
    "SCATTER",
    "SPHERE",
    "TRAINING",
    "open_dock",
    "open_main_for_particles",
]

MAIN = "CryoSphere"
MAPS = "CryoSphere maps"
TRAINING = "CryoSphere training"
GALLERY = "CryoSphere gallery"
ORIENTATIONS = "CryoSphere orientations"
SCATTER = "CryoSphere scatter"
SPHERE = "CryoSphere sphere"
COMMANDS = "CryoSphere commands"

_PLUGIN, _DISPLAY_NAME = "napari-cryosphere", "CryoSphere"


def open_dock(viewer: napari.viewer.Viewer, name: str, floating: bool = False) -> Any:
    """Open one of the plugin's docks, or bring it to the front, and return what it holds.

    ``viewer``: the viewer, or napari's proxy of it. ``name``: as in the Plugins menu. ``floating``:
    whether a dock that is not there yet becomes a window of its own, over the canvas's upper right.
    """
    viewer = unwrapped(viewer)
    docks = viewer.window.dock_widgets
    known = next((docks[title] for title in _titles(name) if title in docks), None)
    content: Any = known
    if content is None:
        content = _class_of(name)(viewer)
        viewer.window.add_dock_widget(content, name=_titles(name)[0], tabify=True)
    container = content.parent()
    if floating and known is None:
        container.setFloating(True)
        container.resize(content.sizeHint())
        canvas = container.parent().centralWidget()
        container.move(canvas.mapToGlobal(canvas.rect().topRight() - container.rect().topRight()))
    container.show()
    container.raise_()
    return content


def open_main_for_particles(viewer: Any) -> None:
    """Open the CryoSphere dock as particles come to a window where no dock of the plugin is open."""
    workbench = context_of(viewer).workbench
    held = None if workbench is None else workbench()
    if hasattr(viewer, "window") and (held is None or held.seats == 0):
        open_dock(viewer, MAIN)


def _titles(name: str) -> tuple[str, str]:
    """Return how napari calls a dock: opened from its menu, which shows and hides it, and from a script."""
    return f"{name} ({_DISPLAY_NAME})", f"{name} ({_PLUGIN})"


def _class_of(name: str) -> type[QWidget]:
    """Return the class that the manifest names for a dock."""
    from npe2 import PluginManager

    widgets = PluginManager.instance().iter_widgets()
    found = next(one for one in widgets if one.plugin_name == _PLUGIN and one.display_name == name)
    return cast("type[QWidget]", found.get_callable())
