"""A full disk, SIGKILL: nothing half written, and runs go on as if nothing was."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.align import align
from napari_cryosphere.jobs.configs import (
    AlignConfig,
    ConvertConfig,
    InferConfig,
    ReconstructConfig,
    RefineConfig,
    SimulateConfig,
    WatchConfig,
)
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.convert import convert
from napari_cryosphere.jobs.events import Events, follow
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.refine import refine
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.train import train
from napari_cryosphere.jobs.watch import watch
from napari_cryosphere.model.card import ModelCard, PolarConfig
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import ParticleStack, read_cs

pytestmark = pytest.mark.slow
POLAR = PolarConfig(
    box=16, l_max=2, ring_channels=4, ring_blocks=0, channels=4, blocks=1, features=8
)
NUMBER = 24
_LARGEST_KILOBYTES = 8000  # no job here leaves as much
Job = Callable[[Path, Path], Events]
"""From a folder with inputs and one for outputs to a run that goes on with what is there."""

JOBS: dict[str, Job] = {
    "align": lambda made, out: align(
        AlignConfig(
            particles=made / "particles.star",
            map=made / "map.mrc",
            output=out / "a.star",
            distributions=out / "a.zarr",
            local_degrees=5.0,
            shift_range_px=1.0,
            batch_size=4,
            device="cpu",
            resume=True,
            overwrite=True,
        )
    ),
    "infer": lambda made, out: infer(
        InferConfig(
            particles=made / "particles.star",
            model=made / "model.safetensors",
            output=out / "a.star",
            distributions=out / "a.zarr",
            batch_size=4,
            device="cpu",
            resume=True,
            overwrite=True,
        )
    ),
    "train": lambda made, out: train(
        TrainConfig(
            particles=made / "particles.star",
            output=out / "run",
            network=POLAR,
            source="particles",
            epochs=4,
            batch_size=8,
            checkpoint_seconds=0,
            device="cpu",
            resume=True,
        )
    ),
    "reconstruct": lambda made, out: reconstruct(
        ReconstructConfig(
            particles=made / "particles.star",
            output=out / "map.mrc",
            half_maps=True,
            overwrite=True,
        )
    ),
    "simulate": lambda made, out: simulate(
        SimulateConfig(map=made / "map.mrc", output=out / "p.star", number=NUMBER, overwrite=True)
    ),
    "refine": lambda made, out: refine(
        RefineConfig(
            particles=made / "particles.star",
            map=made / "map.mrc",
            output=out / "run",
            local_degrees=5.0,
            shift_range_px=1.0,
            initial_resolution_angstrom=48,
            iterations=2,
            batch_size=6,
            mask="none",
            device="cpu",
            resume=True,
        )
    ),
    "convert": lambda made, out: convert(
        ConvertConfig(particles=made / "particles.star", output=out / "p.cs", overwrite=True)
    ),
    "watch": lambda made, out: watch(
        WatchConfig(
            folder=made / "queue",
            model=made / "model.safetensors",
            output=out / "live",
            settle_seconds=0,
            until_idle_seconds=0,
            poll_seconds=0.01,
            publish_seconds=0,
            batch_size=4,
            device="cpu",
        )
    ),
}
REWRITTEN = ("train", "refine", "watch")
"""Jobs whose outputs are replaced by later ones as they go on."""
TOLD = {"log.jsonl", "config.json", "state.json"}
"""Files that hold times and folders, which differ from run to run."""


def run(events: Events) -> None:
    follow(events, lambda event: None)


def make_inputs(folder: Path) -> None:
    protein_phantom(16, 12.0).save(folder / "map.mrc")
    settings = {"map": folder / "map.mrc", "output": folder / "particles.star", "number": NUMBER}
    run(simulate(SimulateConfig(**settings, snr=5.0)))
    torch.manual_seed(1)
    PoseModel.create(ModelCard(network=POLAR, pixel_size_angstrom=12.0)).save(
        folder / "model.safetensors"
    )
    (folder / "queue").mkdir()
    stack = ParticleStack.read(folder / "particles.star")
    for number in range(3):
        stack[number * 4 : (number + 1) * 4].save(folder / "queue" / f"mic{number}.star")


def digests(out: Path) -> dict[str, str]:
    """Return checksums of what a job left, but of its log; a model's of what it predicts."""
    left = {
        path.relative_to(out).as_posix(): path
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in TOLD
    }
    return {name: _digest(path) for name, path in left.items()}


