"""A part of a map that turns about a hinge: particles in continuous motion, to be simulated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch import Tensor

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.fourier import shift_phases
from napari_cryosphere.imaging.map_mask import falling_edge, map_background, particle_mask
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.particles import DensityMap

__all__ = ["DomainMotion", "MovingProjector", "half_mask", "moving_part"]

_EDGE_ANGSTROM = 8.0  # of the soft edge between the halves of a map; chosen, not tuned
_TOUCH_ANGSTROM = 6.0
"""Deviation of the Gaussian by which both parts are blurred to find where they touch; chosen, not tuned."""
# sine of the angle at the hinge below which it does not say an axis; chosen, not tuned
_COLLINEAR = 0.1


@dataclass(frozen=True)
class DomainMotion:
    """A map in two parts, of which one turns.

    ``rest``, ``part``, ``(n, n, n)``: what stands still and what turns; their sum is the map.
    ``hinge_px``, ``(3,)``: a point of the axis, x y z from voxel n // 2. ``axis``, ``(3,)``: its
    direction, x y z, of length 1.
    """

    rest: NDArray[np.float32]
    part: NDArray[np.float32]
    hinge_px: NDArray[np.float64]
    axis: NDArray[np.float64]

    def at(self, angle_degrees: float) -> NDArray[np.float32]:
        """Return the map with its part turned, ``(n, n, n)``, by trilinear interpolation."""
        from scipy.ndimage import affine_transform

        back = Rotation.from_rotvec(-np.radians(angle_degrees) * self.axis).as_matrix()[::-1, ::-1]
        hinge = self.hinge_px[::-1] + len(self.part) // 2
        turned = affine_transform(self.part, back, offset=hinge - back @ hinge, order=1)
        return np.asarray(self.rest + turned, dtype=np.float32)


def moving_part(
    density: DensityMap, mask: NDArray[np.floating], axis: ArrayLike | None = None
) -> DomainMotion:
    """Split a map in a part that turns and the rest; the hinge is where they touch.

    ``mask``: ``(n, n, n)``, 0 to 1: the part that turns. ``axis``, ``(3,)``: axis of the motion, x
    y z, of any length. None takes that about which the part opens and closes: across the lines from
    the hinge to the centres of both parts. Raises `MetadataError` if the mask leaves nothing that
    turns, or nothing that stands still.
    """
    level, deviation = map_background(density.voxels)
    whole = density.voxels - np.float32(level)
    part = np.asarray(whole * mask, dtype=np.float32)
    solid = np.where(whole > max(4 * deviation, 0.02 * float(whole.max())), whole, 0)
    weights = [solid * mask, solid * (1 - mask)]
    if min(float(one.sum()) for one in weights) < 1e-3 * float(solid.sum()):
        raise MetadataError(
            "the mask of the motion holds nothing of the map, or all of it; it must hold the part that turns"
        )
    blur = _TOUCH_ANGSTROM / density.pixel_size_angstrom
    both = gaussian_filter(weights[0], blur) * gaussian_filter(weights[1], blur)
    hinge = _centre_px(both)
    if axis is None:
        arms = [_centre_px(one) - hinge for one in weights]
        arms = [arm / max(float(np.linalg.norm(arm)), 1e-6) for arm in arms]
        direction = np.cross(arms[0], arms[1])
        if np.linalg.norm(direction) < _COLLINEAR:
            direction = np.cross(arms[0], np.eye(3)[int(np.abs(arms[0]).argmin())])
    else:
        direction = np.asarray(axis, dtype=np.float64)
    return DomainMotion(
        density.voxels - part, part, hinge, direction / float(np.linalg.norm(direction))
    )


def half_mask(density: DensityMap) -> NDArray[np.float32]:
    """Return a mask of the half of a map on one side of its centre, cut across its longest axis."""
    level, _ = map_background(density.voxels)
    inside = np.clip(density.voxels - level, 0, None)
    inside = inside * particle_mask(density.voxels, density.pixel_size_angstrom)
    centre, places = _centre_px(inside), _places(density.box)
    apart = places - centre
    moments = np.einsum("zyx,zyxi,zyxj->ij", inside, apart, apart, optimize=True)
    longest = np.linalg.eigh(moments)[1][:, -1]
    along = apart @ (longest * np.sign(longest[np.abs(longest).argmax()]))
    edge_px = _EDGE_ANGSTROM / density.pixel_size_angstrom
    return falling_edge(0.5 - along / edge_px).astype(np.float32)


def _places(box: int) -> NDArray[np.float64]:
    """Return every voxel's x y z from voxel n // 2, ``(n, n, n, 3)``."""
    axis = np.arange(box, dtype=np.float64) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x, y, z], axis=-1)


def _centre_px(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the centre of mass, x y z from voxel n // 2."""
    places = _places(len(weights)).reshape(-1, 3)
    flat = weights.ravel().astype(np.float64)
    return np.asarray(flat @ places / max(float(flat.sum()), 1e-30))


class MovingProjector:
    """Projects a map whose part is turned by another angle in every image.

    ``motion``: the map's parts, hinge and axis. ``padding``: as of `Projector`.
    """

    def __init__(self, motion: DomainMotion, padding: int = 2) -> None:
        self._rest = Projector(motion.rest, padding)
        self._part = Projector(motion.part, padding)
        self._hinge, self._axis = motion.hinge_px, motion.axis
        self.box = self._rest.box

    def slices(self, rotations: NDArray[np.float64], angles_degrees: NDArray[np.float64]) -> Tensor:
        """Return the projections' transforms, ``(n, box, box // 2 + 1)``, see `Projector.slices`.

        Turned by A about the hinge h, the part is the part turned about the middle, moved by h - A h.

        ``rotations``: ``(n, 3, 3)``; image to map coordinates. ``angles_degrees``, ``(n,)``: by
        which the part is turned.
        """
        turns = Rotation.from_rotvec(np.radians(angles_degrees)[:, None] * self._axis).as_matrix()
        moved = self._hinge - turns @ self._hinge
        shifts = np.einsum("nji,nj->ni", rotations[..., :2], moved)
        part = self._part.slices(turns.transpose(0, 2, 1) @ rotations)
        return self._rest.slices(rotations) + part * shift_phases(
            torch.from_numpy(shifts), self.box
        )
