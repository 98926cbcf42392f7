"""The commands ``evaluate`` and ``cesped``: what they list, and one line on what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from napari_cryosphere.cli import app
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import ParticleStack

REFERENCE = Path(__file__).parents[1] / "data" / "cesped"


def run(*arguments: str | Path) -> str:
    """Run a command in this process; returns its output, raises what it raises."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_list_names_the_seven_entries_and_local_ones(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for suffix in ("star", "mrcs"):
        (tmp_path / "mine" / f"particles_1.{suffix}").touch()
    lines = run("cesped", "list", "--benchmark-dir", tmp_path).splitlines()
    assert [line.split()[0] for line in lines[1:9]] == [
        *("10166", "10786", "10280", "11120", "10647", "10409", "10374"),
        "TEST",
    ]
    assert lines[5].split()[:7] == ["10647", "D2", "222", "1.5", "3.7", "3.3", "234956"]
    assert lines[9].split()[0] == "mine"
    entries = json.loads(run("cesped", "list", "--benchmark-dir", tmp_path, "--json"))
    assert entries[-1] == {"entry": "mine", "on_disk": [1]}


def test_evaluate_prints_and_writes_the_metrics(tmp_path: Path) -> None:
    sides = [
        part
        for option in ("truth", "predicted")
        for half in (0, 1)
        for part in (f"--{option}", REFERENCE / f"{option}_D2_{half}.star")
    ]
    printed = run("evaluate", *sides, "--symmetry", "D2", "--output", tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    answers = json.loads((REFERENCE / "particles.json").read_text())
    mean = (answers["D2_0"]["mean"] + answers["D2_1"]["mean"]) / 2
    assert found["mane_degrees"] == pytest.approx(mean, abs=1e-4)
    assert f"mane (degrees): {mean:.4g}" in printed
    assert "pcc_gt_v" not in found  # there are no images


def test_evaluate_compares_what_is_selected_of_the_predictions(tmp_path: Path) -> None:
    found = {}
    for name, options in {"all": (), "few": ("--select", "rlnAngleTilt < 60")}.items():
        sides = ["--truth", REFERENCE / "truth_C1_0.star"]
        sides += ["--predicted", REFERENCE / "predicted_C1_0.star"]
        run("evaluate", *sides, "--output", tmp_path / name, *options)
        found[name] = (tmp_path / name / "errors.csv").read_text().splitlines()
    predicted = ParticleStack.read(REFERENCE / "predicted_C1_0.star", require_images=False)
    number = int((predicted.particles["rlnAngleTilt"] < 60).sum())
    assert 0 < number < len(predicted) == len(found["all"]) - 1
    assert len(found["few"]) - 1 == number
    assert set(found["few"]) <= set(found["all"])


def test_errors_are_one_line_and_exit_1(tmp_path: Path) -> None:
    shutil.copy(REFERENCE / "predicted_C1_1.star", tmp_path / "other.star")
    command = [
        sys.executable,
        "-m",
        "napari_cryosphere",
        "evaluate",
        "--output",
        str(tmp_path / "out"),
    ]
    command += [
        "--truth",
        str(REFERENCE / "truth_C1_0.star"),
        "--predicted",
        str(tmp_path / "other.star"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "40 of 40 particles have no prediction (first 000001@particles_0.mrcs" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "10000"], "it has 10166"),
        (["download", "TEST", "--set", "server=http://127.0.0.1:9"], "is there a network"),
        (["run", "10166", "--output", "out"], "cesped download 10166"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CryosphereError, match=message) as caught:
        run("cesped", *arguments, "--benchmark-dir", tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
