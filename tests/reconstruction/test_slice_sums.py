"""Maps from slices that several of them share."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.reconstruction import masked_correlation
from napari_cryosphere.reconstruction._solving import map_from_transform
from napari_cryosphere.reconstruction._symmetry import SumSymmetry
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


def test_maps_are_those_of_dense_least_squares() -> None:
    """At poses that put all points of slices on the lattice; with something else in the images."""
    rng = np.random.default_rng(1)
    box, shell, number, count = 8, 3, 2, 60
    frequencies = FourierBand(box, shell).frequencies.numpy()
    rotations = Rotation.create_group("O").as_matrix()[rng.integers(24, size=count)]
    shape = count, len(frequencies)
    data, other = (rng.normal(size=shape) + 1j * rng.normal(size=shape) for _ in range(2))
    filters = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    factors = rng.normal(size=(count, number)).astype(np.float32)
    unsure = np.full((number, number), 0.2) + 0.3 * np.eye(number)
    products = (factors[:, :, None] * factors[:, None, :] + unsure).astype(np.float32)
    known = 0.5 * factors[:, :, None] * other[:, None]
    precision = np.array([np.linspace(1, 2, shell + 1), np.linspace(3, 4, shell + 1)])
    sums = SliceSums(box, frequencies, number, together=True)
    sums.insert(
        data.astype(np.complex64),
        filters,
        rotations,
        factors,
        products,
        known.astype(np.complex64),
    )
    found = sums.solve(precision)
    # every lattice point for itself, both of a conjugate pair on the plane z = 0
    matrices, vectors = dict[tuple[int, ...], np.ndarray](), dict[tuple[int, ...], np.ndarray]()
    points = np.rint(np.einsum("nij,kj->nki", rotations[:, :, :2], 2 * frequencies)).astype(int)
    for image, place in np.ndindex(*shape):
        matrix = filters[image, place] ** 2 * products[image]
        vector = filters[image, place] * (
            factors[image] * data[image, place] - known[image, :, place]
        )
        for sign in (1, -1):
            x, y, z = sign * points[image, place]
            if z < 0:
                continue
            value = vector if sign == 1 else vector.conj()
            matrices[x, y, z] = matrices.get((x, y, z), 0) + matrix
            vectors[x, y, z] = vectors.get((x, y, z), 0) + value
    size = 2 * box
    transforms = np.zeros((number, size, size, size // 2 + 1), dtype=np.complex64)
    for (x, y, z), matrix in matrices.items():
        radius = np.sqrt(x * x + y * y + z * z) / 2
        prior = [np.interp(radius, np.arange(shell + 1), own) / 8 for own in precision]
        solved = np.linalg.lstsq(matrix + np.diag(prior), vectors[x, y, z], rcond=None)[0]
        transforms[:, y % size, x % size, z] = solved
    fall_off = SumSymmetry("C1").fall_off(size, box)
    for one, transform in zip(found, transforms, strict=True):
        np.testing.assert_allclose(one, map_from_transform(transform, box, fall_off), atol=1e-5)
