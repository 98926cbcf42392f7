"""A lens on the sphere: the density of views and in-plane angles around one pose, at its true width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from napari_cryosphere.so3.distributions import PoseDistribution

__all__ = ["HALF_DEGREES", "LENS_PIXELS", "Lens", "lens_place", "look_through"]

HALF_DEGREES = 15.0
"""From the middle of the lens to its edge."""
LENS_PIXELS = 241
"""Rows and columns of the density: steps of an eighth of a degree."""
_BLUR_SPACINGS = 0.65
"""Standard deviation of the Gaussian that each cell is drawn as, over the spacing of its grid: at 0.45
contours show the cells; normal peaks get 5 per cent wider."""
_DIAL_BINS = 360  # a degree each


@dataclass(frozen=True, eq=False)
class Lens:
    """What is seen around one pose.

    - ``centre``, ``(3, 3)``: the pose in the middle.
    - ``density``: ``(n, n)`` of views, over the uniform one, on an equal-area map: the map's z axis
      is up and rot grows to the left, as on the sphere.
    - ``share``: the part of the distribution whose views are inside.
    - ``twist``, ``(360,)``: the probability of turning from the pose about the optical axis by
      whole degrees, 0 first, of poses whose view is inside; its sum is 1, or 0 where there are
      none.
    """

    centre: NDArray[np.float64]
    density: NDArray[np.float64]
    share: float
    twist: NDArray[np.float64]

    @property
    def twist_sigma_degrees(self) -> float:
        """The standard deviation of turns about the optical axis, about the pose's own angle."""
        degrees = (np.arange(_DIAL_BINS) + 180) % 360 - 180.0
        return float(np.sqrt((self.twist * degrees**2).sum()))


def look_through(distribution: PoseDistribution, centre: ArrayLike) -> Lens:
    """Return what is seen around a pose ``(3, 3)`` of a batch of one; takes some tenths of a second.

    Poses are those of the fine cells, see `PoseDistribution.fine_cells`, each spread by a Gaussian
    narrower than its cell.
    """
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    from napari_cryosphere.so3.grid import SO3Grid
    from napari_cryosphere.so3.symmetry import point_group

    pose, cells = np.asarray(centre, dtype=np.float64), distribution.fine_cells()
    orders, _ = cells.leaves()
    there = cells.indices[0] >= 0
    masses, centres = cells.probability[0, there], cells.centres[0][there]
    group = np.asarray(point_group(cells.symmetry))
    density = np.zeros((LENS_PIXELS, LENS_PIXELS))
    twist, share = np.zeros(_DIAL_BINS), 0.0
    edges = np.linspace(-1, 1, LENS_PIXELS + 1) * _radius(HALF_DEGREES)
    pixel = 2 * HALF_DEGREES / LENS_PIXELS
    for order in np.unique(orders[masses > 0]):
        here = (orders == order) & (masses > 0)
        poses = (group[:, None] @ centres[here]).reshape(-1, 3, 3)
        weights = np.tile(masses[here] / len(group), len(group))
        near = poses[:, :, 2] @ pose[:, 2] > np.cos(np.radians(1.5 * HALF_DEGREES))
        poses, weights = poses[near], weights[near]
        across, up = lens_place(poses[:, :, 2], pose).T
        counted = np.histogram2d(-up, across, (edges, edges), weights=weights)[0]
        blur = _BLUR_SPACINGS * SO3Grid(int(order)).spacing_degrees
        density += gaussian_filter(counted, blur / pixel, mode="constant")
        share += float(counted.sum())
        inside = (np.abs(across) < edges[-1]) & (np.abs(up) < edges[-1])
        turned = np.rint(_twist_degrees(pose, poses[inside])).astype(int) % _DIAL_BINS
        counted = np.bincount(turned, weights[inside], _DIAL_BINS)
        twist += gaussian_filter1d(counted, blur, mode="wrap")
    area = (edges[1] - edges[0]) ** 2 / (4 * np.pi)  # of a pixel, as a share of the sphere
    return Lens(pose, density / area, share * len(group), twist / max(twist.sum(), 1e-30))


def lens_place(directions: ArrayLike, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where directions ``(..., 3)`` are in the lens, ``(..., 2)``: to the right, and up.

    Lambert's equal-area projection: near the middle the distance is the angle in radians.
    """
    z = centre[:, 2]
    pole = np.array([0.0, 0.0, 1.0]) if abs(z[2]) < 1 - 1e-9 else np.array([-1.0, 0.0, 0.0])
    right = np.cross(pole, z)
    left = right / np.linalg.norm(right)  # rot grows towards it
    up = np.cross(z, left)
    given = np.asarray(directions, dtype=np.float64)
    stretch = np.sqrt(2 / np.maximum(1 + given @ z, 1e-9))
    return np.stack([-(given @ left) * stretch, (given @ up) * stretch], axis=-1)


def _radius(degrees: float) -> float:
    """Return the distance from the middle at an angle from the centre, see `lens_place`."""
    return float(2 * np.sin(np.radians(degrees) / 2))


def _twist_degrees(pose: NDArray[np.float64], poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the part of the way from a pose to others that is about the optical axis, -180 to 180.

    RELION's psi grows by it where the view is the same.
    """
    way = pose.T @ poses
    return np.degrees(np.arctan2(way[:, 1, 0] - way[:, 0, 1], way[:, 0, 0] + way[:, 1, 1]))
