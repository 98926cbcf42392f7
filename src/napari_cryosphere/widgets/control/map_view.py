"""Maps next to each other, as surfaces or slices; afterwards the viewer is as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.control.flat_guard import show_flat
from napari_cryosphere.widgets.control.slice_view import SliceView, fit_names
from napari_cryosphere.widgets.control.surface_view import SurfaceView
from napari_cryosphere.widgets.state.display_map import ShownMap, is_difference, reach_angstrom
from napari_cryosphere.widgets.state.layer_data import KEY, contour_levels

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_cryosphere.particles import DensityMap

__all__ = ["MOST_MAPS", "LinkedContours", "MapView", "ViewerState"]

MOST_MAPS = 6  # next to each other: as many as the states have colours

_ANGLES = (10.0, -25.0, 75.0)

_MOST_SORTED = 500_000
_DIFFERENCE = 0.5  # of the maps' contour: what differs by less does not matter to it


class MapView:
    """Shows up to six maps, each in its own part of the canvas, turning together.

    Voxels are shown in standard deviations from the mean. Contours are linked, see
    `LinkedContours`. Maps of different boxes are laid centre on centre.

    ``viewer``: the viewer; nothing is changed in it before `show`, and everything is set back by
    `leave`.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._state: ViewerState | None = None
        self._layers: list[Image] = []
        self._shown: dict[Image, ShownMap] = {}
        self.contours = LinkedContours()
        self.slices = SliceView(viewer)
        self.surfaces = SurfaceView(viewer)

    @property
    def active(self) -> bool:
        """Whether maps are shown."""
        return self._state is not None

    @property
    def sliced(self) -> bool:
        """Whether they are shown as slices."""
        return bool(self.slices.layers)

    @property
    def layers(self) -> tuple[Image, ...]:
        """The maps that are shown."""
        return tuple(self._layers)

    def show(self, layers: Sequence[Image], slices: bool = False) -> None:
        """Show these maps, and only these; a second call exchanges them. The first one's contour leads.

        Raises `ValueError` if there are none or more than six.
        """
        if not 1 <= len(layers) <= MOST_MAPS:
            raise ValueError(f"one to {MOST_MAPS} maps can be shown, not {len(layers)}")
        new_view = self._state is None or self.sliced or len(layers) != len(self._layers)
        if self._state is None:
            self._state = ViewerState.of(self._viewer)
        # napari lays its canvas out once, and not again for each layer that comes or goes
        with self._viewer.layers.batched_update():
            self._exchange(layers, slices, self._state)
        if new_view and not slices:
            self._frame()

    def _exchange(self, layers: Sequence[Image], slices: bool, state: ViewerState) -> None:
        """Show these maps in place of those that are shown."""
        self.contours.unlink()
        (self.surfaces if slices else self.slices).remove()
        self._layers = list(layers)
        for layer in [layer for layer in self._shown if layer not in layers]:
            self._give_back(layer)
        for layer in layers:
            self._shown[layer] = self._shown.get(layer) or ShownMap(layer)
            self._shown[layer].centre_on(layers[0])
        self.contours.link(layers)
        self._viewer.canvas.overlays.scale_bar.visible = True
        if slices:
            self._show_slices(state)
        else:
            self._show_surfaces()

    def _show_surfaces(self) -> None:
        viewer, number = self._viewer, len(self._layers)
        for layer in viewer.layers:
            layer.visible = layer in self.surfaces.layers
        viewer.dims.ndisplay = 3
        self.surfaces.show(self._layers)
        grid = viewer.canvas.grid
        grid.shape, grid.stride, grid.enabled = (1, number), 1, number > 1
        fit_names(self.surfaces.layers, viewer)
        # whose contour the layer controls then offer
        viewer.layers.selection.active = [
            layer for layer in self._layers if not is_difference(layer)
        ][-1]

    def _show_slices(self, state: ViewerState) -> None:
        viewer = self._viewer
        viewer.dims.ndisplay = 2
        viewer.dims.order = tuple(range(viewer.dims.ndim))
        for layer in viewer.layers:
            # visible may be particles that came while maps were shown in 3D
            if layer.visible and layer not in self.slices.layers:
                state.visible.setdefault(layer, layer not in self._layers)
                layer.visible = False
        self.slices.show(self._layers)

    def replace(self, layer: Image, density: DensityMap) -> None:
        """Give a map layer other voxels on the same grid; one that is shown keeps its contour."""
        in_view, contour = layer in self._shown, layer.iso_threshold
        if in_view:
            self.contours.unlink()
            self._give_back(layer)
        threshold, top = contour_levels(density.voxels)
        layer.metadata = {**layer.metadata, KEY: density}
        layer.data = density.voxels
        layer.contrast_limits_range = (
            float(density.voxels.min()),
            max(float(density.voxels.max()), top),
        )
        layer.contrast_limits = (min(0.0, threshold), top)
        layer.iso_threshold = threshold
        if in_view:
            self._shown[layer] = ShownMap(layer)
            self._shown[layer].centre_on(self._layers[0])
            layer.iso_threshold = contour
            self.contours.link(self._layers)
            self.slices.refresh()
            self.surfaces.refresh(layer)

    def _give_back(self, layer: Image) -> None:
        """Give a layer its own voxels back."""
        shown = self._shown.pop(layer, None)
        if shown is not None:
            shown.restore()

    def _frame(self) -> None:
        """Turn the camera to the maps, as large as their contours allow from any side."""
        camera, layer = self._viewer.scene.camera, self._layers[0]
        middle = np.asarray(layer.extent.world).mean(axis=0)[-3:]
        cell = min(self._viewer.canvas.viewbox_size(self._viewer.layers))
        camera.angles, camera.center = _ANGLES, tuple(middle)
        camera.zoom = cell / (2.5 * reach_angstrom(layer))

    def leave(self) -> None:
        """Leave the viewer as it was found."""
        # layers that go tell others, who may ask for this again
        state, self._state = self._state, None
        if state is None:
            return
        self.contours.unlink()
        with self._viewer.layers.batched_update():
            self.slices.remove()
            self.surfaces.remove()
            shown, self._layers = self._layers, []
            for layer in shown:
                layer.visible = False
                self._give_back(layer)
            state.restore(self._viewer, [layer for layer in shown if layer in self._viewer.layers])

    def forget(self, layer: Layer) -> None:
        """Take note that a layer was removed: the others stay; without any the mode is left."""
        if layer not in self._layers:
            return
        self.contours.unlink()
        self._layers.remove(layer)
        self._give_back(layer)
        if any(not is_difference(left) for left in self._layers):
            self.show(self._layers, self.sliced)
        else:
            self.leave()


