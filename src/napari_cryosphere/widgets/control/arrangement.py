"""The chosen particles' pictures on the canvas: placed next to each other, and the view fitted to them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.canvas_layout import LINE, Place, arrange, particle_side

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Points

__all__ = ["NAMED", "Arrangement"]

NAMED = ("particle", "projection", "residual")
"""Pictures that have a name above them; a layer of points at the place ``names`` writes them."""

_MARGIN = 0.02
"""Around all pictures, as a fraction of the canvas."""
_FONT_SIZES = (5.0, 10.0)  # least and most of names, in points
_CHARACTER = 1.0  # pixels wide at most, by points of the font, with the space to the next name
_LINE_PIXELS = 38.0
"""Height of napari's line of text in a corner of the canvas."""


class Arrangement:
    """Places pictures by name (see `arrange`), and places them again when the canvas changes its shape.

    The view follows the canvas's size until the user moves it.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._particle: weakref.ref[Image] | None = None
        self._pictures: dict[str, weakref.ref[Layer]] = {}
        self._fitted: tuple[Any, ...] | None = None
        viewer.canvas.events.size.connect(self._on_size)

    def close(self) -> None:
        """Let go of the viewer."""
        self._viewer.canvas.events.size.disconnect(self._on_size)

    def choose(self, particle: Image) -> None:
        """Arrange the pictures of other particles from now on."""
        if self._particle is None or self._particle() is not particle:
            self._particle, self._pictures = weakref.ref(particle), {}

    def put(self, **pictures: Layer) -> None:
        """Take pictures next to the particle, by the names of their places.

        The view is fitted to all of them if a picture has come; those that are no longer in the viewer
        are forgotten.
        """
        _, before = self._shown()
        self._pictures |= {name: weakref.ref(layer) for name, layer in pictures.items()}
        if pictures.keys() <= before.keys():
            self._place()
        else:
            self.fit()

    def fit(self) -> None:
        """Place all pictures and fit the view to them, and to the places of those that are to come."""
        placed = self._place()
        if any(layer.visible for layer in placed):
            self._viewer.reset_view(layers=placed, margin=_MARGIN)
            self._leave_line(placed)
            self._fitted = self._camera()

    def _leave_line(self, placed: list[Layer]) -> None:
        """Leave room below the pictures for the line that names the particle."""
        camera, height = self._viewer.scene.camera, self._viewer.canvas.size[0]
        rows = np.concatenate([layer.extent.world[:, -2] for layer in placed])
        span = float(np.ptp(rows))
        camera.zoom = min(camera.zoom, max(height - _LINE_PIXELS, 1) / span)
        below = (height - span * camera.zoom) / 2
        if below < _LINE_PIXELS:
            depth, row, column = camera.center
            camera.center = (depth, row + (_LINE_PIXELS - below) / camera.zoom, column)

    def _place(self) -> list[Layer]:
        """Place all pictures; returns them and the particles' layer."""
        particle, shown = self._shown()
        if particle is None or self._viewer.dims.ndisplay != 2:
            return []
        rows, width = self._viewer.canvas.size
        height = max(rows - _LINE_PIXELS, 1.0)
        places = arrange(width, height, "projection" in shown, "sphere" in shown)
        for name, layer in shown.items():
            if name == "names":
                pixels = particle_side(places, width, height)
                _place_names(layer, [places[picture] for picture in NAMED], particle, pixels)
            else:
                _place(layer, places[name], particle)
        return [particle, *shown.values()]

    def _shown(self) -> tuple[Image | None, dict[str, Layer]]:
        """Return the particles' layer and the pictures that are in the viewer."""
        layers = self._viewer.layers
        particle = None if self._particle is None else self._particle()
        if particle is None or particle not in layers:
            return None, {}
        pictures = {name: layer() for name, layer in self._pictures.items()}
        return particle, {
            name: layer for name, layer in pictures.items() if layer is not None and layer in layers
        }

    def _camera(self) -> tuple[Any, ...]:
        camera = self._viewer.scene.camera
        return (*camera.center, camera.zoom)

    def _on_size(self, event: Any = None) -> None:
        particle, _ = self._shown()
        if particle is not None and particle.visible and self._fitted == self._camera():
            self.fit()


def _corner_and_side(particle: Image) -> tuple[NDArray[np.float64], float]:
    """Return the particle's upper left corner in the viewer's world, ``(2,)``, and its side."""
    pixel = float(particle.scale[-1])
    corner = np.asarray(particle.translate, dtype=float)[-2:] - pixel / 2
    return corner, particle.data.shape[-1] * pixel


def _place_names(layer: Points, places: list[Place], particle: Image, side_pixels: float) -> None:
    """Move names, written down and to the right of points, above pictures, and fit them to these.

    The particle is ``side_pixels`` wide on the canvas.
    """
    room = min(place.width / len(name) for place, name in zip(places, NAMED, strict=True))
    size = min(max(side_pixels * room / _CHARACTER, _FONT_SIZES[0]), _FONT_SIZES[1])
    if layer.text.size != size:
        layer.text.size = size
    corner, side = _corner_and_side(particle)
    layer.data = corner + side * np.array([(place.top - LINE, place.left) for place in places])


def _place(layer: Image, place: Place, particle: Image) -> None:
    """Move and scale a picture to its place next to the particle."""
    corner, side = _corner_and_side(particle)
    rows, columns = layer.data.shape[1:3] if layer.ndim == 3 else layer.data.shape[:2]
    scale = side * np.array([place.height / rows, place.width / columns])
    translate = corner + side * np.array([place.top, place.left]) + scale / 2
    before = layer.ndim - 2
    layer.scale = (*layer.scale[:before], *scale)
    layer.translate = (*layer.translate[:before], *translate)
