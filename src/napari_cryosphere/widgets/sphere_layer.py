"""The sphere of poses beside the particle: a layer whose pictures are drawn when they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.flat_guard import keep_flat
from napari_cryosphere.widgets.lazy_frames import LazyFrames
from napari_cryosphere.widgets.predictions import PredictionStore

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

__all__ = [
    "CROSS_COLOUR",
    "HEIGHT",
    "RING_COLOUR",
    "WIDTH",
    "PredictionStore",
    "SphereFrames",
    "add_sphere_layer",
]

HEIGHT, WIDTH = 256, 512
"""Size of a picture; about as large as a window of 1400 pixels shows it."""

_ORDER = 4
"""HEALPix order of the drawing: cells of 3.7 degrees, finer than what degree-6 harmonics can tell apart."""

RING_COLOUR = (255, 255, 255)
CROSS_COLOUR = (255, 226, 122)
_RADIUS = 10.0  # of the marks, in pixels
_GAP = 0.06  # between particle and sphere, as a part of the particle's height


class SphereFrames(LazyFrames):
    """One picture a particle, ``(n, 256, 512, 4)`` uint8 RGBA.

    The distribution where it is predicted, an empty grey sphere where not; a ring at the predicted view and a
    cross at the known one.
    """

    def __init__(self, store: PredictionStore) -> None:
        super().__init__((store.number, HEIGHT, WIDTH, 4), np.uint8)
        self.store = store
        store.changed.connect(self._on_changed)

    def _on_changed(self, rows: slice) -> None:
        self.forget()

    def _make(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([self._draw(int(index)) for index in indices])

    def _draw(self, index: int) -> NDArray[np.uint8]:
        from napari_cryosphere.so3.mollweide import draw_cross, draw_ring, rasterise

        distribution = self.store.distribution(index)
        if distribution is None:
            picture = rasterise(np.zeros((12, 6)), HEIGHT, WIDTH)
        else:
            picture = rasterise(distribution.probability_grid(_ORDER)[0], HEIGHT, WIDTH)
        known, predicted = self.store.known_rotation(index), self.store.rotation(index)
        if predicted is not None:
            draw_ring(picture, predicted[:, 2], RING_COLOUR, _RADIUS)
        if known is not None:
            draw_cross(picture, known[:, 2], CROSS_COLOUR, _RADIUS - 2)
        return picture


def add_sphere_layer(viewer: ViewerModel, particle_layer: Image, store: PredictionStore) -> Image:
    """Add the spheres of a particle layer to the right of the particle, as tall as it is.

    The view is fitted to both, and the particle layer stays the selected one.
    """
    box = particle_layer.data.shape[-1]
    pixel = float(particle_layer.scale[-1])
    scale = box * pixel / HEIGHT
    corner = np.asarray(particle_layer.translate) - np.array([0, pixel / 2, pixel / 2])
    translate = corner + np.array([0, scale / 2, scale / 2 + box * pixel * (1 + _GAP)])
    options: dict[str, Any] = {
        "name": f"{particle_layer.name} poses",
        "rgb": True,
        "multiscale": False,
        "scale": (particle_layer.scale[0], scale, scale),
        "translate": translate,
        "units": particle_layer.units,
        "axis_labels": particle_layer.axis_labels,
        "interpolation2d": "linear",
        "visible": particle_layer.visible,
    }
    keep_flat(viewer)
    active = viewer.layers.selection.active
    layer: Image = viewer.add_image(SphereFrames(store), **options)
    viewer.layers.selection.active = particle_layer if active is None or active is layer else active
    viewer.reset_view()
    return layer
