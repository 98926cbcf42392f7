"""Jobs under torchrun: two processes give what one gives; when one is killed the other says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torchrun_jobs import POLAR, trainings

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.infer import images_for, predict
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.train import train
from napari_cryosphere.model.card import ModelCard
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.distributions.store import DistributionStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
]
NUMBER = 140  # more than one chunk of a reconstruction


def torchrun(*arguments: str | Path) -> list[str]:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    return [*launcher, *map(str, arguments)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with particles, a map, a model, and two files to watch."""
    folder = tmp_path_factory.mktemp("torchrun")
    protein_phantom(16, 12.0).save(folder / "map.mrc")
    settings = SimulateConfig(
        map=folder / "map.mrc", output=folder / "particles.star", number=NUMBER, snr=5.0
    )
    follow(simulate(settings), lambda event: None)
    torch.manual_seed(1)
    PoseModel.create(ModelCard(network=POLAR, pixel_size_angstrom=12.0)).save(
        folder / "model.safetensors"
    )
    (folder / "queue").mkdir()
    stack = ParticleStack.read(folder / "particles.star")
    for number in range(5):
        stack[number * 4 : (number + 1) * 4].save(folder / "queue" / f"mic{number}.star")
    return folder


def test_two_processes_give_what_one_gives(made: Path) -> None:
    script = Path(__file__).with_name("torchrun_jobs.py")
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    # both in processes of their own: other tests may have changed the threads of this one
    for command in (torchrun(script, made, "two"), [sys.executable, str(script), str(made), "one"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = made / "one", made / "two"
    for name in (
        "i.star",
        "a.star",
        "watch/particles.star",
        "watch/map_half1.mrc",
        "watch/map_half2.mrc",
    ):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    stores = [DistributionStore(folder / "i.zarr") for folder in (one, two)]
    assert [len(store) for store in stores] == [NUMBER, NUMBER]
    np.testing.assert_array_equal(*(store[:].coefficients for store in stores))
    for name in ("map.mrc", "map_half1.mrc", "map_half2.mrc"):
        first, second = (DensityMap.read(folder / name).voxels for folder in (one, two))
        assert np.abs(first - second).max() < 1e-4 * first.std(), name
    for folder in (Path(), Path("polar"), Path("sphere")):
        names = [sorted(path.name for path in (each / folder).iterdir()) for each in (one, two)]
        assert names[0] == names[1]
    for config in trainings(made, made / "seed"):
        name, other = config.output.name, config.model_copy(update={"seed": 1})
        follow(train(other), lambda event: None)
        assert_same_predictions(made, one / name, two / name, other.output)


def assert_same_predictions(made: Path, first: Path, second: Path, other_seed: Path) -> None:
    """Compare what two runs predict, on the scale of what another seed changes.

    Their weights are not the same: Adam makes whole steps of gradients that are rounding alone, and
    how much these weights drift apart depends on the processor. That the arithmetic is the same is
    tested where it is exact, in `test_replicas`.
    """
    one, two, other = (predicted(made, folder) for folder in (first, second, other_seed))
    assert np.linalg.norm(two - one) < 0.5 * np.linalg.norm(other - one)


def predicted(made: Path, run: Path) -> np.ndarray:
    """Return the Wigner coefficients that a run's model predicts."""
    stack, model = ParticleStack.read(made / "particles.star"), PoseModel.load(run)
    found = [each.coefficients for _, each in predict(images_for(model, stack), model)]
    return torch.cat(found).numpy()


def test_killing_one_rank_of_a_training_ends_all_and_one_process_goes_on(
    made: Path, tmp_path: Path
) -> None:
    options = {
        "particles": made / "particles.star",
        "preset": "image2sphere",
        "network": POLAR,
        "epochs": 10,
    }
    options |= {"batch_size": 64, "checkpoint_seconds": 0, "device": "cpu"}
    config = TrainConfig(output=tmp_path / "killed", **options)
    (tmp_path / "config.json").write_text(config.model_dump_json(exclude={"particles", "output"}))
    command = ["-m", "napari_cryosphere", "train", *config.particles, "--output", config.output]
    command += ["--config", tmp_path / "config.json"]
    with subprocess.Popen(torchrun(*command), stderr=subprocess.PIPE, text=True) as launcher:
        while not config.checkpoint.is_file() and launcher.poll() is None:
            time.sleep(0.02)
        os.kill(_process_of_rank(1, launcher.pid), signal.SIGKILL)
        _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode != 0
    said = [
        line
        for line in errors.splitlines()
        if line.startswith(("rank 0: stopped", "error: rank 0"))
    ]
    assert said, errors
    assert "--resume goes on" in said[0]
    resumed = follow(train(config.model_copy(update={"resume": True})), lambda event: None)
    whole = TrainConfig(output=tmp_path / "whole", **options)
    expected = follow(train(whole), lambda event: None)
    assert resumed.metrics["images"] == expected.metrics["images"]
    other = TrainConfig(output=tmp_path / "other", seed=1, **options)
    follow(train(other), lambda event: None)
    assert_same_predictions(made, whole.output, config.output, other.output)


def test_killing_one_rank_ends_all_and_resume_goes_on(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.star"
    command = ["align", made / "particles.star", "--map", made / "map.mrc", "--output", output]
    command += [
        "--local-degrees",
        "5",
        "--shift-range",
        "1",
        "--set",
        "batch_size=1",
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        torchrun("-m", "napari_cryosphere", *command), stderr=subprocess.PIPE, text=True
    ) as launcher:
        journal = tmp_path / "a.star.unfinished"
        while len(list(journal.glob("batch_*"))) < 3 and launcher.poll() is None:
            time.sleep(0.02)
        os.kill(_process_of_rank(1, launcher.pid), signal.SIGKILL)
        _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode != 0
    line = next(line for line in errors.splitlines() if line.startswith("rank 0: stopped"))
    assert "--resume" in line
    assert not output.exists()
    kept = {path.name for path in journal.glob("batch_*")}
    assert 3 <= len(kept) < NUMBER
    resume = [sys.executable, "-m", "napari_cryosphere", *map(str, command), "--resume"]
    subprocess.run(resume, check=True, capture_output=True)
    assert len(ParticleStack.read(output)) == NUMBER
    assert not journal.exists()


def _process_of_rank(rank: int, launcher: int) -> int:
    """Return the process id of a rank that a launcher started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == launcher and f"\0RANK={rank}\0" in (folder / "environ").read_text():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"no rank {rank} under process {launcher}")


def test_why_a_rank_failed_is_said_by_all(made: Path, tmp_path: Path) -> None:
    (tmp_path / "there.mrc").write_text("taken")
    command = ["reconstruct", made / "particles.star", "--output", tmp_path / "there.mrc"]
    done = subprocess.run(
        torchrun("-m", "napari_cryosphere", *command), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "already exists" in done.stderr
    assert "error: rank " in done.stderr
