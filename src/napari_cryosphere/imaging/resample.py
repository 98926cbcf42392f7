"""A map on the grid of the particles: same field of view, same pixel size."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_cryosphere.imaging.fourier import crop_or_pad, even_box, rescale
from napari_cryosphere.particles import DensityMap

__all__ = ["map_on_grid"]


def map_on_grid(density: DensityMap, box: int, pixel_size_angstrom: float) -> Tensor:
    """Resample a map to another pixel size and box about voxel n // 2.

    The pixel size becomes the nearest that an even box allows (within half a percent for usual
    boxes).

    Parameters
    ----------
    density
        The map.
    box
        Even box wanted, in pixels.
    pixel_size_angstrom
        Pixel size wanted.

    Returns
    -------
    ``(box, box, box)`` float32 in z, y, x order; grey values are kept.
    """
    scaled = even_box(density.box * density.pixel_size_angstrom / pixel_size_angstrom)
    resampled = rescale(torch.from_numpy(density.voxels.copy()), scaled, dims=3)
    return crop_or_pad(resampled, box, dims=3)
