"""Two maps side by side in 3D, and the viewer afterwards as it was before."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.widgets.display_map import ShownMap
from napari_cryosphere.widgets.layer_data import KEY, contour_levels

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_cryosphere.particles import DensityMap

__all__ = ["MapView"]

_ANGLES = (10.0, -25.0, 75.0)
_MOST_SORTED = 500_000


@dataclass
class _ViewerState:
    """What the maps mode changes in a viewer."""

    ndisplay: int
    order: tuple[int, ...]
    point: tuple[float, ...]
    camera: tuple[Any, float, Any]
    grid: tuple[bool, tuple[int, int], int, float]
    scale_bar: bool
    visible: dict[Layer, bool]
    names: dict[Layer, bool]
    active: Layer | None

    @classmethod
    def of(cls, viewer: ViewerModel) -> _ViewerState:
        dims, camera, grid = viewer.dims, viewer.scene.camera, viewer.canvas.grid
        return cls(
            dims.ndisplay,
            tuple(dims.order),
            tuple(dims.point),
            (camera.center, camera.zoom, camera.angles),
            (grid.enabled, grid.shape, grid.stride, grid.spacing),
            viewer.canvas.overlays.scale_bar.visible,
            {layer: layer.visible for layer in viewer.layers},
            {layer: layer.name_overlay.visible for layer in viewer.layers},
            viewer.layers.selection.active,
        )

    def restore(self, viewer: ViewerModel, added: Sequence[Layer]) -> None:
        """Set everything back; layers that came meanwhile are hidden where they are maps of the mode."""
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
                with contextlib.suppress(CryosphereError):  # a viewer that is being closed stays in 3D
                    layer.visible = self.visible[layer]
                layer.name_overlay.visible = self.names[layer]
        viewer.canvas.overlays.scale_bar.visible = self.scale_bar
        camera = viewer.scene.camera
        camera.center, camera.zoom, camera.angles = self.camera
        if self.active in viewer.layers:
            viewer.layers.selection.active = self.active


class MapView:
    """Shows one or two maps in 3D, each in its own half of the canvas, turning together.

    Contours are linked by the volume that they enclose, which asks nothing of their noise: a change of
    one layer's threshold moves the other's. Voxels are shown in standard deviations from the mean.

    Parameters
    ----------
    viewer
        The viewer; nothing is changed in it before `show`, and everything is set back by `leave`.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._state: _ViewerState | None = None
        self._layers: list[Image] = []
        self._shown: dict[Image, ShownMap] = {}
        self._sorted: dict[Image, NDArray[np.float32]] = {}
        self._linking = False

    @property
    def active(self) -> bool:
        """Whether maps are shown."""
        return self._state is not None

    @property
    def layers(self) -> tuple[Image, ...]:
        """The maps that are shown."""
        return tuple(self._layers)

    def show(self, layers: Sequence[Image]) -> None:
        """Show these maps, and only these; a second call exchanges them. The first one's contour leads.

        Raises
        ------
        ValueError
            If there are none or more than two.
        """
        if not 1 <= len(layers) <= 2:
            raise ValueError(f"one or two maps can be shown, not {len(layers)}")
        viewer = self._viewer
        first_time = self._state is None
        if self._state is None:
            self._state = _ViewerState.of(viewer)
        self._unlink()
        for layer in viewer.layers:
            layer.visible = layer in layers
            if layer in layers:
                layer.name_overlay.visible = True
        self._layers = list(layers)
        for layer in [layer for layer in self._shown if layer not in layers]:
            self._give_back(layer)
        for layer in layers:
            self._shown[layer] = self._shown.get(layer) or ShownMap(layer)
        grid = viewer.canvas.grid
        grid.shape, grid.stride, grid.enabled = (1, len(layers)), 1, len(layers) > 1
        viewer.dims.ndisplay = 3
        viewer.canvas.overlays.scale_bar.visible = True
        viewer.layers.selection.active = layers[-1]  # whose contour the layer controls then offer
        if first_time:
            self._frame()
        self._link()

    def replace(self, layer: Image, density: DensityMap) -> None:
        """Give a map layer other voxels on the same grid; one that is shown keeps its contour."""
        in_view = layer in self._shown
        contour = layer.iso_threshold
        if in_view:
            self._unlink()
            self._give_back(layer)
        threshold, top = contour_levels(density.voxels)
        layer.metadata = {**layer.metadata, KEY: density}
        layer.data = density.voxels
        layer.contrast_limits_range = (float(density.voxels.min()), max(float(density.voxels.max()), top))
        layer.contrast_limits = (min(0.0, threshold), top)
        layer.iso_threshold = threshold
        if in_view:
            self._shown[layer] = ShownMap(layer)
            layer.iso_threshold = contour
            self._link()

    def _give_back(self, layer: Image) -> None:
        """Give a layer its own voxels back."""
        shown = self._shown.pop(layer, None)
        if shown is not None:
            shown.restore()
        self._sorted.pop(layer, None)

    def _frame(self) -> None:
        """Turn the camera to the maps, as large as their contours allow from any side."""
        camera, layer = self._viewer.scene.camera, self._layers[0]
        middle = np.asarray(layer.extent.world).mean(axis=0)[-3:]
        solid = np.argwhere(np.asarray(layer.data) > layer.iso_threshold)
        scale = np.asarray(layer.scale[-3:])
        distances = np.linalg.norm((solid - (np.array(layer.data.shape) - 1) / 2) * scale, axis=1)
        reach = np.percentile(distances, 98) if len(solid) else layer.data.shape[0] / 2 * scale[0]
        cell = min(self._viewer.canvas.viewbox_size(self._viewer.layers))
        camera.angles, camera.center = _ANGLES, tuple(middle)
        camera.zoom = cell / (2.5 * max(float(reach), float(scale[0])))

    def leave(self) -> None:
        """Leave the viewer as it was found."""
        if self._state is None:
            return
        self._unlink()
        shown, self._layers = self._layers, []
        for layer in shown:
            layer.visible = layer.name_overlay.visible = False
            self._give_back(layer)
        state, self._state = self._state, None
        state.restore(self._viewer, [layer for layer in shown if layer in self._viewer.layers])

    def forget(self, layer: Layer) -> None:
        """Take note that a layer was removed: the other map stays; without any the mode is left."""
        if layer not in self._layers:
            return
        self._unlink()
        self._layers.remove(layer)
        self._give_back(layer)
        if self._layers:
            self.show(self._layers)
        else:
            self.leave()

    def enclosed_fraction(self, layer: Image) -> float:
        """Return the fraction of a map's voxels above its contour."""
        values = self._values(layer)
        return 1 - float(np.searchsorted(values, layer.iso_threshold)) / len(values)

    def _values(self, layer: Image) -> NDArray[np.float32]:
        """Return a map's voxels in ascending order, thinned out where there are many."""
        if layer not in self._sorted:
            voxels = np.asarray(layer.data).ravel()
            self._sorted[layer] = np.sort(voxels[:: max(1, len(voxels) // _MOST_SORTED)])
        return self._sorted[layer]

    def _link(self) -> None:
        for layer in self._layers:
            layer.events.iso_threshold.connect(self._on_threshold)
        if len(self._layers) == 2:
            self._match(*self._layers)

    def _unlink(self) -> None:
        for layer in self._layers:
            layer.events.iso_threshold.disconnect(self._on_threshold)

    def _on_threshold(self, event: Any) -> None:
        for other in self._layers:
            if other is not event.source and not self._linking:
                self._match(event.source, other)

    def _match(self, source: Image, target: Image) -> None:
        """Contour a map so that it encloses the same volume as another."""
        values = self._values(target)
        place = round((1 - self.enclosed_fraction(source)) * len(values))
        self._linking = True
        try:
            target.iso_threshold = float(values[min(max(place, 0), len(values) - 1)])
        finally:
            self._linking = False