@dataclass
class ViewerState:
    """Dimensions, camera, grid, scale bar and the layers' visibility."""

    ndisplay: int
    order: tuple[int, ...]
    point: tuple[float, ...]
    camera: tuple[Any, float, Any]
    grid: tuple[bool, tuple[int, int], int, float]
    scale_bar: bool
    visible: dict[Layer, bool]
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
                show_flat(layer, self.visible[layer])
        viewer.canvas.overlays.scale_bar.visible = self.scale_bar
        camera = viewer.scene.camera
        camera.center, camera.zoom, camera.angles = self.camera
        if self.active in viewer.layers:
            viewer.layers.selection.active = self.active


class LinkedContours:
    """Moves the other maps' contours when one is moved.

    Maps are matched by the volume that their contours enclose, which asks nothing of their noise. A
    difference map is contoured at half the level of the map that it was made from.
    """

    def __init__(self) -> None:
        self._layers: list[Image] = []
        self._sorted: dict[Image, NDArray[np.float32]] = {}
        self._linking = False

    def link(self, layers: Sequence[Image]) -> None:
        """Link these maps and no others; the first map's contour stays."""
        self.unlink()
        self._layers = list(layers)
        for layer in self._layers:
            layer.events.iso_threshold.connect(self._on_threshold)
        if self._layers:
            self._follow(self._layers[0])

    def unlink(self) -> None:
        """Unlink the contours."""
        for layer in self._layers:
            layer.events.iso_threshold.disconnect(self._on_threshold)
        self._layers, self._sorted = [], {}

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

    def _on_threshold(self, event: Any) -> None:
        if not self._linking:
            self._follow(event.source)

    def _follow(self, source: Image) -> None:
        """Contour the other maps as one is contoured."""
        if is_difference(source):
            return
        fraction = self.enclosed_fraction(source)
        self._linking = True
        try:
            for other in self._layers:
                if is_difference(other):
                    other.iso_threshold = _DIFFERENCE * source.iso_threshold
                elif other != source:
                    values = self._values(other)
                    place = round((1 - fraction) * len(values))
                    other.iso_threshold = float(values[min(max(place, 0), len(values) - 1)])
        finally:
            self._linking = False
