"""What showing maps changes in a viewer, to be set back afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

__all__ = ["ViewerState"]


@dataclass
class ViewerState:
    """Dimensions, camera, grid, overlays, the layers' visibility and their names' on the canvas."""

    ndisplay: int
    order: tuple[int, ...]
    point: tuple[float, ...]
    camera: tuple[Any, float, Any]
    grid: tuple[bool, tuple[int, int], int, float]
    scale_bar: bool
    visible: dict[Layer, bool]
    names: dict[Layer, tuple[bool, float]]
    active: Layer | None

    @classmethod
    def of(cls, viewer: ViewerModel) -> ViewerState:
        """Return the state of a viewer."""
        dims, camera, grid = viewer.dims, viewer.scene.camera, viewer.canvas.grid
        return cls(
            dims.ndisplay,
            tuple(dims.order),
            tuple(dims.point),
            (camera.center, camera.zoom, camera.angles),
            (grid.enabled, grid.shape, grid.stride, grid.spacing),
            viewer.canvas.overlays.scale_bar.visible,
            {layer: layer.visible for layer in viewer.layers},
            {
                layer: (layer.name_overlay.visible, layer.name_overlay.font_size)
                for layer in viewer.layers
            },
            viewer.layers.selection.active,
        )

    def restore(self, viewer: ViewerModel, added: Sequence[Layer]) -> None:
        """Set everything back; layers that came meanwhile are hidden where they are among ``added``."""
        grid = viewer.canvas.grid
        grid.enabled, grid.shape, grid.stride, grid.spacing = self.grid
        for layer in added:
            layer.visible = self.visible.get(layer, False)
        viewer.dims.ndisplay = self.ndisplay
        if len(self.order) == viewer.dims.ndim:
            viewer.dims.order = self.order
            viewer.dims.point = self.point
        for layer in viewer.layers:
            if layer in self.visible:
                with contextlib.suppress(
                    CryosphereError
                ):  # a viewer that is being closed stays in 3D
                    layer.visible = self.visible[layer]
            name = layer.name_overlay
            name.visible, name.font_size = self.names.get(layer, (False, name.font_size))
        viewer.canvas.overlays.scale_bar.visible = self.scale_bar
        camera = viewer.scene.camera
        camera.center, camera.zoom, camera.angles = self.camera
        if self.active in viewer.layers:
            viewer.layers.selection.active = self.active
