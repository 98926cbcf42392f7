"""How jobs open what their configs name: selection, contrast, pixel size of a map, its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import (
    AlignConfig,
    FscConfig,
    JobConfig,
    MapInput,
    MaskedMapInput,
    ParticlesInput,
    ReconstructConfig,
    SimulateConfig,
)
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import Events, Result, follow
from napari_cryosphere.jobs.fsc import fsc
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.running.inputs import described, open_particles
from napari_cryosphere.jobs.running.references import open_map, open_reference
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.train import train
from napari_cryosphere.particles import DensityMap, ParticleStack, stack_writer


def done(events: Events) -> Result:
    return follow(events, lambda event: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inputs")
    protein_phantom(32, 6.0).save(made / "map.mrc")
    config = SimulateConfig(map=made / "map.mrc", output=made / "p.star", number=200, snr=2)
    done(simulate(config))
    return made


def test_particles_are_selected_and_inverted(folder: Path) -> None:
    whole = ParticleStack.read(folder / "p.star")
    limit = float(np.median(whole.particles["rlnDefocusU"]))
    config = ParticlesInput(
        particles=folder / "p.star", select=f"rlnDefocusU < {limit}", invert=True
    )
    opened = open_particles(config)
    rows = np.flatnonzero(whole.particles["rlnDefocusU"].to_numpy() < limit)
    assert 0 < len(opened) == len(rows) < len(whole)
    assert np.array_equal(opened.images(), -whole.images(rows))
    assert np.array_equal(opened.images(3), -whole.images(int(rows[3])))
    assert np.array_equal(ParticleStack.join([opened, whole]).images(len(rows)), whole.images(0))


def test_what_is_selected_is_reconstructed_with_inverted_contrast(folder: Path) -> None:
    made = {}
    for name, options in {
        "half": {"select": "rlnRandomSubset == 1"},
        "dark": {"select": "rlnRandomSubset == 1", "invert": True},
    }.items():
        config = ReconstructConfig(
            particles=folder / "p.star", output=folder / f"{name}.mrc", regularise=False, **options
        )
        result = done(reconstruct(config))
        assert result.metrics["particles"] == 100
        made[name] = DensityMap.read(folder / f"{name}.mrc").voxels
    assert np.allclose(made["dark"], -made["half"], atol=1e-5 * np.abs(made["half"]).max())


def test_a_selection_of_nothing_is_one_line(folder: Path) -> None:
    config = ParticlesInput(particles=folder / "p.star", select="rlnDefocusU < 0")
    with pytest.raises(MetadataError, match="none of 200 particles") as caught:
        open_particles(config)
    assert "\n" not in str(caught.value)


def test_a_map_takes_the_pixel_size_that_is_given(folder: Path) -> None:
    path = folder / "map.mrc"
    assert open_map(MapInput(map=path), path).pixel_size_angstrom == pytest.approx(6.0)
    right = MapInput(map=path, map_pixel_size_angstrom=2.5)
    assert open_map(right, path).pixel_size_angstrom == 2.5
    with pytest.raises(ValidationError, match="goes with map"):
        MapInput(map_pixel_size_angstrom=2.5)


def test_the_pixel_size_scales_resolutions(folder: Path) -> None:
    noisy = DensityMap.read(folder / "map.mrc")
    rng = np.random.default_rng(0)
    changed = noisy.voxels + rng.normal(0, noisy.voxels.std(), noisy.voxels.shape)
    replace(noisy, voxels=changed).save(folder / "other.mrc")
    found = [
        done(
            fsc(
                FscConfig(
                    first=folder / "map.mrc",
                    second=folder / "other.mrc",
                    output=folder / "fsc.csv",
                    map_pixel_size_angstrom=size,
                    overwrite=True,
                )
            )
        ).metrics["resolution_05_angstrom"]
        for size in (None, 3.0)
    ]
    assert found[1] == pytest.approx(float(found[0]) / 2)


def test_a_mask_is_multiplied_with_the_map(folder: Path) -> None:
    density = DensityMap.read(folder / "map.mrc")
    ball = np.linalg.norm(np.indices((32, 32, 32)) - 16, axis=0) < 8
    replace(density, voxels=ball).save(folder / "mask.mrc", overwrite=True)
    config = MaskedMapInput(map=folder / "map.mrc", mask=folder / "mask.mrc")
    opened = open_reference(config, folder / "map.mrc", None).density
    assert np.array_equal(opened.voxels, np.where(ball, density.voxels, 0))


@pytest.mark.parametrize(
    ("box", "value", "message"), [(30, 1.0, "box of 30"), (32, 2.0, "0 to 2"), (32, 0.0, "0 to 0")]
)
def test_a_mask_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, box: int, value: float, message: str
) -> None:
    voxels = np.zeros((box, box, box), dtype=np.float32)
    voxels[4:8] = value
    DensityMap(voxels, 6.0).save(tmp_path / "mask.mrc")
    config = MaskedMapInput(map=folder / "map.mrc", mask=tmp_path / "mask.mrc")
    with pytest.raises(CryosphereError, match=message):
        open_reference(config, folder / "map.mrc", None)


def test_a_run_is_not_resumed_with_another_mask_or_selection(folder: Path, tmp_path: Path) -> None:
    density = DensityMap.read(folder / "map.mrc")
    config = AlignConfig(
        particles=folder / "p.star",
        map=folder / "map.mrc",
        mask=tmp_path / "mask.mrc",
        output=tmp_path / "out.star",
    )
    found = []
    for radius in (8, 9):
        ball = np.linalg.norm(np.indices((32, 32, 32)) - 16, axis=0) < radius
        replace(density, voxels=ball).save(tmp_path / "mask.mrc", overwrite=True)
        found.append(described(config))
    assert found[0] != found[1]
    assert described(config.model_copy(update={"select": "rlnDefocusU > 1"})) != found[1]


@pytest.mark.parametrize("level", [0.0, 7.5])
def test_images_that_are_all_empty_are_refused_before_the_work(
    level: float, folder: Path, tmp_path: Path
) -> None:
    with stack_writer(tmp_path / "p.mrcs", 6.0) as append:
        append(np.full((200, 32, 32), level, dtype=np.float32))
    (tmp_path / "p.star").write_bytes((folder / "p.star").read_bytes())
    jobs: list[tuple[Callable[..., Events], JobConfig]] = [
        (train, TrainConfig(particles=tmp_path / "p.star", output=tmp_path / "run")),
        (
            reconstruct,
            ReconstructConfig(particles=tmp_path / "p.star", output=tmp_path / "m.mrc"),
        ),
    ]
    for job, config in jobs:
        with pytest.raises(MetadataError, match="all 128 images looked at have one value in every"):
            done(job(config))
    assert not (tmp_path / "m.mrc").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("states", [1, 2])
def test_a_map_that_was_changed_makes_another_run(
    states: int, folder: Path, tmp_path: Path
) -> None:
    maps = tuple(tmp_path / f"state_{state}.mrc" for state in range(states))
    for path in maps:
        path.write_bytes((folder / "map.mrc").read_bytes())
    config = AlignConfig(particles=folder / "p.star", map=maps, output=tmp_path / "a.star")
    before = described(config)
    assert described(config) == before
    protein_phantom(32, 6.0, seed=5).save(maps[-1], overwrite=True)
    assert described(config) != before
