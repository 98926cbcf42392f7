"""Where in its box a map holds its particle: background, soft masks and a radius.

Maps come with solvent noise, a constant offset, or both. So the background is measured first, in
the outermost part of the sphere that touches the box, and what does not stand out of it counts as
solvent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, label

from napari_cryosphere.particles import DensityMap

__all__ = [
    "falling_edge",
    "map_background",
    "map_radius_angstrom",
    "map_radius_px",
    "masked_map",
    "particle_mask",
    "power_outside_sphere",
    "radius_grid",
    "soft_mask",
    "soft_sphere",
]

_RIM = 0.9
"""Where the rim begins, as a share of the sphere's radius: particles are boxed with more room."""
_DEVIATIONS = 4.0
"""Deviations of the blurred background that a voxel of the particle exceeds."""
_LEAST_SHARE = 0.02
"""Least contrast of a particle's voxel, as a share of the map's 99.9th percentile: of a map without
noise nearly all is kept.
"""
_LEAST_DARK_SHARE = 0.25
"""The same for what is darker than the background: weak low frequencies leave a dark ring around a
reconstructed particle (15 to 24 % in real apoferritin), while a band-passed map has fringes of
50 % that belong to it.
"""
_SMALLEST_PIECE = 0.05  # of the largest: what is smaller is noise or a neighbour's rim
# where a Gaussian has fallen to half: noise goes, domains stay; chosen, not tuned
_BLUR_ANGSTROM = 20.0
# of the mask beyond the cut, and its soft edge; chosen, not tuned
_GROWN_ANGSTROM, _EDGE_ANGSTROM = 6.0, 8.0
_POWER_INSIDE = 0.99  # of the masked map, within the radius; a convention


def map_background(voxels: NDArray[np.floating]) -> tuple[float, float]:
    """Return the median and the deviation of a map's background.

    The deviation is that of normal noise with the same median absolute deviation; it is 0 for a
    map that is constant there.
    """
    distance = radius_grid(len(voxels)) / (len(voxels) / 2)
    rim = voxels[(distance > _RIM) & (distance <= 1)]
    level = float(np.median(rim))
    return level, float(np.median(np.abs(rim - level)) * 1.4826)


def soft_mask(
    voxels: NDArray[np.floating],
    pixel_size_angstrom: float,
    low_pass_angstrom: float = _BLUR_ANGSTROM,
    edge_px: float = 4.0,
) -> NDArray[np.float32]:
    """Make a mask around the molecule, for the FSC of half-maps.

    The map is blurred, cut at 15 % of its 99.9th percentile above the background, reduced to its
    largest piece, grown, and given a raised-cosine edge.

    Parameters
    ----------
    voxels
        ``(n, n, n)`` map, protein positive.
    pixel_size_angstrom
        Voxel size.
    low_pass_angstrom
        What the blurring Gaussian halves.
    edge_px
        By how many voxels the piece is grown, and how wide its edge is.

    Returns
    -------
    ``(n, n, n)`` float32 between 0 and 1.
    """
    blurred = _blurred(voxels, low_pass_angstrom / pixel_size_angstrom)
    level, _ = map_background(blurred)
    solid = blurred - level > 0.15 * (np.percentile(blurred, 99.9) - level)
    return _softened(_large_pieces(solid, 1.0), edge_px, edge_px)


def particle_mask(voxels: NDArray[np.floating], pixel_size_angstrom: float) -> NDArray[np.float32]:
    """Make a wide mask around the particle, for a map that images are compared with.

    Unlike `soft_mask` it keeps whatever stands out of the background, the dark fringe of a
    sharpened map as well: the map is blurred to 20 A, and what differs from the background by less
    than 4 deviations of it, or is less than 2 % of the 99.9th percentile (25 % where it is darker
    than the background), is solvent.
    Holes are filled; the solid is grown by 6 A and has a raised-cosine edge of 8 A.

    Returns
    -------
    ``(n, n, n)`` float32 between 0 and 1; 1 everywhere if nothing stands out.
    """
    blurred = _blurred(voxels, _BLUR_ANGSTROM / pixel_size_angstrom)
    level, deviation = map_background(blurred)
    contrast = blurred - level
    highest, noise = float(np.percentile(np.abs(contrast), 99.9)), _DEVIATIONS * deviation
    solid = contrast > max(noise, _LEAST_SHARE * highest)
    solid |= contrast < -max(noise, _LEAST_DARK_SHARE * highest)
    if not solid.any():
        return np.ones(voxels.shape, dtype=np.float32)
    filled = binary_fill_holes(_large_pieces(solid, _SMALLEST_PIECE))
    size = pixel_size_angstrom
    return _softened(filled, _GROWN_ANGSTROM / size, max(_EDGE_ANGSTROM / size, 2.0))


