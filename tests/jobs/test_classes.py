"""The job ``refine`` with several states: both are found, twins are merged, a stopped run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import napari_cryosphere as nc
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs._classes import ClassRefinement, StateIteration
from napari_cryosphere.jobs._refinement import Iteration
from napari_cryosphere.jobs._state_starts import alike, found_states, merged_columns
from napari_cryosphere.jobs._states import States
from napari_cryosphere.jobs.configs import RefineConfig
from napari_cryosphere.jobs.events import Event, Note, Result, Snapshot, follow
from napari_cryosphere.jobs.refine import refine
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import masked_correlation, soft_mask
from napari_cryosphere.so3.rotations import geodesic_distance_degrees

NUMBER, SECOND = 144, 48
BOX, PIXEL = 24, 7.0


@dataclass(frozen=True)
class Mixture:
    """Particles of two states in a folder, with the maps and what is true of each particle."""

    folder: Path
    stack: ParticleStack
    maps: tuple[DensityMap, DensityMap]
    state: np.ndarray


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    """Return particles of a phantom, a third of them without the density on one side."""
    folder = tmp_path_factory.mktemp("classes")
    whole = protein_phantom(BOX, PIXEL)
    cut = DensityMap(whole.voxels * (np.arange(BOX) - BOX // 2 < 2), PIXEL)
    parts = [
        nc.simulate(one, number=number, snr=2.0, seed=seed)
        for one, number, seed in ((whole, NUMBER - SECOND, 1), (cut, SECOND, 2))
    ]
    order = np.random.default_rng(0).permutation(NUMBER)
    stack = ParticleStack.join(parts)[order].with_new_half_sets()
    stack.save(folder / "particles.star")
    whole.save(folder / "map.mrc")
    return Mixture(folder, stack, (whole, cut), np.repeat([1, 2], [NUMBER - SECOND, SECOND])[order])


def config_of(mixture: Mixture, output: Path, **options: Any) -> RefineConfig:
    given: dict[str, Any] = {
        "particles": mixture.folder / "particles.star",
        "map": mixture.folder / "map.mrc",
        "local_degrees": 8.0,
        "iterations": 3,
        "initial_resolution_angstrom": 40.0,
        "batch_size": 72,
        "device": "cpu",
        "classes": 2,
    }
    return RefineConfig(output=output, **(given | options))


@pytest.fixture(scope="module", autouse=True)
def few_shells() -> Iterator[None]:
    """Tell states apart in half the shells: a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_cryosphere.jobs._state_starts.START_SHELLS", 6)
        yield


@pytest.fixture(scope="module")
def refined(mixture: Mixture) -> tuple[Path, Result]:
    """Return the folder of a finished run and its result; what it kept to resume is next to it."""
    output = mixture.folder / "refined"

    def keep(event: Event) -> None:
        if isinstance(event, Snapshot) and event.fraction == 1:  # of the last iteration
            shutil.copytree(output / "unfinished", mixture.folder / "kept")

    return output, follow(refine(config_of(mixture, output)), keep)


def test_both_states_are_found_from_the_map_of_one(
    mixture: Mixture, refined: tuple[Path, Result]
) -> None:
    output, result = refined
    found = ParticleStack.read(output / "particles.star")
    table = found.particles
    assert np.mean(table["rlnClassNumber"] == mixture.state) > 0.9
    sums = table["cryosphereStateProbability1"] + table["cryosphereStateProbability2"]
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    errors = geodesic_distance_degrees(found.rotations(), mixture.stack.rotations())
    assert np.median(errors[mixture.state == 1]) < 4
    assert np.median(errors[mixture.state == 2]) < 12
    assert result.metrics["share_of_state_2"] == pytest.approx(SECOND / NUMBER, abs=0.06)
    first, second = (
        DensityMap.read(output / name).voxels for name in ("map.mrc", "map_class002.mrc")
    )
    whole, cut = (one.voxels for one in mixture.maps)
    assert masked_correlation(first - second, whole - cut) > 0.6
    assert masked_correlation(second, cut) > masked_correlation(first, cut)


