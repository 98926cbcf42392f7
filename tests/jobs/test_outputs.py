"""One run at a time writes an output, however the one before ended, and its place is checked first."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from napari_cryosphere.errors import CryosphereError, MetadataError, OutputExistsError
from napari_cryosphere.jobs.align import align
from napari_cryosphere.jobs.cesped.entries import add_entry, merge_reports
from napari_cryosphere.jobs.cesped.protocol import run_entry
from napari_cryosphere.jobs.configs import (
    AlignConfig,
    ConvertConfig,
    DensityConfig,
    EquivarianceConfig,
    FscConfig,
    InferConfig,
    PostprocessConfig,
    ReconstructConfig,
    SimulateConfig,
    WatchConfig,
)
from napari_cryosphere.jobs.configs.evaluation import (
    AddEntryConfig,
    CespedConfig,
    EvaluateConfig,
    MergeReportsConfig,
)
from napari_cryosphere.jobs.convert import convert
from napari_cryosphere.jobs.density import density
from napari_cryosphere.jobs.equivariance import equivariance
from napari_cryosphere.jobs.evaluate import evaluate
from napari_cryosphere.jobs.events import Events, follow
from napari_cryosphere.jobs.fsc import fsc
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.postprocess import postprocess
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.running import outputs
from napari_cryosphere.jobs.running.journal import Journal
from napari_cryosphere.jobs.running.outputs import claimed, locked
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.watch import watch

ME = rf"process {os.getpid()} on {socket.gethostname()} since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
A, B = Path("a.mrc"), Path("b.mrc")
FILE_JOBS: list[Callable[[Path], Events]] = [
    lambda out: align(AlignConfig(particles=A, map=B, output=out / "x.star")),
    lambda out: infer(InferConfig(particles=A, model=B, output=out / "x.star")),
    lambda out: infer(
        InferConfig(particles=A, model=B, output=out / "y.star", distributions=out / "x.star")
    ),
    lambda out: convert(ConvertConfig(particles=A, output=out / "x.star")),
    lambda out: simulate(SimulateConfig(map=A, output=out / "x.star")),
    lambda out: reconstruct(ReconstructConfig(particles=A, output=out / "x.mrc")),
    lambda out: density(DensityConfig(model=A, output=out / "x.mrc", pixel_size_angstrom=1)),
    lambda out: fsc(FscConfig(first=A, second=B, output=out / "x.star")),
    lambda out: postprocess(PostprocessConfig(half1=A, half2=B, output=out / "x.mrc")),
]
FOLDER_JOBS: list[Callable[[Path], Events]] = [
    lambda out: evaluate(EvaluateConfig(truth=(A,), predicted=(B,), output=out)),
    lambda out: equivariance(EquivarianceConfig(model=A, output=out)),
    lambda out: run_entry(CespedConfig(entry="TEST", benchmark_dir=A, output=out)),
    lambda out: merge_reports(MergeReportsConfig(runs=(A,), output=out)),
    lambda out: add_entry(
        AddEntryConfig(particles=(A,), benchmark_dir=out.parent, name=out.name, symmetry="C1")
    ),
    lambda out: watch(WatchConfig(folder=out.parent, model=A, output=out)),
]


def run(events: Events) -> None:
    follow(events, lambda event: None)


@pytest.mark.parametrize("job", FILE_JOBS)
def test_a_job_refuses_a_file_that_another_run_writes(
    tmp_path: Path, job: Callable[[Path], Events]
) -> None:
    """Before it reads anything: neither map nor particles are there."""
    with (
        claimed(files=[tmp_path / "x.star", tmp_path / "x.mrc"]),
        pytest.raises(CryosphereError, match=rf"x\.\w+ is in use by {ME}; wait for it, stop it"),
    ):
        run(job(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job", FOLDER_JOBS)
def test_a_job_refuses_a_folder_that_another_run_writes_to(
    tmp_path: Path, job: Callable[[Path], Events]
) -> None:
    with (
        claimed(folders=[tmp_path / "run"]),
        pytest.raises(CryosphereError, match=rf"run is in use by {ME}"),
    ):
        run(job(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_free_after_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "not" / "there" / "a.star"

    def fail() -> None:
        with claimed(files=[output], folders=[tmp_path / "run"]):
            assert output.parent.is_dir()
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert list(tmp_path.iterdir()) == []
    with claimed(files=[output]):
        output.touch()
    assert [path.name for path in output.parent.iterdir()] == ["a.star"]


HOLD = """
import sys, time
from pathlib import Path
from napari_cryosphere.jobs.running.outputs import claimed
with claimed(files=[Path(sys.argv[1])]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    output = tmp_path / "a.star"
    with subprocess.Popen([sys.executable, "-c", HOLD, output], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CryosphereError, match=f"in use by process {other.pid} on "):
            run(convert(ConvertConfig(particles=A, output=output)))
        other.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) != []  # its lock file is there, and says nothing
    with claimed(files=[output]):
        pass
    assert list(tmp_path.iterdir()) == []


