"""Flags, selection, undo, and the file that keeps them."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.state import choices_file
from napari_cryosphere.widgets.state.choices_file import (
    ChoicesFile,
    choices_path,
    read_choices,
    write_choices,
)
from napari_cryosphere.widgets.state.particle_choices import Flag, ParticleChoices

NUMBER = 30


@pytest.fixture
def choices() -> ParticleChoices:
    return ParticleChoices(NUMBER)


def test_flags_and_selection_are_told_once(choices: ParticleChoices) -> None:
    heard: list[str] = []
    choices.flags_changed.connect(lambda: heard.append("flags"))
    choices.selection_changed.connect(lambda: heard.append("selection"))
    choices.select([4, 2])
    choices.select([2, 4])
    choices.flag_selected(Flag.REJECT)
    choices.flag_selected(Flag.REJECT)
    assert heard == ["selection", "flags"]
    assert choices.rows(Flag.REJECT).tolist() == [2, 4]
    assert choices.counts() == {Flag.NONE: 28, Flag.KEEP: 0, Flag.REJECT: 2, Flag.REVIEW: 0}
    with pytest.raises(ValueError, match="read-only"):
        choices.flags[0] = 1


def test_undo_goes_back_over_decisions_not_over_clicks(choices: ParticleChoices) -> None:
    choices.select(np.arange(10))
    choices.flag_selected(Flag.KEEP)
    for click in (3, 5, 7):
        choices.select([click])
    assert choices.undo_name == "selection"
    choices.undo()
    assert np.flatnonzero(choices.selected).tolist() == list(range(10))
    assert choices.undo_name == "keep 10"
    choices.undo()
    assert not choices.flags.any()
    assert choices.redo_name == "keep 10"
    choices.redo()
    assert (choices.flags[:10] == Flag.KEEP).all()
    choices.flag([20], Flag.REVIEW)
    assert choices.redo_name == ""
    for _ in range(5):
        choices.undo()
    assert choices.undo_name == ""
    assert not choices.flags.any()


def test_a_rubber_band_is_one_step(choices: ParticleChoices) -> None:
    choices.select([1, 2])
    for end in range(10, 20):
        choices.select(np.arange(10, end + 1), continues=end > 10)
    choices.undo()
    assert np.flatnonzero(choices.selected).tolist() == [1, 2]
    choices.redo()
    assert choices.selected.sum() == 10


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["select", "flag"]),
            st.sets(st.integers(0, NUMBER - 1)),
            st.sampled_from(Flag),
        ),
        max_size=12,
    )
)
def test_undoing_and_redoing_everything_changes_nothing(
    actions: list[tuple[str, set[int], Flag]],
) -> None:
    choices = ParticleChoices(NUMBER)
    for action, rows, flag in actions:
        if action == "select":
            choices.select(sorted(rows))
        else:
            choices.flag(sorted(rows), flag)
    before = choices.flags.copy(), choices.selected.copy()
    while choices.undo_name:
        choices.undo()
    assert not choices.flags.any()
    while choices.redo_name:
        choices.redo()
    assert np.array_equal(choices.flags, before[0])
    assert np.array_equal(choices.selected, before[1])


def test_choices_survive_on_disk(stack: ParticleStack) -> None:
    choices = ParticleChoices(len(stack))
    kept = ChoicesFile(stack, choices)
    choices.select([1, 2, 79])
    choices.flag([0, 79], Flag.REVIEW)
    kept.flush()  # and no close: the program has died
    again = ParticleChoices(len(stack))
    assert ChoicesFile(stack, again).problem == ""
    assert np.array_equal(again.flags, choices.flags)
    assert np.array_equal(again.selected, choices.selected)
    assert json.loads(kept.path.read_text())["counts"] == {
        "none": 78,
        "keep": 0,
        "reject": 0,
        "review": 2,
    }
    assert kept.path.parent.parent.parent.name == "state"
    assert [file.name for file in kept.path.parent.iterdir()] == [kept.path.name]


def test_flags_never_land_on_other_particles(stack: ParticleStack, tmp_path: Path) -> None:
    stack.save(tmp_path / "same.star")
    other = ParticleStack.read(tmp_path / "same.star")
    paths = {choices_path(every) for every in (stack, stack[:70], stack[::-1], other)}
    assert len(paths) == 4
    assert choices_path(ParticleStack.read(stack.source)) == choices_path(stack)


def test_without_write_permission_flags_work_and_say_why_they_are_not_kept(
    stack: ParticleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    choices = ParticleChoices(len(stack))
    kept = ChoicesFile(stack, choices)
    told = threading.Event()
    kept.problem_changed.connect(told.set)
    choices.flag([3], Flag.KEEP)
    kept.flush()
    assert told.is_set()
    assert "cannot write to" in kept.problem
    assert "Permission denied" in kept.problem
    assert choices.flags[3] == Flag.KEEP
    monkeypatch.undo()
    kept.close()


def test_a_state_folder_that_is_a_file(
    stack: ParticleStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    choices = ParticleChoices(len(stack))
    kept = ChoicesFile(stack, choices)
    choices.flag([3], Flag.KEEP)
    kept.close()
    assert "cannot write to" in kept.problem


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1, "particles": 3}', "\0\0"])
def test_a_damaged_file_is_said_and_harms_nothing(stack: ParticleStack, content: str) -> None:
    path = choices_path(stack)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    choices = ParticleChoices(len(stack))
    kept = ChoicesFile(stack, choices)
    assert "cannot be read" in kept.problem
    choices.flag([3], Flag.KEEP)
    kept.close()
    assert kept.problem == ""
    again = ParticleChoices(len(stack))
    read_choices(path, again)
    assert again.rows(Flag.KEEP).tolist() == [3]


def test_a_file_of_another_number_is_refused(tmp_path: Path, choices: ParticleChoices) -> None:
    write_choices(tmp_path / "choices.json", choices)
    with pytest.raises(CryosphereError, match="number of particles"):
        read_choices(tmp_path / "choices.json", ParticleChoices(NUMBER + 1))


def test_of_changes_meanwhile_only_the_last_is_written(
    stack: ParticleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    started, go_on = threading.Event(), threading.Event()

    def slow(path: Path, content: bytes) -> None:
        started.set()
        go_on.wait(10)
        written.append(content)

    monkeypatch.setattr(choices_file, "_write", slow)
    choices = ParticleChoices(len(stack))
    kept = ChoicesFile(stack, choices)
    choices.flag([0], Flag.KEEP)
    started.wait(10)
    for row in range(1, 20):
        choices.flag([row], Flag.KEEP)
    go_on.set()
    kept.close()
    assert [json.loads(content)["counts"]["keep"] for content in written] == [1, 20]
