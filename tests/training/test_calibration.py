"""Temperatures are found again; fast levels are those of the distributions themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.so3.distribution import PoseDistribution
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.wigner import band_mask
from napari_cryosphere.training.calibration import calibrate, credible_levels, mean_negative_log_density


def distributions(number: int, spread: float) -> torch.Tensor:
    """Return random log-densities of degree 3; ``spread`` makes them sharp."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(number, 4, 7, 4, 2, generator=generator)
    return torch.view_as_complex(values) * spread * band_mask(3)


def draws(coefficients: torch.Tensor, symmetry: str) -> np.ndarray:
    """Return a pose drawn from each distribution."""
    drawn = PoseDistribution.from_coefficients(coefficients, symmetry).sample(1, np.random.default_rng(2))
    return drawn[:, 0]


@pytest.mark.parametrize(("temperature", "symmetry"), [(0.6, "C1"), (1.7, "C1"), (1.4, "D2")])
def test_temperature_is_found_again(temperature: float, symmetry: str) -> None:
    """Poses drawn from p, and p^temperature given as the prediction: it is divided out."""
    honest = distributions(300, 0.5)
    found = calibrate(honest * temperature, draws(honest, symmetry), symmetry)
    assert found.temperature == pytest.approx(temperature, rel=0.12)
    assert found.particles == 300
    assert found.coverage["0.5"] == pytest.approx(0.5, abs=0.08)
    assert found.coverage["0.9"] == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("symmetry", ["C1", "C2"])
def test_levels_are_those_of_the_distribution(symmetry: str) -> None:
    coefficients = distributions(12, 0.7)
    poses = random_rotations(12, np.random.default_rng(3))
    exact = PoseDistribution.from_coefficients(coefficients, symmetry).credible_level(poses[:, None])[:, 0]
    np.testing.assert_allclose(credible_levels(coefficients, poses, symmetry), exact, atol=0.01)


def test_loss_is_the_distributions_own() -> None:
    coefficients = distributions(20, 0.5)
    poses = random_rotations(20, np.random.default_rng(4))
    exact = PoseDistribution.from_coefficients(coefficients, "C2").log_prob(poses[:, None])
    assert mean_negative_log_density(coefficients, poses, "C2") == pytest.approx(-exact.mean(), abs=2e-3)
