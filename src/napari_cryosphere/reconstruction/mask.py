"""Masks around a map, and correlation inside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

__all__ = ["masked_correlation", "soft_mask"]


def soft_mask(
    voxels: NDArray[np.floating],
    pixel_size_angstrom: float,
    low_pass_angstrom: float = 20.0,
    edge_px: float = 4.0,
) -> NDArray[np.float32]:
    """Make a mask around the molecule.

    The map is blurred (a Gaussian that halves ``low_pass_angstrom``), cut at 15 % of its 99.9th
    percentile, reduced to its largest piece, grown by ``edge_px`` voxels and given a raised-cosine
    edge as wide again.

    Parameters
    ----------
    voxels
        ``(n, n, n)`` map, protein positive.
    pixel_size_angstrom
        Voxel size.

    Returns
    -------
    ``(n, n, n)`` float32 between 0 and 1.
    """
    # exp(-2 pi^2 sigma^2 f^2) = 1/2 at f = 1 / low_pass
    sigma = np.sqrt(np.log(2) / 2) / np.pi * low_pass_angstrom / pixel_size_angstrom
    blurred = gaussian_filter(np.asarray(voxels, dtype=np.float64), sigma)
    solid = blurred > 0.15 * np.percentile(blurred, 99.9)
    pieces, number = label(solid)
    if number > 1:
        solid = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    outside = distance_transform_edt(~solid)
    ramp = np.clip((outside - edge_px) / edge_px, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * ramp)).astype(np.float32)


def masked_correlation(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    mask: NDArray[np.floating] | None = None,
) -> float:
    """Return Pearson's correlation of two maps, each voxel weighted by the mask (None: all the same).

    All are ``(box, box, box)``. Summed in float64, one section at a time, so that large maps need
    no copies.
    """
    means = np.zeros(3)  # of the weight, and of each map times the weight
    moments = np.zeros(3)
    for centred in (False, True):
        for z in range(len(first)):
            w = np.ones(first[z].shape) if mask is None else mask[z].astype(np.float64)
            a, b = first[z].astype(np.float64), second[z].astype(np.float64)
            if centred:
                a, b = a - means[1] / means[0], b - means[2] / means[0]
                moments += (w * a * b).sum(), (w * a * a).sum(), (w * b * b).sum()
            else:
                means += w.sum(), (w * a).sum(), (w * b).sum()
    return float(moments[0] / np.sqrt(moments[1] * moments[2]))
