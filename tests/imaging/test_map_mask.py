"""Radius and masks of maps with solvent noise and offsets, against spheres of known size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.imaging.map_mask import (
    map_background,
    map_radius_px,
    masked_map,
    particle_mask,
    soft_mask,
    soft_sphere,
)
from napari_cryosphere.particles import DensityMap

BOX, RADIUS_PX = 64, 16
SPHERE = soft_sphere(BOX, RADIUS_PX, 2.0)
DISTANCE = np.sqrt(sum(axis**2 for axis in np.mgrid[:BOX, :BOX, :BOX] - BOX // 2))
INSIDE = 0.99 ** (1 / 3) * RADIUS_PX  # of a hard sphere, radius that holds 99 % of the volume


def noise(deviation: float) -> np.ndarray:
    return np.random.default_rng(1).normal(0, deviation, SPHERE.shape).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 0.05, -3.0])
@pytest.mark.parametrize("deviation", [0.0, 0.05, 0.2])
def test_radius_and_mask_do_not_see_noise_and_offsets(offset: float, deviation: float) -> None:
    voxels = SPHERE + noise(deviation) + np.float32(offset)
    tolerance = 1.5 if deviation < 0.2 else 3
    assert map_radius_px(voxels) == pytest.approx(INSIDE, abs=tolerance)
    level, found = map_background(voxels)
    assert level == pytest.approx(offset, abs=0.01)
    assert found == pytest.approx(deviation, rel=0.05, abs=1e-6)
    mask = particle_mask(voxels, 5.0)
    assert mask.min() >= 0
    assert mask.max() == 1
    assert (mask[DISTANCE < RADIUS_PX] > 0.99).all()
    assert mask[DISTANCE > RADIUS_PX + 8].max() < 0.01
    masked = masked_map(DensityMap(voxels, 5.0), mask)
    assert np.abs(masked.voxels[DISTANCE > RADIUS_PX + 8]).max() < 0.01
    assert map_radius_px(masked.voxels) == pytest.approx(INSIDE, abs=tolerance)


def test_a_mask_keeps_what_is_weak_where_there_is_no_noise() -> None:
    weak = 0.05 * np.roll(SPHERE, 12, axis=2)  # a domain of a twentieth of the density
    mask = particle_mask(np.maximum(SPHERE, weak), 5.0)
    assert (mask[weak > 0.049] > 0.9).all()
    assert (soft_mask(np.maximum(SPHERE, weak), 5.0)[weak > 0.049] < 0.5).any()


def test_the_fsc_mask_does_not_see_an_offset() -> None:
    np.testing.assert_allclose(soft_mask(SPHERE + 2, 5.0), soft_mask(SPHERE, 5.0), atol=1e-6)


def test_a_map_in_which_nothing_stands_out_is_left_whole() -> None:
    assert (particle_mask(np.zeros_like(SPHERE), 5.0) == 1).all()


def test_a_real_map_with_its_noise(shared_data: Path) -> None:
    """Apoferritin's shell reaches to 61 A; a constant of 5 % of the maximum changes nothing."""
    density = DensityMap.read(shared_data / "real/apoferritin_model_map.mrc")
    for offset in (0.0, 0.05 * density.voxels.max()):
        voxels = density.voxels + np.float32(offset)
        assert map_radius_px(voxels) * density.pixel_size_angstrom == pytest.approx(64, abs=2)
