"""Back-projection, FSC and masks: adjointness, analytic phantoms, RELION's stored results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging.ctf import ctf_2d
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases, to_fourier
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.simulate import draw_parameters
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import (
    BackProjector,
    fourier_shell_correlation,
    masked_correlation,
    soft_mask,
)
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.symmetry import point_group

BOX, PIXEL_SIZE = 32, 6.0


def test_phantom_comes_back_with_its_scale(
    gaussian_phantom: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> None:
    """From projections by formula, multiplied by a CTF and shifted, to the map by formula."""
    parameters = draw_parameters(1000, seed=1, shift_px=2.0)
    assert parameters.ctf is not None
    volume, images = gaussian_phantom(BOX, parameters.rotations)
    ctf = ctf_2d(parameters.ctf, BOX, PIXEL_SIZE)
    shifted = to_fourier(torch.from_numpy(images).float())
    shifted = shifted * shift_phases(torch.from_numpy(parameters.shifts_px), BOX) * ctf
    projector = BackProjector(BOX)
    for start in range(0, 1000, 250):
        rows = slice(start, start + 250)
        projector.add(
            from_fourier(shifted[rows]), parameters.rotations[rows], ctf[rows], parameters.shifts_px[rows]
        )
    made = projector.solve()
    assert masked_correlation(made, volume) > 0.995
    assert (made * volume).sum() / (volume**2).sum() == pytest.approx(1, abs=0.02)


def test_insertion_is_the_adjoint_of_slicing() -> None:
    """<P v, y> = <v, P* y>: back-projecting images y correlates with v as y does with v's projections."""
    density = protein_phantom(BOX, PIXEL_SIZE)
    rotations = random_rotations(20, np.random.default_rng(2))
    projector = Projector(density.voxels, 2)
    back = BackProjector(BOX)
    rng = np.random.default_rng(3)
    noise = torch.from_numpy(rng.normal(size=(20, BOX, BOX)).astype(np.float32))
    images = noise + 20 * projector.project(rotations)
    back.add(images, rotations)
    slices = projector.slices(rotations)
    twice = torch.where(torch.arange(BOX // 2 + 1) == 0, 1.0, 2.0)  # columns x > 0 stand for two
    left = (twice * (slices.conj() * to_fourier(images)).real * back._inside).sum()
    transform = torch.complex(projector._transform[0, 0], projector._transform[0, 1])
    transform = torch.fft.ifftshift(transform, dim=(0, 1))
    sums = back._sums.reshape(*back._shape, 3)
    right = 2 * (transform.conj() * torch.complex(sums[..., 0], sums[..., 1])).real.sum()
    assert float(right) == pytest.approx(float(left), rel=1e-3)


def test_batches_and_sums_of_accumulators_equal_one_batch() -> None:
    rotations = random_rotations(30, np.random.default_rng(4))
    images = np.random.default_rng(5).normal(size=(30, BOX, BOX)).astype(np.float32)
    whole, first, second = BackProjector(BOX), BackProjector(BOX), BackProjector(BOX)
    whole.add(images, rotations)
    first.add(images[:11], rotations[:11])
    second.add(images[11:], rotations[11:])
    first += second
    assert first.inserted == 30
    np.testing.assert_allclose(first.solve(), whole.solve(), atol=1e-4 * np.abs(whole.solve()).max())


def test_weight_counts_like_repetition() -> None:
    rotations = random_rotations(6, np.random.default_rng(6))
    images = np.random.default_rng(7).normal(size=(6, BOX, BOX)).astype(np.float32)
    weighted, repeated = BackProjector(BOX), BackProjector(BOX)
    weighted.add(images, rotations, weights=[2, 1, 0, 1, 1, 1])
    rows = [0, 0, 1, 3, 4, 5]
    repeated.add(images[rows], rotations[rows])
    np.testing.assert_allclose(weighted.solve(), repeated.solve(), atol=1e-5)


def test_symmetry_is_imposed() -> None:
    rotations = random_rotations(60, np.random.default_rng(8))
    images = Projector(protein_phantom(BOX, PIXEL_SIZE).voxels).project(rotations)
    projector = BackProjector(BOX, symmetry="C2")
    projector.add(images, rotations)
    volume = projector.solve()
    turned = np.roll(volume[:, ::-1, ::-1], (1, 1), (1, 2))  # 180 degrees about z, centre n // 2
    inner = (slice(1, None),) * 3
    assert np.corrcoef(volume[inner].ravel(), turned[inner].ravel())[0, 1] > 0.999
    assert len(point_group("C2")) == 2


def test_half_box_must_match() -> None:
    with pytest.raises(ValueError, match="even"):
        BackProjector(33)


def test_fsc_of_equal_maps_is_one_and_of_noise_is_small() -> None:
    rng = np.random.default_rng(9)
    first, second = rng.normal(size=(2, BOX, BOX, BOX))
    np.testing.assert_allclose(fourier_shell_correlation(first, first, 2.0).values, 1, atol=1e-12)
    assert np.abs(fourier_shell_correlation(first, second, 2.0).values[4:]).max() < 0.15


def test_fsc_equals_the_definition() -> None:
    rng = np.random.default_rng(10)
    first = rng.normal(size=(16, 16, 16))
    second = first + rng.normal(size=first.shape)
    f, g = np.fft.fftn(first), np.fft.fftn(second)
    k = np.fft.fftfreq(16, 1 / 16)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2))
    expected = [
        (f[shell == s] * g[shell == s].conj()).real.sum()
        / np.sqrt((abs(f[shell == s]) ** 2).sum() * (abs(g[shell == s]) ** 2).sum())
        for s in range(9)
    ]
    np.testing.assert_allclose(fourier_shell_correlation(first, second, 1.0).values, expected, atol=1e-12)


