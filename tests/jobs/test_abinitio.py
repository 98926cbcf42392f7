"""The job ``abinitio``: a map and poses from images alone, resume, and an honest end on pure noise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

import napari_cryosphere as nc
from napari_cryosphere.errors import MetadataError, NotConvergedError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs._confirmed_searches import _Competition
from napari_cryosphere.jobs._searches import Found, Searches
from napari_cryosphere.jobs.abinitio import abinitio
from napari_cryosphere.jobs.configs import AbInitioConfig, SimulateConfig
from napari_cryosphere.jobs.events import Events, Result, Snapshot, follow
from napari_cryosphere.jobs.running.journal import MemoryJournal
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.particles import (
    DensityMap,
    ParticleStack,
    read_star,
    write_stack,
    write_star,
)
from napari_cryosphere.so3.symmetry import angular_error_degrees

NUMBER = 300
MIRROR = np.diag([1.0, 1.0, -1.0])


def run(events: Events) -> Result:
    return follow(events, lambda event: None)


@pytest.fixture(autouse=True, scope="module")
def few_steps() -> Iterator[None]:
    """Make a search short: these images need no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_cryosphere.jobs._searches.STEPS", 32)
        yield


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with particles of a symmetric phantom, and their table without poses and shifts."""
    folder = tmp_path_factory.mktemp("abinitio")
    density = protein_phantom(32, 6.0).voxels
    for axes in ((0, 1), (1, 2)):  # half turns about x and z
        density = density + np.roll(np.flip(density, axes), (1, 1), axes)
    DensityMap(density, 6.0, "D2").save(folder / "map.mrc")
    given = {"map": folder / "map.mrc", "output": folder / "particles.star", "number": NUMBER}
    run(simulate(SimulateConfig(**given, snr=2.0, shift_px=1.0, symmetry="D2")))
    tables = read_star(folder / "particles.star")
    known = [name for name in tables["particles"] if name.startswith(("rlnAngle", "rlnOrigin"))]
    tables["particles"] = tables["particles"].drop(columns=known)
    write_star(tables, folder / "blank.star")
    return folder


def config_of(sample: Path, output: Path, **options: object) -> AbInitioConfig:
    given = {"particles": sample / "blank.star", "device": "cpu", "symmetry": "D2"}
    # six shells: quick, and so few that from this seed the first starts of both halves agree on a wrong map
    given |= {"starts": 4, "resolution_angstrom": 28.0, "seed": 0}
    return AbInitioConfig(output=output, **(given | options))


def errors_in_any_frame(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return angles in degrees, modulo D2, in the frame and hand of the map that fit best.

    The axes of D2 may be exchanged: the 24 rotations of a cube do that.
    """
    errors = [
        angular_error_degrees(truth, frame @ poses, "D2")
        for poses in (found, MIRROR @ found @ MIRROR)
        for frame in Rotation.create_group("O").as_matrix()
    ]
    return min(errors, key=np.median)


@pytest.fixture(scope="module")
def found(sample: Path, few_steps: None) -> Path:
    output = sample / "found"
    result = run(abinitio(config_of(sample, output)))
    assert set(result.outputs) == {"particles", "map", "fsc", "history", "config"}
    return output


def test_poses_and_map_come_out_of_images_alone(sample: Path, found: Path) -> None:
    truth = ParticleStack.read(sample / "particles.star")
    poses = ParticleStack.read(found / "particles.star", sample).rotations()
    errors = errors_in_any_frame(truth.rotations(), poses)
    assert np.median(errors) < 8
    assert np.mean(errors > 30) < 0.1
    assert len(pd.read_csv(found / "fsc.csv")) > 8


