"""Shifts from training to the STAR file: what ``train`` learns, ``infer`` writes and starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_cryosphere.alignment.aligner import Aligner, Alignment
from napari_cryosphere.jobs.configs import InferConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import Events, Result, follow
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.running.predictor import images_for
from napari_cryosphere.jobs.train import train, train_stack
from napari_cryosphere.model.card import PolarConfig
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import ORIGINS, ParticleStack, network_column
from napari_cryosphere.training.presets import PRESETS

NETWORK = PolarConfig(
    box=16,
    l_max=3,
    ring_channels=8,
    ring_blocks=0,
    channels=16,
    blocks=1,
    features=16,
    shifts=True,
    matched=True,
)
NAMES = list(ORIGINS)


def run(events: Events) -> Result:
    return follow(events, lambda event: None)


@pytest.fixture(scope="module")
def model(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("shifts") / "run"
    config = TrainConfig(
        particles=sample / "particles.star", output=output, network=NETWORK, epochs=2, device="cpu"
    )
    metrics = run(train(config)).metrics
    card = PoseModel.load(output).card
    assert card.shifts is not None
    assert card.shifts.particles > 0
    assert metrics["validation_shift_angstrom"] == card.shifts.median_angstrom
    return output


def test_predicted_origins_are_written_and_read_back(
    sample: Path, model: Path, tmp_path: Path
) -> None:
    given = ParticleStack.read(sample / "particles.star")
    run(infer(InferConfig(particles=given.source, model=model, output=tmp_path / "out.star")))
    found = ParticleStack.read(tmp_path / "out.star")
    network = PoseModel.load(model)
    said = network.predict_all(*images_for(network, given).with_ctf(slice(None)))
    assert said.origins_angstrom is not None
    np.testing.assert_allclose(found.shifts_angstrom(), said.origins_angstrom, atol=1e-3)
    spread = found.particles["cryosphereOriginSpread"].to_numpy(float)
    np.testing.assert_allclose(spread, said.origin_spread_angstrom, rtol=1e-3)
    kept = found.particles[[f"cryosphereInput{name[3:]}" for name in NAMES]].to_numpy(float)
    np.testing.assert_allclose(kept, given.shifts_angstrom(), atol=1e-4)


def test_refinement_begins_at_the_predicted_origins(
    sample: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pilot, modes and decoys alike; the network's origins are kept in columns of their own."""
    begun, refine = list[np.ndarray](), Aligner.refine

    def noted(
        self: Aligner, images: Any, ctf: Any, starts: Any, px: Any, *rest: Any, **more: Any
    ) -> Alignment:
        begun.append(px)
        return refine(self, images, ctf, starts, px, *rest, **more)

    monkeypatch.setattr(Aligner, "refine", noted)
    config = InferConfig(
        particles=sample / "particles.star",
        model=model,
        output=tmp_path / "out.star",
        refine=True,
        map=sample / "map.mrc",
        modes=2,
        climbed=1,
    )
    run(infer(config))
    found = ParticleStack.read(config.output)
    network = found.particles[[network_column(name) for name in NAMES]].to_numpy(float)
    centres_px = -network / found.grid.pixel_size_angstrom
    apart = np.concatenate(begun)[:, None] - centres_px
    assert sum(map(len, begun)) > len(found)
    assert np.abs(apart).max(2).min(1).max() < 1e-3
    assert np.linalg.norm(network, axis=1).min() > 1e-3
    assert "cryosphereNetworkOriginSpread" in found.particles
    assert "cryosphereOriginSpread" not in found.particles


def test_particles_without_origins_teach_none(sample: Path, tmp_path: Path) -> None:
    stack = ParticleStack.read(sample / "particles.star")
    stack = stack.with_poses(stack.rotations(), np.zeros((len(stack), 2)))
    config = TrainConfig(
        particles=stack.source,
        output=tmp_path / "run",
        network=NETWORK,
        source="particles",
        epochs=0.3,
        device="cpu",
    )
    events, card = train_stack(stack, config), None
    while card is None:
        try:
            next(events)
        except StopIteration as end:
            card = end.value.card
    assert card.shifts is None


def test_the_default_network_says_where_particles_lie() -> None:
    assert PRESETS["default"].network == PolarConfig(shifts=True, matched=True)
    assert not PolarConfig().shifts  # of models written before there were any
    assert not PolarConfig().matched
