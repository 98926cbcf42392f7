"""One process a folder, however the one before ended."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.running import lock as _lock
from napari_cryosphere.jobs.running.lock import folder_lock


def failing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no lock file be opened."""

    def fail(path: object, flags: int, mode: int = 0o777) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_lock.os, "open", fail)


def test_the_second_is_told_who_is_first(tmp_path: Path) -> None:
    with folder_lock(tmp_path) as held:
        assert held
        with (
            pytest.raises(
                CryosphereError, match=f"in use by process {os.getpid()} on .*: stop that one first"
            ),
            folder_lock(tmp_path),
        ):
            pass
    assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path) as again:
        assert again


def test_it_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), folder_lock(tmp_path):
        raise RuntimeError
    with folder_lock(tmp_path) as held:
        assert held


def test_what_a_killed_process_leaves_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / _lock._NAME).write_text("process 1 on elsewhere\n")
    with folder_lock(tmp_path) as held:
        assert held
        assert str(os.getpid()) in (tmp_path / _lock._NAME).read_text()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_removed_before_it_was_locked_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """The one who held it removes it while we open it and lock it, and perhaps a third makes
    another.
    """
    path, real, calls = tmp_path / _lock._NAME, _lock._lock, []

    def late(handle: int) -> None:
        real(handle)
        calls.append(handle)
        if len(calls) == 1:
            path.unlink()
            if replaced:
                (tmp_path / "new").touch()
                (tmp_path / "new").rename(path)

    monkeypatch.setattr(_lock, "_lock", late)
    with folder_lock(tmp_path) as held:
        assert held
        assert len(calls) == 2
        assert path.read_text().startswith("process ")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_to_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing(number, monkeypatch)
    with folder_lock(tmp_path) as held:
        assert not held


def test_other_failures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(errno.ENOSPC, monkeypatch)
    with (
        pytest.raises(CryosphereError, match=r"cannot lock .*: No space left"),
        folder_lock(tmp_path),
    ):
        pass
