"""A map's voxels as they are shown in 3D."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.layer_data import contour_levels

if TYPE_CHECKING:
    from napari.layers import Image, Layer

__all__ = [
    "LOW_PASSED",
    "RESOLUTION",
    "UNIT",
    "ShownMap",
    "contour_mesh",
    "in_standard_deviations",
    "is_difference",
    "reach_angstrom",
]

RESOLUTION = "cryosphere_resolution_angstrom"
"""Where a map layer's metadata may hold the resolution down to which it is shown."""

LOW_PASSED = "cryosphere_low_passed"
"""Where they may hold the voxels low-passed to that, made where it keeps no window waiting."""

UNIT = "cryosphere_difference_unit"
"""Where a difference's metadata hold the standard deviation of the map that it was made from, as shown."""


_MOST_CROSSED = 1_000_000
"""Pairs of neighbours on both sides of a contour, up to which each voxel counts: noise alone of 128
voxels has 600,000, and nearly as many faces."""
_BRIGHTNESS = 0.8  # of a mesh, seen on a black and on a white canvas; chosen, not tuned


def is_difference(layer: Layer) -> bool:
    """Return whether a layer is a difference map."""
    return UNIT in layer.metadata


def in_standard_deviations(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the voxels in standard deviations from their mean: maps then share one scale."""
    spread = float(voxels.std())
    return ((voxels - voxels.mean()) / (spread if spread > 0 else 1.0)).astype(np.float32)


def reach_angstrom(layer: Image) -> float:
    """Return how far from the middle a map's density reaches: 98 % of what lies above its contour."""
    voxels, size = np.asarray(layer.data), float(layer.scale[-1])
    solid = np.argwhere(voxels > layer.iso_threshold)
    if not len(solid):
        return voxels.shape[0] / 2 * size
    distances = np.linalg.norm(solid - (np.array(voxels.shape) - 1) / 2, axis=1) * size
    return max(float(np.percentile(distances, 98)), size)


def contour_mesh(
    voxels: NDArray[np.float32], level: float
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Return a map's contour as triangles; coarser ones where there would be very many.

    Returns vertices, ``(n, 3)`` voxels along ``[z, y, x]``, faces, ``(m, 3)``, and brightness
    ``(n,)``, 0 to 1. Of a contour that encloses nothing there is one face without area.
    """
    from skimage.measure import marching_cubes

    inside = voxels > level
    if not 0 < int(inside.sum()) < inside.size:
        return np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32), np.ones(3, np.float32)
    crossed = sum(int((inside != np.roll(inside, 1, axis)).sum()) for axis in range(3))
    step = 1 + int(np.sqrt(crossed / _MOST_CROSSED))
    vertices, faces, _, _ = marching_cubes(np.asarray(voxels), level, step_size=step)
    return vertices, faces, np.full(len(vertices), _BRIGHTNESS, np.float32)


class ShownMap:
    """A map layer while it is shown: in standard deviations, low-passed where its resolution is known.

    A difference is shown in the standard deviations of the map that it was made from, zero at zero.

    ``layer``: the layer; its voxels, contour and contrast limits are exchanged.
    """

    def __init__(self, layer: Image) -> None:
        self.layer = layer
        self._voxels = layer.data
        self._translate = layer.translate.copy()
        self._contrast = (list(layer.contrast_limits_range), list(layer.contrast_limits))
        voxels = np.asarray(layer.data, dtype=np.float32)
        self._mean, self._spread = float(voxels.mean()), float(voxels.std()) or 1.0
        if is_difference(layer):
            self._mean, self._spread = 0.0, layer.metadata[UNIT]
        contour = (layer.iso_threshold - self._mean) / self._spread
        resolution = layer.metadata.get(RESOLUTION)
        if LOW_PASSED in layer.metadata:
            voxels = layer.metadata[LOW_PASSED]
        elif resolution is not None:
            from napari_cryosphere.reconstruction.filters import low_passed

            voxels = low_passed(voxels, float(layer.scale[-1]), resolution)
        shown = voxels / self._spread if is_difference(layer) else in_standard_deviations(voxels)
        _, top = contour_levels(shown)
        layer.data = shown
        layer.contrast_limits_range = (float(shown.min()), max(float(shown.max()), top))
        layer.contrast_limits = (0.0, max(top, contour + 0.5))
        layer.iso_threshold = contour

    def centre_on(self, other: Image) -> None:
        """Lay the map's centre, voxel n // 2, on another's."""
        centres = [layer.data.shape[0] // 2 * layer.scale for layer in (self.layer, other)]
        self.layer.translate = other.translate + centres[1] - centres[0]

    def restore(self) -> None:
        """Give the layer its own voxels and place back, contoured where it was left."""
        contour = self.layer.iso_threshold * self._spread + self._mean
        self.layer.data = self._voxels
        self.layer.translate = self._translate
        self.layer.contrast_limits_range, self.layer.contrast_limits = self._contrast
        self.layer.iso_threshold = contour
