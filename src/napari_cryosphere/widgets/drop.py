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
        self._maps: list[str] = []
        self._last = time.monotonic()
        self.has_particles = False

    @property
    def over(self) -> bool:
        """Whether what comes now came by itself."""
        return time.monotonic() - self._last > _TOGETHER_SECONDS

    def note_particles(self) -> None:
        """Particles came; maps that came before them are hidden."""
        self._last = time.monotonic()
        self.has_particles = True
        viewer = self._viewer()
        for layer in () if viewer is None else viewer.layers:
            if layer.name in self._maps:
                layer.visible = False

    def note_map(self, name: str) -> None:
        """A map came."""
        self._last = time.monotonic()
        self._maps.append(name)


_drops: weakref.WeakKeyDictionary[ViewerModel, Drop] = weakref.WeakKeyDictionary()


def present_drop(viewer: ViewerModel) -> Drop:
    """Return the drop that a viewer is reading; a new one some time after the last file."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # plugins get a proxy of the viewer
    if viewer not in _drops or _drops[viewer].over:
        _drops[viewer] = Drop(viewer)
    return _drops[viewer]
