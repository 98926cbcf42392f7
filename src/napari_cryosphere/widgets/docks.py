"""The plugin's docks by name, opened once and brought to the front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["GALLERY", "MAIN", "MAPS", "ORIENTATIONS", "TRAINING", "open_dock"]

MAIN = "CryoSphere"
MAPS = "CryoSphere maps"
TRAINING = "CryoSphere training"
GALLERY = "CryoSphere gallery"
ORIENTATIONS = "CryoSphere orientations"


def open_dock(viewer: napari.viewer.Viewer, name: str) -> Any:
    """Open one of the plugin's docks, or bring it to the front, and return what it holds.

    Parameters
    ----------
    viewer
        The viewer.
    name
        As in the Plugins menu.
    """
    container, content = viewer.window.add_plugin_dock_widget("napari-cryosphere", name, tabify=True)
    container.show()
    container.raise_()
    return content
