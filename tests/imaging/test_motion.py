"""A part of a map that turns: projections against those of turned maps, hinge and axis."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.fourier import from_fourier
from napari_cryosphere.imaging.motion import MovingProjector, half_mask, moving_part
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.particles import DensityMap

BOX = 32


def two_balls() -> DensityMap:
    """Return a large ball, and a smaller one that touches it along +x."""
    z, y, x = np.indices((BOX, BOX, BOX)) - BOX // 2
    large = (x + 3) ** 2 + y**2 + z**2 < 7**2
    small = (x - 8) ** 2 + y**2 + z**2 < 4**2
    return DensityMap(gaussian_filter((large | small).astype(np.float32), 1.0), 3.0)


def test_projections_are_those_of_the_turned_map() -> None:
    density = two_balls()
    mask = (np.arange(BOX) - BOX // 2 > 4).astype(np.float32) * np.ones((BOX, BOX, BOX), np.float32)
    motion = moving_part(density, mask, axis=(0.2, 1.0, 0.3))
    rotations = Rotation.random(4, random_state=1).as_matrix()
    angles = np.array([-40.0, 0.0, 25.0, 60.0])
    images = from_fourier(MovingProjector(motion, 3).slices(rotations, angles)).numpy()
    for image, rotation, angle in zip(images, rotations, angles, strict=True):
        turned = Projector(motion.at(angle), 3).project(rotation[None]).numpy()[0]
        assert np.corrcoef(image.ravel(), turned.ravel())[0, 1] > 0.998
        still = Projector(density.voxels, 3).project(rotation[None]).numpy()[0]
        if angle == 0:
            np.testing.assert_allclose(image, still, atol=1e-3 * np.abs(still).max())


def test_the_hinge_is_where_the_parts_touch() -> None:
    density = two_balls()
    mask = (np.arange(BOX) - BOX // 2 > 4).astype(np.float32) * np.ones((BOX, BOX, BOX), np.float32)
    motion = moving_part(density, mask)
    np.testing.assert_allclose(motion.hinge_px, [4, 0, 0], atol=1.5)
    assert abs(motion.axis[0]) < 0.3  # across the line through both
    np.testing.assert_allclose(motion.rest + motion.part, density.voxels, atol=1e-6)


def test_half_of_a_map_is_cut_across_its_longest_axis() -> None:
    density = two_balls()
    mask = half_mask(density)
    assert mask[BOX // 2, BOX // 2, BOX // 2 + 10] > 0.99
    assert mask[BOX // 2, BOX // 2, BOX // 2 - 10] < 0.01
    share = (density.voxels * mask).sum() / density.voxels.sum()
    assert 0.3 < share < 0.7
    phantom = protein_phantom(BOX, 6.0)
    moving_part(phantom, half_mask(phantom))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_of_nothing_or_all_is_refused(value: float) -> None:
    mask = np.full((BOX, BOX, BOX), value, dtype=np.float32)
    with pytest.raises(MetadataError, match="mask of the motion"):
        moving_part(two_balls(), mask)
