"""A map's surface as points with normals, and its picture from any side: in memory, without OpenGL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.widgets.state.layer_data import contour_levels

if TYPE_CHECKING:
    from napari_cryosphere.particles import DensityMap

__all__ = ["Surface", "draw_surface", "surface_of"]

_MOST_VOXELS = 64
"""Voxels along the side of a map before its surface is taken: some 5,000 points, a picture in 5 ms."""
_SMOOTH_VOXELS = 1.0  # standard deviation, before normals are taken: at 0.5 single voxels are seen
_LIGHT = np.array(
    [-0.4, -0.55, -0.73]
)  # towards it, in the image's frame: from above, left, and in front
_DARKEST = 0.25  # shade of what faces away, of 1; chosen, not tuned
_COLOUR = np.array([178, 190, 210])
_NEARER = 0.3  # how much darker the farthest points are
_REACH = 0.46  # of the picture's side, to the farthest point
_SPLAT = 0.8  # half the side of a point's square, in voxels: no holes between neighbours


@dataclass(frozen=True, eq=False)
class Surface:
    """Points of a map's contour.

    ``points``: ``(n, 3)`` x, y, z from the map's centre, voxel n // 2, over the distance of the
    farthest. ``normals``, ``(n, 3)``: unit vectors, outwards. ``spacing``: distance of neighbouring
    points, on the same scale.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    spacing: float


def surface_of(density: DensityMap) -> Surface:
    """Return the surface two standard deviations above a map's mean; large maps are made coarser first."""
    from scipy.ndimage import binary_erosion, gaussian_filter

    from napari_cryosphere.imaging.resample import map_on_grid

    voxels: NDArray[np.float32] = density.voxels
    box = density.box
    if box > _MOST_VOXELS:
        coarser = density.pixel_size_angstrom * box / _MOST_VOXELS
        voxels = map_on_grid(density, _MOST_VOXELS, coarser).numpy()
    level = contour_levels(voxels)[0]
    inside = voxels > level
    border = inside & ~binary_erosion(inside)
    at = np.argwhere(border)
    smooth = gaussian_filter(voxels, _SMOOTH_VOXELS)
    slopes = np.asarray(np.gradient(smooth))[:, border].T
    steep = np.linalg.norm(slopes, axis=-1, keepdims=True).clip(1e-12)
    outwards = -slopes / steep
    off = ((voxels[border, None] - level) / steep).clip(0, 1)  # from the voxel to the contour
    places = (at + outwards * off - voxels.shape[0] // 2)[:, ::-1]
    farthest = float(np.linalg.norm(places, axis=-1).max(initial=1.0))
    return Surface(
        (places / farthest).astype(np.float32), outwards[:, ::-1].astype(np.float32), 1 / farthest
    )


def draw_surface(surface: Surface, pose: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """Draw a surface as a particle of a pose shows it: x to the right, y down, seen along z.

    ``surface``: the surface. ``pose``: ``(3, 3)``; image to map coordinates. ``side``: of the
    picture in pixels. Returns ``(side, side, 4)`` uint8 RGBA, transparent around the map.
    """
    placed = surface.points @ pose
    order = np.argsort(-placed[:, 2])  # the nearest last: it stays
    placed = placed[order]
    lit = ((surface.normals[order] @ pose) @ (_LIGHT / np.linalg.norm(_LIGHT))).clip(0, 1)
    shade = (_DARKEST + (1 - _DARKEST) * lit) * (1 - _NEARER * (placed[:, 2] + 1) / 2)
    scale = _REACH * side
    half = max(1, round(_SPLAT * surface.spacing * scale))
    middle = np.rint(placed[:, :2] * scale + (side - 1) / 2).astype(np.int64)
    across = np.arange(-half, half + 1)
    columns = middle[:, 0, None, None] + across
    rows = middle[:, 1, None, None] + across[:, None]
    flat = (rows.clip(0, side - 1) * side + columns.clip(0, side - 1)).reshape(len(placed), -1)
    picture = np.zeros((side * side, 4), dtype=np.uint8)
    colours = np.full((len(placed), 4), 255, dtype=np.uint8)
    colours[:, :3] = shade[:, None] * _COLOUR
    picture[flat.ravel()] = np.repeat(colours, flat.shape[1], axis=0)
    return picture.reshape(side, side, 4)