def test_resolution_is_read_at_the_first_crossing() -> None:
    curve = fourier_shell_correlation(np.ones((16,) * 3), np.ones((16,) * 3), 2.0)
    values = np.array([1, 1, 0.9, 0.3, 0.6, 0.1, 0, 0, 0])
    object.__setattr__(curve, "values", values)
    # from 0.9 to 0.3 the curve meets 0.5 two thirds of the way from shell 2 to 3
    assert curve.resolution_angstrom(0.5) == pytest.approx(32 / (2 + 2 / 3))
    object.__setattr__(curve, "values", np.ones(9))
    assert curve.resolution_angstrom() == 4.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        fourier_shell_correlation(np.zeros((8, 8, 8)), np.zeros((10, 10, 10)), 1.0)


def test_mask_holds_the_molecule() -> None:
    density = protein_phantom()
    mask = soft_mask(density.voxels, density.pixel_size_angstrom)
    assert mask.min() >= 0
    assert mask.max() == 1
    assert density.voxels[mask > 0.5].sum() > 0.98 * density.voxels.sum()
    assert (mask > 0.5).mean() < 0.25


@pytest.mark.parametrize(("name", "symmetry", "least"), [("ribo70S", "C1", 0.88), ("betagalD2", "D2", 0.96)])
def test_reconstruction_is_as_good_as_relions(
    shared_data: Path, name: str, symmetry: str, least: float
) -> None:
    """At true poses: masked correlation to the truth no worse than RELION's stored map."""
    folder = shared_data / "relion_reference" / "reconstruct"
    stack = ParticleStack.read(shared_data / "particles" / f"{name}_train.star")
    truth = DensityMap.read(shared_data / "particles" / f"{name}_truth.mrc").voxels
    theirs = DensityMap.read(folder / f"{name}_train_full.mrc").voxels
    mask = DensityMap.read(folder / f"{name}_train_mask.mrc").voxels
    projector = BackProjector(stack.box, symmetry=symmetry)
    rotations, shifts = stack.rotations(), -stack.shifts_angstrom() / stack.pixel_size_angstrom
    ctf = stack.ctf_parameters()
    for start in range(0, len(stack), 250):
        rows = slice(start, start + 250)
        projector.add(
            stack.images(rows),
            rotations[rows],
            ctf_2d(ctf[rows], stack.box, stack.pixel_size_angstrom),
            shifts[rows],
        )
    ours = projector.solve()
    assert masked_correlation(ours, truth, mask) >= max(least, masked_correlation(theirs, truth, mask))
    agreement = fourier_shell_correlation(ours, theirs, stack.pixel_size_angstrom, mask)
    assert agreement.values[: stack.box // 4].min() > 0.99
