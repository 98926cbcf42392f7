"""Distributions on cells of mixed orders: exact answers, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cryosphere.so3.asymmetric_unit import expand
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.symmetry import point_group

GROUPS = ["C1", "C2", "C3", "C7", "D1", "D2", "D5", "T", "O", "I1", "I2", "I3", "I4"]


def mixed(symmetry: str = "C1", number: int = 2, seed: int = 0) -> PoseDistribution:
    """A coarse grid of order 1 with some cells split to order 2, and some of these to order 3."""
    rng = np.random.default_rng(seed)
    coarse = SO3Grid(1).reduced(symmetry).indices()
    split = coarse[:: max(1, len(coarse) // 6)]
    middle = SO3Grid(1).children(split).ravel()
    fine = SO3Grid(2).children(middle[::5]).ravel()
    lists = [np.setdiff1d(coarse, split), np.setdiff1d(middle, middle[::5]), fine]
    orders = np.concatenate([np.full(len(cells), 1 + k) for k, cells in enumerate(lists)])
    density = rng.normal(size=(number, len(orders))) * 2
    return PoseDistribution.from_cells(orders, np.concatenate(lists), density, symmetry)


@pytest.mark.parametrize("symmetry", GROUPS)
def test_uniform_in_every_point_group(symmetry: str) -> None:
    cells = SO3Grid(2).reduced(symmetry).indices()
    distribution = PoseDistribution.from_cells(2, cells, np.zeros((1, len(cells))), symmetry)
    # shares on the border are measured
    np.testing.assert_allclose(distribution.entropy(), 0, atol=5e-3)
    rotations = random_rotations(4000, np.random.default_rng(1))[None]
    for level in (0.2, 0.5, 0.95):
        credible = distribution.credible_set(level)
        np.testing.assert_allclose(credible.volume, level, atol=0.01)
        assert credible.contains(rotations).mean() == pytest.approx(level, abs=0.03)
    np.testing.assert_allclose(distribution.view_map(2), 1 / 192, rtol=0.05)
    np.testing.assert_allclose(np.exp(distribution.log_prob(rotations)), 1, atol=0.01)


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2", "O", "I2"])
def test_truths_drawn_from_it_have_uniform_levels(symmetry: str) -> None:
    """The calibration plot of a perfect posterior is the diagonal, exactly: cells of three orders."""
    distribution = mixed(symmetry)
    truths = distribution.sample(4000, np.random.default_rng(2))
    group = point_group(symmetry)
    mates = group[np.random.default_rng(3).integers(len(group), size=(2, 4000))] @ truths
    levels = np.sort(distribution.credible_level(mates), axis=1)
    steps = (np.arange(4000) + 0.5) / 4000
    assert np.abs(levels - steps).max() < 1.95 / np.sqrt(4000)  # Kolmogorov-Smirnov, 0.1 per cent
    for level in (0.5, 0.9):
        np.testing.assert_array_equal(
            distribution.credible_set(level).contains(mates),
            distribution.credible_level(mates) < level,
        )


def test_credible_set_ranks_by_density_not_by_mass() -> None:
    """A fine cell of high density comes before a coarse one that holds more."""
    children = SO3Grid(1).children(100)
    orders, indices = np.array([1, 2]), np.array([[200, children[0]]])
    distribution = PoseDistribution.from_cells(orders, indices, np.log([[1.0, 4.0]]))
    # masses: 1 / 576 against 4 / 4608, two to one
    fine, coarse = SO3Grid(2).rotations(children[0]), SO3Grid(1).rotations(200)
    levels = distribution.credible_level(np.stack([fine, coarse])[None])[0]
    assert levels[0] < 1 / 3 <= levels[1] <= 1
    volume = distribution.credible_set(1 / 3).volume[0]
    assert volume == pytest.approx(1 / 4608)
    half = distribution.credible_set(1 / 3 + 1 / 3).volume[0]
    assert half == pytest.approx(1 / 4608 + 0.5 / 576)
    assert distribution.credible_level(np.eye(3)[None])[0] == 1
    density = np.array([2 / 3 * 576, 1 / 3 * 4608])
    assert distribution.entropy()[0] == pytest.approx(
        -(np.array([2, 1]) / 3 * np.log(density)).sum()
    )
    np.testing.assert_allclose(
        distribution.log_prob(np.stack([coarse, fine])[None])[0], np.log(density), atol=1e-12
    )


@pytest.mark.parametrize("symmetry", ["C1", "D2", "T"])
def test_equivalents_get_the_same_answer(symmetry: str) -> None:
    distribution = mixed(symmetry)
    rotations = random_rotations(50, np.random.default_rng(4))
    mates = expand(rotations, symmetry)
    for question in (distribution.log_prob, distribution.credible_level):
        answers = question(mates.reshape(1, -1, 3, 3)).reshape(2, 50, -1)
        np.testing.assert_allclose(answers, answers[..., :1].repeat(answers.shape[2], 2))


def test_refining_cells_changes_nothing() -> None:
    """The same density on finer cells: every answer stays."""
    rng = np.random.default_rng(5)
    indices = rng.permutation(SO3Grid(1).size)[:30]
    density = rng.normal(size=(3, 30))
    coarse = PoseDistribution.from_cells(1, indices, density)
    children = SO3Grid(1).children(indices)
    fine = PoseDistribution.from_cells(2, children.ravel(), density.repeat(8, axis=1))
    np.testing.assert_allclose(coarse.entropy(), fine.entropy(), atol=1e-12)
    np.testing.assert_allclose(
        coarse.credible_set(0.7).volume, fine.credible_set(0.7).volume, atol=2 / 4608
    )
    np.testing.assert_allclose(coarse.view_map(0), fine.view_map(0), atol=1e-12)
    np.testing.assert_allclose(coarse.view_map(3), fine.view_map(3), atol=1e-12)
    rotations = random_rotations(500, rng)[None]
    np.testing.assert_allclose(coarse.log_prob(rotations), fine.log_prob(rotations), atol=1e-12)


def test_probability_grid_adds_up_at_any_order() -> None:
    for symmetry in ("C1", "D2"):
        distribution = mixed(symmetry)
        for order in (0, 2, 3):
            probability = distribution.probability_grid(order)
            np.testing.assert_allclose(probability.sum((1, 2)), 1, atol=1e-12)


def test_rows_of_different_length() -> None:
    indices = np.array([[5, 9, -1], [7, 8, 30]])
    distribution = PoseDistribution.from_cells(1, indices, np.zeros((2, 3)))
    np.testing.assert_allclose(distribution.entropy(), np.log([2 / 576, 3 / 576]))
    alone = distribution[0]
    np.testing.assert_allclose(alone.entropy(), np.log(2 / 576))


def test_wrong_cells_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row 0, cell 1: index 576 .* legal are 0 to 575"):
        PoseDistribution.from_cells(1, [[0, 576]], [[0.0, 0.0]])
    with pytest.raises(ValueError, match="overlap"):
        PoseDistribution.from_cells(1, [[4, 4]], [[0.0, 0.0]])
    child = SO3Grid(1).children(4)[3]
    with pytest.raises(ValueError, match="overlap"):
        PoseDistribution.from_cells([[1, 2]], [[4, child]], [[0.0, 0.0]])
    with pytest.raises(ValueError, match="row 1 has no cell"):
        PoseDistribution.from_cells(1, [[3], [-1]], [[0.0], [0.0]])
    with pytest.raises(ValueError, match="numbers or minus infinity"):
        PoseDistribution.from_cells(1, [[3]], [[np.nan]])
    with pytest.raises(ValueError, match="orders must be between 0 and"):
        PoseDistribution.from_cells([[1, 99]], [[4, 5]], [[0.0, 0.0]])


def test_what_cannot_be_asked_is_refused() -> None:
    cells = mixed(seed=6)
    with pytest.raises(ValueError, match="weight must be between 0 and 1"):
        cells.mixture(cells, [0.5, 1.5])
    with pytest.raises(ValueError, match=r"level must be between 0 and 1, not 1\.2"):
        cells.credible_set(1.2)
    with pytest.raises(ValueError, match="at least one mode, not 0"):
        cells.mode(0)
    with pytest.raises(ValueError, match="0 to 180 degrees apart, not 200"):
        cells.mode(2, apart_degrees=200)
    with pytest.raises(ValueError, match="of 2 and 1 particles"):
        cells.mixture(cells[0], 0.5)
    with pytest.raises(ValueError, match="symmetries C1 and C2"):
        cells.mixture(PoseDistribution.from_cells(1, [[3], [3]], [[0.0], [0.0]], "C2"))


def test_mixture_of_cells() -> None:
    first, second = mixed(seed=6), mixed(seed=7)[np.array([1, 0])]
    rotations = random_rotations(300, np.random.default_rng(8))[None]
    p, q = (np.exp(d.log_prob(rotations)) for d in (first, second))
    mixture = np.exp(first.mixture(second, [0.3, 0.9]).log_prob(rotations))
    weight = np.array([[0.3], [0.9]])
    np.testing.assert_allclose(mixture, (1 - weight) * p + weight * q, rtol=1e-9)


def test_log_values_on_a_grid_with_symmetry() -> None:
    rng = np.random.default_rng(10)
    values = rng.normal(size=(2, 192, 24))
    plain = PoseDistribution.from_log_values(values)
    np.testing.assert_allclose(
        plain.probability_grid(2),
        np.exp(values) / np.exp(values).sum((1, 2), keepdims=True),
        rtol=1e-9,
    )
    symmetric = PoseDistribution.from_log_values(np.zeros((1, 192, 24)), "D2")
    np.testing.assert_allclose(symmetric.probability_grid(2), 1 / 4608, rtol=1e-9)
    with pytest.raises(ValueError, match="on a HEALPix x S1 grid"):
        PoseDistribution.from_log_values(np.zeros((1, 192, 23)))


def test_a_level_of_one_is_kept_for_what_is_impossible() -> None:
    """A cell so improbable that all before it sum to 1 is still inside of some credible set."""
    cells = PoseDistribution.from_cells(1, [[3, 300]], [[0.0, -60.0]])
    asked = SO3Grid(1).rotations(np.array([3, 300, 100]))
    likely, hardly, never = cells.credible_level(asked[None])[0]
    assert 0 <= likely < 1
    assert 0.999 < hardly < 1
    assert never == 1
