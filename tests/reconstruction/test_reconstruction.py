"""Back-projection, FSC and masks: adjointness, analytic phantoms, RELION's stored results."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_cryosphere.errors import CryosphereError, FileFormatError, MetadataError
from napari_cryosphere.imaging.ctf import ctf_2d
from napari_cryosphere.imaging.fourier import frequency_grid, from_fourier, shift_phases, to_fourier
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector, sinc_squared
from napari_cryosphere.imaging.simulate import draw_parameters
from napari_cryosphere.jobs.reconstruct import Reconstruction, reconstruct_stack
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import (
    BackProjector,
    WeightedPoses,
    _insertion,
    fourier_shell_correlation,
    masked_correlation,
    soft_mask,
    ssnr_of_full_map,
)
from napari_cryosphere.reconstruction._solving import divide
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, random_rotations
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
            from_fourier(shifted[rows]),
            parameters.rotations[rows],
            ctf[rows],
            parameters.shifts_px[rows],
        )
    made = projector.solve()
    assert masked_correlation(made, volume) > 0.995
    assert (made * volume).sum() / (volume**2).sum() == pytest.approx(1, abs=0.02)


def test_insertion_is_the_adjoint_of_slicing() -> None:
    """<P v, y> = <v, P* y>: back-projecting images y correlates with v as y does with v's
    projections.
    """
    density = protein_phantom(BOX, PIXEL_SIZE)
    rotations = random_rotations(20, np.random.default_rng(2))
    projector = Projector(density.voxels, 2)
    back = BackProjector(BOX)
    rng = np.random.default_rng(3)
    noise = torch.from_numpy(rng.normal(size=(20, BOX, BOX)).astype(np.float32))
    images = noise + 20 * projector.project(rotations)
    back.add(images, rotations)
    inside = frequency_grid(BOX).norm(dim=-1) <= BOX / 2
    twice = torch.where(torch.arange(BOX // 2 + 1) == 0, 1.0, 2.0)  # columns x > 0 stand for two
    left = (twice * (projector.slices(rotations).conj() * to_fourier(images)).real * inside).sum()
    fall_off = sinc_squared(2 * BOX, BOX).numpy()
    corrected = density.voxels / (fall_off[:, None, None] * fall_off[:, None] * fall_off)
    centred = np.fft.ifftshift(np.pad(corrected, BOX // 2)).transpose(1, 2, 0)  # y, x, z
    sums = back.sums()
    product = (np.fft.rfftn(centred).conj() * (sums[..., 0] + 1j * sums[..., 1])).real
    right = product[:, :, 0].sum() + 2 * product[:, :, 1:].sum()  # z > 0 stands for two
    assert float(right) == pytest.approx(float(left), rel=1e-4)


def test_batches_and_sums_of_accumulators_equal_one_batch() -> None:
    rotations = random_rotations(30, np.random.default_rng(4))
    images = np.random.default_rng(5).normal(size=(30, BOX, BOX)).astype(np.float32)
    whole, first, second = BackProjector(BOX), BackProjector(BOX), BackProjector(BOX)
    whole.add(images, rotations)
    first.add(images[:11], rotations[:11])
    second.add(images[11:], rotations[11:])
    first += second
    assert first.inserted == 30
    np.testing.assert_allclose(
        first.solve(), whole.solve(), atol=1e-4 * np.abs(whole.solve()).max()
    )


def test_weight_counts_like_repetition() -> None:
    rotations = random_rotations(6, np.random.default_rng(6))
    images = np.random.default_rng(7).normal(size=(6, BOX, BOX)).astype(np.float32)
    weighted, repeated = BackProjector(BOX), BackProjector(BOX)
    weighted.add(images, rotations, weights=[2, 1, 0, 1, 1, 1])
    rows = [0, 0, 1, 3, 4, 5]
    repeated.add(images[rows], rotations[rows])
    np.testing.assert_allclose(weighted.solve(), repeated.solve(), atol=1e-5)


def test_several_weighted_poses_are_weighted_sums() -> None:
    rng = np.random.default_rng(16)
    images = rng.normal(size=(5, BOX, BOX)).astype(np.float32)
    poses = random_rotations(15, rng).reshape(5, 3, 3, 3)
    weights = np.array([[0.5, 0.3, 0.2], [1, 0, 0], [0, 0, 0], [0.4, 0.4, 0.1], [0, 1, 0]])
    together, apart = BackProjector(BOX), BackProjector(BOX)
    together.add(images, poses, weights=weights)
    for mode in range(3):
        apart.add(images, poses[:, mode], weights=weights[:, mode])
    assert (together.inserted, apart.inserted) == (5, 15)
    np.testing.assert_allclose(together.sums(), apart.sums(), atol=1e-4)


def test_distributions_become_weighted_poses() -> None:
    """Two poses with a density ratio of 4."""
    rng = np.random.default_rng(20)
    poses = random_rotations(4, rng).reshape(2, 2, 3, 3)
    log_weights = np.log([[0.8, 0.2], [1.0, 1e-300]])
    distribution = PoseDistribution.from_poses(poses, log_weights, width_degrees=5.0)
    drawn = WeightedPoses.samples_of(distribution, 200, rng)
    near = geodesic_distance_degrees(drawn.rotations[0], poses[0, 0]) < 30
    assert near.mean() == pytest.approx(0.8, abs=0.12)
    np.testing.assert_allclose(drawn.weights, 1 / 200)


def test_sums_are_saved_and_added_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(17)
    images, poses = rng.normal(size=(8, BOX, BOX)), random_rotations(8, rng)
    whole, first, second = (BackProjector(BOX, symmetry="C3") for _ in range(3))
    whole.add(images, poses)
    first.add(images[:5], poses[:5])
    second.add(images[5:], poses[5:])
    first.save(tmp_path / "sums.safetensors")
    loaded = BackProjector.load(tmp_path / "sums.safetensors")
    assert (loaded.inserted, loaded.symmetry) == (5, "C3")
    loaded += second
    np.testing.assert_allclose(loaded.sums(), whole.sums(), atol=1e-4)
    (tmp_path / "other.safetensors").write_bytes(b"no sums")
    with pytest.raises(FileFormatError, match="does not hold the sums"):
        BackProjector.load(tmp_path / "other.safetensors")


def test_only_like_sums_are_added() -> None:
    first = BackProjector(BOX)
    with pytest.raises(ValueError, match="one box, padding and symmetry"):
        first += BackProjector(BOX, symmetry="C2")


def test_large_and_small_volumes_sum_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout for large boxes, one corner a block, gives the same sums."""
    rng = np.random.default_rng(18)
    images, poses = rng.normal(size=(4, BOX, BOX)), random_rotations(4, rng)
    small = BackProjector(BOX)
    monkeypatch.setattr(_insertion, "_LARGEST_WITH_BLOCKS", BOX)
    large = BackProjector(BOX)
    assert large._volume._corners == 1 < small._volume._corners
    for projector in (small, large):
        projector.add(images, poses)
    np.testing.assert_allclose(large.sums(), small.sums(), atol=1e-4)