def test_maps_that_agree_are_not_believed_where_another_explains_more() -> None:
    wrong = protein_phantom(16, 12.0)
    true = DensityMap(wrong.voxels + np.roll(np.flip(wrong.voxels, (0, 1)), (1, 1), (0, 1)), 12.0)
    searches = SimpleNamespace(evidence_of_nothing=-120.0, course=SimpleNamespace(max_shell=6))
    config = AbInitioConfig(particles="p", output="o")
    competition = _Competition(cast(Searches, searches), config, time.monotonic())
    line = np.empty((0, 6))
    unlike = (
        wrong.voxels + np.random.default_rng(0).normal(size=3 * (16,)) * 1.1 * wrong.voxels.std()
    )
    competition.found[0].append(
        Found((DensityMap(unlike.astype(np.float32), 12.0),), -106.0, line, 4)
    )
    competition.found[1].append(Found((wrong,), -105.0, line, 1))
    doubtful = competition.verdict()
    assert 0.6 < doubtful.agreement < 0.8
    assert doubtful.pair is None
    competition.found[0].clear()
    competition.found[1].clear()
    competition.found[0].append(Found((wrong,), -106.0, line, 0))
    competition.found[1].append(Found((wrong,), -105.0, line, 1))
    agreed = competition.verdict()
    assert agreed.pair is not None
    assert agreed.agreement == pytest.approx(1, abs=0.02)
    competition.found[0].append(
        Found((true,), -100.0, line, 2)
    )  # what is explained: 20 nats, not 14 or 15
    doubted = competition.verdict()
    assert doubted.pair is None
    assert doubted.lacking == [1]
    assert "explain the images less" in str(doubted)
    competition.found[1].append(Found((true,), -101.0, line, 3))
    sure = competition.verdict()
    assert sure.pair is not None
    assert {one.evidence for one in sure.pair[1:]} == {-100.0, -101.0}


def test_no_search_is_begun_after_the_minutes_of_the_run() -> None:
    config = AbInitioConfig(particles="p", output="o", minutes=1)
    for seconds, goes_on in ((30, True), (90, False)):
        competition = _Competition(
            cast(Searches, SimpleNamespace()), config, time.monotonic() - seconds
        )
        assert competition.goes_on(0) == goes_on


def test_a_stopped_search_ends_with_the_same_map(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cryosphere.jobs._searches.STEPS", 13)  # stored after 5 and 10
    stack, config = ParticleStack.read(sample / "blank.star"), config_of(sample, tmp_path)
    whole, stopped = MemoryJournal(), MemoryJournal()
    for journal, pauses in ((whole, 0), (stopped, 2)):
        for _ in range(pauses):
            with closing(Searches(stack, config, journal).run(0, 1)) as events:
                next(event for event in events if isinstance(event, Snapshot))
        list(Searches(stack, config, journal).run(0, 1))
    for name in ("voxels", "sums", "spectrum", "history"):
        np.testing.assert_array_equal(whole.read(1, [name])[name], stopped.read(1, [name])[name])


def test_pure_noise_is_called_so(sample: Path) -> None:
    tables = read_star(sample / "blank.star")
    noise = np.random.default_rng(1).normal(size=(NUMBER, 32, 32)).astype(np.float32)
    write_stack(noise, sample / "noise.mrcs", 6.0)
    table = tables["particles"]
    table["rlnImageName"] = [f"{row + 1:06d}@noise.mrcs" for row in range(len(table))]
    write_star(tables, sample / "noise.star")
    output = sample / "from_noise"
    config = config_of(sample, output, particles=sample / "noise.star", starts=1)
    with closing(abinitio(config)) as events:  # stopped once, and resumed
        next(event for event in events if isinstance(event, Snapshot))
    resumed = config.model_copy(update={"resume": True})
    with pytest.raises(NotConvergedError, match="nothing that can be believed"):
        run(abinitio(resumed))
    assert not (output / "map.mrc").exists()


def test_too_few_particles_are_refused(sample: Path) -> None:
    config = config_of(sample, sample / "few", select="rlnDefocusU < 0")
    with pytest.raises(MetadataError):
        run(abinitio(config))


def test_the_front_door_names_its_options(sample: Path) -> None:
    stack = nc.read_star(sample / "blank.star")
    with pytest.raises(nc.CryosphereError, match="diameter_angstrom"):
        nc.ab_initio(stack, symmetry="D2", diameter=90.0)