def test_every_state_has_the_files_of_a_refinement(refined: tuple[Path, Result]) -> None:
    output, result = refined
    files = {path.name for path in output.iterdir()}
    for name in ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "fsc.csv"):
        stem, suffix = name.split(".")
        assert {name, f"{stem}_class002.{suffix}"} <= files
    assert files == {path.name for path in result.outputs.values()}
    history = pd.read_csv(output / "history.csv")
    assert sorted(history["state"].unique()) == [0, 1, 2]
    shares = history[history["state"] > 0].groupby("iteration")["share"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-6)


def test_a_stopped_run_goes_on_to_the_same_result(
    mixture: Mixture, refined: tuple[Path, Result]
) -> None:
    """The journals are put back as they are in the middle of the last comparison."""
    output, _ = refined
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    for path in output.iterdir():
        path.unlink()
    shutil.copytree(mixture.folder / "kept", output / "unfinished")
    last = sorted((output / "unfinished").glob("states2_04_half2/batch_*.npz"))[-1]
    last.unlink()
    seen: list[Event] = []
    follow(refine(config_of(mixture, output, resume=True)), seen.append)
    assert sum("aligned" in getattr(event, "message", "") for event in seen) == 1
    for name in ("history.csv", "half1.mrc", "map_class002.mrc", "particles.star"):
        assert (output / name).read_bytes() == before[name], name
    assert {path.name for path in output.iterdir()} == set(before)


def test_states_begin_with_a_map_of_each_and_keep_their_order(
    mixture: Mixture, tmp_path: Path
) -> None:
    """From particles without poses; the rarer state's map is given first."""
    mixture.maps[1].save(tmp_path / "cut.mrc")
    maps = (tmp_path / "cut.mrc", mixture.folder / "map.mrc")
    config = config_of(mixture, tmp_path / "run", map=maps, classes=1, local_degrees=None)
    follow(refine(config.model_copy(update={"iterations": 2})), lambda event: None)
    found = ParticleStack.read(tmp_path / "run/particles.star")
    assert np.mean(found.particles["rlnClassNumber"] == 3 - mixture.state) > 0.9
    errors = geodesic_distance_degrees(found.rotations(), mixture.stack.rotations())
    assert np.median(errors) < 8
    history = pd.read_csv(tmp_path / "run/history.csv")
    assert set(zip(history["iteration"], history["state"], strict=True)) == {
        (number, state) for number in (1, 2) for state in (1, 2)
    }
    first, second = (
        DensityMap.read(tmp_path / "run" / name).voxels for name in ("map.mrc", "map_class002.mrc")
    )
    whole, cut = (one.voxels for one in mixture.maps)
    assert masked_correlation(second - first, whole - cut) > 0.6


def test_one_map_given_twice_is_one_state(mixture: Mixture, tmp_path: Path) -> None:
    maps, seen = (mixture.folder / "map.mrc",) * 2, list[Event]()
    config = config_of(mixture, tmp_path / "run", map=maps, iterations=2)
    follow(refine(config), seen.append)
    assert any("they are one" in event.text for event in seen if isinstance(event, Note))
    assert not list((tmp_path / "run").glob("*class*"))


def test_as_many_classes_as_starting_maps(mixture: Mixture, tmp_path: Path) -> None:
    maps = (mixture.folder / "map.mrc",) * 2
    with pytest.raises(ValueError, match="classes is 3, but there are 2 starting maps"):
        config_of(mixture, tmp_path, map=maps, classes=3)
    assert config_of(mixture, tmp_path, map=maps, classes=1).states == 2


def ended(events: Generator[Any, None, Any]) -> Any:
    """Return what a generator returns."""
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return stop.value


