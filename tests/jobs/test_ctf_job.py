"""The CTF comes to the network wherever one is trained or asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import napari_cryosphere as nc
from napari_cryosphere.imaging.ctf import radial_ctf
from napari_cryosphere.jobs.configs import InferConfig
from napari_cryosphere.jobs.configs.training import TrainingConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.train import train_stack
from napari_cryosphere.model.card import ModelCard, PolarConfig
from napari_cryosphere.model.polar import PolarNetwork
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.widgets.control.work import prediction_work

NETWORK = PolarConfig(
    box=16, l_max=2, ring_channels=4, ring_blocks=0, channels=4, blocks=0, features=8, matched=True
)
GRID = ImageGrid(16, 12.0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = PoseModel.create(
        ModelCard(network=NETWORK, pixel_size_angstrom=GRID.pixel_size_angstrom)
    )
    made.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """Return a list that fills with the CTFs that any network is given."""
    given, asked = list[Tensor | None](), PolarNetwork.answers

    def noted(self: PolarNetwork, images: Tensor, ctf: Tensor | None = None) -> Any:
        given.append(ctf)
        return asked(self, images, ctf)

    monkeypatch.setattr(PolarNetwork, "answers", noted)
    return given


def by_command(stack: ParticleStack, model: Path) -> None:
    output = model.with_name("out.star")
    config = InferConfig(particles=stack.source, model=model, output=output)
    follow(infer(config), lambda event: None)


def in_memory(stack: ParticleStack, model: Path) -> None:
    nc.infer(stack, PoseModel.load(model))


def in_the_window(stack: ParticleStack, model: Path) -> None:
    for _ in prediction_work(stack, model):
        pass


@pytest.mark.parametrize("way", [by_command, in_memory, in_the_window])
def test_predicting(
    way: Callable[[ParticleStack, Path], None],
    sample: Path,
    model: Path,
    seen: list[Tensor | None],
) -> None:
    stack = ParticleStack.read(sample / "particles.star")
    way(stack, model)
    expected = radial_ctf(stack, GRID)
    torch.testing.assert_close(torch.cat([each for each in seen if each is not None]), expected)


def test_refining(sample: Path, model: Path, seen: list[Tensor | None]) -> None:
    """Pilot and prediction."""
    stack = ParticleStack.read(sample / "particles.star")[:40]
    nc.refine(stack, PoseModel.load(model), DensityMap.read(sample / "map.mrc"))
    assert len(seen) >= 2
    assert all(ctf is not None and ctf.std() > 0.1 for ctf in seen)


@pytest.mark.parametrize("known", [True, False])
def test_training(known: bool, sample: Path, seen: list[Tensor | None]) -> None:
    """Projections, then particles, and validations between."""
    stack = ParticleStack.read(sample / "particles.star")
    if not known:
        stack = stack._with(stack.particles.drop(columns="rlnDefocusU"))
    config = TrainingConfig(network=NETWORK, epochs=0.5, fine_tuning=0.5, device="cpu")
    events = train_stack(stack, config, DensityMap.read(sample / "map.mrc"))
    for _ in events:
        pass
    assert len(seen) > 4
    assert all((ctf is not None) == known for ctf in seen)
