"""Labelled projections of a map, noisy as training images are."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.imaging.preprocess import soft_circle
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.particles import DensityMap, ImageGrid
from napari_cryosphere.so3.rotations import random_rotations

__all__ = ["MapViews"]

_MEASURED = 64  # projections whose variance is taken for the signal's; chosen, not tuned


class MapViews:
    """Centred projections of one map, without a CTF, on a network's grid.

    Projections are scaled by one factor for all views, `contrast`. With a signal-to-noise ratio,
    white noise of variance 1 is added, and the signal's variance inside the circle that touches the
    box, its mean over views, is ``snr``; without noise it is 1. At the end comes the soft circle
    that networks see through.

    ``density``: the map; it is resampled to the grid. ``grid``: box and pixel size. ``snr``:
    signal-to-noise ratio; infinite for no noise. ``voxels``: ``(box, box, box)`` float32, z, y, x:
    the map on the grid. ``contrast``: factor from its projections to images.
    """

    def __init__(self, density: DensityMap, grid: ImageGrid, snr: float = math.inf) -> None:
        self.grid = grid
        self.snr = snr
        self.voxels = map_on_grid(density, grid.box, grid.pixel_size_angstrom)
        self._projector = Projector(self.voxels, padding=3)
        self.mask = soft_circle(grid.box)
        some = self._projector.project(random_rotations(_MEASURED, np.random.default_rng(0)))
        deviation = float(some[:, self.mask > 0.5].var(dim=1).mean().sqrt())
        self.contrast = math.sqrt(1.0 if math.isinf(snr) else snr) / deviation

    def unmasked(self, rotations: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
        """Return images before the soft circle, ``(n, box, box)`` float32, at ``(n, 3, 3)`` poses."""
        images = self._projector.project(rotations) * self.contrast
        if math.isinf(self.snr):
            return images
        return images + torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))

    def images(self, rotations: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
        """Return images as the network sees them, ``(n, box, box)`` float32, at ``(n, 3, 3)`` poses."""
        return self.unmasked(rotations, rng) * self.mask
