"""Keeps stacks of particles out of 3D, where napari would read every image."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari.utils.events import EventEmitter

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.state.lazy_frames import LazyFrames
from napari_cryosphere.widgets.state.viewer_context import context_of, unwrapped

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

__all__ = ["FlatGuard", "is_in_space", "keep_flat", "show_flat"]


class FlatGuard:
    """Hides particle layers while their first axis is shown in space, and brings them back after.

    Use `keep_flat`, which makes one a viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._hidden: weakref.WeakSet[Layer] = weakref.WeakSet()
        # napari calls its own callbacks before all others, and one of them slices: hiding layers
        # after that is too late. An emitter of napari's that passes the event on is called first.
        self._early = EventEmitter(source=self, type_name="before_slicing")
        self._early.connect(self.hide)
        for emitter in (viewer.dims.events.ndisplay, viewer.dims.events.order):
            emitter.connect(self._early, position="first")
            emitter.connect(self.show)
        viewer.layers.events.inserted.connect(self._on_inserted)

    def _layers(self, in_space: bool) -> list[Layer]:
        """Return the particle layers whose first axis is, or is not, shown in space."""
        viewer = self._viewer()
        if viewer is None:
            return []
        lazy = [layer for layer in viewer.layers if isinstance(layer.data, LazyFrames)]
        return [layer for layer in lazy if is_in_space(viewer, layer) == in_space]

    def hide(self, event: Any = None) -> None:
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


def is_in_space(viewer: ViewerModel, layer: Layer) -> bool:
    """Return whether the viewer shows a layer's first axis as a direction of space, not by a slider."""
    return viewer.dims.ndim - layer.ndim in viewer.dims.displayed


def show_flat(layer: Layer, visible: bool = True) -> None:
    """Show a layer, or hide it; in a viewer that is being closed, which stays in 3D, it is hidden."""
    try:
        layer.visible = visible
    except CryosphereError:  # all pictures at once
        layer.visible = False


def keep_flat(viewer: ViewerModel) -> FlatGuard:
    """Return the viewer's guard, made at the first call."""
    context = context_of(viewer)
    if context.flat_guard is None:
        context.flat_guard = FlatGuard(unwrapped(viewer))
    guard: FlatGuard = context.flat_guard
    return guard
