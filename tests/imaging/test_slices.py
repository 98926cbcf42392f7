"""Central slices of a sum of Gaussians, whose transform and its derivatives are known by formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.rotations import random_rotations

BOX, SIGMA = 32, 1.7
# x, y, z from voxel n // 2
CENTRES = np.random.default_rng(21).normal(size=(12, 3)) * 3 + (1.0, -2.0, 0.5)


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    z, y, x = np.meshgrid(*3 * [np.arange(BOX) - BOX // 2], indexing="ij")
    return sum(
        np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 2 / SIGMA**2) for a, b, c in CENTRES
    )


def by_formula(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Transform at ``(..., 3)`` frequencies x, y, z in cycles a box, and its derivatives along
    them.
    """
    envelope = (2 * np.pi * SIGMA**2) ** 1.5 * np.exp(
        -2 * (np.pi * SIGMA / BOX) ** 2 * (points**2).sum(-1, keepdims=True)
    )
    waves = envelope * np.exp(-2j * np.pi / BOX * points @ CENTRES.T)
    falling = -4 * (np.pi * SIGMA / BOX) ** 2 * points * waves.sum(-1, keepdims=True)
    return waves.sum(-1), falling - 2j * np.pi / BOX * waves @ CENTRES


@pytest.mark.parametrize(("padding", "error"), [(2, 0.02), (3, 0.008)])
def test_slices_and_derivatives_of_gaussians(
    volume: np.ndarray, padding: int, error: float
) -> None:
    sampler = SliceSampler(volume, 10, padding, moments=True)
    rotations = random_rotations(6, np.random.default_rng(22))
    rng = np.random.default_rng(23)
    frequencies = rng.uniform(-10 / np.sqrt(2), 10 / np.sqrt(2), size=(200, 2))
    # the last shell is still inside, and so is the origin
    frequencies[:3] = [[10, 0], [0, -10], [0, 0]]
    exact, slopes = by_formula(np.einsum("nij,kj->nki", rotations[:, :, :2], frequencies))
    poses, asked = torch.from_numpy(rotations).float(), torch.from_numpy(frequencies).float()
    planes = sampler.values_and_moments(poses, asked)
    values, *moments = torch.complex(planes[:, :, 0], planes[:, :, 1]).unbind(1)
    gradients = -2j * np.pi / BOX * torch.stack(moments, dim=-1).numpy()
    assert np.linalg.norm(values.numpy() - exact) < error * np.linalg.norm(exact)
    assert np.linalg.norm(gradients - slopes) < 1.5 * error * np.linalg.norm(slopes)
    torch.testing.assert_close(sampler.values(poses, asked), values, atol=1e-3, rtol=1e-5)
    alone = SliceSampler(volume, 10, padding).values(poses, asked)
    torch.testing.assert_close(alone, values, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_a_point_is_a_plane_wave_up_to_nyquist(padding: int) -> None:
    """At the lattice's own frequencies nothing is interpolated; only what undoes the fall-off
    stays.
    """
    place = np.array([3, -2, 5])  # x, y, z
    volume = np.zeros(3 * (BOX,))
    volume[tuple(place[::-1] + BOX // 2)] = 1
    k = np.arange(-BOX // 2, BOX // 2 + 1, dtype=np.float64)
    asked = np.stack([np.append(k, 0 * k), np.append(0 * k, k)], axis=1)
    scale = 1 / np.prod(np.sinc(place / (BOX * padding)) ** 2)
    found = SliceSampler(volume, BOX // 2, padding).values(
        torch.eye(3)[None], torch.from_numpy(asked).float()
    )
    exact = scale * np.exp(-2j * np.pi / BOX * (asked @ place[:2]))
    np.testing.assert_allclose(found[0].numpy(), exact, atol=1e-5)


def test_a_lattice_of_more_points_than_float32_can_count() -> None:
    """The last of 17 million rows: an index in float32 would be off by one."""
    box, padding, last = 56, 6, 27
    volume = np.zeros(3 * (box,), dtype=np.float32)
    place = np.array([3, -2, 5])
    volume[tuple(place[::-1] + box // 2)] = 1
    sampler = SliceSampler(volume, last, padding)
    assert len(sampler._table) > 1 << 24
    up_the_z_axis = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
    asked = torch.tensor([[last - k / padding, j / padding] for k in range(6) for j in range(6)])
    points = torch.einsum("ij,kj->ki", up_the_z_axis[0, :, :2], asked).numpy()
    scale = 1 / np.prod(np.sinc(place / (box * padding)) ** 2)
    exact = scale * np.exp(-2j * np.pi / box * points @ place)
    np.testing.assert_allclose(sampler.values(up_the_z_axis, asked)[0].numpy(), exact, atol=1e-4)
