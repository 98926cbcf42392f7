"""The projection of a map and what it leaves of the particle, as layers below the particle. Knows no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

__all__ = ["MatchLayers"]

_GAP = 0.06  # as a part of the particle's height


class MatchLayers:
    """Two image layers of a viewer, made when they are first shown.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layers: list[Image] = []

    @property
    def shown(self) -> bool:
        """Whether the layers are there and visible."""
        return any(layer in self._viewer.layers and layer.visible for layer in self._layers)

    def show(
        self, particle: Image, projection: NDArray[np.float32], residual: NDArray[np.float32]
    ) -> None:
        """Show pictures of the particle's size, below it and to the right of that."""
        first = not self.shown
        self.remove()
        pixel = float(particle.scale[-1])
        step = projection.shape[-1] * pixel * (1 + _GAP)
        top, left = np.asarray(particle.translate, dtype=float)[-2:]
        low, high = np.percentile(projection, [0.5, 99.7])
        places = {
            "projection": (
                projection,
                (top + step, left),
                (float(low), float(max(high, low + 1e-6))),
            ),
            "residual": (residual, (top + step, left + step), tuple(particle.contrast_limits)),
        }
        selected = self._viewer.layers.selection.active
        for name, (picture, corner, limits) in places.items():
            options: dict[str, Any] = {
                "name": f"{particle.name} {name}",
                "scale": (pixel, pixel),
                "translate": corner,
                "units": ("angstrom",) * 2,
                "contrast_limits": limits,
                "colormap": "gray",
                "multiscale": False,
                "rgb": False,
            }
            self._layers.append(self._viewer.add_image(picture, **options))
        self._viewer.layers.selection.active = (
            selected if selected in self._viewer.layers else particle
        )
        if first:
            self._viewer.reset_view()

    def remove(self) -> None:
        """Take the layers away."""
        for layer in self._layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._layers = []
