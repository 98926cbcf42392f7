"""Projection and Fourier helpers against analytic phantoms, numpy and another program's projector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging import phantom
from napari_cryosphere.imaging.fourier import (
    crop_or_pad,
    even_box,
    from_fourier,
    rescale,
    shift_phases,
    to_fourier,
)
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.so3.rotations import random_rotations

Phantom = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize(("padding", "error"), [(2, 0.03), (3, 0.015)])
def test_projections_of_gaussians_are_exact_to_interpolation(
    gaussian_phantom: Phantom, padding: int, error: float
) -> None:
    rotations = random_rotations(5, np.random.default_rng(12))
    volume, exact = gaussian_phantom(48, rotations)
    ours = Projector(volume, padding).project(rotations).numpy()
    assert np.linalg.norm(ours - exact) / np.linalg.norm(exact) < error


def test_agrees_with_torch_fourier_slice() -> None:
    from torch_fourier_slice import project_3d_to_2d

    rotations = random_rotations(4, np.random.default_rng(13))
    voxels = torch.from_numpy(protein_phantom(32, 6.0).voxels.copy())
    theirs = project_3d_to_2d(voxels, torch.from_numpy(rotations).float(), pad_factor=3.0).numpy()
    ours = Projector(voxels, padding=3).project(rotations).numpy()
    for a, b in zip(ours, theirs, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.998


def test_unrotated_projection_is_the_sum_over_z() -> None:
    density = protein_phantom(64, 3.0)
    image = Projector(density.voxels, 3).project(np.eye(3)[None])[0].numpy()
    exact = density.voxels.sum(0)
    assert np.abs(image - exact).max() < 0.02 * exact.max()


def test_shift_moves_content_by_whole_pixels() -> None:
    image = torch.from_numpy(np.random.default_rng(14).normal(size=(1, 16, 16)).astype(np.float32))
    moved = from_fourier(to_fourier(image) * shift_phases(torch.tensor([[3.0, -2.0]]), 16))
    band_limited = from_fourier(to_fourier(image))
    torch.testing.assert_close(
        moved, torch.roll(band_limited, (-2, 3), (-2, -1)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("box", [24, 64])
def test_rescale_keeps_place_and_values(box: int, dims: int) -> None:
    def blob(size: int) -> torch.Tensor:
        axis = (torch.arange(size) - size // 2) * (48.0 / size)
        values = torch.exp(-((axis - 4.0) ** 2) / 2 / 4**2)
        out = values
        for _ in range(dims - 1):
            out = out[..., None] * values
        return out

    torch.testing.assert_close(rescale(blob(48), box, dims), blob(box), atol=5e-3, rtol=0)


def test_rescale_takes_any_leading_axes() -> None:
    images = torch.from_numpy(np.random.default_rng(17).normal(size=(2, 3, 24, 24)))
    for box in (16, 32):
        single = torch.stack([torch.stack([rescale(one, box) for one in row]) for row in images])
        torch.testing.assert_close(rescale(images, box), single)


def test_neighbouring_residues_are_as_far_apart_as_c_alphas() -> None:
    """3.8 A along an alpha helix; a strand rises by 3.3 A and is pleated by 0.9 A to either side:
    3.76 A.
    """
    for residues in (phantom._helix(20), phantom._strand(20)):
        np.testing.assert_allclose(
            np.linalg.norm(np.diff(residues, axis=0), axis=1), 3.8, atol=0.06
        )
        np.testing.assert_allclose(residues.mean(axis=0)[2], 0, atol=1e-9)
    np.testing.assert_allclose(np.ptp(phantom._helix(101)[:, 2]), 150)
    np.testing.assert_allclose(np.ptp(phantom._strand(11)[:, 2]), 33)


def test_crop_then_pad_keeps_the_centre() -> None:
    image = torch.zeros(1, 12, 12)
    image[0, 6, 6] = 1.0
    assert crop_or_pad(image, 8)[0, 4, 4] == 1
    assert crop_or_pad(image, 20)[0, 10, 10] == 1


def test_even_box() -> None:
    assert [even_box(length) for length in (31.2, 32.9, 33.1, 2)] == [32, 32, 34, 8]


def test_phantom_is_reproducible_asymmetric_and_centred() -> None:
    first, second = protein_phantom(), protein_phantom()
    np.testing.assert_array_equal(first.voxels, second.voxels)
    axis = np.arange(64) - 32
    total = first.voxels.sum()
    for other in range(3):
        profile = first.voxels.sum(axis=tuple(i for i in range(3) if i != other))
        assert abs((profile * axis).sum() / total) < 0.5
    turned = first.voxels[::-1, ::-1, :]
    assert np.corrcoef(first.voxels.ravel(), turned.ravel())[0, 1] < 0.7
    outside = np.hypot(np.hypot(axis[:, None, None], axis[:, None]), axis) > 30
    assert first.voxels[outside].max() < 0.05
