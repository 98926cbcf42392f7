"""Alignment of one map to another: rotation, shift and hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, map_coordinates
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from napari_cryosphere.imaging.fourier import rescale
from napari_cryosphere.imaging.map_mask import radius_grid
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction.comparison import check_one_grid
from napari_cryosphere.so3.grid import SO3Grid

__all__ = ["MapAlignment", "align_maps", "align_near", "centre_of_mass", "mirrored", "moved"]

# Voxels per edge: holds the shells below and the padding; chosen, not tuned.
_SEARCH_BOX_VOXELS = 32
_SEARCH_SHELLS = 7  # at 15 degrees' spacing a shell further out would be stepped over
_SEARCH_ORDER = 2  # HEALPix order: 14.7 degrees
_REFINE_BOX_VOXELS = 48  # voxels an edge: chosen, not tuned
_STARTS = 4  # rotations that are refined, for maps with near symmetry; chosen, not tuned
_CHUNK = 512  # rotations at once: 6 MB of samples


@dataclass(frozen=True)
class MapAlignment:
    """How the second map is moved onto the first.

    A point r of the first map, in voxels from the centre (x, y, z), is ``rotation @ r + shift`` in
    the second, whose z axis is turned round before if ``mirrored``.

    - ``rotation``: ``(3, 3)``.
    - ``shift_angstrom``, ``(3,)``: x, y, z.
    - ``mirrored``: whether the other hand fits better.
    - ``correlation``: correlation of the maps when aligned, inside the sphere that touches the box.
    - ``correlation_other_hand``: the same for the other hand: close to `correlation`, the hand is
      not determined.
    """

    rotation: NDArray[np.float64]
    shift_angstrom: NDArray[np.float64]
    mirrored: bool
    correlation: float
    correlation_other_hand: float

    def apply(self, second: DensityMap) -> DensityMap:
        """Return the second map on the first's grid (cubic splines)."""
        voxels = mirrored(second.voxels) if self.mirrored else second.voxels
        shift = self.shift_angstrom / second.pixel_size_angstrom
        return DensityMap(moved(voxels, self.rotation, shift, order=3), second.pixel_size_angstrom)


def align_maps(first: DensityMap, second: DensityMap, check_hand: bool = True) -> MapAlignment:
    """Find the rotation and shift that lay one map on another, for both hands.

    All rotations of a 15 degree grid are tried on the lowest Fourier shells, after both maps'
    centres of mass were brought to the centre; the best are refined in real space.

    ``first``, ``second``: maps on one grid. ``check_hand``: whether the mirror image is tried too.
    Raises `MetadataError` if the maps do not lie on one grid.
    """
    check_one_grid(first, second, None, ("the first map", "the second map", "the mask"))
    found = [_align(first.voxels, second.voxels)]
    if check_hand:
        found.append(_align(first.voxels, mirrored(second.voxels)))
    best = int(np.argmax([correlation for *_, correlation in found]))
    rotation, shift, correlation = found[best]
    other = found[1 - best][2] if check_hand else float("nan")
    return MapAlignment(rotation, shift * first.pixel_size_angstrom, bool(best), correlation, other)


def align_near(first: DensityMap, second: DensityMap) -> MapAlignment:
    """Find the rotation and shift that lay one map on another, near where they are; the hand stays.

    Raises `MetadataError` if the maps do not lie on one grid.
    """
    check_one_grid(first, second, None, ("the first map", "the second map", "the mask"))
    maps, start = (first.voxels, second.voxels), (np.eye(3), np.zeros(3))
    rotation, shift, _ = _refine(*maps, *start, box=_SEARCH_BOX_VOXELS, step=1.0)
    rotation, shift, correlation = _refine(*maps, rotation, shift, box=_REFINE_BOX_VOXELS, step=0.2)
    size = first.pixel_size_angstrom
    return MapAlignment(rotation, shift * size, False, correlation, float("nan"))


def mirrored(voxels: NDArray[np.float32], axis: int = 0) -> NDArray[np.float32]:
    """Return a map of the other hand: an axis (0 is z, 2 is x) turned round about voxel n // 2."""
    return np.roll(np.flip(voxels, axis), 1, axis)