@pytest.mark.parametrize("symmetry", ["C2", "C4", "C7", "D2", "D7", "T", "O"])
def test_imposed_symmetry_equals_inserting_every_operator(symmetry: str) -> None:
    rotations = random_rotations(40, np.random.default_rng(8))
    images = Projector(protein_phantom(BOX, PIXEL_SIZE).voxels).project(rotations)
    once, every = BackProjector(BOX, symmetry=symmetry), BackProjector(BOX)
    once.add(images, rotations)
    for operator in point_group(symmetry):
        every.add(images, operator @ rotations)
    ours, expected = once.solve(), every.solve()
    assert np.corrcoef(ours.ravel(), expected.ravel())[0, 1] > 0.998
    assert (ours * expected).sum() / (expected**2).sum() == pytest.approx(1, abs=0.02)
    assert len(once._symmetry.insertions) * once._symmetry.order == len(point_group(symmetry))


@pytest.mark.parametrize(
    ("images", "weights", "message"),
    [
        (np.full((1, BOX, BOX), np.nan), None, "not finite"),
        (np.full((1, BOX, BOX), 3e38), None, "too large"),
        (np.ones((1, BOX, BOX)), [-1.0], "negative"),
        (np.ones((1, BOX, BOX)), [np.nan], "not a finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
def test_what_is_not_finite_is_refused(
    images: np.ndarray, weights: list[float] | None, message: str
) -> None:
    with pytest.raises(CryosphereError, match=message):
        BackProjector(BOX).add(images, np.eye(3)[None], weights=weights)


def test_no_particles_make_no_map() -> None:
    with pytest.raises(CryosphereError, match="no particle"):
        BackProjector(BOX).solve()


def test_wiener_filter_lowers_noise_and_keeps_signal() -> None:
    density = protein_phantom(BOX, PIXEL_SIZE)
    rng = np.random.default_rng(19)
    rotations = random_rotations(300, rng)
    images = Projector(density.voxels).project(rotations)
    images = images + torch.from_numpy(rng.normal(scale=3 * float(images.std()), size=images.shape))
    halves = [BackProjector(BOX) for _ in range(2)]
    for half, projector in enumerate(halves):
        projector.add(images[half::2], rotations[half::2])
    curve = fourier_shell_correlation(*(projector.solve() for projector in halves), PIXEL_SIZE)
    full, other = halves
    full += other
    plain, filtered = full.solve(), full.solve(ssnr_of_full_map(curve))
    assert (
        masked_correlation(filtered, density.voxels)
        > masked_correlation(plain, density.voxels) + 0.05
    )
    low = fourier_shell_correlation(plain, filtered, PIXEL_SIZE).values[:5]
    assert low.min() > 0.98


def test_half_box_must_match() -> None:
    with pytest.raises(ValueError, match="even"):
        BackProjector(33)


def test_mask_holds_the_molecule() -> None:
    density = protein_phantom()
    mask = soft_mask(density.voxels, density.pixel_size_angstrom)
    assert mask.min() >= 0
    assert mask.max() == 1
    assert density.voxels[mask > 0.5].sum() > 0.98 * density.voxels.sum()
    assert (mask > 0.5).mean() < 0.25


@pytest.mark.parametrize(("name", "symmetry"), [("ribo70S", "C1"), ("betagalD2", "D2")])
def test_reconstruction_is_as_good_as_relions(shared_data: Path, name: str, symmetry: str) -> None:
    """At true poses, against the truth and against RELION's stored map, with and without
    regularisation.
    """
    folder = shared_data / "relion_reference/reconstruct"
    stack = ParticleStack.read(shared_data / f"particles/{name}_train.star")
    truth = DensityMap.read(shared_data / f"particles/{name}_truth.mrc").voxels
    theirs = DensityMap.read(folder / f"{name}_train_full.mrc").voxels
    mask = DensityMap.read(folder / f"{name}_train_mask.mrc").voxels
    half_curve = np.loadtxt(folder / f"{name}_train_fsc.csv", delimiter=",", skiprows=1)[:, 2]
    shared = int(np.flatnonzero(half_curve < 0.5)[0])
    for regularise in (True, False):
        made = finished(reconstruct_stack(stack, symmetry, regularise=regularise))
        ours = made.density.voxels
        assert masked_correlation(ours, truth, mask) >= masked_correlation(theirs, truth, mask)
        to_truth, relions = (
            fourier_shell_correlation(voxels, truth, 1.0, mask).resolution_angstrom(0.5)
            for voxels in (ours, theirs)
        )
        assert to_truth <= relions * 1.002  # crossings between shells
        agreement = fourier_shell_correlation(ours, theirs, 1.0)
        assert agreement.values[:shared].min() >= 0.99
        assert edge_noise(ours) <= edge_noise(theirs)


def edge_noise(voxels: np.ndarray) -> float:
    """Root mean square in the outer tenth of the box."""
    margin = round(0.05 * len(voxels))
    inner = (slice(margin, -margin),) * 3
    power = (voxels.astype(np.float64) ** 2).sum() - (voxels[inner].astype(np.float64) ** 2).sum()
    return float(np.sqrt(power / (voxels.size - voxels[inner].size)))


def finished(events: Generator[Any, None, Reconstruction]) -> Reconstruction:
    """Run a reconstruction to its end."""
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("regularised", [False, True])
def test_division_is_by_weight_and_noise_inside_nyquist_alone(regularised: bool) -> None:
    """Voxel by voxel, every shell having its mean weight; beyond Nyquist nothing stays."""
    size, padding, floor = 16, 2, 0.5
    rng = np.random.default_rng(3)
    sums = rng.normal(size=(size, size, size // 2 + 1, 3)).astype(np.float32)
    sums[..., 2] = rng.uniform(0.01, 4.0, sums.shape[:3])
    ssnr = rng.uniform(0.5, 4.0, size // padding // 2 + 1)
    found = divide(sums, padding, ssnr if regularised else None, floor)
    squared = np.fft.fftfreq(size, 1 / size) ** 2
    radius = (
        np.sqrt(squared[:, None, None] + squared[:, None] + np.arange(size // 2 + 1) ** 2) / padding
    )
    shell = np.rint(radius).astype(int)
    means = np.array([sums[..., 2][shell == k].mean() for k in range(shell.max() + 1)])
    between = np.interp(radius, np.arange(len(means)), means)
    divisor = np.maximum(sums[..., 2], floor * between)
    if regularised:
        divisor = divisor + np.interp(radius, np.arange(len(ssnr)), means[: len(ssnr)] / ssnr)
    inside = radius <= size / padding / 2
    expected = np.where(inside, (sums[..., 0] + 1j * sums[..., 1]) / divisor, 0)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)
    assert (found[~inside] == 0).all()


@pytest.mark.parametrize(
    ("poses", "weights", "says"),
    [
        (
            np.eye(3)[None],
            [[1.0]],
            r"must be \(n, k, 3, 3\) with weights \(n, k\), not \(1, 3, 3\)",
        ),
        (np.tile(np.eye(3), (2, 1, 1, 1)), [[1.0]], r"not \(2, 1, 3, 3\) and \(1, 1\)"),
        (
            np.tile(np.eye(3), (2, 1, 1, 1)),
            [[1.0], [-0.1]],
            "particle 2 has a pose weight that is negative",
        ),
        (np.tile(np.eye(3), (2, 1, 1, 1)), [[np.nan], [1.0]], "particle 1 has a pose weight"),
        (
            np.stack([np.eye(3), -np.eye(3)])[:, None],
            [[1.0], [1.0]],
            "particle 2 has a pose that is no rotation",
        ),
        (
            np.stack([1.1 * np.eye(3), np.eye(3)])[:, None],
            [[1.0], [1.0]],
            "particle 1 has a pose that is no",
        ),
    ],
)
def test_weighted_poses_that_are_none_are_refused(
    poses: np.ndarray, weights: Any, says: str
) -> None:
    with pytest.raises(MetadataError, match=says):
        WeightedPoses(poses, np.array(weights))


def test_a_mask_keeps_the_largest_piece_and_falls_over_its_edge() -> None:
    """A ball and, apart, a smaller one: 1 on the first, 0 on the second, a raised cosine around the
    first.
    """
    axis = np.arange(64) - 32
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt((x + 8) ** 2 + y**2 + z**2)
    small = (x - 22) ** 2 + y**2 + z**2 <= 4**2
    mask = soft_mask((radius <= 10) + 1.0 * small, 1.0, low_pass_angstrom=2.0, edge_px=3.0)
    assert (mask[small] == 0).all()
    assert (mask[radius <= 10] == 1).all()
    along = mask[32, 32, 24:]  # from the centre of the large ball along x
    assert (np.diff(along) <= 0).all()
    first, last = int(np.argmax(along < 1)), int(np.argmax(along == 0))
    assert 12 <= first <= 15  # three voxels further out than the ball
    assert last - first == pytest.approx(3, abs=1)
