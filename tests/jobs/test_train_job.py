"""The job ``train``: what it writes, what it takes up again, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from napari_cryosphere.errors import CryosphereError, MetadataError, ModelError, OutputExistsError
from napari_cryosphere.jobs._training_data import training_data
from napari_cryosphere.jobs.configs.training import ExperimentConfig, PresetName, TrainConfig
from napari_cryosphere.jobs.events import Event, Events, Preview, Progress, Result, follow
from napari_cryosphere.jobs.info import describe
from napari_cryosphere.jobs.train import train, train_on_stack
from napari_cryosphere.model.card import NetworkConfig, PolarConfig
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import masked_correlation
from napari_cryosphere.training.presets import CESPED_AUGMENTATION, CRYOSPHERE

POLAR = PolarConfig(
    box=16, l_max=3, ring_channels=8, ring_blocks=0, channels=8, blocks=1, features=12
)


def run(events: Events) -> Result:
    return follow(events, lambda event: None)


def test_training_writes_a_run_folder(small: NetworkConfig, trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert TrainConfig.model_validate(config).network == small
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["fraction"] == 1
    assert np.isfinite(lines[-1]["loss"])
    card = PoseModel.load(trained).card
    assert card.pixel_size_angstrom == pytest.approx(12.0)
    assert card.training["images"] == lines[-1]["images"]
    description = describe(trained)
    assert description["kind"] == "run"
    assert description["model"]["l_max"] == 3


def test_training_from_a_map(small: NetworkConfig, sample: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        particles=sample / "particles.star",
        map=sample / "map.mrc",
        output=tmp_path / "run",
        network=small,
        epochs=0.3,
        device="cpu",
    )
    assert np.isfinite(run(train(config)).metrics["loss"])


def test_training_reconstructs_the_map_it_makes_projections_of(
    sample: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        particles=sample / "particles.star",
        output=tmp_path / "run",
        network=POLAR,
        epochs=0.5,
        device="cpu",
    )
    events = list(train(config))
    assert np.isfinite(events[-1].metrics["loss"])
    found, truth = (
        DensityMap.read(tmp_path / "run" / "map.mrc"),
        DensityMap.read(sample / "map.mrc"),
    )
    assert masked_correlation(found.voxels, truth.voxels) > 0.7
    previews = [event for event in events if isinstance(event, Preview)]
    assert previews
    held_out = ParticleStack.read(sample / "particles.star")[previews[-1].rows]
    assert len(held_out) == len(previews[-1].distribution) == 8
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("preset", ["cryosphere", "image2sphere"])
def test_other_presets_train(
    small: NetworkConfig, sample: Path, tmp_path: Path, preset: PresetName
) -> None:
    source = {"map": sample / "map.mrc"} if preset == "cryosphere" else {}
    config = TrainConfig(
        particles=sample / "particles.star",
        output=tmp_path / "run",
        preset=preset,
        network=small,
        projections=24,
        epochs=0.3,
        device="cpu",
        **source,
    )
    assert np.isfinite(run(train(config)).metrics["loss"])
    assert TrainConfig.model_validate_json((tmp_path / "run" / "config.json").read_text()) == config


def test_what_is_not_given_is_the_presets() -> None:
    paths = {"particles": "p.star", "output": "run"}
    assert TrainConfig(**paths).network == PolarConfig(shifts=True, matched=True)
    changed = TrainConfig(**paths, network={"l_max": 5}, batch_size=7)
    assert changed.network == PolarConfig(l_max=5, shifts=True, matched=True)
    assert changed.batch_size == 7
    poster = TrainConfig(**paths, preset="cryosphere", network={"so3_channels": 4})
    assert (poster.epochs, poster.labels, poster.learning_rate) == (200, "mask", 1e-3)
    assert poster.network == CRYOSPHERE.network.model_copy(update={"so3_channels": 4})
    assert TrainConfig(**paths, map="m.mrc").source == "map"
    cesped = TrainConfig(**paths, preset="cesped", augmentation={"zoom_in": 0.1}).augmentation
    assert cesped == CESPED_AUGMENTATION.model_copy(update={"zoom_in": 0.1})
    with pytest.raises(ValidationError, match="no projections"):
        TrainConfig(**paths, map="m.mrc", source="particles")


def test_a_network_of_another_kind_keeps_nothing_of_the_presets() -> None:
    """Degree 4 of Image2Sphere says nothing of a polar network."""
    polar = {"kind": "polar", "channels": 32}
    config = TrainConfig(particles="p.star", output="run", preset="cryosphere", network=polar)
    assert config.network == PolarConfig(channels=32)
    experiment = ExperimentConfig(name="equivariance", output="run", preset={"network": polar})
    assert experiment.preset.network == PolarConfig(channels=32)
    assert experiment.preset.epochs == CRYOSPHERE.epochs


@pytest.mark.parametrize("micrographs", [12, 120])
def test_half_sets_and_whole_micrographs_are_held_out(
    small: NetworkConfig, sample: Path, tmp_path: Path, micrographs: int
) -> None:
    """Six micrographs of two particles are held out whole; of micrographs of twenty, particles of
    all are.
    """
    stack = ParticleStack.read(sample / "particles.star")
    names = np.array([f"m{row % micrographs}.mrc" for row in range(len(stack))])
    stack = stack.with_columns(
        {"rlnMicrographName": names, "rlnRandomSubset": 1 + np.arange(240) % 2}
    )
    config = TrainConfig(
        particles=stack.source, output=tmp_path, preset="image2sphere", network=small, half_set=2
    )
    steps, data = training_data(stack, config), None
    while data is None:
        try:
            next(steps)
        except StopIteration as end:
            data = end.value
    assert len(data.images) + len(data.held_out) == 120
    assert len(data.held_out) == len(data.validation.images) == 12
    assert (stack.half_sets()[data.held_out] == 2).all()
    held = set(names[data.held_out])
    if micrographs == 120:
        assert len(held) == 6
    else:
        assert len(held) > 3


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    small: NetworkConfig, sample: Path, tmp_path: Path
) -> None:
    """SIGKILL at some moment; the weights are in the end those of a run that nobody killed."""
    options = {
        "particles": sample / "particles.star",
        "network": small,
        "epochs": 1.5,
        "device": "cpu",
    }
    options |= {"batch_size": 8, "preset": "image2sphere", "checkpoint_seconds": 0}
    run(train(TrainConfig(output=tmp_path / "whole", **options)))
    config = TrainConfig(output=tmp_path / "killed", **options)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    code = (
        "import torch; torch.set_num_threads({})\n"
        "from pathlib import Path\n"
        "from napari_cryosphere.jobs.configs.training import TrainConfig\n"
        "from napari_cryosphere.jobs.train import train\n"
        "for _ in train(TrainConfig.model_validate_json(Path({!r}).read_text())): pass"
    ).format(torch.get_num_threads(), str(tmp_path / "config.json"))
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        for _ in range(30000):
            if config.checkpoint.is_file() or process.poll() is not None:
                break
            time.sleep(0.01)
        process.kill()
    assert not (config.output / "model.safetensors").exists()
    with pytest.raises(OutputExistsError):
        run(train(config))
    result = run(train(config.model_copy(update={"resume": True})))
    assert result.metrics["images"] == pytest.approx(1.5 * 216, abs=8)
    whole, killed = PoseModel.load(tmp_path / "whole"), PoseModel.load(tmp_path / "killed")
    for first, second in zip(
        whole.network.state_dict().values(), killed.network.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second)
    lines = [json.loads(line) for line in (config.output / "log.jsonl").read_text().splitlines()]
    images = [line["images"] for line in lines]
    # a slow machine reports at the last step, too; the report at the end says its number again
    assert images[:-1] == sorted(set(images[:-1]))
    assert images[-1] == max(images)


def learn_a_little(events: Events) -> None:
    """Stop a run after its first report."""
    next(event for event in events if isinstance(event, Progress) and "loss" in event.metrics)
    events.close()


def test_only_the_same_run_is_taken_up(small: NetworkConfig, sample: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        particles=sample / "particles.star",
        output=tmp_path / "run",
        preset="image2sphere",
        network=small,
        epochs=1000,
        device="cpu",
    )
    again = config.model_copy(update={"resume": True})
    learn_a_little(
        train_on_stack(ParticleStack.read(config.particles[0]), again, report_seconds=0.0)
    )  # begins
    with pytest.raises(CryosphereError, match="seed 0, not 1"):
        run(train(again.model_copy(update={"seed": 1})))
    config.checkpoint.unlink()
    with pytest.raises(CryosphereError, match="has ended"):
        run(train(again))


def test_a_run_is_taken_up_by_another_name(
    small: NetworkConfig, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(
        particles=sample / "particles.star",
        output=tmp_path / "run",
        network=small,
        epochs=1000,
        device="cpu",
    )
    stack = ParticleStack.read(config.particles[0])
    learn_a_little(train_on_stack(stack, config, report_seconds=0.0))
    moved = config.output.rename(tmp_path / "moved")
    monkeypatch.chdir(sample)
    again = {"particles": (Path("particles.star"),), "output": moved, "resume": True}
    learn_a_little(
        train_on_stack(
            stack, TrainConfig.of_run(moved).model_copy(update=again), report_seconds=0.0
        )
    )
    images = [json.loads(line)["images"] for line in (moved / "log.jsonl").read_text().splitlines()]
    assert images == sorted(set(images))
    assert len(images) >= 2
    (moved / "config.json").write_text("{}")
    with pytest.raises(CryosphereError, match=r"config\.json cannot be read"):
        TrainConfig.of_run(moved)


def test_training_stopped_early_keeps_a_model(
    small: NetworkConfig, sample: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        particles=sample / "particles.star",
        output=tmp_path / "run",
        network=small,
        epochs=1000,
        device="cpu",
    )
    events = train(config)
    seen: list[Event] = []
    for event in events:
        seen.append(event)
        if isinstance(event, Progress) and "loss" in event.metrics:
            events.close()
            break
    assert PoseModel.load(tmp_path / "run").card.training["images"] > 0


def test_training_needs_poses_and_particles(sample: Path, tmp_path: Path) -> None:
    bare = sample / "particles.mrcs"
    with pytest.raises(MetadataError, match="no poses"):
        run(train(TrainConfig(particles=bare, output=tmp_path / "a")))
    few = tmp_path / "few.star"
    ParticleStack.read(sample / "particles.star")[:3].save(few)
    with pytest.raises(MetadataError, match="too few"):
        run(train(TrainConfig(particles=few, output=tmp_path / "b")))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_existing_model_is_not_clobbered(small: NetworkConfig, trained: Path, sample: Path) -> None:
    before = (trained / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError):
        run(train(TrainConfig(particles=sample / "particles.star", output=trained, network=small)))
    assert (trained / "model.safetensors").read_bytes() == before


def test_encoder_weights_are_for_a_resnet(
    small: NetworkConfig, sample: Path, tmp_path: Path
) -> None:
    for network, says in ((POLAR, "this network does not have"), (small, "encoder is no ResNet")):
        config = TrainConfig(
            particles=sample / "particles.star",
            output=tmp_path / "run",
            network=network,
            source="particles",
            encoder_weights=tmp_path / "resnet.safetensors",
            epochs=0.1,
            device="cpu",
        )
        with pytest.raises(CryosphereError, match=rf"resnet.safetensors.* {says}.*preset cesped"):
            run(train(config))


def test_a_run_whose_config_is_lost_is_not_taken_up(
    small: NetworkConfig, sample: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        particles=sample / "particles.star",
        output=tmp_path,
        network=small,
        resume=True,
        device="cpu",
    )
    config.checkpoint.touch()
    for text in (None, "{", '{"epochs": "many"}'):
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(CryosphereError, match=r"config.json cannot be read"):
            run(train(config))


def test_a_run_begins_with_the_weights_of_a_model(
    sample: Path, trained: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        particles=sample / "particles.star",
        output=tmp_path / "run",
        init=trained,
        source="particles",
        epochs=0.3,
        learning_rate=1e-9,
        device="cpu",
    )
    run(train(config))
    first, then = PoseModel.load(trained), PoseModel.load(tmp_path / "run")
    assert then.card.network == first.card.network  # though the settings name the preset's
    learnt = dict(first.network.named_parameters())
    for name, value in then.network.named_parameters():
        torch.testing.assert_close(value, learnt[name], atol=1e-6, rtol=1e-5)


def test_a_run_cannot_begin_with_another_network(
    sample: Path, trained: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        particles=sample / "particles.star", output=tmp_path / "run", init=trained, network=POLAR
    )
    with pytest.raises(CryosphereError, match="image2sphere, not polar"):
        run(train(config))
    assert not (tmp_path / "run").exists()


def test_a_network_that_is_missing_is_said_before_images_are_prepared(
    sample: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        particles=sample / "particles.star",
        output=tmp_path / "run",
        network={"kind": "custom", "factory": "nowhere_to_be_found:network"},
    )
    seen: list[object] = []
    with pytest.raises(ModelError, match="PYTHONPATH"):
        follow(train(config), seen.append)
    assert not any("preparing" in getattr(event, "message", "") for event in seen)
