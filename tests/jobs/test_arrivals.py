"""Files that appear in a folder, change and go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from napari_cryosphere.jobs.watching.arrivals import Arrivals


@pytest.fixture
def arrivals(tmp_path: Path) -> Arrivals:
    return Arrivals(tmp_path, "**/*.star", without=tmp_path / "run")


def names(arrivals: Arrivals) -> list[str]:
    return [arrival.name for arrival in arrivals.look()]


def test_files_that_count(arrivals: Arrivals, tmp_path: Path) -> None:
    """Not hidden ones, nor those of the run's own folder, folders, or links to what is not there."""
    for name in (
        "b.star",
        "a.star",
        "sub/c.star",
        ".b.star",
        ".hidden/d.star",
        "run/parts/a.star",
        "e.mrcs",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.star").mkdir()
    (tmp_path / "gone.star").symlink_to(tmp_path / "nowhere")
    assert names(arrivals) == ["a.star", "b.star", "sub/c.star"]


def test_done_until_it_changes(arrivals: Arrivals, tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text("x")
    (found,) = arrivals.look()
    assert found.unchanged()
    arrivals.done(found)
    assert names(arrivals) == []
    before = arrivals.last_change
    (tmp_path / "a.star").write_text("xy")
    assert names(arrivals) == ["a.star"]
    assert arrivals.last_change > before
    assert not found.unchanged()
    (tmp_path / "a.star").unlink()
    assert names(arrivals) == []
    assert not found.unchanged()


def test_quiet_for_as_long_as_its_date_says(arrivals: Arrivals, tmp_path: Path) -> None:
    """A clock that is ahead does not make a file quieter than we have seen it to be."""
    for name, age in (("old.star", 500.0), ("future.star", -500.0)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    quiet = {arrival.name: arrival.quiet_seconds for arrival in arrivals.look()}
    assert quiet["old.star"] == pytest.approx(500, abs=5)
    assert quiet["future.star"] == pytest.approx(0, abs=5)
    (tmp_path / "old.star").write_text("xy")
    assert {arrival.name: arrival.quiet_seconds for arrival in arrivals.look()}["old.star"] < 5
