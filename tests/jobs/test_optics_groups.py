"""Jobs on data sets with several optics groups, and `info` on every file that the world has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.fourier import rescale
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import InferConfig, ReconstructConfig, SimulateConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Result, follow
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.info import describe, text_lines
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.train import train
from napari_cryosphere.model.card import Image2SphereConfig, ModelCard
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack, write_stack, write_star
from napari_cryosphere.reconstruction import fourier_shell_correlation, masked_correlation
from napari_cryosphere.so3.asymmetric_unit import inside_asymmetric_unit

SMALL = Image2SphereConfig(
    box=16, encoder_channels=(4, 8), sphere_channels=8, sphere_order=1, l_max=2, so3_channels=2
)
NUMBER = 240


def run(events: Events) -> tuple[Result, list[str]]:
    """Run a job; return its result and its warnings."""
    warnings: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Note) and event.warning:
            warnings.append(event.text)

    return follow(events, note), warnings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Particles of a map on one grid, one.star, and with every other one Fourier-cut to 24 px,
    two.star.
    """
    folder = tmp_path_factory.mktemp("groups")
    protein_phantom(32, 6.0).save(folder / "map.mrc")
    config = SimulateConfig(
        map=folder / "map.mrc", output=folder / "one.star", number=NUMBER, snr=30, seed=1
    )
    run(simulate(config))
    stack = ParticleStack.read(folder / "one.star")
    write_stack(rescale(torch.from_numpy(stack.images()), 24).numpy(), folder / "coarse.mrcs", 8.0)
    names = [f"{row + 1}@{'coarse' if row % 2 else 'one'}.mrcs" for row in range(NUMBER)]
    optics = pd.concat([stack.optics] * 2, ignore_index=True).assign(
        rlnOpticsGroup=[1, 2],
        rlnOpticsGroupName=["a", "b"],
        rlnImagePixelSize=[6.0, 8.0],
        rlnImageSize=[32, 24],
    )
    table = stack.particles.assign(
        rlnImageName=names,
        rlnOpticsGroup=np.arange(NUMBER) % 2 + 1,
        rlnRandomSubset=np.arange(NUMBER) // 2 % 2 + 1,
    )
    write_star({"optics": optics, "particles": table}, folder / "two.star")
    return folder


def test_a_map_from_two_grids_is_the_map(folder: Path, tmp_path: Path) -> None:
    maps = {}
    for name in ("one", "two"):
        config = ReconstructConfig(
            particles=folder / f"{name}.star", output=tmp_path / f"{name}.mrc"
        )
        _, warnings = run(reconstruct(config))
        assert ["Fourier rescaling" in line for line in warnings] == [True] * (name == "two")
        maps[name] = DensityMap.read(tmp_path / f"{name}.mrc")
    truth = DensityMap.read(folder / "map.mrc")
    assert (maps["two"].box, maps["two"].pixel_size_angstrom) == (32, 6.0)
    curve = fourier_shell_correlation(maps["one"].voxels, maps["two"].voxels, 6.0)
    assert (
        curve.values[1:8].min() > 0.99
    )  # below the coarser images' Nyquist frequency all particles count
    assert curve.values[8:12].min() > 0.95
    assert curve.values[13:15].min() > 0.4  # beyond it half of them
    one, two = (masked_correlation(maps[name].voxels, truth.voxels) for name in ("one", "two"))
    assert two > one - 0.02
    # frequencies that one group does not have are not weaker for it
    powers = [np.abs(np.fft.fftn(maps[name].voxels)[0, 0, 13:16]).mean() for name in ("one", "two")]
    assert 0.6 < powers[1] / powers[0] < 1.6


def test_the_wild_groups_give_the_map_of_the_base(shared_data: Path, tmp_path: Path) -> None:
    """RELION 3.1.3's own map of this file correlates by 0.935 with the base's."""
    maps = []
    for name in ("r31_base", "two_optics_groups"):
        particles = shared_data / f"wild/variants/{name}.star"
        run(reconstruct(ReconstructConfig(particles=particles, output=tmp_path / f"{name}.mrc")))
        maps.append(DensityMap.read(tmp_path / f"{name}.mrc").voxels.ravel())
    assert np.corrcoef(maps)[0, 1] > 0.96


