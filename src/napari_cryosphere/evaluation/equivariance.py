"""Equivariance of a pose model, measured from outside: images in, distributions out.

**Turning the volume.** CryoSphere's condition (Chheda & Nori, poster) is ``(s o c)(R V) = R (s o
c)(V)``: with c the projection along the optical axis and s the network, rotating the volume and
then predicting is predicting and then rotating. A pose takes image to map coordinates, so an image
at pose Q shows the volume turned by the inverse of Q. Turn it further by S, in front of the fixed
microscope, and the pose becomes ``Q S^-1``: the distribution p that was predicted must become
``p'(X) = p(X S)``. This is the ``camera`` frame.

The same pair of images can be read as a volume turned in its own axes before it is looked at: the
pose becomes ``R^-1 Q`` with ``R = Q S Q^-1``, and the distribution ``p'(X) = p(R X)``, the ``map``
frame. Both carry the peak to where it belongs; they differ in how they carry its shape, and a
network may be nearer to one than to the other. With a symmetric map the second is not defined:
turning the map turns its symmetry axes, and the model takes these to be where they were.

The error is the mean over a grid of ``(p'(X) - p(transported X))^2``, with densities relative to
the uniform distribution. It grows with the sharpness of the predictions and vanishes for a network
with a uniform answer, so it is compared with the same error with the rotations shuffled among the pairs:
their ratio is 0 for an equivariant network and 1 for one whose answers do not follow the volume at
all.

**Turning the image** about its centre by phi, from +x towards +y, must take the pose Q to ``Q
Rz(-phi)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.imaging.preprocess import soft_circle
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.training.sources import turn_and_shift, turned_rotations

__all__ = [
    "Frame",
    "InPlaneErrors",
    "Predictor",
    "VolumeErrors",
    "in_plane_errors",
    "volume_errors",
]

Array: TypeAlias = NDArray[np.float64]
Frame: TypeAlias = Literal["camera", "map"]

_CHUNK = 8  # particles at once: 8 x 36,864 poses of order 3


class Predictor(Protocol):
    """Anything that predicts as `PoseModel` does."""

    def predict(self, images: Tensor) -> PoseDistribution:
        """Return the pose distributions of ``(n, box, box)`` images."""
        ...


@dataclass(frozen=True)
class VolumeErrors:
    """Errors of turning the volume, one a pair of images.

    ``frame``: how distributions were carried along, see the module. ``matched``: ``(n,)`` mean
    squared difference of the densities, relative to uniform. ``shuffled``, ``(n,)``: the same where
    each pair is given the next pair's rotation.
    """

    frame: Frame
    matched: Array
    shuffled: Array

    @property
    def ratio(self) -> float:
        """Mean error over that of the shuffled control: 0 equivariant, 1 not at all."""
        return float(self.matched.mean() / self.shuffled.mean())


@dataclass(frozen=True)
class InPlaneErrors:
    """Errors of turning the image.

    ``angles_degrees``: ``(m,)``. ``degrees``, ``(n, m)``: how far each predicted pose is from where
    it should have moved, modulo symmetry. ``poses``, ``(n, 3, 3)``: the poses predicted for the
    images as they were.
    """

    angles_degrees: Array
    degrees: Array
    poses: Array


def volume_errors(
    model: Predictor,
    images_of: Callable[[Array], Tensor],
    poses: Array,
    turns: Array,
    order: int = 2,
) -> tuple[VolumeErrors, ...]:
    """Return the errors of turning the volume, for each frame that the model's symmetry allows.

    Raises `ValueError` if there are fewer than two pairs: none could be shuffled.

    - ``images_of``: function from ``(n, 3, 3)`` poses to the model's images of the volume.
    - ``poses``: ``(n, 3, 3)`` poses Q at which the volume is seen first; two at least.
    - ``turns``: ``(n, 3, 3)`` rotations S of the volume in front of the microscope.
    - ``order``: order of the grid that the mean runs over.
    """
    if len(poses) < 2:
        raise ValueError(f"at least two pairs of images are needed, not {len(poses)}")
    turned = poses @ turns.transpose(0, 2, 1)
    before, after = (model.predict(images_of(where)).cpu() for where in (poses, turned))
    carriers: dict[Frame, Array] = {"camera": turns}
    if before.symmetry == "C1":
        carriers["map"] = poses @ turned.transpose(0, 2, 1)
    matched, shuffled = ({frame: np.empty(len(poses)) for frame in carriers} for _ in range(2))
    grid = SO3Grid(order).rotations()
    for start in range(0, len(poses), _CHUNK):
        rows = slice(start, start + _CHUNK)
        seen, first = np.exp(after[rows].log_prob(grid[None])), before[rows]
        for frame, rotations in carriers.items():
            for errors, chosen in ((matched, rotations), (shuffled, np.roll(rotations, 1, axis=0))):
                expected = np.exp(first.log_prob(_carried(grid, chosen[rows], frame)))
                errors[frame][rows] = np.square(seen - expected).mean(axis=1)
    return tuple(VolumeErrors(frame, matched[frame], shuffled[frame]) for frame in carriers)


def _carried(grid: Array, rotations: Array, frame: Frame) -> Array:
    """Return where on the first density each pose of the grid comes from, ``(n, cells, 3, 3)``."""
    return grid @ rotations[:, None] if frame == "camera" else rotations[:, None] @ grid


def in_plane_errors(model: Predictor, images: Tensor, angles_degrees: Array) -> InPlaneErrors:
    """Turn images about their centres and measure how far the predicted poses are from turning along.

    ``images``: ``(n, box, box)`` prepared. What is outside the soft circle is lost.
    ``angles_degrees``: ``(m,)`` from +x towards +y.
    """
    mask = soft_circle(images.shape[-1])
    first = model.predict(images * mask)
    poses = first.summary().rotations
    errors = np.empty((len(images), len(angles_degrees)))
    for column, angle in enumerate(np.radians(angles_degrees)):
        angles = torch.full((len(images),), float(angle))
        turned = turn_and_shift(images, angles, torch.zeros(len(images), 2)) * mask
        expected = turned_rotations(torch.from_numpy(poses), angles.double()).numpy()
        found = model.predict(turned).summary().rotations
        errors[:, column] = angular_error_degrees(expected, found, first.symmetry)
    return InPlaneErrors(np.asarray(angles_degrees, dtype=np.float64), errors, poses)
