"""Files appear whole or not at all, and what a killed process leaves is removed at the next start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere import _files
from napari_cryosphere._files import (
    append_line,
    atomic_path,
    clear_leftovers,
    refuse_beyond_room,
    temporary_folder,
    write_json,
    write_tensors,
)
from napari_cryosphere.errors import CryosphereError, OutputExistsError

WRITERS = {
    "safetensors": "_files.write_tensors({'a': np.zeros(20_000_000)}, folder / 'x', {}, overwrite=True)",
    "zarr": (
        "from napari_cryosphere.so3.distributions import PoseDistribution\n"
        "import torch\n"
        "from napari_cryosphere.so3.distributions.store import write_distributions\n"
        "some = PoseDistribution.from_coefficients(torch.ones(64, 7, 13, 7, dtype=torch.complex64))\n"
        "with write_distributions(folder / 'x', overwrite=True) as writer:\n"
        "    print('go', flush=True)\n"
        "    for _ in range(1000): writer.append(some)"
    ),
    "text": (
        "with _files.atomic_path(folder / 'x', overwrite=True) as path:\n"
        "    for _ in range(100_000): path.write_text('x' * 10_000)"
    ),
}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_killed_writer_leaves_is_removed_by_the_next(tmp_path: Path, writer: str) -> None:
    code = (
        "from pathlib import Path\nimport numpy as np\nfrom napari_cryosphere import _files\n"
        f"folder = Path({str(tmp_path)!r})\n{WRITERS[writer]}"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as process:
        while not hidden(tmp_path) or not any((tmp_path / hidden(tmp_path)[0]).glob("[!l]*")):
            assert process.poll() is None
            time.sleep(0.001)
        clear_leftovers(tmp_path)
        assert len(hidden(tmp_path)) == 1, "a live process's was removed"
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == hidden(tmp_path)
    assert len(hidden(tmp_path)) == 1
    write_json({}, tmp_path / "next.json", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["next.json"]


def test_a_folder_found_before_it_was_locked_is_left_to_who_found_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process clears between the folder's making and its locking; then a new one is made."""
    real, found = _files._lock_of, []

    def late(folder: Path) -> object:
        if not found:
            found.append(real(folder))
            found[0].acquire()
        return real(folder)

    monkeypatch.setattr(_files, "_lock_of", late)
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
        found[0].release()
        clear_leftovers(tmp_path)
        assert hidden(tmp_path) == [folder.name]
    assert hidden(tmp_path) == []


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(OutputExistsError), atomic_path(path):
        pass

    def fail(error: Exception) -> None:
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())
    with pytest.raises(CryosphereError, match=r"cannot write .*a\.txt: No space left.*make room"):
        fail(OSError(28, "No space left on device"))
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_files_have_the_permissions_that_files_have(tmp_path: Path) -> None:
    """Not those of a temporary file, which its owner alone may read."""
    (tmp_path / "plain").touch()
    write_json({}, tmp_path / "a.json", overwrite=False)
    write_tensors({"a": np.zeros(3)}, tmp_path / "a.safetensors", {}, overwrite=False)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "log.jsonl"
    append_line(path, "one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        with pytest.raises(CryosphereError, match=r"cannot write .*log\.jsonl: .*make room"):
            append_line(path, "two is longer")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "one\n"
    append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"


def test_room_is_asked_for_before_the_work(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    refuse_beyond_room(tmp_path / "not" / "there", free / 2, "the maps")
    with pytest.raises(CryosphereError, match=r"the maps need .* GB in .*there, where .* are free"):
        refuse_beyond_room(tmp_path / "not" / "there", free * 2.0, "the maps")