def test_particles_of_one_kind_are_in_one_state(mixture: Mixture) -> None:
    """At their true poses; two states are asked for."""
    stack = nc.simulate(mixture.maps[0], number=80, snr=2.0, seed=3).with_half_sets()
    stack = stack.with_columns({"cryospherePresence": np.ones(len(stack))})
    mask = DensityMap(soft_mask(mixture.maps[0].voxels, PIXEL), PIXEL)
    halves = [stack[np.flatnonzero(stack.half_sets() == half)] for half in (1, 2)]
    config = config_of(mixture, mixture.folder / "one")
    found = ended(found_states(halves, [mixture.maps[0]] * 2, mask, 2, config))
    assert [one.shape for one in found] == [(len(half), 1) for half in halves]
    np.testing.assert_allclose(found[0], 1, atol=1e-6)


def test_a_run_of_one_kind_says_so_and_ends_with_one_map(
    mixture: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_state(halves: list[ParticleStack], *rest: Any) -> Generator[Event, None, Any]:
        yield from ()
        return [np.ones((len(half), 1)) for half in halves]

    monkeypatch.setattr("napari_cryosphere.jobs._classes.found_states", one_state)
    config, seen = config_of(mixture, tmp_path / "run", iterations=2), list[Event]()
    follow(refine(config), seen.append)
    assert any("one and the same" in event.text for event in seen if isinstance(event, Note))
    assert not list((tmp_path / "run").glob("*class*"))
    assert (
        "cryosphereStateProbability1"
        not in ParticleStack.read(tmp_path / "run/particles.star").particles
    )


def test_merging_adds_probabilities_up() -> None:
    values = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(merged_columns(values, (0, 2)), [[0.5, 0.5], [0.9, 0.1]])


def test_halves_that_differ_alike_have_no_twins() -> None:
    rng = np.random.default_rng(0)
    true = [protein_phantom(BOX, PIXEL, seed=seed).voxels for seed in (7, 8)]
    mask = np.ones((BOX, BOX, BOX), dtype=np.float32)
    noise = rng.normal(0, 0.05, (2, 3, BOX, BOX, BOX)).astype(np.float32)
    halves = [np.stack([true[0], true[1], true[0]]) + noise[half] for half in (0, 1)]
    assert alike([half[:2] for half in halves], mask) is None
    assert alike(halves, mask) == (0, 2)


@pytest.mark.parametrize("few", [True, False])
def test_a_state_without_particles_is_dropped(
    mixture: Mixture, refined: tuple[Path, Result], tmp_path: Path, few: bool
) -> None:
    """The second state's maps are those of the first run; its particles are counted."""
    stack = mixture.stack
    refinement = ClassRefinement(config_of(mixture, tmp_path), stack, mixture.maps[:1], None)
    share = np.zeros((NUMBER, 2))
    for half in (1, 2):
        rows = np.flatnonzero(stack.half_sets() == half)
        share[rows[: 5 if few else 20], 1] = 1
    share[:, 0] = 1 - share[:, 1]
    states = States(share, share.mean(0), np.ones(NUMBER))
    each = [_iteration_of(refined[0], suffix, stack) for suffix in ("", "_class002")]
    done, notes = refinement._told_apart(StateIteration(3, tuple(each), states))
    assert len(done.each) == (1 if few else 2)
    assert [("empty" in note.text) for note in notes] == ([True] if few else [])
    np.testing.assert_allclose(done.states.probabilities.sum(1), 1)


def _iteration_of(folder: Path, suffix: str, stack: ParticleStack) -> Iteration:
    """Return the maps of a state as an iteration has them."""
    names = ("map", "half1", "half2", "mask")
    density, *halves, mask = (DensityMap.read(folder / f"{name}{suffix}.mrc") for name in names)
    maps: Any = type("Maps", (), {"density": density, "halves": tuple(halves)})()
    return Iteration(3, stack, Any, maps, mask, Any, 20.0, 0.0)  # type: ignore[arg-type]
