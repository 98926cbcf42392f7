"""The command line as a contract: exit codes, one line on an error, quick help, nothing
half-written.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from napari_cryosphere import cli
from napari_cryosphere.cli import app
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import JobConfig
from napari_cryosphere.jobs.events import Events, Result


def cryosphere(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "napari_cryosphere", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    protein_phantom(32, 6.0).save(made / "map.mrc")
    result = cryosphere(
        "simulate",
        "map.mrc",
        "--output",
        "p.star",
        "--number",
        "40",
        "--snr",
        "2",
        "--seed",
        "3",
        cwd=made,
    )
    assert result.returncode == 0, result.stderr
    assert "star: p.star" in result.stdout
    return made


def test_help_names_the_commands() -> None:
    result = cryosphere("--help")
    assert result.returncode == 0
    for command in (
        "demo",
        "info",
        "simulate",
        "density",
        "train",
        "infer",
        "reconstruct",
        "watch",
        "fsc",
    ):
        assert command in result.stdout


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output.strip()) == (0, version("napari-cryosphere"))


def test_info_as_json(folder: Path) -> None:
    result = cryosphere("info", folder / "p.star", "--json")
    assert result.returncode == 0
    described = json.loads(result.stdout)
    assert (described["kind"], described["particles"], described["box"]) == ("particles", 40, 32)


def test_outputs_need_overwrite(folder: Path) -> None:
    arguments = [
        "simulate",
        "map.mrc",
        "--output",
        "p.star",
        "--number",
        "40",
        "--snr",
        "2",
        "--seed",
        "3",
    ]
    before = (folder / "p.mrcs").read_bytes()
    refused = cryosphere(*arguments, cwd=folder)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--overwrite" in refused.stderr
    assert (folder / "p.mrcs").read_bytes() == before
    assert cryosphere(*arguments, "--overwrite", cwd=folder).returncode == 0
    assert (folder / "p.mrcs").read_bytes() == before  # the same seed gives the same pixels


def test_error_is_one_line_and_debug_shows_the_rest(folder: Path) -> None:
    plain = cryosphere("reconstruct", "nothing.star", "--output", "m.mrc", cwd=folder)
    assert plain.returncode == 1
    assert plain.stderr.startswith("error: ")
    assert plain.stderr.count("\n") == 1
    for arguments in (
        ["--debug", "reconstruct", "nothing.star", "--output", "m.mrc"],
        ["reconstruct", "nothing.star", "--output", "m.mrc", "--debug"],
    ):
        assert "Traceback" in cryosphere(*arguments, cwd=folder).stderr
    assert not (folder / "m.mrc").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "paddign=2"], "paddign"),
        (["--set", "padding"], "KEY=VALUE"),
        (["--symmetry", "Q7"], "C1, C2"),
        (["--config", "none.json"], "none.json"),
    ],
)
def test_wrong_usage_exits_2_and_names_the_key(
    folder: Path, extra: list[str], message: str
) -> None:
    result = cryosphere("reconstruct", "p.star", "--output", "m.mrc", *extra, cwd=folder)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "m.mrc").exists()


def test_config_file_and_set(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"half_maps": True, "padding": 1}))
    arguments = [
        "reconstruct",
        folder / "p.star",
        "--output",
        tmp_path / "m.mrc",
        "--config",
        tmp_path / "c.json",
    ]
    result = cryosphere(*arguments, "--set", "padding=2")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "m_half1.mrc").is_file()
    assert "half map resolution at FSC 0.143 (A): " in result.stdout


def test_quiet_prints_only_results(folder: Path, tmp_path: Path) -> None:
    result = cryosphere("-q", "reconstruct", folder / "p.star", "--output", tmp_path / "m.mrc")
    assert result.returncode == 0
    assert result.stderr == ""


def test_interrupt_stops_cleanly(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "napari_cryosphere", "train", str(folder / "p.star")]
    command += ["--output", str(tmp_path / "run"), "--minutes", "60"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(600):
            if (tmp_path / "run" / "log.jsonl").is_file() and (
                tmp_path / "run" / "log.jsonl"
            ).stat().st_size:
                break
            time.sleep(0.1)
        process.send_signal(2)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "stopped" in errors
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_density_and_simulate_take_a_model(folder: Path) -> None:
    line = "ATOM  {0:5d}  CA  GLY A{0:4d}    {1:8.3f}{2:8.3f}{3:8.3f}  1.00 40.00           C\n"
    atoms = [line.format(n, 4 * n % 31, 7 * n % 23, n % 13) for n in range(1, 40)]
    (folder / "model.pdb").write_text("".join(atoms) + "END\n")
    model = ["model.pdb", "--pixel-size", "2"]
    made = cryosphere("density", *model, "--output", "d.mrc", "--box", "40", cwd=folder)
    assert made.returncode == 0, made.stderr
    assert "atoms: 39" in made.stdout
    options = [
        "--output",
        "q.star",
        "--number",
        "8",
        "--defocus",
        "9000",
        "9500",
        "--preference",
        "-4",
    ]
    made = cryosphere("simulate", *model, *options, "--preferred-axis", "1", "0", "0", cwd=folder)
    assert made.returncode == 0, made.stderr
    assert "particles: 8" in made.stdout


def test_a_rule_between_options_is_all_that_is_said() -> None:
    result = CliRunner().invoke(app, ["simulate", "model.pdb", "--output", "r.star"])
    assert result.exit_code == 2
    assert "--pixel-size" in result.output
    assert "PosixPath" not in result.output  # not the whole config


@pytest.mark.parametrize("name", ["fsc", "watch", "cesped", "experiment"])
def test_a_command_that_is_built_alone_is_the_one_of_all(name: str) -> None:
    """In a process the command asked for is the only one that is built."""
    alone, among_all = cryosphere(name, "--help"), CliRunner().invoke(app, [name, "--help"])
    assert alone.returncode == 0
    options = re.findall(r"--[a-z-]+", alone.stdout)
    assert options == re.findall(r"--[a-z-]+", among_all.stdout)
    assert "--help" in options
    unknown = cryosphere("fcs")
    assert unknown.returncode == 2
    assert "No such command" in unknown.stderr


def test_jobs_collect_their_garbage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`main` puts collection off, for the imports; a job turns it on, and so does the end."""
    seen = list[bool]()

    def job(config: JobConfig) -> Events:
        seen.append(gc.isenabled())
        yield Result({}, {})

    monkeypatch.setattr("napari_cryosphere.jobs.fsc.fsc", job)
    monkeypatch.setattr(sys, "argv", ["x", "fsc", "a.mrc", "b.mrc", "--output", "c.csv"])
    with pytest.raises(SystemExit):
        cli.main()
    monkeypatch.setattr(sys, "argv", ["x", "info", str(tmp_path / "nothing.star")])
    with pytest.raises(SystemExit):
        cli.main()
    assert (seen, gc.isenabled()) == ([True], True)


