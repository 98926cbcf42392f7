"""Training on several data sets of one molecule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import starfile

import napari_cryosphere as nc
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs._training_sets import TrainingSets
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import Event, Note, follow
from napari_cryosphere.jobs.train import train
from napari_cryosphere.model.card import PolarConfig
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.rotations import random_rotations, rotation_from_vector

POLAR = PolarConfig(
    box=16, l_max=3, ring_channels=8, ring_blocks=0, channels=8, blocks=1, features=12
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two files of one phantom's particles, on different grids."""
    folder = tmp_path_factory.mktemp("sets")
    paths = folder / "first.star", folder / "second.star"
    for seed, (path, box, number) in enumerate(zip(paths, (32, 24), (90, 60), strict=True)):
        density = protein_phantom(box, 160 / box)
        nc.simulate(density, number, snr=1.0, seed=seed).save(path)
    return paths


def config_of(particles: tuple[Path, ...], output: Path, **options: object) -> TrainConfig:
    given = {"network": POLAR, "epochs": 0.5, "device": "cpu"} | options
    return TrainConfig(particles=particles, output=output, **given)


def turned(path: Path, by: list[float]) -> ParticleStack:
    """Return a set as if it had been refined in another frame."""
    stack = ParticleStack.read(path)
    rotations = rotation_from_vector(by) @ stack.rotations()
    return stack.with_poses(rotations, shifts_angstrom=stack.shifts_angstrom())


def test_each_set_is_judged(sets: tuple[Path, Path], tmp_path: Path) -> None:
    seen = list[Event]()
    follow(train(config_of(sets, tmp_path / "run")), seen.append)
    notes = [event for event in seen if isinstance(event, Note)]
    (judged,) = [note.text for note in notes if "held-out" in note.text]
    assert "first.star" in judged
    assert "second.star" in judged
    assert not [note.text for note in notes if "frames" in note.text]
    training = PoseModel.load(tmp_path / "run").card.training
    assert training["particles"] == "first.star, second.star"
    told = {one["particles"]: one["held_out"] for one in training["data_sets"]}
    assert set(told) == {"first.star", "second.star"}
    assert sum(told.values()) == 150 - training["number"]
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert TrainConfig.model_validate(config).particles == sets


def test_rows_belong_to_their_sets(sets: tuple[Path, Path], tmp_path: Path) -> None:
    both = TrainingSets.open(config_of(sets, tmp_path))
    errors = np.array([1.0, 3.0, 5.0, 40.0])
    first, second = both.errors(np.array([0, 89, 2, 90]), errors)
    assert (first["held_out"], first["validation_median_degrees"]) == (3, 3.0)
    assert (second["held_out"], second["validation_median_degrees"]) == (1, 40.0)


def test_sets_in_different_frames_are_warned_of(sets: tuple[Path, Path]) -> None:
    first = ParticleStack.read(sets[0])
    for by in ([0.0, 0.7, 0.0], [1.5, 1.0, 0.0]):
        (note,) = TrainingSets([first, turned(sets[1], by)]).frame_warnings("C1")
        assert note.warning
        assert "first.star and second.star" in note.text
    assert not list(TrainingSets([first, turned(sets[1], [0, 0, 0])]).frame_warnings("C1"))
    assert not list(TrainingSets([first]).frame_warnings("C1"))


def test_random_poses_are_doubted(sets: tuple[Path, Path]) -> None:
    """So few shells are left that the maps seem alike: both are a ball."""
    first, second = (ParticleStack.read(path) for path in sets)
    poses = random_rotations(len(second), np.random.default_rng(0))
    lost = second.with_poses(poses, shifts_angstrom=second.shifts_angstrom())
    for order in ([first, lost], [lost, first]):
        (note,) = TrainingSets(order).frame_warnings("C1")
        assert note.warning
        assert "second.star give half-maps" in note.text


def test_the_set_without_poses_is_named(sets: tuple[Path, Path], tmp_path: Path) -> None:
    table = starfile.read(sets[1])
    poses = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    table["particles"] = table["particles"].drop(columns=poses)
    blank = sets[1].with_name("blank.star")
    starfile.write(table, blank)
    with pytest.raises(MetadataError, match=r"blank\.star has no poses"):
        follow(train(config_of((sets[0], blank), tmp_path / "run")), lambda event: None)
    assert not (tmp_path / "run").exists()


def test_the_set_without_a_ctf_is_named(sets: tuple[Path, Path], tmp_path: Path) -> None:
    """Joined, none would have one."""
    table = starfile.read(sets[1])
    ctf = [name for name in table["particles"] if name.startswith("rlnDefocus")]
    table["particles"] = table["particles"].drop(columns=ctf)
    starfile.write(table, sets[1].with_name("flat.star"))
    config = config_of((sets[0], sets[1].with_name("flat.star")), tmp_path)
    with pytest.raises(MetadataError, match=r"flat\.star has no CTF"):
        TrainingSets.open(config)


def test_a_set_is_named_once() -> None:
    with pytest.raises(ValueError, match=r"p\.star is given twice"):
        config_of((Path("p.star"), Path("p.star")), Path("run"))


def test_a_run_of_one_set_is_taken_up_as_it_was_written() -> None:
    """Earlier versions wrote one path, not a list."""
    config = TrainConfig.model_validate({"particles": "p.star", "output": "run"})
    assert config.particles == (Path("p.star"),)
