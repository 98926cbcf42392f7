"""What came in one drop: napari reads each file of it by itself, one after the other."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Drop", "present_drop"]

_TOGETHER_SECONDS = 2.0
"""From the end of one file to the beginning of the next, layers and docks made in between."""


class Drop:
    """Particles and maps that belong together: the maps stay hidden, since they would lie over the particles.

    Parameters
    ----------
    viewer
        Where they were dropped.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._last = time.monotonic()
        self.has_particles = False

    @property
    def over(self) -> bool:
        """Whether what comes now came by itself."""
        return time.monotonic() - self._last > _TOGETHER_SECONDS

    def note_particles(self) -> None:
        """Particles came; maps that lie over them in 2D are hidden."""
        from napari_cryosphere.widgets.state.layer_data import map_of

        self._last = time.monotonic()
        self.has_particles = True
        viewer = self._viewer()
        if viewer is None or viewer.dims.ndisplay == 3:
            return
        for layer in viewer.layers:
            if map_of(layer) is not None:
                layer.visible = False

    def note_map(self) -> None:
        """Take a map that came."""
        self._last = time.monotonic()


_drops: weakref.WeakKeyDictionary[ViewerModel, Drop] = weakref.WeakKeyDictionary()


def present_drop(viewer: ViewerModel) -> Drop:
    """Return the drop that a viewer is reading; a new one some time after the last file."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # plugins get a proxy of the viewer
    if viewer not in _drops or _drops[viewer].over:
        _drops[viewer] = Drop(viewer)
    return _drops[viewer]