def test_an_error_of_the_system_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(config: object) -> None:
        raise OSError(28, "No space left on device", "sums.npz")

    monkeypatch.setattr("napari_cryosphere.jobs.fsc.fsc", full)
    for name in ("a.mrc", "b.mrc"):
        protein_phantom(32, 6.0).save(tmp_path / name)
    files = [str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "--output", str(tmp_path / "f.csv")]
    monkeypatch.setattr("sys.argv", ["napari-cryosphere", "fsc", *files])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said == "error: cannot read or write sums.npz: No space left on device\n"


def test_ctrl_c_while_a_command_is_still_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """click would say "Aborted!" and exit with 1."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for place in ("load_config", "load_job"):
        with monkeypatch.context() as patch:
            patch.setattr(f"napari_cryosphere.jobs.commands.Command.{place}", interrupt)
            patch.setattr("sys.argv", ["napari-cryosphere", "info", "a.star"])
            with pytest.raises(SystemExit) as caught:
                cli.main()
        assert caught.value.code == 130
        assert capsys.readouterr().err.startswith("stopped")


def test_ctrl_c_while_the_command_line_is_imported_is_one_line(tmp_path):
    slow = tmp_path / "click.py"
    slow.write_text("raise KeyboardInterrupt\n")
    found = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.run(
        [sys.executable, "-m", "napari_cryosphere", "--help"],
        env=os.environ | {"PYTHONPATH": found},
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stderr) == (130, "stopped\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("reconstruct", "missing.star", "--output", "m.mrc", "--padding", "1"),
        ("train", "missing.star", "--output", "run", "--half-set", "2"),
    ],
)
def test_numbers_that_are_choices_are_taken(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were refused: "should be 1 or 2, not '2'"."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert "missing.star" in result.output + str(result.exception)
    assert "not '" not in result.output
