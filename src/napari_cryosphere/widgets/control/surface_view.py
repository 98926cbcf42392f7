"""Contours of one or more maps in 3D, as meshes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cryosphere.widgets.state.display_map import contour_mesh
from napari_cryosphere.widgets.state.layer_data import state_of
from napari_cryosphere.widgets.state.particle_states import state_colour

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Surface
    from napari.utils.colormaps import Colormap

__all__ = ["SurfaceView"]


class SurfaceView:
    """One mesh per map, in napari's grid: layers of its own, which come and go with it.

    They follow the maps' contours. napari's volume rendering looks at every voxel along every pixel's
    ray again in each frame, which takes seconds without a graphics card; a mesh takes tenths.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._surfaces: dict[Image, Surface] = {}

    @property
    def layers(self) -> list[Surface]:
        """The meshes' layers."""
        return list(self._surfaces.values())

    def show(self, maps: Sequence[Image]) -> None:
        """Show the contours of these maps and no others, in this order."""
        layers = self._viewer.layers
        kept = {one: mesh for one, mesh in self._surfaces.items() if mesh in layers}
        if list(kept) != list(maps)[: len(kept)]:
            kept = {}
        for one in [one for one in self._surfaces if one not in kept]:
            self._take_out(one)
        for one in maps:
            if one in kept:
                kept[one].translate = one.translate
            else:
                self._surfaces[one] = self._add(one)
                one.events.iso_threshold.connect(self._on_contour)

    def _add(self, source: Image) -> Surface:
        """Add the layer of a map's contour."""
        options: dict[str, Any] = {
            "name": f"3D  {source.name}",
            "scale": source.scale,
            "translate": source.translate,
            "units": source.units,
            "colormap": self._colormap(source),
            "contrast_limits": (0.0, 1.0),
            "shading": "smooth",
        }
        contour = contour_mesh(source.data, source.iso_threshold)
        layer: Surface = self._viewer.add_surface(contour, **options)
        return layer

    def _colormap(self, source: Image) -> Colormap | str:
        """Return the colours of a map: those of its state, where it is one of several's."""
        from napari.utils.colormaps import Colormap

        state = state_of(source.name, [layer.name for layer in self._viewer.layers])
        if state is None:
            return str(source.colormap.name)
        lit = np.array(state_colour(state)) / 255
        return Colormap([[0, 0, 0, 1], [*lit, 1]], name=f"state {state}")

    def refresh(self, source: Image) -> None:
        """Draw the contour of a map again: it was moved, or the map has other voxels."""
        mesh = self._surfaces.get(source)
        if mesh is not None and mesh in self._viewer.layers:
            mesh.data = contour_mesh(source.data, source.iso_threshold)

    def _on_contour(self, event: Any) -> None:
        self.refresh(event.source)

    def remove(self) -> None:
        """Take the meshes out of the viewer."""
        for one in list(self._surfaces):
            self._take_out(one)

    def _take_out(self, source: Image) -> None:
        source.events.iso_threshold.disconnect(self._on_contour)
        mesh = self._surfaces.pop(source)
        if mesh in self._viewer.layers:
            self._viewer.layers.remove(mesh)
