"""What came in one drop: napari reads each file of it by itself, in one turn of the event loop."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Drop", "present_drop"]


class Drop:
    """Particles and maps that belong together: the maps stay hidden, since they would lie over the particles.

    Parameters
    ----------
    viewer
        Where they were dropped.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self.has_particles = False
        self._maps: list[str] = []

    def note_particles(self) -> None:
        """Particles came; maps that came before them are hidden."""
        self.has_particles = True
        viewer = self._viewer()
        for layer in () if viewer is None else viewer.layers:
            if layer.name in self._maps:
                layer.visible = False

    def note_map(self, name: str) -> None:
        """A map came."""
        self._maps.append(name)


_drops: weakref.WeakKeyDictionary[ViewerModel, Drop] = weakref.WeakKeyDictionary()


def present_drop(viewer: ViewerModel) -> Drop:
    """Return the drop that a viewer is reading; it ends with the turn of the event loop."""
    from qtpy.QtCore import QCoreApplication, QTimer

    viewer = getattr(viewer, "__wrapped__", viewer)  # plugins get a proxy of the viewer
    if viewer not in _drops:
        _drops[viewer] = Drop(viewer)
        if QCoreApplication.instance() is not None:
            QTimer.singleShot(0, partial(_end, weakref.ref(viewer)))
    return _drops[viewer]


def _end(held: weakref.ref[ViewerModel]) -> None:
    """End the drop of a viewer, if that is still there."""
    viewer = held()
    if viewer is not None:
        _drops.pop(viewer, None)
