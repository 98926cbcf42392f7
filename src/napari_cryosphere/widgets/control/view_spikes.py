"""Densities of view directions as spikes around a map, in 3D."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.view_statistics import directions

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Vectors

__all__ = ["ViewSpikes", "spikes"]

_NAME = "view directions"
_START = 0.52  # of the box: just outside of what a map can fill
_LONGEST = 0.35  # of the box
_LEAST = 0.02  # of the highest density: shorter spikes are dots


def spikes(
    density: NDArray[np.float64], box: int, pixel_size_angstrom: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return spikes on a sphere around a map.

    ``density``: ``(n_views,)``; a HEALPix map in RING order. ``box``, ``pixel_size_angstrom``: of
    the map, whose centre is voxel ``box // 2``. Returns ``(k, 2, 3)`` starts and vectors in
    angstrom, axes ``[z, y, x]``, of the directions that matter, and their densities ``(k,)``.
    """
    highest = max(float(density.max()), 1e-12)
    shown = density > _LEAST * highest
    outward = directions()[shown][:, ::-1]
    width = box * pixel_size_angstrom
    centre = (box // 2) * pixel_size_angstrom
    lengths = _LONGEST * width * density[shown] / highest
    vectors = np.stack([centre + _START * width * outward, lengths[:, None] * outward], axis=1)
    return vectors, density[shown]


class ViewSpikes:
    """A layer of spikes in a viewer, there while it is wanted."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Vectors | None = None

    @property
    def shown(self) -> bool:
        """Whether the layer is there."""
        return self._layer is not None and self._layer in self._viewer.layers

    def show(self, density: NDArray[np.float64], around: Image) -> None:
        """Show densities around a map's layer, or exchange those that are shown."""
        vectors, shown = spikes(density, around.data.shape[-1], float(around.scale[-1]))
        self.hide()
        active = self._viewer.layers.selection.active
        options: dict[str, Any] = {
            "name": _NAME,
            "features": {"density": shown},
            "edge_color": "density",
            "edge_colormap": "inferno",
            "edge_contrast_limits": (0.0, max(float(shown.max()), 1e-12)),
            "edge_width": 0.012 * around.data.shape[-1] * float(around.scale[-1]),
            "vector_style": "line",
            "units": ("angstrom",) * 3,
            "translate": around.translate,
        }
        self._layer = self._viewer.add_vectors(vectors, **options)
        self._make_room(around)
        if active is not None:
            self._viewer.layers.selection.active = active

    def _make_room(self, around: Image) -> None:
        """Move the camera away, if it is too near to see the longest spikes whole."""
        canvas, camera = self._viewer.canvas, self._viewer.scene.camera
        reach = (_START + _LONGEST) * around.data.shape[-1] * float(around.scale[-1])
        camera.zoom = min(camera.zoom, min(canvas.viewbox_size(self._viewer.layers)) / (2 * reach))

    def hide(self) -> None:
        """Take the layer away."""
        if self.shown:
            self._viewer.layers.remove(self._layer)
        self._layer = None
