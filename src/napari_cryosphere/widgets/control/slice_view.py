"""Three orthogonal slices of one or more maps, at one contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.display_map import is_difference, reach_angstrom

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from napari.utils.colormaps import Colormap

__all__ = ["PLANES", "SliceView", "fit_names"]

PLANES = ("xy", "xz", "yz")
"""Planes by the array axis normal to them: z, y, x."""

_CONTRAST_PERCENTILES = (1.0, 99.8)
_FONT_SIZES = (6.0, 10.0)  # least and most, in points
_CHARACTER = 1.1  # pixels wide at most, by points of the font
_MARGIN = 1.3  # around the density


def difference_colormap() -> Colormap:
    """Return blue for less, orange for more, and the canvas's black for no difference."""
    from napari.utils.colormaps import Colormap

    return Colormap([[0.35, 0.65, 1, 1], [0, 0, 0, 1], [1, 0.6, 0.2, 1]], name="blue-black-orange")


def fit_names(layers: Sequence[Layer], viewer: ViewerModel) -> None:
    """Show the names of layers in one size, in which the longest fits its part of the canvas."""
    width = float(viewer.canvas.viewbox_size(viewer.layers)[1])
    size = 0.95 * width / (_CHARACTER * max([1, *(len(layer.name) for layer in layers)]))
    for layer in layers:
        layer.name_overlay.font_size = min(max(size, _FONT_SIZES[0]), _FONT_SIZES[1])
        layer.name_overlay.visible = True


class SliceView:
    """A row of slices a map, in napari's grid: layers of its own, which come and go with it.

    Voxels must share one scale (standard deviations): all rows share the first row's contrast
    limits, and differences show half as much to either side of zero, negative in blue and positive
    in orange. The centre of every map, voxel n // 2, is the centre of its slices.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._maps: list[Image] = []
        self._layers: list[list[Image]] = []
        self.offset_angstrom = 0.0

    @property
    def layers(self) -> list[Image]:
        """The slices' layers, map by map."""
        return [layer for row in self._layers for layer in row]

    @property
    def reach_angstrom(self) -> float:
        """How far from the centre slices may lie."""
        if not self._maps:
            return 0.0
        return min((layer.data.shape[0] // 2 - 1) * float(layer.scale[-1]) for layer in self._maps)

    def show(self, maps: Sequence[Image]) -> None:
        """Show the slices of these maps and no others."""
        viewer = self._viewer
        self._unlink(self.layers)
        self._take_out(min(self._number_whole(), len(maps)))
        for source, row in zip(maps, self._layers, strict=False):
            for axis, layer in enumerate(row):
                self._fill(layer, source, axis)
        for source in maps[len(self._layers) :]:
            self._layers.append([self._add(source, axis) for axis in range(3)])
        self._maps = list(maps)
        for layer in self.layers:
            if not layer.visible:
                layer.visible = True
        self._set_contrast()
        grid = viewer.canvas.grid
        grid.shape, grid.stride, grid.enabled = (len(maps), 3), 1, True
        fit_names(self.layers, viewer)
        self._frame()

    def _number_whole(self) -> int:
        """Return how many of the first rows have all their layers, none of them deleted by hand."""
        whole = [all(layer in self._viewer.layers for layer in row) for row in self._layers]
        return [*whole, False].index(False)

    def _add(self, source: Image, axis: int) -> Image:
        """Add the layer of one slice."""
        options: dict[str, Any] = {"units": ("angstrom",) * 2, "interpolation2d": "linear"}
        options |= _options(source, axis) | {"colormap": _colormap(source)}
        layer: Image = self._viewer.add_image(self._slice(source, axis), **options)
        return layer

    def _fill(self, layer: Image, source: Image, axis: int) -> None:
        """Let the layer of a slice show another map: to add one takes napari a third of a second."""
        layer.data = self._slice(source, axis)
        for name, value in _options(source, axis).items():
            if not np.array_equal(getattr(layer, name), value):
                setattr(layer, name, value)
        layer.colormap = _colormap(source)

    def _slice(self, source: Image, axis: int) -> NDArray[np.float32]:
        """Return a map's slice at the offset, across one of its axes."""
        voxels = np.asarray(source.data)
        steps = round(self.offset_angstrom / float(source.scale[-1]))
        plane: NDArray[np.float32] = voxels.take(
            min(max(len(voxels) // 2 + steps, 0), len(voxels) - 1), axis=axis
        )
        return plane

    def _set_contrast(self) -> None:
        """Give all maps the first one's contrast limits, and link them."""
        planes = [np.asarray(layer.data) for layer in self._layers[0]]
        low, high = np.percentile(
            np.concatenate([plane.ravel() for plane in planes]), _CONTRAST_PERCENTILES
        )
        if not high > low:
            low, high = float(low) - 1, float(low) + 1
        for difference in (False, True):
            rows = zip(self._maps, self._layers, strict=True)
            chosen = [
                layer
                for source, row in rows
                if is_difference(source) is difference
                for layer in row
            ]
            limits = (-high / 2, high / 2) if difference else (low, high)
            for layer in chosen:
                layer.contrast_limits_range = (min(limits[0], -high), 2 * high)
                layer.contrast_limits = limits
            if chosen:
                self._viewer.layers.link_layers(chosen, ("contrast_limits", "colormap", "gamma"))

    def _frame(self) -> None:
        """Turn the camera to the slices, as large as their cells allow."""
        field = max(2 * reach_angstrom(layer) for layer in self._maps)
        camera = self._viewer.scene.camera
        camera.center = (0.0, 0.0, 0.0)
        camera.zoom = min(self._viewer.canvas.viewbox_size(self._viewer.layers)) / (_MARGIN * field)

    def move(self, offset_angstrom: float) -> None:
        """Show the slices at a distance from the centre, along the axis normal to each."""
        reach = self.reach_angstrom
        self.offset_angstrom = float(np.clip(offset_angstrom, -reach, reach))
        self.refresh()

    def refresh(self) -> None:
        """Read the slices from their maps again."""
        for source, row in zip(self._maps, self._layers, strict=True):
            for axis, layer in enumerate(row):
                if layer in self._viewer.layers:
                    layer.data = self._slice(source, axis)

    def remove(self) -> None:
        """Take the slices out of the viewer."""
        self._take_out(0)

    def _take_out(self, first: int) -> None:
        """Take the rows from one on out of the viewer."""
        layers = [layer for row in self._layers[first:] for layer in row]
        del self._layers[first:], self._maps[first:]
        for layer in self._unlink(layers):
            self._viewer.layers.remove(layer)

    def _unlink(self, layers: Sequence[Image]) -> list[Layer]:
        """Unlink layers, and return those that nobody has deleted by hand."""
        left: list[Layer] = [layer for layer in layers if layer in self._viewer.layers]
        if left:
            self._viewer.layers.unlink_layers(left)
        return left


def _options(source: Image, axis: int) -> dict[str, Any]:
    """Return name and place of a slice."""
    size = float(source.scale[-1])
    return {
        "name": f"{PLANES[axis]}  {source.name}",
        "scale": (size, size),
        "translate": (-(source.data.shape[0] // 2) * size,) * 2,
    }


def _colormap(source: Image) -> Colormap | str:
    return difference_colormap() if is_difference(source) else "gray"
