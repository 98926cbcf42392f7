"""What particles are sorted and filtered by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.state.particle_choices import Flag, ParticleChoices
from napari_cryosphere.widgets.state.particle_filter import FILE_ORDER, ParticleFilter
from napari_cryosphere.widgets.state.predictions import PredictionStore
from napari_cryosphere.widgets.state.quantities import categories_of, quantities_of


@pytest.fixture
def store(stack: ParticleStack) -> PredictionStore:
    return PredictionStore.of(stack)


@pytest.fixture
def choices(stack: ParticleStack) -> ParticleChoices:
    return ParticleChoices(len(stack))


@pytest.fixture
def chosen(
    stack: ParticleStack, store: PredictionStore, choices: ParticleChoices
) -> ParticleFilter:
    made = ParticleFilter(stack, store, choices)
    store.changed.connect(made.refresh)
    return made


def test_quantities_of_a_file_with_predictions(stack: ParticleStack) -> None:
    number = len(stack)
    spread = np.linspace(3, 60, number)
    columns = {
        "cryosphereSpread": spread,
        "cryosphereConfidence": np.linspace(0, 1, number),
        "rlnLogLikeliContribution": np.arange(number) * 1.0,
    }
    named = stack.with_columns(columns)
    found = quantities_of(named, PredictionStore(number))
    assert list(found)[:3] == [FILE_ORDER, "spread", "confidence"]
    assert {"log-likelihood", "defocus", "rlnDefocusU"} <= set(found)
    assert not {"cryosphereSpread", "rlnLogLikeliContribution", "rlnImageName"} & set(found)
    np.testing.assert_array_equal(found["spread"].values, spread)
    assert found["confidence"].values.max() == 100
    assert found["spread"].text(0) == "3°"
    assert found["confidence"].text(number - 1) == "100 %"
    assert found["defocus"].label == "defocus (µm)"
    mean = (stack.particles["rlnDefocusU"] + stack.particles["rlnDefocusV"]) / 2e4
    np.testing.assert_allclose(found["defocus"].values, mean)


def test_poses_of_a_file_that_are_aligned_are_offered_once(stack: ParticleStack) -> None:
    columns = {
        "cryosphereEntropy": np.zeros(len(stack)),
        "cryosphereSpread": np.linspace(3, 60, len(stack)),
        "cryosphereConfidence": np.ones(len(stack)),
        "rlnLogLikeliContribution": np.zeros(len(stack)),
    }
    aligned = stack.with_columns(columns)
    found = quantities_of(aligned, PredictionStore.of(aligned))
    assert "spread" in found
    assert "refined spread" not in found


def test_predictions_go_before_columns(
    stack: ParticleStack, store: PredictionStore, predictions: tuple[Any, Any, Any]
) -> None:
    store.add(*predictions)
    named = stack.with_columns({"cryosphereSpread": np.full(len(stack), 99.0)})
    found = quantities_of(named, store)
    np.testing.assert_array_equal(found["spread"].values[:40], predictions[2].spread_degrees)
    assert np.isnan(found["spread"].values[40:]).all()
    assert found["spread"].text(50) == "–"
    np.testing.assert_allclose(found["error"].values[:40], 10, atol=2)


def test_categories(stack: ParticleStack) -> None:
    micrographs = np.array([f"m{at % 3}.mrc" for at in range(len(stack))])
    states = 1 + np.arange(len(stack)) % 2
    named = stack.with_columns({"rlnMicrographName": micrographs, "rlnClassNumber": states})
    found = categories_of(named)
    assert found["state"].labels == ("1", "2")
    assert "state" in quantities_of(named, PredictionStore(len(stack)))
    assert found["micrograph"].labels == ("m0.mrc", "m1.mrc", "m2.mrc")
    assert found["half-set"].labels == ("1", "2")
    assert "optics group" not in found  # there is only one
    assert (found["micrograph"].codes == np.arange(len(stack)) % 3).all()


def test_sorting_puts_what_is_not_known_last(
    chosen: ParticleFilter, store: PredictionStore, predictions: tuple[Any, Any, Any]
) -> None:
    store.add(*predictions)
    spread = predictions[2].spread_degrees
    for descending in (False, True):
        chosen.sort_by("spread", descending)
        expected = np.argsort(-spread if descending else spread, kind="stable")
        assert chosen.rows[:40].tolist() == expected.tolist()
        assert chosen.rows[40:].tolist() == list(range(40, 80))


def test_filters_are_combined_and_taken_away(
    chosen: ParticleFilter, choices: ParticleChoices, stack: ParticleStack
) -> None:
    heard: list[int] = []
    chosen.changed.connect(lambda: heard.append(len(chosen.rows)))
    defocus = chosen.quantities["defocus"].values
    middle = float(np.median(defocus))
    chosen.set_range("defocus", (0.0, middle))
    chosen.set_label("half-set", "2")
    choices.flag(np.arange(30), Flag.KEEP)
    chosen.set_flag(Flag.KEEP)
    expected = (defocus <= middle) & (stack.half_sets() == 2) & (np.arange(80) < 30)
    assert chosen.rows.tolist() == np.flatnonzero(expected).tolist()
    assert chosen.passing(without="defocus").sum() > expected.sum()
    choices.flag(np.flatnonzero(expected), Flag.REJECT)
    assert not len(chosen.rows)
    assert chosen.active
    chosen.clear()
    assert heard[-1] == 80
    assert not chosen.active
    with pytest.raises(ValueError, match="index"):
        chosen.set_label("half-set", "7")


def test_a_quantity_that_goes_takes_its_filter_with_it(
    chosen: ParticleFilter, store: PredictionStore, predictions: tuple[Any, Any, Any]
) -> None:
    store.add(*predictions)
    chosen.sort_by("error", True)
    chosen.set_range("error", (0.0, 11.0))
    assert 0 < len(chosen.rows) <= 40
    store.clear()
    assert len(chosen.rows) == 80
    assert chosen.sort_name == FILE_ORDER