def test_training_and_inference_take_both_groups(folder: Path, tmp_path: Path) -> None:
    settings = {"network": SMALL, "epochs": 1, "batch_size": 32, "device": "cpu"}
    _, warnings = run(
        train(TrainConfig(particles=folder / "two.star", output=tmp_path / "run", **settings))
    )
    assert any("Fourier rescaling" in line for line in warnings)
    config = InferConfig(
        particles=folder / "two.star",
        model=tmp_path / "run",
        output=tmp_path / "p.star",
        device="cpu",
    )
    run(infer(config))
    predicted = ParticleStack.read(tmp_path / "p.star")
    assert len(predicted.optics) == 2
    one = InferConfig(
        particles=folder / "one.star",
        model=tmp_path / "run",
        output=tmp_path / "q.star",
        device="cpu",
    )
    run(infer(one))
    pair = [
        stack.particles["cryosphereEntropy"]
        for stack in (predicted, ParticleStack.read(tmp_path / "q.star"))
    ]
    # the same images, but for their edge: 2 % in the root mean square, and at most 11 %
    assert np.linalg.norm(pair[0] - pair[1]) < 0.05 * np.linalg.norm(pair[1])


@pytest.mark.parametrize("symmetry", ["D2", "C5", "O"])
def test_predicted_poses_are_written_inside_relions_unit(
    symmetry: str, folder: Path, tmp_path: Path
) -> None:
    model = PoseModel.create(ModelCard(network=SMALL, pixel_size_angstrom=12.0, symmetry=symmetry))
    model.save(tmp_path / "m.safetensors")
    config = InferConfig(
        particles=folder / "one.star",
        model=tmp_path / "m.safetensors",
        output=tmp_path / "p.star",
        device="cpu",
    )
    run(infer(config))
    views = ParticleStack.read(tmp_path / "p.star").rotations()[:, :, 2]
    assert inside_asymmetric_unit(views, symmetry).all()


def test_constant_images_are_said_and_harmless(shared_data: Path, tmp_path: Path) -> None:
    model = PoseModel.create(ModelCard(network=SMALL, pixel_size_angstrom=20.0))
    model.save(tmp_path / "m.safetensors")
    particles = shared_data / "wild/broken/constant_images.star"
    config = InferConfig(
        particles=particles,
        model=tmp_path / "m.safetensors",
        output=tmp_path / "p.star",
        device="cpu",
    )
    _, warnings = run(infer(config))
    assert any("particles 6, 7 have a constant background" in line for line in warnings)
    assert np.isfinite(ParticleStack.read(tmp_path / "p.star").rotations()).all()
    _, warnings = run(
        reconstruct(ReconstructConfig(particles=particles, output=tmp_path / "m.mrc"))
    )
    assert any("constant background" in line for line in warnings)
    assert np.isfinite(DensityMap.read(tmp_path / "m.mrc").voxels).all()


def test_info_describes_or_refuses_all_the_world_has(shared_data: Path) -> None:
    described = 0
    messages = {}
    for path in sorted((shared_data / "wild").rglob("*.*")):
        if path.suffix in (".md", ".txt", ".npz"):
            continue
        try:
            found = describe(path)
        except CryosphereError as error:
            messages[path.name] = str(error)
            continue
        described += 1
        json.dumps(found)
        assert all("\n" not in line for line in text_lines(found))
        assert found["kind"] in ("particles", "map")
        if found["kind"] == "particles":
            assert sum(found["half_sets"].values()) == found["particles"]
            assert sum(group["particles"] for group in found["optics"]) == found["particles"]
            assert found["contrast"] in ("white", "black", "unclear")
    assert described > 40
    assert not any("\n" in message for message in messages.values())


@pytest.mark.parametrize(
    "name", ["cryodrgn__relion31.6opticsgroups.star", "cryodrgn__relion5.star"]
)
def test_info_of_a_table_whose_images_are_elsewhere(name: str, shared_data: Path) -> None:
    path = shared_data / "wild/real" / name
    with pytest.raises(CryosphereError, match="no stack"):
        describe(path)
    found = describe(path, images=False)
    assert found["has_poses"]
    # without --images they are not looked for
    assert not any("not found" in line for line in found["warnings"])


def test_info_as_text(shared_data: Path) -> None:
    lines = text_lines(describe(shared_data / "wild/variants/two_optics_groups.star"))
    assert "has_ctf              yes" in lines
    at = next(number for number, line in enumerate(lines) if line.startswith("optics_groups"))
    assert lines[at + 1].split()[:4] == ["group", "name", "particles", "voltage_kv"]
    assert lines[at + 3].split() == ["2", "b", "6", "200", "2", "0.07", "13.3333", "24"]
    assert lines[-1].startswith("warning: ")
