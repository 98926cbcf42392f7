"""Modes and summaries of band-limited log-densities: exact derivatives, every maximum, sums of fine
grids.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.so3.asymmetric_unit import expand
from napari_cryosphere.so3.distributions import HarmonicDistribution, PoseDistribution
from napari_cryosphere.so3.distributions.modes import by_differences
from napari_cryosphere.so3.distributions.smooth import SmoothDistribution
from napari_cryosphere.so3.gauss_legendre import gauss_legendre_grid
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.plane_waves import PlaneWaves
from napari_cryosphere.so3.rotations import (
    random_rotations,
    rotation_from_relion_angles,
    rotation_from_vector,
)
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.so3.wigner import band_mask, evaluate_at, wigner_matrices


def coefficients(number: int, l_max: int, scale: float, seed: int = 0) -> torch.Tensor:
    """Random functions of a standard deviation of ``scale`` nats, whose power falls with the
    degree.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = number, l_max + 1, 2 * l_max + 1, l_max + 1
    degree = torch.arange(l_max + 1.0)[:, None, None]
    fall = torch.sqrt(2 * degree + 1) / (1 + (degree / 4) ** 2)
    grid = gauss_legendre_grid(l_max, 1.0, torch.float64)
    drawn = (
        torch.randn(shape, dtype=torch.complex128, generator=generator) * band_mask(l_max) * fall
    )
    values = grid.to_grid(drawn)
    return grid.from_grid(values * scale / values.std()).to(torch.complex64)


def harmonic(number: int, l_max: int, scale: float, symmetry: str = "C1") -> HarmonicDistribution:
    return PoseDistribution.from_coefficients(coefficients(number, l_max, scale), symmetry)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.complex128, 1e-5), (torch.complex64, 3e-3)],
    ids=["double", "single"],
)
def test_derivatives_are_those_of_differences(dtype: torch.dtype, tolerance: float) -> None:
    """Near and on the poles too, where the angles degenerate."""
    functions = coefficients(2, 6, 3.0)
    poses = random_rotations(12, np.random.default_rng(1))
    poses[:4] = rotation_from_relion_angles(
        [[10, 0.5, 20], [30, 0, 40], [50, 179.6, 60], [70, 180, 80]]
    )
    both = np.broadcast_to(poses, (2, 12, 3, 3)).copy()

    def score(rotations: np.ndarray) -> np.ndarray:
        return evaluate_at(functions.to(torch.complex128), torch.from_numpy(rotations)).numpy()

    expected = by_differences(score, np.degrees(1e-4))(both, 0)
    waves = PlaneWaves(functions.to(dtype))
    found = waves.derivatives(torch.from_numpy(both).to(functions.to(dtype).real.dtype))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=tolerance * np.abs(theirs).max())


def test_values_along_psi() -> None:
    functions = coefficients(3, 5, 1.0)
    frames = random_rotations(8, np.random.default_rng(2)).reshape(4, 2, 3, 3)
    rows, psi = np.array([0, 0, 2, 2]), np.array([0.1, 2.0, 5.0])
    turns = rotation_from_vector(psi[:, None] * [0, 0, 1])
    found = PlaneWaves(functions).along_psi(rows, torch.from_numpy(frames), psi)
    poses = (frames[:, :, None] @ turns).reshape(4, 6, 3, 3)
    expected = evaluate_at(functions[rows].to(torch.complex128), torch.from_numpy(poses)).reshape(
        4, 2, 3
    )
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(("l_max", "scale", "symmetry"), [(8, 3.0, "C1"), (6, 4.0, "D2")])
def test_modes_are_all_maxima(l_max: int, scale: float, symmetry: str) -> None:
    """Against climbs by finite differences in double precision from poses drawn at random."""
    distribution = harmonic(2, l_max, scale, symmetry)
    modes = distribution.mode(6)
    slopes, curvatures = _at(distribution, modes.rotations)
    assert curvatures.max() < 0
    assert slopes.max() < 0.05
    starts = random_rotations(100, np.random.default_rng(3))
    climbed = SmoothDistribution.climb(distribution, np.broadcast_to(starts, (2, 100, 3, 3)))
    for _ in range(2):
        climbed = SmoothDistribution.climb(distribution, climbed)
    slopes, curvatures = _at(distribution, climbed)
    logs = np.where((slopes < 0.1) & (curvatures < 0), distribution.log_prob(climbed), -np.inf)
    reached = np.argwhere(logs > modes.log_prob[:, -1:] + 0.01)
    assert len(reached) > 4
    for row, place in reached:
        this = np.broadcast_to(climbed[row, place], (6, 3, 3))
        assert angular_error_degrees(this, modes.rotations[row], symmetry).min() < 0.2
    np.testing.assert_allclose(modes.log_prob, distribution.log_prob(modes.rotations), atol=1e-3)


