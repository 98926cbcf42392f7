"""Contours of several maps that enclose the same volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.display_map import is_difference

if TYPE_CHECKING:
    from napari.layers import Image

__all__ = ["LinkedContours"]

_MOST_SORTED = 500_000
_DIFFERENCE = 0.5  # of the maps' contour: what differs by less does not matter to it


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
        """Let every contour stand by itself."""
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
