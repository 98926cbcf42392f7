"""Side by side with cryoPARES: the same particles, at the same time, one thread each, CPU seconds
measured.

cryoPARES (PyPI, GPL-3) lives in an environment of its own, whose Python ``--cryopares`` names, or
the variable CRYOPARES_PYTHON; without either nothing is measured. It is run by its own commands and
nothing of it is imported here. Both train on the reference data's training particles and their
poses (CRYOSPHERE_SHARED_DATA names the folder) and are judged on its test particles, by this
package's angles between known and predicted poses. cryoPARES's default network has 123 million
parameters and takes 15 GB; `THEIRS` makes it small enough for a CPU, for images of the size that
ours sees.

Costs are CPU seconds of whole processes, children included, and the peak of resident memory of the
largest of them. The cost of a particle is the difference between predicting all and a fifth of the
test set, so that imports do not count. When ours reached the error at which theirs ended is read
from its log.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import DATA, has_data, report
from numpy.typing import NDArray

from napari_cryosphere.model.pose_model import MODEL_FILE
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.particles.mrc import write_stack
from napari_cryosphere.so3.symmetry import angular_error_degrees

LARGE_DEGREES = 30
THEIRS = [
    "models.image2sphere.lmax=6",
    "models.image2sphere.imageencoder.out_channels=64",
    "models.image2sphere.imageencoder.unet.n_blocks=3",
    "models.image2sphere.imageencoder.unet.out_channels_first=16",
    "models.image2sphere.imageencoder.unet.kernel_size=3",
    "models.image2sphere.so3components.i2sprojector.sphere_fdim=64",
    "models.image2sphere.so3components.i2sprojector.hp_order=2",
    "models.image2sphere.so3components.i2sprojector.rand_fraction_points_to_project=1.",
    "models.image2sphere.so3components.s2conv.f_out=16",
    "models.image2sphere.so3components.s2conv.hp_order=2",
    "models.image2sphere.so3components.so3outputgrid.hp_order=3",
    "datamanager.num_augmented_copies_per_batch=1",
    "train.accumulate_grad_batches=1",
    "train.use_cuda=False",
    "train.n_cpus_if_no_cuda=1",
]
"""Of its Image2Sphere: degree 6, a narrow U-Net, predictions on the grid of order 3 (7.5 degrees),
and an optimiser's step for every batch of 32.
"""


@dataclass(frozen=True)
class Cost:
    """What a process took: CPU seconds of it and its children, and the largest peak of memory among
    them.
    """

    cpu_s: float
    peak_mb: float


def as_floats(given: Path, folder: Path, part: str) -> Path:
    """Write particles as 32-bit floats, the only ones that cryoPARES reads, and return their STAR
    file.
    """
    stack, star = ParticleStack.read(given), folder / f"{part}.star"
    write_stack(
        stack.images(), star.with_suffix(".mrcs"), stack.pixel_size_angstrom, overwrite=True
    )
    star.write_text(given.read_text().replace(f"@{given.stem}.mrcs", f"@{part}.mrcs"))
    return star


class Running:
    """A command on one thread, its output going to a file, at the priority of this process."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, environment: dict[str, str]
    ) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._command, self._log = [str(part) for part in command], log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment | threads,
                cwd=log.parent,
            )

    def cost(self) -> Cost:
        """Wait for its end.

        Raises
        ------
        RuntimeError
            If it fails.
        """
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            raise RuntimeError(
                f"{self._command[0]} ended with {self._process.returncode}; see {self._log}"
            )
        return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Theirs:
    """cryoPARES, by its commands."""

    name = "cryoPARES"

    def __init__(self, python: Path, folder: Path, epochs: int) -> None:
        self._python, self._folder, self._epochs = python, folder, epochs
        folder.mkdir(parents=True, exist_ok=True)
        # It writes its environment to disk: it is given no more than it needs.
        self._environment = {
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "HOME": str(folder),
            "MPLBACKEND": "agg",
        }

    def train(self, particles: Path, box: int, pixel_size_angstrom: float) -> Running:
        """Train on all particles but its own held-out share (30 per cent)."""
        module = ["-m", "cryoPARES.train.train", "--symmetry", "C1", "--NOT_split_halves"]
        given = ["--particles_star_fname", particles, "--particles_dir", particles.parent]
        size = [
            "--image_size_px_for_nnet",
            f"{box}",
            "--sampling_rate_angs_for_nnet",
            f"{pixel_size_angstrom}",
        ]
        run_for = ["--n_epochs", f"{self._epochs}", "--batch_size", "32", "--num_dataworkers", "1"]
        output = ["--train_save_dir", self._folder / "runs", "--config", *THEIRS]
        command = [self._python, *module, *given, *size, *run_for, *output]
        return Running(command, self._folder / "train.log", self._environment)

    @property
    def _run(self) -> Path:
        return self._folder / "runs" / "version_0"

    def predict(self, particles: Path, name: str) -> tuple[Cost, Path]:
        """Predict poses by the network alone."""
        results = self._folder / name
        command = [
            self._python,
            "-m",
            "cryoPARES.inference.infer",
            "--particles_star_fname",
            particles,
        ]
        command += [
            "--particles_dir",
            particles.parent,
            "--checkpoint_dir",
            self._run,
            "--results_dir",
            results,
        ]
        command += ["--model_halfset", "allParticles", "--NOT_use_cuda", "--n_cpus_if_no_cuda", "1"]
        command += ["--num_dataworkers", "1", "--skip_localrefinement", "--skip_reconstruction"]
        cost = Running(command, self._folder / f"{name}.log", self._environment).cost()
        return cost, next(results.glob("*.star"))

    def validation(self) -> list[tuple[float, float]]:
        """Return the share of the run and the median validation error of every validation."""
        rows: list[float] = []
        for file in sorted(self._run.glob("allParticles/**/metrics.csv")):
            with file.open() as lines:
                found = [row.get("val_median_geo_degs") for row in csv.DictReader(lines)]
            rows += [float(value) for value in found if value]
        return [((at + 1) / len(rows), value) for at, value in enumerate(rows)]

    def model_mb(self) -> float:
        """Size of the model that inference loads."""
        files = self._run.glob("allParticles/checkpoints/*")
        return max(file.stat().st_size for file in files if file.suffix in (".pt", ".ckpt")) / 1e6


