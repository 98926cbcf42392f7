"""Maps that grow from random poses: states that draw no image."""

from __future__ import annotations

import numpy as np
import torch

import napari_cryosphere as nc
from napari_cryosphere.alignment.stochastic import CoarseImages, Course, StochasticMaps
from napari_cryosphere.imaging.phantom import protein_phantom


def test_a_state_that_draws_no_image_stays_without_ending_the_search() -> None:
    density = protein_phantom(16, 12.0)
    images = torch.from_numpy(nc.simulate(density, 20, seed=0).images())
    data = CoarseImages.of(images, None, 16)
    maps = StochasticMaps(Course(16, 4, 6.0, 1.0, "D2", 2), data.power())
    maps.voxels = np.stack([density.voxels, -1000 * density.voxels])
    rng = np.random.default_rng(0)
    for _ in range(2):
        maps.step(data, 4, 0.6, rng)
        assert maps.voxels is not None
        assert np.isfinite(maps.voxels).all()
        assert np.isfinite(maps.evidence)
