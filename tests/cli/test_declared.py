"""The command line that configs declare: each field an option, legal values in one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from napari_cryosphere.cli import JobCommand, app
from napari_cryosphere.jobs.commands import COMMANDS, Command
from napari_cryosphere.jobs.configs import AlignConfig, JobConfig
from napari_cryosphere.jobs.events import Events, Result

ROWS = {row.name: row for row in COMMANDS}

# Names and options of the command line's contract.
CONTRACT = {
    "demo": "--output --no-gui",
    "info": "FILE --json --data-dir --select --invert",
    "convert": "IN OUT --select --box --pixel-size --low-pass --invert --recentre",
    "abinitio": "PARTICLES --output --symmetry --diameter --resolution --starts --minutes --seed --select "
    "--invert --resume",
    "solve": "PARTICLES --output --map --symmetry --minutes --seed --select --invert --resume",
    "refine": "PARTICLES --map --output --symmetry --mask --initial-resolution --local --classes --select "
    "--invert --map-pixel-size --resume",
    "simulate": "MAP --output --number --snr --seed --symmetry --shift-px --no-ctf --map-pixel-size --motion "
    "--motion-angle --motion-axis",
    "variability": "PARTICLES --output --components --resolution --mask --symmetry --select --invert "
    "--resume",
    "train": "PARTICLES --output --preset --symmetry --map --minutes --epochs --device --half-set "
    "--resume --select --invert --map-pixel-size --mask",
    "infer": "PARTICLES --model --output --distributions --refine --map --device --select --invert "
    "--map-pixel-size --mask",
    "align": "PARTICLES --map --output --symmetry --global --local --resolution --distributions "
    "--select --invert --map-pixel-size --mask --data-dir --overwrite",
    "reconstruct": "PARTICLES --output --half-maps --symmetry --mask --weights --select --invert",
    "fsc": "A B --mask --output --map-pixel-size",
    "postprocess": "HALF1 HALF2 --output --mask --b-factor --map-pixel-size",
    "symmetry": "MAP --output --symmetry --particles --resolution --map-pixel-size",
    "flip-hand": "MAP --output --symmetry --particles --map-pixel-size",
    "evaluate": "--truth --predicted --symmetry --mask --output --select",
    "equivariance": "--model --map --output --map-pixel-size",
    "watch": "FOLDER --model --output --map --select --invert --map-pixel-size --mask",
    "cesped list": "--benchmark-dir",
    "cesped download": "ENTRY",
    "cesped run": "ENTRY --output --local",
    "experiment equivariance": "--output --epochs --projections",
    "experiment projections": "--output --epochs --projections --test-views",
    "experiment labels": "--output --epochs --projections --test-views",
}


def config_of(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> Any:
    """Return the config that a command line makes; the job itself is not run."""
    seen = list[JobConfig]()

    def job(config: JobConfig) -> Events:
        seen.append(config)
        yield Result({}, {})

    monkeypatch.setattr(Command, "load_job", lambda _: job)
    result = CliRunner().invoke(app, [*name.split(), *arguments])
    assert result.exit_code == 0, result.output
    return seen[0]


@pytest.mark.parametrize("name", CONTRACT)
def test_a_command_has_the_options_of_the_contract(name: str) -> None:
    found: set[str] = set()
    for parameter in JobCommand(ROWS[name]).params:
        found |= {
            *parameter.opts,
            *parameter.secondary_opts,
            (parameter.metavar or "").strip("[]."),
        }
    assert set(CONTRACT[name].split()) <= found


def test_no_two_options_of_a_command_have_one_name() -> None:
    for row in COMMANDS:
        flags = [
            flag for one in JobCommand(row).params for flag in (*one.opts, *one.secondary_opts)
        ]
        assert len(flags) == len(set(flags)), row.name


def test_values_reach_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    base = ["p.star", "--map", "m.mrc", "--output", "o.star"]
    made = config_of(monkeypatch, "align", *base, "--local", "5", "--resolution", "8")
    assert made == AlignConfig(
        particles="p.star", map="m.mrc", output="o.star", local_degrees=5, resolution_angstrom=8
    )
    assert config_of(monkeypatch, "align", *base, "--global").local_degrees is None


def test_options_of_a_model_inside_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    base = ["m.mrc", "--output", "o.star"]
    made = config_of(monkeypatch, "simulate", *base, "--defocus", "9000", "9500", "--snr", "inf")
    assert made.optics[0].defocus_angstrom == (9000, 9500)
    assert made.snr == float("inf")
    labels = config_of(monkeypatch, "experiment labels", "--output", "o", "--projections", "64")
    assert (labels.name, labels.preset.projections, labels.preset.labels) == ("labels", 64, "mask")
    several = ["--output", "o", "--projections", "8", "--projections", "16", "--epochs", "3"]
    made = config_of(monkeypatch, "experiment projections", *several)
    assert (made.projections, made.preset.epochs) == ((8, 16), 3)


def test_file_then_options_then_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file may hold what is required; a stored config runs as it is."""
    stored = {"particles": "p.star", "map": "m.mrc", "output": "o.star", "symmetry": "D2"}
    (tmp_path / "c.json").write_text(json.dumps(stored | {"batch_size": 7}))
    file = ["--config", str(tmp_path / "c.json")]
    made = config_of(monkeypatch, "align", *file)
    assert (made.particles, made.symmetry, made.batch_size) == (Path("p.star"), "D2", 7)
    made = config_of(
        monkeypatch, "align", "q.star", *file, "--batch-size", "8", "--set", "symmetry=O"
    )
    assert (made.particles, made.symmetry, made.batch_size) == (Path("q.star"), "O", 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("align p.star --map m.mrc", "Missing option '--output'"),
        ("align --map m.mrc --output o.star", "Missing argument 'PARTICLES'"),
        (
            "align p.star --map m --output o.star --batch-size many",
            "--batch-size: Input should be a valid",
        ),
        (
            "align p.star --map m --output o.star --shift-range -1",
            "--shift-range: Input should be greater",
        ),
        ("align p.star --map m --output o.star --device tpu", "'auto', 'cpu', 'cuda' or 'mps'"),
        ("align p.star --map m --output o.star --global --local 5", "--global exclude each other"),
        (
            "align p.star --map m --output o.star --set symmetry.x=1 --symmetry C1",
            "no keys of its own",
        ),
        (
            "simulate m.mrc --output o.star --defocus 1 x",
            "--defocus: Input should be a valid number",
        ),
        ("infer p.star --model m --output o.star --map-pixel-size 2", "goes with map"),
    ],
)
def test_what_is_not_legal_is_named(arguments: str, message: str) -> None:
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 2
    assert message in result.output