def _digest(path: Path) -> str:
    if path.name == "model.safetensors":  # its card tells how long it took
        weights = PoseModel.load(path).network.state_dict().values()
        return hashlib.sha256(b"".join(each.numpy().tobytes() for each in weights)).hexdigest()
    if path.suffix == ".star":  # image names are relative to the folder of the file
        table = ParticleStack.read(path, require_images=False).particles
        return hashlib.sha256(table.drop(columns="rlnImageName").to_csv().encode()).hexdigest()
    if path.suffix == ".cs":  # likewise; numbers of particles are made of them
        records = read_cs(path)
        fields = [name for name in records.dtype.names or () if name.startswith("alignments3D/")]
        return hashlib.sha256(b"".join(records[name].tobytes() for name in fields)).hexdigest()
    if path.name == "sums.safetensors":
        return ""  # the order of the files in it
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute with as many threads as the processes that are killed: sums are rounded alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def whole(made: Path) -> Callable[[str], dict[str, str]]:
    """What a job leaves that nothing interrupts."""

    def of(name: str) -> dict[str, str]:
        out = made / f"whole_{name}"
        if not out.is_dir():
            out.mkdir()
            run(JOBS[name](made, out))
        return digests(out)

    return of


class Disk:
    """A disk in memory that can be made larger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.ready = sys.platform == "linux" and self._mount("size=4k")

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder]
        try:
            return subprocess.run(command, check=False, capture_output=True).returncode == 0
        except FileNotFoundError:
            return False

    def resize(self, kilobytes: int) -> None:
        assert self._mount(f"remount,size={kilobytes}k")

    def close(self) -> None:
        if self.ready:
            subprocess.run(["umount", "-l", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    if not disk.ready:
        pytest.skip("no disk of a given size can be mounted here (Linux, as root)")
    yield disk
    disk.close()


def fill_disk(
    name: str, made: Path, wanted: dict[str, str], disk: Disk, growth_kilobytes: int
) -> list[str]:
    """Run a job on a disk that grows after every failure, until it ends; returns what it said.

    One write after another finds the disk full. Each failure is an error of the package, and leaves
    nothing half-written.
    """
    failures = list[str]()
    for kilobytes in range(4, _LARGEST_KILOBYTES, growth_kilobytes):
        disk.resize(kilobytes)
        try:
            run(JOBS[name](made, disk.folder))
            break
        except CryosphereError as error:
            failures.append(str(error))
        assert not list(disk.folder.rglob(".cryosphere-*"))
        assert not list(disk.folder.rglob("*.lock"))
        there = {key: value for key, value in digests(disk.folder).items() if key in wanted}
        if name not in REWRITTEN:
            assert there.items() <= wanted.items()
    assert digests(disk.folder) == wanted
    for text in failures:
        assert "\n" not in text
        assert "No space left on device" in text or "are free; make room" in text, text
    return failures


@pytest.mark.parametrize("name", [name for name in JOBS if name != "watch"])
def test_a_disk_that_is_full_at_any_write(
    name: str, made: Path, whole: Callable[[str], dict[str, str]], disk: Disk
) -> None:
    """`scripts/full_disk.py` lets the disk grow by a page, so that every write finds it full."""
    wanted = whole(name)
    size = sum(path.stat().st_size for path in (made / f"whole_{name}").rglob("*.*"))
    assert fill_disk(name, made, wanted, disk, max(4, size // 2**10 // 4))


def _work(name: str, made: str, out: str) -> None:
    """Run a job; in a process of its own."""
    torch.set_num_threads(1)
    try:
        run(JOBS[name](Path(made), Path(out)))
    except CryosphereError as error:
        sys.exit(str(error))


def _processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["napari_cryosphere.jobs.watch", "napari_cryosphere.jobs.train"])
    return context


@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
@pytest.mark.parametrize("name", ["infer", "reconstruct", "simulate"])
def test_killed_at_random_it_goes_on_as_if_nothing_was(
    name: str, made: Path, whole: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    """`scripts/random_kills.py` does so a hundred times."""
    wanted = whole(name)
    kill_at_random(name, made, tmp_path, random.Random(3), kills=2, longest_seconds=3.0)
    assert digests(tmp_path) == wanted


def _files_in(folder: Path) -> int:
    """Count files and folders; temporary ones may go meanwhile, which os.walk allows."""
    return sum(len(folders) + len(names) for _, folders, names in os.walk(folder))


def kill_at_random(
    name: str, made: Path, out: Path, rng: random.Random, kills: int, longest_seconds: float
) -> int:
    """Run a job, killing it some times, until it has ended; returns how often it was killed."""
    context, killed = _processes(), 0
    while True:
        process = context.Process(target=_work, args=(name, str(made), str(out)))
        process.start()
        if killed < kills:
            until, limit = _files_in(out) + rng.randrange(1, 8), time.monotonic()
            while (
                process.is_alive()
                and _files_in(out) < until
                and time.monotonic() - limit < longest_seconds
            ):
                time.sleep(rng.uniform(0, 0.003))
            process.kill()
        process.join()
        if process.exitcode == 0:
            return killed
        assert process.exitcode == -9, process.exitcode
        killed += 1
