"""Keeps stacks of particles out of 3D, where napari would read every image."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari_cryosphere.widgets.state.lazy_frames import LazyFrames

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

__all__ = ["FlatGuard", "keep_flat"]


class FlatGuard:
    """Hides particle layers while their first axis is shown in space, and brings them back after.

    Use `keep_flat`, which makes one a viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._hidden: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._early = _Early(self)
        for emitter in (viewer.dims.events.ndisplay, viewer.dims.events.order):
            emitter.connect(self._early.hide, position="first")
            emitter.connect(self.show)
        viewer.layers.events.inserted.connect(self._on_inserted)

    def _layers(self, in_space: bool) -> list[Layer]:
        """Return the particle layers whose first axis is, or is not, shown in space."""
        viewer = self._viewer()
        if viewer is None:
            return []
        lazy = [layer for layer in viewer.layers if isinstance(layer.data, LazyFrames)]
        return [layer for layer in lazy if is_in_space(viewer, layer) == in_space]

    def hide(self) -> None:
        """Hide layers that the viewer is about to show in space."""
        for layer in self._layers(in_space=True):
            if layer.visible:
                layer.visible = False
                self._hidden.add(layer)

    def show(self, event: Any = None) -> None:
        """Show layers again that were hidden here."""
        for layer in self._layers(in_space=False):
            if layer in self._hidden:
                self._hidden.discard(layer)
                layer.visible = True

    def _on_inserted(self, event: Any) -> None:
        """Note layers that the reader made invisible because they came in 3D."""
        viewer, layer = self._viewer(), event.value
        came_hidden = isinstance(layer.data, LazyFrames) and not layer.visible
        if viewer is not None and came_hidden and is_in_space(viewer, layer):
            self._hidden.add(layer)


class _Early:
    """Calls a guard before napari slices the layers.

    napari calls its own callbacks before all others, and one of them slices: a guard that comes
    after is too late. It knows its own by the name of their module.
    """

    def __init__(self, guard: FlatGuard) -> None:
        self.__module__ = "napari.cryosphere"
        self._guard = weakref.ref(guard)

    def hide(self, event: Any = None) -> None:
        guard = self._guard()
        if guard is not None:
            guard.hide()


def is_in_space(viewer: ViewerModel, layer: Layer) -> bool:
    """Return whether the viewer shows a layer's first axis as a direction of space, not by a slider."""
    return viewer.dims.ndim - layer.ndim in viewer.dims.displayed


_guards: weakref.WeakKeyDictionary[ViewerModel, FlatGuard] = weakref.WeakKeyDictionary()


def keep_flat(viewer: ViewerModel) -> FlatGuard:
    """Return the viewer's guard, made at the first call."""
    if viewer not in _guards:
        _guards[viewer] = FlatGuard(viewer)
    return _guards[viewer]
