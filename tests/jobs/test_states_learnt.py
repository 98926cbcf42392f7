"""States from alignment to the network: what ``train`` learns of them, ``infer`` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import napari_cryosphere as nc
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.configs import InferConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import Event, Note, follow
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.running.predictor import images_for
from napari_cryosphere.jobs.train import train
from napari_cryosphere.model.card import PolarConfig
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack

NETWORK = PolarConfig(
    box=16, l_max=3, ring_channels=8, ring_blocks=0, channels=16, blocks=1, features=16
)
PROBABILITIES = ["cryosphereStateProbability1", "cryosphereStateProbability2"]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 60 particles of a phantom and 60 of one half of it, with their states' probabilities."""
    first = nc.phantom(box=32, pixel_size_angstrom=5.0)
    without = DensityMap(first.voxels * (np.arange(32) < 16), 5.0)
    stacks = [
        nc.simulate(one, number=60, snr=1.0, seed=seed) for one, seed in ((first, 1), (without, 2))
    ]
    second = np.repeat([0.1, 0.9], 60)
    joined = ParticleStack.join(stacks).with_columns(
        dict(zip(PROBABILITIES, (1 - second, second), strict=True))
    )
    path = tmp_path_factory.mktemp("mixture") / "mixture.star"
    joined.save(path)
    return path


def config(particles: Path, output: Path, **more: object) -> TrainConfig:
    return TrainConfig(
        particles=particles, output=output, network=NETWORK, epochs=2, device="cpu", **more
    )


@pytest.fixture(scope="module")
def run(mixture: Path) -> Path:
    output = mixture.parent / "run"
    metrics = follow(train(config(mixture, output)), lambda event: None).metrics
    card = PoseModel.load(output).card
    assert card.states is not None
    assert card.states.particles > 0
    assert metrics["validation_state_agreement"] == card.states.agreement
    return output


def test_each_state_has_its_map(mixture: Path, run: Path) -> None:
    """Particles of the second state have no density in one half."""
    maps = [nc.read_map(run / f"map_class00{state}.mrc").voxels for state in (1, 2)]
    left, right = (
        [float(np.square(one[..., part]).sum()) for one in maps]
        for part in (slice(0, 14), slice(18, None))
    )
    assert left[1] > 0.5 * left[0]
    assert right[1] < 0.2 * right[0]


@pytest.mark.parametrize("refined", [False, True])
def test_predicted_states_are_written(
    mixture: Path, run: Path, tmp_path: Path, refined: bool
) -> None:
    output = tmp_path / "out.star"
    given = ParticleStack.read(mixture)
    follow(
        infer(InferConfig(particles=mixture, model=run, output=output, refine=refined)),
        lambda event: None,
    )
    table = ParticleStack.read(output).particles
    model = PoseModel.load(run)
    said = model.predict_all(*images_for(model, given).with_ctf(slice(None))).states
    assert said is not None
    np.testing.assert_allclose(table[PROBABILITIES].to_numpy(float), said, atol=1e-5)
    assert list(table["rlnClassNumber"]) == list(said.argmax(1) + 1)


def test_a_network_of_one_state_leaves_no_states_of_earlier_poses(
    mixture: Path, tmp_path: Path
) -> None:
    stack = ParticleStack.read(mixture)
    plain = stack.with_poses(stack.rotations())
    assert not [name for name in plain.particles if "StateProbability" in name]


def test_a_model_of_two_states_goes_on_with_particles_of_one(mixture: Path, run: Path) -> None:
    stack = ParticleStack.read(mixture)[:12]
    first = PoseModel.load(run)
    single = nc.train(stack.with_poses(stack.rotations()), init=first, source="particles", epochs=1)
    assert single.card.states is None
    again = nc.train(stack, init=single, source="particles", epochs=1)
    assert again.card.states is not None
    assert again.network.state_dict().keys() == first.network.state_dict().keys()


def test_one_map_given_is_said_to_leave_states_aside(mixture: Path, tmp_path: Path) -> None:
    nc.phantom(box=32, pixel_size_angstrom=5.0).save(tmp_path / "map.mrc")
    notes = list[str]()

    def noted(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    follow(train(config(mixture, tmp_path / "run", map=tmp_path / "map.mrc")), noted)
    assert any("2 states are not learnt" in note for note in notes)
    assert PoseModel.load(tmp_path / "run").card.states is None


def test_a_state_of_too_few_particles_is_refused(mixture: Path, tmp_path: Path) -> None:
    stack = ParticleStack.read(mixture)
    values = np.tile([1.0, 0.0], (len(stack), 1))
    stack.with_columns(dict(zip(PROBABILITIES, values.T, strict=True))).save(tmp_path / "one.star")
    with pytest.raises(MetadataError, match="0 of the training particles are in state 2"):
        follow(train(config(tmp_path / "one.star", tmp_path / "run")), lambda event: None)


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.2, 0.2], "row 2: .* they must be at least 0 and sum to 1"), ([np.nan, 1.0], "row 2: ")],
)
def test_what_is_no_probability_is_refused_with_its_row(
    mixture: Path, values: list[float], message: str
) -> None:
    stack = ParticleStack.read(mixture)
    table = pd.DataFrame({name: stack.particles[name].to_numpy() for name in PROBABILITIES})
    table.loc[1] = values
    broken = stack.with_columns({name: table[name].to_numpy() for name in PROBABILITIES})
    with pytest.raises(MetadataError, match=message):
        broken.state_probabilities()
