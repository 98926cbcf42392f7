"""RELION's asymmetric units: one view direction of every symmetry-equivalent set.

A unit is a cone on the sphere of view directions, bounded by up to three planes through the origin;
the in-plane angle is free. Poses are written inside it, since RELION's local searches lose their
prior outside. Checked against the directions that RELION samples (``_sampling.star``), group by
group.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.healpix import pix2vec, ring2nest
from napari_cryosphere.so3.rotations import rotation_from_relion_angles
from napari_cryosphere.so3.symmetry import normalise_group_name, point_group

__all__ = [
    "asymmetric_unit_normals",
    "border_depth",
    "expand",
    "inside_asymmetric_unit",
    "reduce",
    "view_shares",
]

_GOLDEN_DEGREES = float(np.degrees(np.arctan((1 + np.sqrt(5)) / 2)))  # 58.28
_CHUNK = 16_384  # poses at once: 24 images each of group O are 28 MB; chosen, not tuned
_SUB_ORDERS = 5  # a pixel on the border is measured by 4**5 parts, in steps of 0.1 per cent


@lru_cache(maxsize=64)
def asymmetric_unit_normals(symmetry: str) -> NDArray[np.float64]:
    """Return the inward normals of the unit's planes, ``(planes, 3)`` unit vectors in the map frame.

    C_n: rot within 180/n of 0. D_n: rot within 180/n of 90 and tilt <= 90. T, O, I: the triangle
    between neighbouring symmetry axes that RELION takes.
    """
    name = normalise_group_name(symmetry)
    if name[0] in "CD":
        wedge = _wedge(int(name[1:]), 0.0 if name[0] == "C" else np.pi / 2)
        return wedge if name[0] == "C" else np.vstack([wedge, [[0.0, 0.0, 1.0]]])
    if name == "T":
        planes = np.array(
            [[-1, 0, 0], [0.5, 0.5 / np.sqrt(3), np.sqrt(2 / 3)], [0.5, np.sqrt(3) / 2, 0]]
        )
    elif name == "O":
        planes = np.array([[0, -1, 1], [1, 1, 0], [-1, 1, 0]]) / np.sqrt(2)
    else:
        c36, c72 = np.cos(np.pi / 5), np.cos(2 * np.pi / 5)
        planes = np.array([[0, 1, 0], [-0.5, -c36, c72], [0.5, -c36, c72]]) @ _from_i2(name).T
    return planes


def _wedge(n: int, middle: float) -> NDArray[np.float64]:
    """Return the normals of the half-planes at ``middle`` minus and plus pi/n; none if n is 1."""
    if n == 1:
        return np.zeros((0, 3))
    low, high = middle - np.pi / n, middle + np.pi / n
    return np.array([[-np.sin(low), np.cos(low), 0.0], [np.sin(high), -np.cos(high), 0.0]])


def _from_i2(name: str) -> NDArray[np.float64]:
    """Return the rotation that takes I2's unit to that of another setting."""
    angles = {
        "I1": (0.0, -90.0, 0.0),
        "I2": (0.0, 0.0, 0.0),
        "I3": (0.0, _GOLDEN_DEGREES - 90, 0.0),
        "I4": (180.0, _GOLDEN_DEGREES, -90.0),
    }[name]
    return rotation_from_relion_angles(angles)


def border_depth(directions: NDArray[np.float64], symmetry: str) -> NDArray[np.float64]:
    """Return the sine of the angle from view directions to the unit's nearest plane.

    ``(..., 3)`` to ``(...)``: positive inside, infinite for C1.
    """
    normals = asymmetric_unit_normals(symmetry)
    if len(normals) == 0:
        return np.full(directions.shape[:-1], np.inf)
    depth: NDArray[np.float64] = (directions @ normals.T).min(-1)
    return depth


def inside_asymmetric_unit(directions: ArrayLike, symmetry: str) -> NDArray[np.bool_]:
    """Return whether view directions, ``(..., 3)``, lie in the unit or on its border (to 1e-9)."""
    return border_depth(np.asarray(directions, dtype=np.float64), symmetry) >= -1e-9


def reduce(rotations: ArrayLike, symmetry: str) -> NDArray[np.float64]:
    """Move poses into RELION's asymmetric unit by an operator of the group: ``R`` becomes ``g R``.

    ``rotations``: ``(..., 3, 3)``; image to map coordinates. ``symmetry``: point group of the map.
    Returns ``(..., 3, 3)`` float64: the equivalent pose whose view lies deepest in the unit. A pose
    that is inside is returned as it is; on the border, where several are, one of them.
    """
    poses = np.asarray(rotations, dtype=np.float64)
    if normalise_group_name(symmetry) == "C1":
        return poses.copy()
    flat = poses.reshape(-1, 3, 3)
    group = point_group(symmetry)
    reduced = np.empty_like(flat)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK]
        depths = border_depth(np.einsum("gij,nj->gni", group, part[:, :, 2]), symmetry)
        operator = np.where(depths[0] >= 0, 0, depths.argmax(0))  # the identity comes first
        reduced[start : start + _CHUNK] = group[operator] @ part
    return reduced.reshape(poses.shape)


def expand(rotations: ArrayLike, symmetry: str) -> NDArray[np.float64]:
    """Return all equivalents of poses: ``(..., 3, 3)`` to ``(..., order of the group, 3, 3)``."""
    poses = np.asarray(rotations, dtype=np.float64)
    equivalents: NDArray[np.float64] = point_group(symmetry) @ poses[..., None, :, :]
    return equivalents


def view_shares(order: int, views: ArrayLike, symmetry: str) -> NDArray[np.float64]:
    """Return which share of each HEALPix pixel's area lies in the asymmetric unit.

    ``order``: HEALPix order; N_side is ``2**order``. ``views``: ``(k,)`` pixels, RING order.
    Returns ``(k,)`` float64 in 0-1: 0 outside, 1 inside; pixels on the border are measured by 1024
    parts.
    """
    pixels = np.asarray(views, dtype=np.int64)
    n_side = 2**order
    depth = border_depth(pix2vec(n_side, pixels), symmetry)
    # no corner is farther: 48 degrees at N_side 1, then less
    reach = np.sin(min(np.pi / 2, 0.9 / n_side))
    shares = (depth > 0).astype(np.float64)
    border, place = np.unique(pixels[np.abs(depth) <= reach], return_inverse=True)
    parts = 4**_SUB_ORDERS
    measured = np.empty(len(border))
    for start in range(0, len(border), 256):
        nested = np.asarray(ring2nest(n_side, border[start : start + 256]))
        inner = pix2vec(
            n_side << _SUB_ORDERS, nested[:, None] * parts + np.arange(parts), nest=True
        )
        # parts whose centre is on a plane count half
        measured[start : start + 256] = np.heaviside(
            np.round(border_depth(inner, symmetry), 12), 0.5
        ).mean(1)
    shares[np.abs(depth) <= reach] = measured[place]
    return shares
