"""The demo's job, and the honesty of the model that ships."""

from __future__ import annotations

import json

import numpy as np
import pytest
import starfile

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import DemoConfig
from napari_cryosphere.jobs.demo import demo
from napari_cryosphere.jobs.events import Note, Result, follow
from napari_cryosphere.jobs.sample import sample_model
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.so3.rotations import rotation_from_relion_angles
from napari_cryosphere.so3.symmetry import angular_error_degrees


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[str]]:
    notes: list[str] = []
    config = DemoConfig(output=tmp_path_factory.mktemp("demo") / "out", number=200)
    result = follow(
        demo(config), lambda event: notes.append(event.text) if isinstance(event, Note) else None
    )
    return result, notes


def test_every_output_is_there(made: tuple[Result, list[str]]) -> None:
    result, _ = made
    assert all(path.is_file() for path in result.outputs.values())
    assert json.loads(result.outputs["metrics"].read_text()) == result.metrics


def test_the_printed_error_is_the_error(made: tuple[Result, list[str]]) -> None:
    """Recomputed from the two STAR files as starfile reads them."""
    result, notes = made
    angles = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    truth, predicted = (
        rotation_from_relion_angles(
            starfile.read(result.outputs[role])["particles"][angles].to_numpy(float)
        )
        for role in ("particles", "predicted")
    )
    median = np.median(angular_error_degrees(truth, predicted))
    assert result.metrics["median_pose_error_degrees"] == pytest.approx(median, abs=1e-4)
    assert any(f"{median:.1f} degrees" in note for note in notes)
    assert median < 8  # a model that had learnt nothing would be at 130


def test_the_map_resembles_the_truth(made: tuple[Result, list[str]]) -> None:
    result, _ = made
    truth = DensityMap.read(result.outputs["truth"])
    np.testing.assert_array_equal(truth.voxels, protein_phantom().voxels)
    # 200 noisy particles, no filter: the correlation is low by the noise at high frequencies
    assert float(result.metrics["masked_correlation_to_truth"]) > 0.4
    assert float(result.metrics["resolution_to_truth_05_angstrom"]) < 16


def test_confidence_ranks_errors(made: tuple[Result, list[str]]) -> None:
    result, _ = made
    truth, predicted = (
        starfile.read(result.outputs[role])["particles"] for role in ("particles", "predicted")
    )
    angles = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    errors = angular_error_degrees(
        rotation_from_relion_angles(truth[angles].to_numpy(float)),
        rotation_from_relion_angles(predicted[angles].to_numpy(float)),
    )
    order = np.argsort(predicted["cryosphereSpread"].to_numpy(float))
    assert errors[order[:100]].mean() < errors[order[100:]].mean()


def test_the_shipped_model_is_small_and_says_what_it_is() -> None:
    card = sample_model().card
    assert card.training["map"] == "truth.mrc"
    assert card.pixel_size_angstrom == pytest.approx(6.0)
    from importlib.resources import files

    data = files("napari_cryosphere") / "data" / "sample_model.safetensors"
    assert len(data.read_bytes()) < 3_000_000


def test_the_shipped_model_knows_its_particles(made: tuple[Result, list[str]]) -> None:
    """`scripts/sample_novelty.py` gave it the reference; 2 % of its own kind are above the limit."""
    card = sample_model().card
    assert card.novelty is not None
    predicted = starfile.read(made[0].outputs["predicted"])["particles"]
    assert (predicted["cryosphereNovelty"] > 1).mean() < 4 * card.novelty.false_alarm_rate
