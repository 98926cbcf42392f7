"""Kinds of particles told apart by searches of independent halves, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import napari_cryosphere as nc
from napari_cryosphere._generators import returned
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs._kinds import alike, kinds_of, shared_kinds
from napari_cryosphere.jobs.abinitio import abinitio
from napari_cryosphere.jobs.configs import AbInitioConfig, SearchingConfig
from napari_cryosphere.jobs.events import Event, Note, follow
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
