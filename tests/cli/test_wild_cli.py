"""Broken files on the command line: exit status 1, one line, no traceback, nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere import cli
from napari_cryosphere.particles import ParticleStack, write_stack

# What a reconstruction can do with it: warnings are enough for these.
_READABLE = {
    *(
        "ok_base",
        "latin1_name",
        "very_long_line",
        "trailing_garbage",
        "constant_images",
        "huge_values",
    ),
    *("duplicate_particles", "defocus_in_um", "subset_all_one"),
}
_BROKEN = (
    *(
        "absolute_path",
        "angle_nan",
        "angle_text",
        "box_differs_from_star",
        "defocus_absurd",
        "dotdot_path",
    ),
    *(
        "empty",
        "empty_file",
        "empty_loop",
        "huge_dims",
        "index_negative",
        "index_past_end",
        "index_text",
    ),
    *("loop_no_labels", "missing_stack", "nan_pixels", "nonsquare", "not_mrc", "only_comment"),
    *(
        "optics_group_missing",
        "pixelsize_negative",
        "short_row",
        "tiny_100bytes",
        "truncated",
        "unknown_mode",
    ),
)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run the command line in this process and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["napari-cryosphere", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def assert_one_clear_line(text: str) -> None:
    lines = [line for line in text.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "Traceback" not in text


@pytest.mark.parametrize("name", _BROKEN)
@pytest.mark.parametrize("command", ["info", "reconstruct"])
def test_broken_particles(
    command: str,
    name: str,
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = shared_data / f"wild/broken/{name}.star"
    if command == "info" and name == "nan_pixels":
        pytest.skip("info reads no pixels")
    output = () if command == "info" else ("--output", tmp_path / "out.mrc", "--half-maps")
    assert run(monkeypatch, command, path, *output) == 1
    assert_one_clear_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_every_broken_file_is_run(shared_data: Path) -> None:
    names = {path.stem for path in (shared_data / "wild/broken").glob("*.star")}
    assert names == _READABLE | set(_BROKEN)


@pytest.mark.parametrize(
    "name", ["cs_truncated.cs", "cs_pickle_object.cs", "short_row.star", "none.star"]
)
@pytest.mark.parametrize("output", ["out.star", "out.cs"])
def test_broken_files_are_not_converted(
    name: str,
    output: str,
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "convert", shared_data / "wild/broken" / name, tmp_path / output) == 1
    assert_one_clear_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_convert_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stack(np.random.default_rng(0).normal(size=(4, 8, 8)), tmp_path / "a.mrcs", 2.0)
    assert run(monkeypatch, "convert", tmp_path / "a.mrcs", tmp_path / "a.cs") == 0
    assert run(monkeypatch, "convert", tmp_path / "a.cs", tmp_path / "sub" / "a.star") == 0
    said = capsys.readouterr()
    assert "number: 4" in said.out
    back = ParticleStack.read(tmp_path / "sub" / "a.star")
    assert back.images().shape == (4, 8, 8)
    assert back.pixel_size_angstrom == 2.0
    assert run(monkeypatch, "convert", tmp_path / "a.cs", tmp_path / "sub" / "a.star") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run(monkeypatch, "convert", tmp_path / "a.cs", tmp_path / "a.txt") == 2