def soft_sphere(box: int, radius_px: float, edge_px: float = 4.0) -> NDArray[np.float32]:
    """Return a sphere about voxel n // 2 that falls to 0 over ``edge_px`` beyond it, ``(box, box, box)``."""
    return falling_edge((radius_grid(box) - radius_px) / edge_px).astype(np.float32)


def masked_map(density: DensityMap, mask: NDArray[np.floating] | None) -> DensityMap:
    """Return a map less its background, times a mask ``(n, n, n)``; None leaves the solvent in."""
    voxels = density.voxels - np.float32(map_background(density.voxels)[0])
    if mask is not None:
        voxels = voxels * mask
    return DensityMap(voxels, density.pixel_size_angstrom, density.symmetry)


def map_radius_px(voxels: NDArray[np.floating]) -> int:
    """Return the radius in whole voxels of a map's particle.

    Of the sphere about voxel n // 2 that holds 99 % of the map's power beyond its background: its
    constant, and the power that noise of the rim's deviation has in every voxel.
    """
    level, deviation = map_background(voxels)
    power = (voxels.astype(np.float64) - level) ** 2 - deviation**2
    shells = np.rint(radius_grid(len(voxels))).astype(int).ravel()
    inside = np.cumsum(np.bincount(shells, power.ravel())[: len(voxels) // 2 + 1])
    return int(np.argmax(inside >= _POWER_INSIDE * inside.max()))


def power_outside_sphere(voxels: NDArray[np.floating]) -> float:
    """Return the share of a map's power beyond its background outside the sphere in its box."""
    level, _ = map_background(voxels)
    power = (voxels.astype(np.float64) - level) ** 2
    total = float(power.sum())
    outside = float(power[radius_grid(len(voxels)) > len(voxels) / 2].sum())
    return outside / total if total else 0.0


def map_radius_angstrom(density: DensityMap) -> float:
    """Return `map_radius_px` of a map in angstrom."""
    return map_radius_px(density.voxels) * density.pixel_size_angstrom


def radius_grid(box: int) -> NDArray[np.float32]:
    """Return each voxel's distance from voxel ``box // 2``, ``(box, box, box)`` float32."""
    squared = (np.arange(box, dtype=np.float32) - box // 2) ** 2
    return np.asarray(np.sqrt(squared[:, None, None] + squared[:, None] + squared))


def falling_edge(ramp: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a raised cosine, ``(...)``: 1 where ``ramp`` is 0 or less, 0 where it is 1 or more."""
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(ramp, 0, 1)))


def _blurred(voxels: NDArray[np.floating], low_pass_px: float) -> NDArray[np.float32]:
    """Return a map behind a Gaussian low-pass that halves what is ``low_pass_px`` long."""
    # exp(-2 pi^2 sigma^2 f^2) = 1/2 at f = 1 / low_pass
    sigma = np.sqrt(np.log(2) / 2) / np.pi * low_pass_px
    return np.asarray(gaussian_filter(np.asarray(voxels, dtype=np.float32), sigma))


def _large_pieces(solid: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Return the pieces of a solid that have at least a share of the largest one's voxels."""
    pieces, number = label(solid)
    if number < 2:
        return solid
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= share * sizes.max())[pieces])


def _softened(solid: NDArray[np.bool_], grown_px: float, edge_px: float) -> NDArray[np.float32]:
    """Grow a solid and give it a raised-cosine edge."""
    outside = distance_transform_edt(~solid)
    return falling_edge((outside - grown_px) / edge_px).astype(np.float32)
