"""The job variability: a domain in motion found, particles alike found alike, runs that go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

import napari_cryosphere as nc
from napari_cryosphere.errors import CryosphereError, MetadataError, OutputExistsError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig, VariabilityConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result, follow
from napari_cryosphere.jobs.running.run_folder import remove_stale
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.variability import _OF_COMPONENTS, variability, variability_outputs
from napari_cryosphere.particles import DensityMap, ParticleStack

NUMBER = 300


@pytest.fixture(scope="module", autouse=True)
def _few_rounds() -> Iterator[None]:
    """Make few rounds of expectation maximisation: the motion is large."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("napari_cryosphere.jobs._variability._ROUNDS", 6)
        yield


def run(events: Events, show: Callable[[Event], None] = lambda event: None) -> Result:
    return follow(events, show)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with particles of which one half turns, and with particles that stand still."""
    folder = tmp_path_factory.mktemp("variability")
    protein_phantom(24, 8.0).save(folder / "map.mrc")
    given: dict[str, Any] = {"map": folder / "map.mrc", "number": NUMBER, "snr": 0.5, "seed": 3}
    moving = SimulateConfig(
        **given, output=folder / "moving.star", motion="half", motion_angle_degrees=60
    )
    run(simulate(moving))
    run(simulate(SimulateConfig(**given, output=folder / "still.star")))
    return folder


def config_of(made: Path, output: Path, name: str = "moving", **options: Any) -> VariabilityConfig:
    given: dict[str, Any] = {
        "particles": made / f"{name}.star",
        "output": output,
        "components": 2,
        "resolution_angstrom": 27.0,
    }
    return VariabilityConfig(**given | options)


@pytest.fixture(scope="module")
def found(made: Path) -> tuple[Result, list[Note]]:
    notes = list[Note]()
    config = config_of(made, made / "found")
    result = run(variability(config), lambda e: notes.append(e) if isinstance(e, Note) else None)
    return result, notes


def test_a_motion_is_found(found: tuple[Result, list[Note]]) -> None:
    result, notes = found
    table = ParticleStack.read(result.outputs["particles"]).particles
    angles = table["cryosphereMotionAngle"].to_numpy(float)
    coordinates = table["cryosphereComponent1"].to_numpy(float)
    errors = table["cryosphereComponentError1"].to_numpy(float)
    assert abs(np.corrcoef(coordinates, angles)[0, 1]) > 0.8
    assert np.mean(coordinates**2 + errors**2) == pytest.approx(1, abs=0.05)
    assert 0 < errors.min() < errors.max() < 1
    # by the angle as far as a line goes: a uniform one of 60 degrees has a deviation of 17.3
    slope = np.sign(np.corrcoef(coordinates, angles)[0, 1]) / 17.3
    off = np.abs(coordinates - slope * angles) / errors
    assert 0.35 < np.mean(off < 0.674) < 0.65
    assert any("found by both halves" in note.text for note in notes)


def test_what_is_written_fits_together(found: tuple[Result, list[Note]], made: Path) -> None:
    result, _ = found
    told = json.loads(result.outputs["variability"].read_text())
    assert told["components_found"] == result.metrics["components"] >= 1
    first = told["components"][0]
    assert first["half_set_correlation"] > 0.5
    values = list(first["coordinates_of_volumes"].values())
    assert values == sorted(values)
    mean, along = (DensityMap.read(result.outputs[role]).voxels for role in ("mean", "component_1"))
    assert float((along.astype(float) ** 2).sum()) == pytest.approx(first["variance"], rel=1e-3)
    volume = DensityMap.read(result.outputs["component_1_at_95"]).voxels
    np.testing.assert_allclose(volume, mean + values[-1] * along, atol=1e-4 * np.abs(mean).max())
    assert not (made / "found" / "unfinished").exists()


def test_found_in_memory_is_what_the_job_writes(
    found: tuple[Result, list[Note]], made: Path
) -> None:
    stack = nc.read_star(made / "moving.star")
    notes = list[str]()
    kept = nc.variability(
        stack,
        components=2,
        resolution_angstrom=27.0,
        progress=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    outputs = found[0].outputs
    written = ParticleStack.read(outputs["particles"]).particles
    for name, values in (("", kept.coordinates(1)), ("Error", kept.errors(1))):
        told = written[f"cryosphereComponent{name}1"].to_numpy(float)
        np.testing.assert_allclose(values, told, atol=1e-5)
    first = DensityMap.read(outputs["component_1"]).voxels
    np.testing.assert_array_equal(kept.components[0].voxels, first)
    value = float(np.quantile(kept.coordinates(1), 0.95))
    volume = DensityMap.read(outputs["component_1_at_95"]).voxels
    np.testing.assert_allclose(kept.volume(1, value).voxels, volume, rtol=1e-5, atol=1e-6)
    assert any("found by both halves" in text for text in notes)
    assert kept._repr_html_().count("<table") >= 2
    with pytest.raises(CryosphereError, match="pose_error_degrees"):
        nc.variability(stack, pose_error=2.0)


def test_particles_that_are_alike_are_found_alike(made: Path, tmp_path: Path) -> None:
    notes = list[str]()
    result = run(
        variability(config_of(made, tmp_path / "run", "still")),
        lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert result.metrics["components"] == 0
    assert sum("no variability found" in text for text in notes) == 1
    table = ParticleStack.read(result.outputs["particles"]).particles
    assert "cryosphereComponent1" not in table
    assert not (tmp_path / "run" / "component_1.mrc").exists()


@pytest.mark.parametrize("message", ["half 2: round 1", "placed"])
def test_a_run_that_was_stopped_goes_on(
    message: str, found: tuple[Result, list[Note]], made: Path, tmp_path: Path
) -> None:
    events = variability(config_of(made, tmp_path / "run"))
    for event in events:
        if isinstance(event, Progress) and event.message.startswith(message):
            break
    events.close()
    assert (tmp_path / "run" / "unfinished").is_dir()
    said = list[str]()
    result = run(
        variability(config_of(made, tmp_path / "run", resume=True)),
        lambda event: said.append(event.message) if isinstance(event, Progress) else None,
    )
    assert not any(text.startswith("half 1: round") for text in said)
    again, whole = (one.outputs["component_1"] for one in (result, found[0]))
    np.testing.assert_array_equal(DensityMap.read(again).voxels, DensityMap.read(whole).voxels)
    tables = [
        ParticleStack.read(one.outputs["particles"]).particles.drop(columns="rlnImageName")
        for one in (result, found[0])
    ]
    pd.testing.assert_frame_equal(*tables)


def test_masks_in_memory_are_checked_as_files_are(made: Path) -> None:
    stack, ones = nc.read_star(made / "still.star"), np.ones((24, 24, 24), np.float32)
    masks: dict[str, Any] = {
        "box of 20": DensityMap(ones[:20, :20, :20], 8.0),
        "values from 2 to 2": DensityMap(2 * ones, 8.0),
        "mask='solvent'": "solvent",
        "mask=ndarray": ones,
    }
    for text, mask in masks.items():
        with pytest.raises(MetadataError, match=text):
            nc.variability(stack, mask=mask)


def test_files_that_are_not_of_a_component_stay(tmp_path: Path) -> None:
    outputs = variability_outputs(config_of(tmp_path, tmp_path), 12)
    own = [path for role, path in outputs.items() if role.startswith("component")]
    others = tmp_path / "component_ring.mrc", tmp_path / "component_1_class001.mrc"
    for path in (*own, *others):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "component_rings").mkdir()
    remove_stale(tmp_path, _OF_COMPONENTS, own[:6])
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*own[:6], *others}
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"component_1_volumes", "component_rings"}


def test_what_cannot_be_compared_is_refused(made: Path, tmp_path: Path) -> None:
    stack = ParticleStack.read(made / "still.star")
    few = stack[:60]
    few.save(tmp_path / "few.star")
    with pytest.raises(MetadataError, match="30 particles in one half"):
        run(variability(config_of(tmp_path, tmp_path / "a", "few")))
    angles = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    table = stack.particles.drop(columns=angles)
    ParticleStack.from_tables({"optics": stack.optics, "particles": table}, stack.images()).save(
        tmp_path / "none.star"
    )
    with pytest.raises(MetadataError, match="has no poses"):
        run(variability(config_of(tmp_path, tmp_path / "b", "none")))
    noise = np.random.default_rng(0).normal(size=stack.images().shape).astype(np.float32)
    tables = {"optics": stack.optics, "particles": stack.particles}
    ParticleStack.from_tables(tables, noise).save(tmp_path / "noise.star")
    with pytest.raises(MetadataError, match="half-maps at these poses agree"):
        run(variability(config_of(tmp_path, tmp_path / "c", "noise")))
    with pytest.raises(CryosphereError, match="over --max-memory"):
        run(variability(config_of(made, tmp_path / "d", max_memory_gb=1.0)))
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "particles.star").write_text("")
    with pytest.raises(OutputExistsError):
        run(variability(config_of(made, tmp_path / "e")))
    with pytest.raises(ValidationError):
        config_of(made, tmp_path / "f", components=0)
