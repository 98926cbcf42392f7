"""Particles that the tests of jobs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.train import train
from napari_cryosphere.model.card import Image2SphereConfig, NetworkConfig


@pytest.fixture(scope="session")
def small() -> NetworkConfig:
    """Return the shape of a network that is built and trained in a moment."""
    return Image2SphereConfig(
        box=16, encoder_channels=(4, 8), sphere_channels=8, sphere_order=2, l_max=3, so3_channels=2
    )


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a map and 240 particles of it; tests write elsewhere."""
    folder = tmp_path_factory.mktemp("sample")
    protein_phantom(32, 6.0).save(folder / "map.mrc")
    config = SimulateConfig(
        map=folder / "map.mrc", output=folder / "particles.star", number=240, snr=1.0, seed=1
    )
    follow(simulate(config), lambda event: None)
    return folder


@pytest.fixture(scope="session")
def trained(sample: Path, small: NetworkConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(
        particles=sample / "particles.star",
        output=output,
        network=small,
        epochs=1,
        batch_size=32,
        device="cpu",
    )
    result = follow(train(config), lambda event: None)
    assert result.outputs["model"].is_file()
    return output
