"""The experiments: what they write, that they repeat themselves, and that a report can be read
back.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from napari_cryosphere.cli import app
from napari_cryosphere.evaluation import report as report_module
from napari_cryosphere.evaluation.experiments import (
    _rises,
    label_information,
    label_mass_near_truth,
)
from napari_cryosphere.evaluation.report import Panel, Report, Series, Table
from napari_cryosphere.jobs.configs.training import ExperimentConfig
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.training.masks import mask_targets, one_hot_targets, raw_targets
from napari_cryosphere.training.presets import CRYOSPHERE

TINY = [
    *("--set", "preset.network.box=16", "--set", "preset.network.encoder_channels=[4,8]"),
    *("--set", "preset.network.sphere_channels=8", "--set", "preset.network.so3_channels=2"),
    *("--set", "preset.label_order=1", "--set", "preset.epochs=2", "--set", "test_views=6"),
]


def run(*arguments: str | Path) -> dict[str, object]:
    """Run an experiment's command on next to nothing and return its data."""
    result = CliRunner().invoke(app, ["--quiet", *map(str, arguments), *TINY, "--quick"])
    assert result.exit_code == 0, result.output
    output = Path(arguments[arguments.index("--output") + 1])
    data: dict[str, object] = json.loads((output / f"{arguments[1]}.json").read_text())
    assert (output / f"{arguments[1]}.png").read_bytes().startswith(b"\x89PNG")
    return data


def test_projections_experiment_is_complete_and_repeats_itself(tmp_path: Path) -> None:
    options = ("--projections", "8", "--projections", "12")
    first = run("experiment", "projections", "--output", tmp_path / "a", *options)
    second = run("experiment", "projections", "--output", tmp_path / "b", *options)
    assert first["values"] == second["values"]
    with (tmp_path / "a" / "projections.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["projections"] for row in rows] == ["8", "12"]
    assert [row["images_seen"] for row in rows] == ["16", "24"]
    text = (tmp_path / "a" / "projections.md").read_text()
    assert "package's phantom" in text
    stored = json.loads(text.split("```json")[1].split("```")[0])
    assert ExperimentConfig.model_validate(stored).projections == (8, 12)
    assert ExperimentConfig.model_validate(first["config"]).preset.network.box == 16


def test_labels_experiment_has_a_row_for_each_kind(tmp_path: Path) -> None:
    run("experiment", "labels", "--output", tmp_path)
    with (tmp_path / "labels.csv").open(newline="") as stream:
        rows = {row["labels"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"mask", "raw", "one-hot"}
    assert float(rows["one-hot"]["label_information_nats"]) == pytest.approx(np.log(576))
    assert float(rows["mask"]["label_information_nats"]) == pytest.approx(np.log(576 / 29))
    for row in rows.values():
        assert -float(row["label_information_nats"]) <= float(row["train_loss"])


def test_equivariance_experiment_leaves_a_model_that_the_command_takes(tmp_path: Path) -> None:
    data = run("experiment", "equivariance", "--output", tmp_path)
    networks = {row["network"] for table in data["tables"].values() for row in table}  # type: ignore[attr-defined]
    assert networks == {"trained", "untrained"}
    arguments = [
        "--quiet",
        "equivariance",
        "--model",
        str(tmp_path),
        "--output",
        str(tmp_path / "again"),
    ]
    less = ["--pairs", "3", "--images", "2", "--angles", "2"]
    result = CliRunner().invoke(app, [*arguments, *less, "--snr", "2"])
    assert result.exit_code == 0, result.output
    assert "in plane median (degrees)" in result.output
    again = json.loads((tmp_path / "again" / "equivariance.json").read_text())
    assert again["config"]["pairs"] == 3
    refused = CliRunner().invoke(app, [*arguments, *less])
    assert refused.exit_code == 1
    assert "already exists" in str(refused.exception)


def test_quick_leaves_what_was_asked_for() -> None:
    config = ExperimentConfig.model_validate(
        {"name": "labels", "output": "x", "quick": True, "preset": {"epochs": 3}, "test_views": 9}
    )
    assert (config.preset.epochs, config.test_views, config.projections) == (3, 9, (16, 32))
    assert config.preset.learning_rate == CRYOSPHERE.learning_rate
    full = ExperimentConfig.model_validate({"name": "labels", "output": "x"})
    assert (full.preset, full.projections) == (CRYOSPHERE, (50, 100, 200, 400))
    part = ExperimentConfig.model_validate(
        {"name": "labels", "output": "x", "preset": {"epochs": 3}}
    )
    assert part.preset == CRYOSPHERE.model_copy(update={"epochs": 3})


def test_label_information_is_the_least_loss() -> None:
    errors = torch.rand(4, 576, generator=torch.Generator().manual_seed(0)) + 0.1
    assert label_information(mask_targets(errors, 0.05)) == pytest.approx(
        np.log(576 / 29), abs=1e-5
    )
    raw = raw_targets(errors)
    uniform_loss = -(raw * np.log(1 / 576)).sum(1)
    best_loss = -(raw * raw.log()).sum(1)
    assert label_information(raw) == pytest.approx(
        float((uniform_loss - best_loss).mean()), abs=1e-5
    )


def test_label_mass_near_truth_of_one_cell_and_of_all() -> None:
    rotations = random_rotations(3, np.random.default_rng(0))
    assert label_mass_near_truth(one_hot_targets(rotations, 2), rotations, 2) == 1
    everywhere = torch.full((3, 4608), 1 / 4608)
    cap = (np.radians(30) - np.sin(np.radians(30))) / np.pi  # Haar measure of the ball
    assert label_mass_near_truth(everywhere, rotations, 2) == pytest.approx(cap, rel=0.2)


def test_rises_of_a_loss() -> None:
    assert _rises(np.array([0.0, -1.0, -0.5, -2.0])) == pytest.approx((1 / 3, 0.25))
    assert _rises(np.array([0.0, -1.0])) == (0, 0)
    assert _rises(np.array([0.0])) == (0, 0)


def test_report_without_matplotlib_has_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(("a", "b"), ((1, 2.0 / 3), (2, 1e-9)))
    panel = Panel(
        "x", "y", (Series("one", (1.0, 2.0), (3.0, 0.1), marked=True),), log_x=True, log_y=True
    )
    made = Report("name", "Title", "Text.", {"caption": table}, (panel,), {"best": 1.5})
    files = made.save(tmp_path / "with", {"seed": 0}, overwrite=False)
    assert set(files) == {"report", "table", "data", "plot"}
    monkeypatch.setattr(report_module, "can_plot", lambda: False)
    files = made.save(tmp_path / "without", {"seed": 0}, overwrite=False)
    assert set(files) == {"report", "table", "data"}
    text = files["report"].read_text()
    assert "png" not in text
    assert "| 1 | 0.6667 |" in text
    assert files["table"].read_text().splitlines() == ["a,b", "1,0.6666666666666666", "2,1e-09"]
