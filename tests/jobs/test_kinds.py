"""Kinds of particles told apart by searches of independent halves, and what is made of them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import napari_cryosphere as nc
from napari_cryosphere._generators import returned
from napari_cryosphere.errors import NotConvergedError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs._kinds import alike, kinds_of, shared_kinds
from napari_cryosphere.jobs._searches import Found
from napari_cryosphere.jobs.abinitio import _aligned_as_told, _OfKind, ab_initio_stack, abinitio
from napari_cryosphere.jobs.configs import AbInitioConfig, SearchingConfig
from napari_cryosphere.jobs.events import Event, Note, Progress, follow
from napari_cryosphere.jobs.running.journal import MemoryJournal
from napari_cryosphere.particles import DensityMap, ParticleStack

NUMBER, OTHERS = 260, 120


@pytest.fixture(autouse=True, scope="module")
def few_steps() -> Iterator[None]:
    """Make a search with several maps short: these images need no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_cryosphere.jobs._kinds._STEPS", 10)
        yield


def kinds_and_notes(stack: ParticleStack, config: SearchingConfig) -> tuple[np.ndarray, list[str]]:
    notes = list[str]()

    def note(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    return returned(kinds_of(stack, config, MemoryJournal()), note), notes


def one_hot(states: np.ndarray, number: int) -> np.ndarray:
    return np.eye(number)[states] * 0.98 + 0.02 / number


def test_states_that_hold_the_same_particles_are_one_kind() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(1000) < 0.3
    # the first search splits the one kind in two, the second the other
    first = one_hot(np.where(true, 2, rng.integers(2, size=1000)), 3)
    second = one_hot(np.where(true, rng.integers(2, size=1000), 2), 3)
    one, other = shared_kinds(first, second)
    assert one.max() == other.max() == 1
    assert one[0] == one[1] != one[2]
    assert other[0] == other[1] != other[2]
    assert one[0] == other[2]


@pytest.mark.parametrize("shares", [(0.34, 0.33, 0.33), (0.9, 0.05, 0.05), (0.5, 0.5)])
def test_divisions_by_chance_are_one_kind(shares: tuple[float, ...]) -> None:
    rng, number = np.random.default_rng(1), len(shares)
    divisions = [one_hot(rng.choice(number, size=2000, p=shares), number) for _ in range(2)]
    one, other = shared_kinds(*divisions)
    assert one.max() == other.max() == 0


def test_divisions_are_alike_as_far_as_they_are_sure() -> None:
    sure = np.repeat([0.0, 1.0], [70, 30])
    assert alike(sure, sure) == pytest.approx(1)
    assert alike(1 - sure, sure) == pytest.approx(-1)
    assert alike(sure, np.full(100, 0.5)) == 0
    assert alike(0.5 + 0.05 * (sure - 0.5), sure) < 0.1  # correlated by 1
    assert alike(sure, np.ones(100)) == 0


@pytest.mark.parametrize(("numbers", "left"), [((400, 300, 200), [0, 2]), ((260, 120), [0])])
def test_of_two_maps_of_one_kind_the_later_goes_and_leaves_its_particles(
    numbers: tuple[int, ...], left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the kinds the first two are one molecule, whose maps share its particles alike."""
    kinds = np.repeat(np.arange(len(numbers)), numbers)
    molecules = np.maximum(np.arange(len(numbers)), 1)

    def aligned(stack: Any, found: list[_OfKind], *_: Any) -> Generator[Event, None, Any]:
        yield Progress(1.0, "aligned")
        maps = molecules[[one.kind for one in found]]
        fits = (molecules[kinds][:, None] == maps) + 1e-3
        shares = fits / fits.sum(1, keepdims=True)
        states = None if len(found) == 1 else SimpleNamespace(probabilities=shares)
        return SimpleNamespace(states=states)

    monkeypatch.setattr("napari_cryosphere.jobs.abinitio._aligned", aligned)
    given: Any = [_OfKind(kind, None, 20.0, 8) for kind in range(len(numbers))]
    nothing: Any = None
    work = _aligned_as_told(nothing, kinds, given, nothing, lambda name: MemoryJournal())
    found, _ = returned(work, lambda event: None)
    assert [one.kind for one in found] == left


def test_all_kinds_share_the_minutes_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, told = nc.simulate(protein_phantom(16, 12.0), 100, seed=0), list[float]()
    starts = list[float]()

    def told_apart(*_: Any) -> Generator[Event, None, np.ndarray]:
        told.append(time.monotonic())
        yield Progress(1.0, "told apart")
        return np.arange(len(stack)) % 2

    def searched(*given: Any) -> Generator[Event, None, None]:
        starts.append(given[-1])
        yield Progress(1.0, "searched")
        raise NotConvergedError("nothing")

    searches = SimpleNamespace(finest_angstrom=20.0, radius_angstrom=80.0)
    for name, value in {
        "kinds_of": told_apart,
        "confirmed": searched,
        "Searches": lambda *_: searches,
    }.items():
        monkeypatch.setattr(f"napari_cryosphere.jobs.abinitio.{name}", value)
    work = ab_initio_stack(stack, SearchingConfig(classes=2), lambda name: MemoryJournal())
    with pytest.raises(NotConvergedError):
        returned(work, lambda event: None)
    assert len(starts) == 2
    assert starts[0] == starts[1] <= told[0]


def test_what_searches_say_of_all_particles_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, journal, times = nc.simulate(protein_phantom(32, 6.0), 120, seed=0), MemoryJournal(), [0]
    config = SearchingConfig(symmetry="D2", classes=2, resolution_angstrom=48.0)
    monkeypatch.setattr("napari_cryosphere.jobs._kinds._STEPS", 6)

    def told(_: Any, stack: ParticleStack, found: Found) -> Generator[Event, None, np.ndarray]:
        times[0] += 1
        yield Progress(1.0, "comparing")
        return np.random.default_rng(found.key).normal(size=(len(stack), 2))

    monkeypatch.setattr("napari_cryosphere.jobs._searches.Searches.judged", told)
    shown = list[float]()

    def show(event: Event) -> None:
        if isinstance(event, Progress):
            shown.append(event.fraction)

    first = returned(kinds_of(stack, config, journal), show)
    assert max(after - before for before, after in pairwise([0.0, *shown])) < 0.1
    again = returned(kinds_of(stack, config, journal), lambda event: None)
    np.testing.assert_array_equal(first, again)
    assert times == [2]


def test_noise_is_one_kind() -> None:
    """What maps of noise say of it is correlated, by its power in each image."""
    stack = nc.simulate(protein_phantom(32, 6.0), 300, seed=0)
    noise = np.random.default_rng(2).normal(size=(300, 32, 32)).astype(np.float32)
    tables = {"optics": stack.optics, "particles": stack.particles}
    config = SearchingConfig(symmetry="D2", classes=2, resolution_angstrom=40.0, seed=2)
    found, _ = kinds_and_notes(ParticleStack.from_tables(tables, noise), config)
    assert not found.any()


@pytest.fixture(scope="module")
def mixture() -> tuple[ParticleStack, np.ndarray]:
    """Return particles of a symmetric phantom and of a hollow one, and which each is of."""
    density = protein_phantom(32, 6.0).voxels
    for axes in ((0, 1), (1, 2)):  # half turns about x and z
        density = density + np.roll(np.flip(density, axes), (1, 1), axes)
    axis = np.arange(32) - 16
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    wide = np.abs(axis[:, None, None]) < 4
    ring = np.exp(-((radius - 9) ** 2) / 4) * wide * density.max()
    maps = DensityMap(density, 6.0, "D2"), DensityMap(ring.astype(np.float32), 6.0, "D2")
    parts = [
        nc.simulate(one, number=number, snr=1.0, shift_px=1.0, seed=seed)
        for seed, (one, number) in enumerate(zip(maps, (NUMBER, OTHERS), strict=True))
    ]
    order = np.random.default_rng(0).permutation(NUMBER + OTHERS)
    kinds = np.repeat([0, 1], [NUMBER, OTHERS])[order]
    return ParticleStack.join(parts)[order].with_new_half_sets(), kinds


def test_another_molecule_is_told_apart(mixture: tuple[ParticleStack, np.ndarray]) -> None:
    stack, kinds = mixture
    config = SearchingConfig(symmetry="D2", classes=2, resolution_angstrom=32.0)
    found, notes = kinds_and_notes(stack, config)
    assert np.mean(found == kinds) > 0.97
    assert ["2 kinds of particles are seen" in text for text in notes] == [True]


def test_every_kind_has_its_files(
    mixture: tuple[ParticleStack, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searches are short and the first maps are believed: which they are does not matter here."""
    for name, value in {
        "_kinds._STEPS": 8,
        "_searches.STEPS": 6,
        "_searches._RIVALS": 1,
        "_confirmed_searches.AGREEMENT": -1.0,
        "abinitio.ALIKE": -1.0,
    }.items():
        monkeypatch.setattr(f"napari_cryosphere.jobs.{name}", value)
    stack, _ = mixture
    stack.save(tmp_path / "mixture.star")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "map_class003.mrc").touch()  # of an earlier run
    config = AbInitioConfig(
        particles=tmp_path / "mixture.star",
        output=tmp_path / "run",
        symmetry="D2",
        classes=2,
        resolution_angstrom=32.0,
    )
    result = follow(abinitio(config), lambda event: None)
    assert {"map", "fsc", "map_class002", "fsc_class002"} < set(result.outputs)
    assert all(path.is_file() for path in result.outputs.values())
    assert not (tmp_path / "run" / "map_class003.mrc").exists()
    table = ParticleStack.read(result.outputs["particles"]).particles
    shares = table[["cryosphereStateProbability1", "cryosphereStateProbability2"]].to_numpy(float)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-4)
    np.testing.assert_array_equal(table["rlnClassNumber"], shares.argmax(1) + 1)
    assert result.metrics["share_of_state_1"] + result.metrics["share_of_state_2"] == pytest.approx(
        1
    )
