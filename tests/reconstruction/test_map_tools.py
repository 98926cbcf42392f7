"""Maps brought onto each other, normalised and subtracted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from napari_cryosphere.imaging.fourier import crop_or_pad, rescale
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import (
    difference_map,
    map_alignment,
    resampled_map,
)
from napari_cryosphere.reconstruction.map_alignment import align_maps


@pytest.fixture(scope="module")
def density() -> DensityMap:
    return protein_phantom(32, 6.0)


@pytest.mark.parametrize("other_hand", [False, True])
def test_a_turned_and_shifted_map_comes_back(density: DensityMap, other_hand: bool) -> None:
    turn = Rotation.from_rotvec([1.0, -0.7, 0.5]).as_matrix()  # in z, y, x
    offset = np.array([17.0, 15.5, 17.5]) - turn @ np.full(3, 16.0)
    voxels = affine_transform(density.voxels, turn, offset, order=3)
    if other_hand:
        voxels = np.roll(voxels[::-1], 1, axis=0)
    noise = np.random.default_rng(0).normal(scale=0.02, size=voxels.shape)
    moved = DensityMap((voxels + noise).astype(np.float32), 6.0)
    found = align_maps(density, moved)
    assert found.mirrored == other_hand
    assert found.correlation > found.correlation_other_hand + 0.1
    back = found.apply(moved)
    assert np.corrcoef(back.voxels.ravel(), density.voxels.ravel())[0, 1] > 0.93
    # the array axes of `turn` run z, y, x
    error = Rotation.from_matrix(found.rotation @ turn[::-1, ::-1]).magnitude()
    assert np.degrees(error) < 1.0


def test_a_large_map_is_aligned_to_a_fraction_of_its_own_voxels() -> None:
    """The search works on 32 voxels and the last step on 48; what comes back is in the map's own
    64.
    """
    density = protein_phantom(64, 3.0)
    turn = Rotation.from_rotvec([-0.4, 0.9, 0.3]).as_matrix()  # in z, y, x
    offset = np.array([33.0, 30.5, 34.0]) - turn @ np.full(3, 32.0)
    moved = DensityMap(
        affine_transform(density.voxels, turn, offset, order=3).astype(np.float32), 3.0
    )
    found = align_maps(density, moved, check_hand=False)
    assert not found.mirrored
    assert np.isnan(found.correlation_other_hand)
    assert np.degrees(Rotation.from_matrix(found.rotation @ turn[::-1, ::-1]).magnitude()) < 0.5
    # affine_transform reads the map at turn (r - c) + c + (1, -1.5, 2), z first: the way back is
    # its inverse
    back = -turn.T @ np.array([1.0, -1.5, 2.0]) * 3.0
    np.testing.assert_allclose(found.shift_angstrom, back[::-1], atol=0.6)


def test_a_difference_knows_neither_scale_nor_sharpening(density: DensityMap) -> None:
    k = np.fft.fftfreq(32, 6.0)
    squared = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    blurred = np.fft.ifftn(np.fft.fftn(density.voxels) * np.exp(-100 * squared)).real
    blob = np.zeros_like(density.voxels)
    blob[20:23, 8:11, 8:11] = 0.5
    first = DensityMap(density.voxels + blob, 6.0)
    left = difference_map(first, DensityMap((7 * blurred).astype(np.float32), 6.0)).voxels
    assert np.unravel_index(np.argmax(left), left.shape) == pytest.approx((21, 9, 9), abs=1)
    for scale in (7, 1e-8):  # shells of any power count
        same = difference_map(density, DensityMap((scale * blurred).astype(np.float32), 6.0)).voxels
        assert np.abs(same).max() < 0.3 * left.max()


@pytest.mark.parametrize(("box", "pixel_size"), [(24, 8.0), (48, 4.0), (40, 6.0), (20, 6.0)])
def test_a_resampled_map_is_that_of_cut_or_padded_transforms(
    density: DensityMap, box: int, pixel_size: float
) -> None:
    """Against the Fourier rescaling by torch, on grids that it can reach exactly.

    Without what stands at the Nyquist frequency, which has no sign there: the two share it out
    differently.
    """
    transform = np.fft.fftn(density.voxels)
    for axis in range(3):
        np.moveaxis(transform, axis, 0)[density.box // 2] = 0
    density = DensityMap(
        np.fft.ifftn(transform).real.astype(np.float32), density.pixel_size_angstrom
    )
    made = resampled_map(density, box, pixel_size)
    scaled = round(density.box * density.pixel_size_angstrom / pixel_size)
    rescaled = rescale(torch.from_numpy(density.voxels), scaled, dims=3)
    expected = crop_or_pad(rescaled, box, dims=3).numpy()
    assert (made.box, made.pixel_size_angstrom) == (box, pixel_size)
    inside = slice(None) if box * pixel_size <= 192 else slice(4, -4)  # padding differs: zero there
    np.testing.assert_allclose(
        made.voxels[inside, inside, inside],
        expected[inside, inside, inside],
        atol=2e-4 * expected.max(),
    )


def test_a_map_resampled_to_its_own_grid_is_itself(density: DensityMap) -> None:
    assert resampled_map(density, 32, 6.0) is density


def test_resampling_to_any_ratio_keeps_a_gaussian() -> None:
    """Exact to the formula, at a ratio of pixel sizes that no whole boxes have, centre on centre."""

    def gaussian(box: int, size: float) -> np.ndarray:
        x = (np.arange(box) - box // 2) * size
        line = np.exp(-(x**2) / 2 / 9.0**2)
        return line[:, None, None] * line[:, None] * line

    made = resampled_map(DensityMap(gaussian(48, 2.5), 2.5), 44, 2.71828)
    np.testing.assert_allclose(made.voxels, gaussian(44, 2.71828), atol=1e-4)


def test_the_centre_of_mass_is_that_of_what_stands_out() -> None:
    """A Gaussian off the centre, on a level that must not pull it back."""
    z, y, x = np.meshgrid(*3 * [np.arange(32) - 16], indexing="ij")
    blob = np.exp(-((x - 5) ** 2 + (y + 3) ** 2 + (z - 2) ** 2) / 2 / 3**2)
    for level in (0.0, 0.01, -0.2):
        found = map_alignment.centre_of_mass((blob + level).astype(np.float32))
        np.testing.assert_allclose(found, (5, -3, 2), atol=0.05)
