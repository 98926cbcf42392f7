"""Simulated particles: statistics as stated, and reproducible."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.simulate import clean_images, draw_parameters, noisy_images


def test_signal_to_noise_ratio_is_the_one_asked_for() -> None:
    density, parameters = protein_phantom(32, 6.0), draw_parameters(300, seed=3)
    noisy = np.concatenate(list(noisy_images(density, parameters, snr=0.5, seed=4)))
    clean = np.concatenate(list(clean_images(Projector(density.voxels, 3), parameters, 6.0)))
    scale = (noisy * clean).sum() / (clean**2).sum()
    residual = noisy - scale * clean
    assert residual.std() == pytest.approx(1.0, abs=0.01)
    # variance within the circle that holds 99 % of the map's power
    axis = np.arange(32) - 16
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    reach = next(
        r
        for r in range(16)
        if (density.voxels[radius <= r + 0.5] ** 2).sum() > 0.99 * (density.voxels**2).sum()
    )
    inside = np.hypot(axis[:, None], axis) <= reach
    assert (scale * clean)[:, inside].var(axis=1).mean() == pytest.approx(0.5, rel=0.1)


def test_seed_decides_everything() -> None:
    density = protein_phantom(32, 6.0)
    first, second, other = (
        next(noisy_images(density, draw_parameters(10, seed=seed), 0.1, seed=7)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_poses_are_uniform_and_shifts_bounded() -> None:
    parameters = draw_parameters(4000, seed=5, shift_px=2.0)
    directions = parameters.rotations[:, :, 2]
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.05)
    np.testing.assert_allclose((directions**2).mean(0), 1 / 3, atol=0.02)
    assert np.abs(parameters.shifts_px).max() <= 2.0
    assert set(parameters.half_sets) == {1, 2}


def test_without_noise_and_ctf_it_is_the_projection() -> None:
    density, parameters = protein_phantom(32, 6.0), draw_parameters(3, seed=6, shift_px=0.0, with_ctf=False)
    images = next(noisy_images(density, parameters, float("inf"), seed=0))
    exact = Projector(density.voxels, 3).project(parameters.rotations).numpy()
    np.testing.assert_allclose(images, exact, atol=1e-4)