class Ours:
    """This package, by its command."""

    name = "napari-cryosphere"

    def __init__(self, folder: Path, epochs: float) -> None:
        self._folder, self._epochs = folder, epochs
        folder.mkdir(parents=True, exist_ok=True)
        self._program = [sys.executable, "-m", "napari_cryosphere"]

    def train(self, particles: Path) -> Running:
        """Train with preset ``default``."""
        command = [*self._program, "train", particles, "--output", self._folder / "run"]
        command += ["--epochs", f"{self._epochs}"]
        return Running(command, self._folder / "train.log", dict(os.environ))

    def predict(self, particles: Path, name: str) -> tuple[Cost, Path]:
        """Predict poses and how sure they are."""
        output = self._folder / f"{name}.star"
        command = [
            *self._program,
            "infer",
            particles,
            "--model",
            self._folder / "run",
            "--output",
            output,
        ]
        return Running(command, self._folder / f"{name}.log", dict(os.environ)).cost(), output

    def network_ms(self, particles: Path) -> float:
        """Return the CPU milliseconds a particle of the network alone, images prepared beforehand."""
        import time

        import torch

        from napari_cryosphere.jobs.infer import images_for
        from napari_cryosphere.model.pose_model import PoseModel

        torch.set_num_threads(1)
        model = PoseModel.load(self._folder / "run")
        images, ctf = images_for(model, ParticleStack.read(particles)).with_ctf(slice(None))
        assert ctf is not None
        model.predict(images[:128], ctf[:128])
        start = time.process_time()
        for part in zip(images.split(128), ctf.split(128), strict=True):
            model.predict(*part)
        return 1e3 * (time.process_time() - start) / len(images)

    def validation(self) -> list[tuple[float, float]]:
        """Return the share of the run and the median validation error of every validation."""
        lines = (self._folder / "run" / "log.jsonl").read_text().splitlines()
        found = [
            (line["fraction"], line["validation_median_degrees"]) for line in map(json.loads, lines)
        ]
        return [(fraction, value) for fraction, value in found if value is not None]

    def model_mb(self) -> float:
        """Size of the model file."""
        return (self._folder / "run" / MODEL_FILE).stat().st_size / 1e6


