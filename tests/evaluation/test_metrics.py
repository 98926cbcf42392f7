"""CESPED's metrics against the answers of CESPED's own package, and their properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.evaluation.metrics import (
    PoseErrors,
    gold_standard,
    map_agreement,
    mean_angular_error_degrees,
    pearson_correlation,
    pose_errors,
    shift_rmse_angstrom,
    weighted_mean_angular_error_degrees,
    whole_shell_correlation,
)
from napari_cryosphere.particles import DensityMap, ParticleStack

REFERENCE = Path(__file__).parents[1] / "data" / "cesped"
WEIGHT = "rlnMaxValueProbDistribution"


def read(kind: str, symmetry: str, half: int) -> ParticleStack:
    stack = ParticleStack.read(REFERENCE / f"{kind}_{symmetry}_{half}.star", require_images=False)
    return stack[np.argsort(stack.image_names())]


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_poses_as_cespeds_package_scores_them(symmetry: str, half: int) -> None:
    answers = json.loads((REFERENCE / "particles.json").read_text())[f"{symmetry}_{half}"]
    truth, found = read("truth", symmetry, half), read("predicted", symmetry, half)
    poses = (
        truth.rotations(),
        found.rotations(),
        symmetry,
        truth.shifts_angstrom(),
        found.shifts_angstrom(),
    )
    weights = truth.particles[WEIGHT].to_numpy()

    def weighted(by: np.ndarray | None) -> float | None:
        return weighted_mean_angular_error_degrees([pose_errors(*poses, by)])

    errors = [pose_errors(*poses, weights)]
    assert mean_angular_error_degrees(errors) == pytest.approx(answers["mean"], abs=1e-4)
    assert shift_rmse_angstrom(errors) == pytest.approx(answers["shift_rmse"], abs=1e-4)
    assert weighted(weights) == pytest.approx(answers["weighted"], abs=1e-4)
    every_third = np.where(np.arange(len(weights)) % 3, 0, weights)
    assert weighted(every_third) == pytest.approx(answers["weighted_by_every_third"], abs=1e-4)
    # the package says NaN, which JSON holds as null: there is no such mean
    assert answers["weighted_without_weights"] is None
    assert weighted(None) is None
    assert answers["weighted_by_zeros"] is None
    assert weighted(np.zeros(len(weights))) is None


def test_two_halves_are_put_together_as_the_package_does_it() -> None:
    """MAnE and shifts: the mean of the halves'; wMAnE: of all particles."""
    answers = json.loads((REFERENCE / "particles.json").read_text())
    halves = []
    for half in (0, 1):
        truth, found = read("truth", "D2", half), read("predicted", "D2", half)
        shifts = truth.shifts_angstrom(), found.shifts_angstrom()
        halves.append(
            pose_errors(
                truth.rotations(), found.rotations(), "D2", *shifts, truth.particles[WEIGHT]
            )
        )
    first, second = answers["D2_0"], answers["D2_1"]
    total = first["total_weight"] + second["total_weight"]
    weighted = sum(half["weighted"] * half["total_weight"] for half in (first, second)) / total
    assert mean_angular_error_degrees(halves) == pytest.approx(
        (first["mean"] + second["mean"]) / 2, abs=1e-4
    )
    assert weighted_mean_angular_error_degrees(halves) == pytest.approx(weighted, abs=1e-4)
    mean_rmse = (first["shift_rmse"] + second["shift_rmse"]) / 2
    assert shift_rmse_angstrom(halves) == pytest.approx(mean_rmse, abs=1e-4)


def test_no_figure_where_one_half_lacks_it() -> None:
    with_all = PoseErrors(np.ones(3), np.ones(3), np.ones(3))
    without = PoseErrors(np.ones(3))
    assert weighted_mean_angular_error_degrees([with_all, without]) is None
    assert shift_rmse_angstrom([with_all, without]) is None
    assert mean_angular_error_degrees([with_all, without]) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maps_as_cespeds_package_scores_them(dtype: type[np.floating]) -> None:
    answers = json.loads((REFERENCE / "maps.json").read_text())
    names = ("map_0", "map_1", "mask")
    first, second, mask = (DensityMap.read(REFERENCE / f"{name}.mrc") for name in names)
    for suffix, inside in (("", None), ("_masked", mask)):
        found = map_agreement(first, second, inside)
        assert found.pcc == pytest.approx(answers[f"pcc{suffix}"], abs=1e-4)
        assert found.fscr_angstrom(0.143) == pytest.approx(answers[f"fscr_0143{suffix}"], abs=1e-4)
        assert found.fscr_angstrom(0.5) == pytest.approx(answers[f"fscr_05{suffix}"], abs=1e-4)
        weights = None if inside is None else inside.voxels.astype(dtype)
        voxels = first.voxels.astype(dtype), second.voxels.astype(dtype)
        assert pearson_correlation(*voxels, weights) == pytest.approx(
            answers[f"pcc{suffix}"], abs=1e-4
        )
        curve = whole_shell_correlation(*voxels, 3.0, weights)
        assert curve.resolution_angstrom(0.5) == pytest.approx(
            answers[f"fscr_05{suffix}"], abs=1e-4
        )


def test_shells_against_a_full_transform() -> None:
    """Every frequency counted once, in shells k <= r < k + 1."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(8, 8, 8))
    second = first + rng.normal(size=(8, 8, 8))
    f, g = np.fft.fftn(first), np.fft.fftn(second)
    frequency = np.fft.fftfreq(8, 1 / 8)
    grid = np.meshgrid(frequency, frequency, frequency, indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid))
    expected = []
    for shell in range(5):
        here = (radius >= shell) & (radius < shell + 1)
        power = np.sqrt((abs(f[here]) ** 2).sum() * (abs(g[here]) ** 2).sum())
        expected.append((f[here] * g[here].conj()).sum().real / power)
    found = whole_shell_correlation(first, second, 1.0).values
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_maps_that_agree_everywhere_and_maps_without_contrast() -> None:
    rng = np.random.default_rng(0)
    density = DensityMap(rng.normal(size=(8, 8, 8)).astype(np.float32), 2.0)
    same = map_agreement(density, density)
    assert same.pcc == pytest.approx(1)
    assert same.fscr_angstrom(0.143) == 4.0  # Nyquist
    flat = DensityMap(np.zeros((8, 8, 8), dtype=np.float32), 2.0)
    assert map_agreement(density, flat).pcc == 0


def test_differences_are_worse_when_positive() -> None:
    """Perfect predictions cost nothing against the whole truth; noise costs correlation and
    resolution.
    """
    rng = np.random.default_rng(1)
    axis = np.arange(16) - 8
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    clean = np.exp(-((x - 1) ** 2 + y**2 + (z + 2) ** 2) / 6)

    def noisy(level: float) -> DensityMap:
        return DensityMap((clean + level * rng.normal(size=clean.shape)).astype(np.float32), 2.0)

    truth = [noisy(0.05), noisy(0.05)]
    assert gold_standard(truth, truth).truth_predicted.pcc == pytest.approx(1)
    values = gold_standard(truth, [noisy(1), noisy(1)]).values()
    assert values["delta_pcc"] > 0.1
    assert values["delta_fscr_05_angstrom"] > 0
    assert values["delta_pcc"] == pytest.approx(values["pcc_gt0_gt1"] - values["pcc_gt_v"])


def test_maps_on_different_grids_are_refused() -> None:
    small, large = (DensityMap(np.ones((box,) * 3, dtype=np.float32), 2.0) for box in (8, 10))
    with pytest.raises(MetadataError, match="box of 10"):
        map_agreement(small, large)