CONTEND = """
import os, sys, time
from pathlib import Path
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.running.outputs import locked
folder, taken = Path(sys.argv[1]), 0
while taken < 30:
    try:
        with locked(folder / "lock", "it"):
            os.mkdir(folder / "alone")
            time.sleep(0.0005)
            os.rmdir(folder / "alone")
            taken += 1
    except CryosphereError:
        time.sleep(0.0005)
"""


def test_of_several_processes_one_holds_a_lock(tmp_path: Path) -> None:
    """Also while the lock file is made and removed all the time."""
    every = [subprocess.Popen([sys.executable, "-c", CONTEND, tmp_path]) for _ in range(3)]
    assert [each.wait(300) for each in every] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_place_for_an_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    wrong = {
        "folder is a folder; give the name of a file": {"files": [tmp_path / "folder"]},
        "file is a file where a folder is to be": {"folders": [tmp_path / "file"]},
        "file is not a zarr folder": {"stores": [tmp_path / "file"]},
        "(is a file where a folder|Not a directory)": {"files": [tmp_path / "file" / "a.star"]},
    }
    for says, given in wrong.items():
        with pytest.raises(CryosphereError, match=says), claimed(**given):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outputs, "locked", fail)
    says = rf"cannot write to {tmp_path}: {os.strerror(number)}"
    with pytest.raises(CryosphereError, match=says), claimed(files=[tmp_path / "a.star"]):
        pass
    with pytest.raises(OutputExistsError), claimed(files=[tmp_path]):
        pass


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="not Linux")
def test_a_file_system_without_new_files_is_no_other_run() -> None:
    with pytest.raises(CryosphereError, match="cannot write to /proc"), claimed([Path("/proc/a")]):
        pass


def test_an_output_has_the_suffix_of_what_is_in_it(tmp_path: Path) -> None:
    """Whoever opens it goes by the suffix: a table named .mrc would be no map."""
    wrong: list[tuple[Callable[[Path], object], str]] = [
        (lambda out: SimulateConfig(map=A, output=out), ".cs"),
        (lambda out: InferConfig(particles=A, model=B, output=out), ".mrc"),
        (lambda out: AlignConfig(particles=A, map=B, output=out), ""),
        (lambda out: ReconstructConfig(particles=A, output=out), ".star"),
        (lambda out: PostprocessConfig(half1=A, half2=B, output=out), ".cs"),
    ]
    for config, suffix in wrong:
        with pytest.raises(ValidationError, match=rf"x{suffix} must end with \.(star|mrc)"):
            config(tmp_path / f"x{suffix}")


def test_two_outputs_have_two_places(tmp_path: Path) -> None:
    same = tmp_path / "a" / ".." / "a.zarr"
    with (
        pytest.raises(OutputExistsError, match="is named for two outputs"),
        claimed(files=[tmp_path / "a.zarr"], stores=[same]),
    ):
        pass


def test_a_journal_belongs_to_one_run(tmp_path: Path) -> None:
    """Where a file system has no locks, the run that was there first ends at its next batch."""
    batch = {"a": np.arange(3)}
    first = Journal(tmp_path / "journal", {"box": 16}, resume=False)
    first.write(0, batch)
    with pytest.raises(MetadataError, match=r"other settings \(box\)"):
        Journal(tmp_path / "journal", {"box": 32}, resume=True)
    second = Journal(tmp_path / "journal", {"box": 16}, resume=True)
    with pytest.raises(CryosphereError, match=f"taken over by {ME}; this run ends"):
        first.write(3, batch)
    second.write(3, batch)
    assert 0 in second
    assert 3 in second
    third = Journal(tmp_path / "journal", {"box": 16}, resume=False)
    assert 0 not in third
    with locked(tmp_path / "lock", "it"):
        third.remove()