def judged(
    program: Theirs | Ours, trained: Cost, truth: ParticleStack, whole: Path, fifth: Path
) -> dict[str, Any]:
    """Predict the test set and its fifth; return a row of the table."""
    all_cost, predicted = program.predict(whole, "whole")
    few_cost, few = program.predict(fifth, "fifth")
    number = len(truth) - len(ParticleStack.read(few))
    errors = errors_degrees(truth, ParticleStack.read(predicted))
    return {
        "program": program.name,
        "train_cpu_s": trained.cpu_s,
        "train_peak_mb": trained.peak_mb,
        "model_mb": program.model_mb(),
        "validation_median_deg": program.validation()[-1][1],
        "test_median_deg": float(np.median(errors)),
        "test_beyond_30": float((errors > LARGE_DEGREES).mean()),
        "infer_ms": 1e3 * (all_cost.cpu_s - few_cost.cpu_s) / number,
        "infer_peak_mb": all_cost.peak_mb,
    }


def errors_degrees(truth: ParticleStack, found: ParticleStack) -> NDArray[np.float64]:
    """Return the pose errors; rows are matched by image, since their order may differ."""
    place = {
        int(name.split("@")[0]): row for row, name in enumerate(found.particles["rlnImageName"])
    }
    rows = np.array([place[number] for number in range(1, len(truth) + 1)])
    return angular_error_degrees(truth.rotations(), found.rotations()[rows], "C1")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    python = os.environ.get("CRYOPARES_PYTHON")
    parser.add_argument("--cryopares", type=Path, default=python, help="Python of its environment")
    parser.add_argument("--their-epochs", type=int, default=8, help="of cryoPARES's training")
    parser.add_argument(
        "--our-epochs", default=12.0, type=float, help="of ours; choose the one by the other's cost"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one epoch of each: to see that it works"
    )
    parser.add_argument("--set", default="ribo70S")
    parser.add_argument("--keep", type=Path, help="folder for the runs")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if arguments.cryopares is None:
        print(
            "not run: name the Python of an environment with cryoPARES (--cryopares or CRYOPARES_PYTHON)"
        )
        return
    if not has_data():
        return
    if arguments.quick:
        arguments.their_epochs, arguments.our_epochs = 1, 1.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        theirs = Theirs(arguments.cryopares, folder / "theirs", arguments.their_epochs)
        ours = Ours(folder / "ours", arguments.our_epochs)
        given = (DATA / "particles" / f"{arguments.set}_{part}.star" for part in ("train", "test"))
        particles, test = (as_floats(path, folder, path.stem.split("_")[-1]) for path in given)
        truth, blind, fifth = ParticleStack.read(test), folder / "blind.star", folder / "fifth.star"
        hidden = truth.with_poses(
            truth.rotations(), np.zeros((len(truth), 2))
        )  # nothing knows the shifts
        hidden.save(blind, overwrite=True)
        hidden[::5].save(fifth, overwrite=True)
        running = theirs.train(particles, 32, truth.grid.field_angstrom / 32), ours.train(particles)
        costs = [each.cost() for each in running]
        rows = [
            judged(program, cost, truth, blind, fifth)
            for program, cost in zip((theirs, ours), costs, strict=True)
        ]
        wanted, spent = rows[0]["validation_median_deg"], rows[1]["train_cpu_s"]
        reached = [share * spent for share, error in ours.validation() if error <= wanted]
        rows[0] |= {"network_ms": None, "to_their_error_cpu_s": rows[0]["train_cpu_s"]}
        rows[1] |= {
            "network_ms": ours.network_ms(blind),
            "to_their_error_cpu_s": min(reached, default=None),
        }
        report("cryopares", rows, arguments, ["torch", "numpy"])


if __name__ == "__main__":
    main()
