"""Temperatures are found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.model.card import Calibration
from napari_cryosphere.model.pose_model import LARGEST_CHANGE, temperatures
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.wigner import band_mask, evaluate_at, wigner_matrices
from napari_cryosphere.training.calibration import calibrate


def distributions(number: int, spread: float) -> torch.Tensor:
    """Return random log-densities of degree 3; ``spread`` makes them sharp."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(number, 4, 7, 4, 2, generator=generator)
    return torch.view_as_complex(values) * spread * band_mask(3)


def draws(coefficients: torch.Tensor, symmetry: str) -> np.ndarray:
    """Return a pose drawn from each distribution."""
    drawn = PoseDistribution.from_coefficients(coefficients, symmetry).sample(
        1, np.random.default_rng(2)
    )
    return drawn[:, 0]


@pytest.mark.parametrize(("temperature", "symmetry"), [(0.6, "C1"), (1.7, "C1"), (1.4, "C2")])
def test_temperature_is_found_again(temperature: float, symmetry: str) -> None:
    """Poses drawn from p, and p^temperature given as the prediction: it is divided out."""
    honest = distributions(60, 0.5)
    found = calibrate(
        PoseDistribution.from_coefficients(honest * temperature, symmetry), draws(honest, symmetry)
    )
    assert found.temperature == pytest.approx(temperature, rel=0.3)
    assert found.particles == 60
    assert found.coverage["0.5"] == pytest.approx(0.5, abs=0.12)
    assert found.coverage["0.9"] == pytest.approx(0.9, abs=0.08)


def test_temperature_follows_the_contrast() -> None:
    """Too sure where the CTF lets little through, not sure enough where it lets much."""
    number = 240
    strong = torch.arange(number) % 2 == 0
    ctf = torch.where(strong, 0.8, 0.4)[:, None].expand(-1, 9)
    known = torch.where(strong, 0.75, 1.35)
    honest = distributions(number, 0.7)
    given = PoseDistribution.from_coefficients(honest * known[:, None, None, None])
    rotations = draws(honest, "C1")
    found = calibrate(given, rotations, ctf)
    assert found.slope < 0
    torch.testing.assert_close(temperatures(found, ctf).flatten(), known, rtol=0.25, atol=0)
    blind = calibrate(given, rotations)
    assert blind.slope == 0
    assert 0.85 < blind.temperature < 1.2  # right for none
    same = calibrate(given, rotations, torch.full((number, 9), 0.6))
    assert (same.temperature, same.slope) == (blind.temperature, 0)


def test_temperatures_change_within_what_was_looked_at() -> None:
    known = Calibration(temperature=2.0, log_contrast=0.0, slope=-1.0)
    weak = torch.full((1, 9), 1e-3)
    assert float(temperatures(known, weak)) == pytest.approx(2 * np.exp(LARGEST_CHANGE))
    assert float(temperatures(known, None)) == 2
    assert float(temperatures(known, torch.ones(1, 9))) == pytest.approx(2)
    assert float(temperatures(known, torch.full((1, 9), 0.9))) == pytest.approx(2 / 0.81)


def test_narrow_peaks_are_not_sharpened() -> None:
    """Peaks a third of a cell of the loss's grid wide, known poses drawn from them: nothing to
    mend.
    """
    peaks = random_rotations(60, np.random.default_rng(5))
    coefficients = peaked(torch.from_numpy(peaks), degree=8, height=34.0)
    found = calibrate(PoseDistribution.from_coefficients(coefficients), draws(coefficients, "C1"))
    assert found.temperature == pytest.approx(1, abs=0.35)


def peaked(poses: torch.Tensor, degree: int, height: float) -> torch.Tensor:
    """Return log-densities with one peak, at each pose: ``sum_l (2 l + 1) D^l(R^T X)``, scaled."""
    conjugates = torch.stack([wigner_matrices(pose, degree) for pose in poses.numpy()])
    weights = 2 * torch.arange(degree + 1) + 1.0
    kernel = conjugates.conj()[..., degree:] * weights[:, None, None]
    top = evaluate_at(kernel, poses[:, None])
    return kernel * (height / top)[..., None, None]
