"""What of an earlier run stays in a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_cryosphere.errors import OutputExistsError
from napari_cryosphere.jobs.configs.bases import RunFolder
from napari_cryosphere.jobs.running.run_folder import (
    UNFINISHED,
    clear_unfinished,
    further_states,
    refuse_ended,
    remove_stale,
)


def test_a_finished_run_is_not_replaced_by_resuming(tmp_path: Path) -> None:
    finished = tmp_path / "particles.star"

    def refuse(resume: bool, overwrite: bool) -> None:
        refuse_ended(RunFolder(output=tmp_path, resume=resume, overwrite=overwrite), finished)

    for resume in (False, True):
        refuse(resume=resume, overwrite=False)
    finished.touch()
    with pytest.raises(OutputExistsError, match="has ended"):
        refuse(resume=True, overwrite=False)
    with pytest.raises(OutputExistsError, match="already exists"):
        refuse(resume=False, overwrite=False)
    refuse(resume=True, overwrite=True)
    (tmp_path / UNFINISHED).mkdir()  # the run that replaces it was stopped
    refuse(resume=True, overwrite=False)


def test_a_run_stopped_before_anything_was_kept_names_no_folder(tmp_path: Path) -> None:
    config = RunFolder(output=tmp_path / "run")
    assert "run" not in config.kept_when_stopped
    config.output.mkdir()
    assert str(config.output) in config.kept_when_stopped


def test_what_another_run_left_is_removed(tmp_path: Path) -> None:
    for name in ("map.mrc", "map_class002.mrc", "mine.mrc", "part_2/a.mrc", "part_1/a.mrc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_stale(
        tmp_path,
        ["map_class[0-9][0-9][0-9].*", "part_*/*.mrc"],
        [tmp_path / "map.mrc", tmp_path / "part_1/a.mrc"],
    )
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"map.mrc", "mine.mrc", "part_1/a.mrc"}
    assert not (tmp_path / "part_2").exists()


def test_what_is_not_of_the_package_stays(tmp_path: Path) -> None:
    own = {"map_class002.mrc", "map_class010.mrc", "fsc_class003.csv"}
    others = {
        "run_it025_class001.mrc",
        "notes_class001.txt",
        "map_class001.mrc",
        "map_class002.txt",
    }
    for name in own | others:
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    outputs = {"map": tmp_path / "map.mrc", "fsc": tmp_path / "fsc.csv"}
    remove_stale(tmp_path, further_states(outputs, outputs), [])
    assert {path.name for path in tmp_path.iterdir()} == {*others, "empty"}


def test_kept_state_of_any_kind_is_cleared(tmp_path: Path) -> None:
    clear_unfinished(tmp_path)
    (tmp_path / UNFINISHED / "states2_01_half1").mkdir(parents=True)
    clear_unfinished(tmp_path)
    assert not (tmp_path / UNFINISHED).exists()