def _align(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return rotation, shift in voxels and correlation for one hand."""
    box = len(first)
    coarse = [_reduced(voxels, _SEARCH_BOX_VOXELS) for voxels in (first, second)]
    centres = [centre_of_mass(voxels) for voxels in coarse]
    rotations = _best_rotations(coarse[0], coarse[1], centres)
    scale = len(coarse[0]) / box
    starts = [(rotation, (centres[1] - rotation @ centres[0]) / scale) for rotation in rotations]
    refined = [_refine(first, second, *start, box=_SEARCH_BOX_VOXELS, step=1.0) for start in starts]
    best = max(refined, key=lambda answer: answer[2])
    return _refine(first, second, best[0], best[1], box=_REFINE_BOX_VOXELS, step=0.2)


def _reduced(voxels: NDArray[np.floating], box: int) -> NDArray[np.float32]:
    """Return a map with no more voxels than a box has, over the same field, its transform cut."""
    given = torch.from_numpy(np.array(voxels, dtype=np.float32))
    return rescale(given, min(box, len(voxels)), dims=3).numpy()


def centre_of_mass(voxels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return where the density above half the 99th percentile has its centre.

    ``voxels``: ``(box, box, box)``. Returns ``(3,)``: x, y, z in voxels from the box's centre.
    """
    weight = np.clip(voxels - 0.5 * np.percentile(voxels, 99), 0, None).astype(np.float64)
    axis = np.arange(len(voxels)) - len(voxels) // 2
    total = max(float(weight.sum()), 1e-30)
    return np.array([(weight.sum(axes) * axis).sum() / total for axes in ((0, 1), (0, 2), (1, 2))])


def _best_rotations(
    first: NDArray[np.float32], second: NDArray[np.float32], centres: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the grid rotations whose low shells correlate best, ``(k, 3, 3)``."""
    box = len(first)
    transforms = []
    for voxels, centre in zip((first, second), centres, strict=True):
        centred = moved(voxels, np.eye(3), centre, order=1)
        # padded, so that linear interpolation between its values is good enough
        transforms.append(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(np.pad(centred, box // 2)))))
    axis = np.arange(-_SEARCH_SHELLS, _SEARCH_SHELLS + 1)
    # x, y, z
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(points, axis=1)
    points = points[(length <= _SEARCH_SHELLS) & (length > 0) & (points[:, 2] >= 0)]
    reference = _sampled(transforms[0], 2 * points.T)
    rotations = SO3Grid(_SEARCH_ORDER).rotations()
    scores = np.empty(len(rotations))
    for start in range(0, len(rotations), _CHUNK):
        part = slice(start, start + _CHUNK)
        turned = 2 * (rotations[part] @ points.T).transpose(1, 0, 2)
        values = _sampled(transforms[1], turned.reshape(3, -1)).reshape(-1, len(points))
        power = np.sqrt((np.abs(values) ** 2).sum(1))
        scores[part] = (values.conj() * reference).real.sum(1) / np.maximum(power, 1e-30)
    return rotations[np.argsort(scores)[::-1][:_STARTS]]


def _sampled(
    transform: NDArray[np.complexfloating], points: NDArray[np.floating]
) -> NDArray[np.complex128]:
    """Interpolate a centred transform at ``(3, n)`` x, y, z frequencies."""
    where = points[::-1] + len(transform) // 2
    real, imaginary = (
        map_coordinates(part, where, order=1) for part in (transform.real, transform.imag)
    )
    return np.asarray(real + 1j * imaginary)


def _refine(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    rotation: NDArray[np.float64],
    shift: NDArray[np.float64],
    box: int,
    step: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Climb to the best correlation at a box's resolution; shifts in voxels of the given maps."""
    scale = min(box, len(first)) / len(first)
    fixed, moving = (_reduced(voxels, box) for voxels in (first, second))
    inside = radius_grid(len(fixed)) < len(fixed) / 2 - 1
    reference = fixed[inside] - fixed[inside].mean()

    def pose(parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        turned = Rotation.from_rotvec(parameters[:3]).as_matrix() @ rotation
        return turned, shift * scale + parameters[3:]

    def loss(parameters: NDArray[np.float64]) -> float:
        values = moved(moving, *pose(parameters), order=1)[inside]
        values = values - values.mean()
        power = np.sqrt(float(reference @ reference) * float(values @ values))
        return -float(reference @ values) / max(power, 1e-30)

    simplex = np.concatenate([np.zeros((1, 6)), step * np.diag([0.1] * 3 + [1.0] * 3)])
    options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6, "maxfev": 250}
    answer = minimize(loss, np.zeros(6), method="Nelder-Mead", options=options)
    turned, offset = pose(answer.x)
    return turned, offset / scale, -float(answer.fun)


def moved(
    voxels: NDArray[np.float32],
    rotation: NDArray[np.float64],
    shift_px: NDArray[np.float64],
    order: int,
) -> NDArray[np.float32]:
    """Return a map read at ``rotation @ r + shift`` for every r, x, y, z in voxels from the centre.

    ``voxels``: ``(box, box, box)``. ``rotation``, ``shift_px``: ``(3, 3)`` and ``(3,)``, x, y, z.
    ``order``: degree of the interpolating splines, 0 to 5. Returns ``(box, box, box)``.
    """
    reversed_axes = rotation[::-1, ::-1]  # arrays are z, y, x
    centre = np.full(3, len(voxels) // 2)
    offset = centre + shift_px[::-1] - reversed_axes @ centre
    return np.asarray(
        affine_transform(voxels, reversed_axes, offset, order=order), dtype=np.float32
    )