def _at(distribution: HarmonicDistribution, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the length in degrees of Newton's step and the highest curvature at poses."""
    _, gradient, hessian = distribution.derive()(poses, 0)
    step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
    return np.degrees(np.linalg.norm(step, axis=-1)), np.linalg.eigvalsh(hessian)[..., -1]


def test_modes_are_as_far_apart_as_asked() -> None:
    distribution = harmonic(3, 8, 4.0, "C2")
    close, far = distribution.mode(4), distribution.mode(4, apart_degrees=60)
    np.testing.assert_array_equal(close.rotations[:, 0], far.rotations[:, 0])
    assert (far.log_prob <= close.log_prob + 1e-9).all()
    for row in range(3):
        for i in range(1, 4):
            others = far.rotations[row, :i]
            this = np.broadcast_to(far.rotations[row, i], others.shape)
            assert angular_error_degrees(others, this, "C2").min() > 60
    none_left = distribution.mode(60, apart_degrees=60)
    assert np.isnan(none_left.rotations[:, -1]).all()
    assert np.isneginf(none_left.log_prob[:, -1]).all()
    with pytest.raises(ValueError, match="0 to 180 degrees apart"):
        distribution.mode(2, apart_degrees=200)


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2"])
@pytest.mark.parametrize("scale", [1.0, 3.0, 8.0])
def test_summary_is_the_sum_over_a_fine_grid(symmetry: str, scale: float) -> None:
    """Against all cells of order 4, whose spacing resolves these peaks, without unit or refinement."""
    distribution = harmonic(2, 4, scale, symmetry)
    summary = distribution.summary()
    logs = distribution.values_on_grid(4).flatten(1).double().numpy()
    total = np.logaddexp.reduce(logs, axis=1, keepdims=True) - np.log(logs.shape[1])
    np.testing.assert_allclose(distribution.log_normaliser, total[:, 0], atol=0.015)
    mass = np.exp(logs - total) / logs.shape[1]
    np.testing.assert_allclose(summary.entropy, -(mass * (logs - total)).sum(1), atol=0.03)
    centres = SO3Grid(4).rotations().reshape(-1, 9)
    images = expand(summary.rotations, symmetry).reshape(2, -1, 9)
    angles = np.degrees(np.arccos((((centres @ images.swapaxes(1, 2)).max(2) - 1) / 2).clip(-1, 1)))
    np.testing.assert_allclose(summary.spread_degrees, (mass * angles).sum(1), rtol=0.01)
    np.testing.assert_allclose(summary.confidence, (mass * (angles <= 30)).sum(1), atol=0.01)


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_summary_agrees_with_cells(symmetry: str) -> None:
    """The best cell of order 3 and the rest, by way of cells of mixed orders: the two ways share no
    sum.
    """
    distribution = harmonic(3, 6, 7.0, symmetry)
    summary, cells = distribution.summary(), distribution.cells()
    np.testing.assert_allclose(summary.entropy, cells.entropy(), atol=0.05)
    masses = np.concatenate([cells[row].unit_masses(3).max(1) for row in range(3)])
    np.testing.assert_allclose(summary.max_probability, masses, rtol=0.1)


@pytest.mark.parametrize(("symmetry", "scale"), [("C1", 3.0), ("D2", 9.0), ("C3", 6.0), ("C1", 0)])
def test_levels_are_those_of_cells(symmetry: str, scale: float) -> None:
    """The same rules as for cells of mixed orders, in arrays; level densities included."""
    distribution = harmonic(4, 8, scale, symmetry)
    poses = np.concatenate(
        [distribution.sample(2, np.random.default_rng(1)), np.tile(np.eye(3), (4, 1, 1, 1))], 1
    )
    expected = SmoothDistribution.credible_level(distribution, poses)
    np.testing.assert_allclose(distribution.credible_level(poses), expected, atol=0.02)
    assert distribution.credible_level(poses[:, 0]).shape == (4,)


def test_levels_of_a_sharp_peak_are_uniform() -> None:
    """Poses drawn from an IGSO(3)-like peak far narrower than the grid, ranked by their known
    distance.
    """
    centre = random_rotations(1, np.random.default_rng(3))
    waves = torch.stack([wigner_matrices(pose, 10) for pose in centre]).conj()[..., 10:]
    kernel = waves * (2 * torch.arange(11) + 1.0)[:, None, None]
    top = evaluate_at(kernel, torch.from_numpy(centre[:, None]))
    sharp = PoseDistribution.from_coefficients(
        (kernel * (60 / top)[..., None, None]).to(torch.complex64)
    )
    drawn = sharp.sample(4000, np.random.default_rng(4))
    levels = np.sort(sharp.credible_level(drawn)[0])
    assert np.abs(levels - (np.arange(4000) + 0.5) / 4000).max() < 0.03