def test_a_config_file_that_lacks_something_says_what(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}")
    result = CliRunner().invoke(app, ["fsc", "--config", str(tmp_path / "c.json")])
    assert result.exit_code == 2
    assert "is missing" in result.output
    (tmp_path / "c.json").write_text("[1]")
    result = CliRunner().invoke(app, ["fsc", "--config", str(tmp_path / "c.json")])
    assert (result.exit_code, "no JSON object" in result.output) == (2, True)


def test_help_says_bounds_defaults_and_choices() -> None:
    shown = CliRunner().invoke(app, ["align", "--help"], terminal_width=200).output
    for text in (
        "default 128",
        "auto|cpu|cuda|mps",
        "--shift-range PX",
        ">= 0, <= 100",
        "[required]",
    ):
        assert text in shown


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("half_map_resolution_0143_angstrom", "half map resolution at FSC 0.143 (A)"),
        ("fscr_05_gt0_gt1_angstrom", "fscr at FSC 0.5 gt0 gt1 (A)"),
        ("share_above_0500", "share above 0500"),
        ("mane_degrees", "mane (degrees)"),
    ],
)
def test_metrics_are_printed_in_words(
    metric: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(config: JobConfig) -> Events:
        yield Result({}, {metric: 1.5})

    monkeypatch.setattr(Command, "load_job", lambda _: job)
    result = CliRunner().invoke(app, ["fsc", "a", "b", "--output", "c"])
    assert f"{words}: 1.5" in result.output
