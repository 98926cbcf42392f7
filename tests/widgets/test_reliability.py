"""Confidence against observed share."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cryosphere.widgets.docks.main.calibration_panel import in_words
from napari_cryosphere.widgets.state.reliability import reliability_of


def test_shares_are_those_of_the_draws() -> None:
    """Errors drawn so that a particle of confidence p is within 30 degrees with probability p."""
    rng = np.random.default_rng(5)
    confidence = rng.uniform(size=5000)
    errors = np.where(rng.uniform(size=5000) < confidence, 10.0, 120.0)
    found = reliability_of(confidence, np.full(5000, 4.0), errors)
    assert found is not None
    np.testing.assert_allclose(found.observed, found.confidence, atol=0.05)
    np.testing.assert_allclose(found.confidence, [0.1, 0.3, 0.5, 0.7, 0.9], atol=0.02)
    overconfident = reliability_of(np.ones(100), np.full(100, 2.0), np.repeat([10.0, 120.0], 50))
    assert overconfident is not None
    assert overconfident.within == pytest.approx(0.5)
    assert in_words(overconfident) == (
        "mean confidence 100 %, within 30°: 50 % · mean spread 2.0°, mean error 65.0°"
    )


def test_too_few_or_unknown_poses_say_nothing() -> None:
    assert reliability_of(np.ones(19), np.ones(19), np.ones(19)) is None
    assert reliability_of(np.ones(50), np.ones(50), np.full(50, np.nan)) is None
