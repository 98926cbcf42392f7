"""Maps from slices that several of them share."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.reconstruction import masked_correlation
from napari_cryosphere.reconstruction.filters import filtered_shells
from napari_cryosphere.reconstruction.slice_sums import SliceSums

BOX, SHELL, NUMBER = 20, 7, 400


def test_maps_come_out_of_their_mixed_slices() -> None:
    """Each image holds both maps, by factors that are known; without noise."""
    rng = np.random.default_rng(0)
    maps = np.stack([protein_phantom(BOX, 8.0, seed=seed).voxels for seed in (7, 8)])
    band = FourierBand(BOX, SHELL)
    rotations = Rotation.random(NUMBER, random_state=rng).as_matrix()
    poses = torch.from_numpy(rotations).float()
    slices = np.stack([SliceSampler(one, SHELL).values(poses, band.frequencies) for one in maps])
    factors = rng.normal(0.3, 1, (NUMBER, 2)).astype(np.float32)
    filters = rng.uniform(0.5, 1.5, slices.shape[1:]).astype(np.float32)
    data = filters * np.einsum("an,ank->nk", factors.T, slices).astype(np.complex64)
    sums = SliceSums(BOX, band.frequencies.numpy(), 2, together=True)
    products = factors[:, :, None] * factors[:, None, :]
    sums.insert(data, filters, rotations, factors, products)
    found = sums.solve(np.zeros((2, SHELL + 1)))
    inside = (np.arange(BOX // 2 + 1) <= SHELL - 1).astype(float)
    for one, true in zip(found, maps, strict=True):
        wanted, got = filtered_shells(true, inside), filtered_shells(one, inside)
        assert masked_correlation(got, wanted) > 0.97
        assert np.std(got) / np.std(wanted) == np.clip(np.std(got) / np.std(wanted), 0.9, 1.1)
    # a strong prior leaves nothing
    assert np.abs(sums.solve(np.full((2, SHELL + 1), 1e9))).max() < 1e-3 * np.abs(maps).max()
