"""Segments of one filament stay together, in half sets and in what is held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_cryosphere.jobs._training_data import _split
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.particles import ParticleStack, write_stack, write_star

TUBES, SEGMENTS = 9, 7
NUMBER = TUBES * SEGMENTS


def filaments(folder: Path, **columns: object) -> ParticleStack:
    """Three tubes in each of three micrographs, numbered anew in each, as RELION does."""
    write_stack(np.random.default_rng(0).normal(size=(NUMBER, 8, 8)), folder / "a.mrcs", 3.0)
    tube = np.arange(NUMBER) // SEGMENTS
    optics = {"rlnOpticsGroup": [1], "rlnImagePixelSize": 3.0, "rlnImageSize": 8}
    particles = {
        "rlnImageName": [f"{number}@a.mrcs" for number in range(1, NUMBER + 1)],
        "rlnOpticsGroup": 1,
        "rlnMicrographName": [f"{number}.mrc" for number in tube // 3],
        "rlnHelicalTubeID": tube % 3 + 1,
        **{f"rlnAngle{name}": np.linspace(5, 80, NUMBER) for name in ("Rot", "Tilt", "Psi")},
        **columns,
    }
    table = pd.DataFrame({name: values for name, values in particles.items() if values is not None})
    write_star({"optics": pd.DataFrame(optics), "particles": table}, folder / "p.star")
    return ParticleStack.read(folder / "p.star")


def test_no_filament_is_in_both_halves(tmp_path: Path) -> None:
    stack = filaments(tmp_path)
    tubes = np.arange(NUMBER) // SEGMENTS
    np.testing.assert_array_equal(stack.filaments(), tubes)
    halves = stack.half_sets()
    assert all(len(set(halves[tubes == tube])) == 1 for tube in range(TUBES))
    assert abs(np.sum(halves == 1) - np.sum(halves == 2)) == SEGMENTS
    assert any("filaments were split whole into half sets" in line for line in stack.warnings)
    rows = np.random.default_rng(1).permutation(NUMBER)[:40]
    np.testing.assert_array_equal(stack[rows].half_sets(), halves[rows])
    first, second = stack.halves()
    assert {*first.particles["rlnRandomSubset"]} == {1}
    assert {*second.particles["rlnRandomSubset"]} == {2}


def test_halves_of_one_half_are_split_by_filament(tmp_path: Path) -> None:
    half = filaments(tmp_path, rlnRandomSubset=1).with_new_half_sets()
    tubes, halves = half.filaments(), half.half_sets()
    assert set(halves) == {1, 2}
    assert all(len(set(halves[tubes == tube])) == 1 for tube in range(TUBES))


def test_filaments_in_both_halves_are_said(tmp_path: Path) -> None:
    stack = filaments(tmp_path, rlnRandomSubset=np.arange(NUMBER) % 2 + 1)
    assert any("segments of 9 filaments are in both half sets" in line for line in stack.warnings)


def test_without_micrographs_a_stack_numbers_its_tubes(tmp_path: Path) -> None:
    stack = filaments(tmp_path, rlnMicrographName=None)
    assert len(np.unique(stack.filaments())) == 3


def test_joined_filaments_stay_together(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    joined = ParticleStack.join([filaments(tmp_path), filaments(tmp_path / "b")])
    # equal names of micrographs: the tubes are the same ones
    tubes, halves = joined.filaments(), joined.half_sets()
    assert all(len(set(halves[tubes == tube])) == 1 for tube in np.unique(tubes))


@pytest.mark.parametrize("micrographs", [True, False])
def test_no_filament_is_trained_on_and_held_out(tmp_path: Path, micrographs: bool) -> None:
    stack = filaments(tmp_path, **({} if micrographs else {"rlnMicrographName": None}))
    config = TrainConfig(particles=tmp_path / "p.star", output=tmp_path / "run")
    shown, held_out = _split(stack, config)
    tubes = stack.filaments()
    assert len(held_out) > 0
    assert len(shown) + len(held_out) == NUMBER
    assert not set(tubes[shown]) & set(tubes[held_out])


def test_halves_of_pure_noise_do_not_correlate(shared_data: Path, tmp_path: Path) -> None:
    """Overlapping segments, split in turn, gave an FSC of pure noise of 0.96 to Nyquist."""
    path = shared_data / "reports/filaments_noise.star"
    from napari_cryosphere.jobs.running.halves import Halves
    from napari_cryosphere.reconstruction import WeightedPoses

    stack = ParticleStack.read(path)
    halves = Halves(stack.grid, "C1", padding=1)
    for _ in halves.fill(stack, WeightedPoses.best(stack.rotations())):
        pass
    curve = halves.solve(half_maps=True).curve
    assert np.abs(curve.values[6:].mean()) < 0.05
