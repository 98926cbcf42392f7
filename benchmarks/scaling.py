"""What a run costs over box, degree of the network and ranks; and whether memory stays bounded.

``--stack N`` instead simulates N particles of 64 px in ``--folder``, takes them through infer and
reconstruct, each in a process of its own, and reports peak memory and speed over every thousand.
For 200,000 that is 3.3 GB on disk and some 35 minutes of one core. Files stay in a folder that is
given; started again there, it goes on with the job that was stopped.

Costs are CPU seconds. The particles are those of the package's phantom, signal-to-noise ratio 0.3.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _common import child_cpu_seconds, cpu_seconds, report, write_figures
from _long_run import long_run

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack

FIELD = 192.0  # angstrom, of every image
ALIGNED_ANGSTROM = 12.0


def write_particles(folder: Path, number: int, box: int) -> Path:
    """Simulate particles of the package's phantom, 192 A wide at any box; returns the STAR file."""
    from napari_cryosphere.imaging.phantom import protein_phantom
    from napari_cryosphere.jobs.configs import SimulateConfig
    from napari_cryosphere.jobs.events import follow
    from napari_cryosphere.jobs.simulate import simulate_density

    density = protein_phantom(box, FIELD / box)
    density.save(folder / "map.mrc", overwrite=True)
    config = SimulateConfig(
        map=folder / "map.mrc", output=folder / "p.star", number=number, snr=0.3, overwrite=True
    )
    follow(simulate_density(density, config), lambda event: None)
    return folder / "p.star"


def write_model(folder: Path, l_max: int | None = None) -> Path:
    """Write an untrained model of the default network, or of one of another degree."""
    import torch

    from napari_cryosphere.jobs.configs.training import TrainConfig
    from napari_cryosphere.model.card import ModelCard
    from napari_cryosphere.model.pose_model import PoseModel

    network = TrainConfig(particles=Path("p.star"), output=Path("run")).network
    if l_max is not None:
        network = network.model_copy(update={"l_max": l_max})
    torch.manual_seed(0)
    card = ModelCard(network=network, pixel_size_angstrom=FIELD / network.box)
    PoseModel.create(card).save(folder / "model.safetensors", overwrite=True)
    return folder / "model.safetensors"


def steps_by_box(folder: Path, boxes: list[int], number: int) -> list[dict[str, Any]]:
    """Return CPU milliseconds a particle of every step over the box, and what it costs once, in
    seconds.
    """
    from napari_cryosphere.particles import ParticleStack

    rows = []
    for box in boxes:
        stack = ParticleStack.read(write_particles(folder, number, box))
        costs = _predicting(folder, stack) | _reconstructing(stack) | _aligning(folder, stack)
        rows.append({"box": box, **costs})
    return rows


def _predicting(folder: Path, stack: ParticleStack) -> dict[str, Any]:
    from napari_cryosphere.jobs.running.predictor import Predictor
    from napari_cryosphere.model.pose_model import PoseModel

    predictor, every = Predictor(PoseModel.load(write_model(folder)), stack), slice(0, len(stack))
    images = predictor.read(every)
    return {
        "read and prepare": cpu_seconds(lambda: predictor.read(every), 2) / len(stack) * 1e3,
        "predict": cpu_seconds(lambda: predictor.work(every, images), 2) / len(stack) * 1e3,
    }


def _reconstructing(stack: ParticleStack) -> dict[str, Any]:
    from napari_cryosphere.jobs.running.halves import Halves, chunks
    from napari_cryosphere.reconstruction import ExactSums, WeightedPoses

    halves, poses = Halves(stack.grid, "C1", 2), WeightedPoses.best(stack.rotations())
    sums = ExactSums(stack.box)

    def insert() -> None:
        for _ in halves.fill(stack, poses, chunks(len(stack)), ahead=0):
            pass

    return {
        "insert": cpu_seconds(insert, 2) / len(stack) * 1e3,
        "solve, s": cpu_seconds(halves.snapshot, 1),
        "add a watched file, s": 2
        * cpu_seconds(lambda: sums.add(sums.fitting(halves.pair[0]), 1), 1),
    }


def _aligning(folder: Path, stack: ParticleStack) -> dict[str, Any]:
    from napari_cryosphere.jobs.align import AlignerInput, prepare_aligner
    from napari_cryosphere.particles import DensityMap

    names = ("prepare align, s", "align", "align --local 5")
    start = time.process_time()
    try:
        aligner = prepare_aligner(
            stack, DensityMap.read(folder / "map.mrc"), "C1", ALIGNED_ANGSTROM
        )
    except CryosphereError as error:
        return dict.fromkeys(names, str(error)[:30])
    prepared = time.process_time() - start
    images, ctf = AlignerInput(stack)(slice(0, 32))
    around, shifts = stack.rotations()[: len(images)], np.zeros((len(images), 2))
    globally = cpu_seconds(lambda: aligner.search(images, ctf), 1)
    locally = cpu_seconds(lambda: aligner.refine(images, ctf, around, shifts, 5.0), 1)
    costs = (prepared, globally / len(images) * 1e3, locally / len(images) * 1e3)
    return dict(zip(names, costs, strict=True))


def evaluate_by_order(orders: list[int], number: int) -> list[dict[str, Any]]:
    """Return CPU milliseconds a particle of a density of degree 6 on all poses of a grid, over its
    order.
    """
    import torch

    from napari_cryosphere.so3.grid import SO3Grid
    from napari_cryosphere.so3.grid_transform import evaluate_on_grid

    coefficients = torch.view_as_complex(
        torch.randn(number, 7, 13, 7, 2, generator=torch.Generator().manual_seed(0))
    )
    rows = []
    for order in orders:
        seconds = cpu_seconds(lambda o=order: evaluate_on_grid(coefficients, o), 2)
        cells = SO3Grid(order).size
        rows.append({"order": order, "cells": cells, "evaluate, ms": seconds / number * 1e3})
    return rows


def predict_by_degree(folder: Path, degrees: list[int], number: int) -> list[dict[str, Any]]:
    """Return CPU milliseconds a particle of prediction with its summary, over the network's degree."""
    from napari_cryosphere.jobs.running.predictor import Predictor
    from napari_cryosphere.model.pose_model import PoseModel
    from napari_cryosphere.particles import ParticleStack

    stack = ParticleStack.read(write_particles(folder, number, 64))
    rows = []
    for degree in degrees:
        predictor = Predictor(PoseModel.load(write_model(folder, degree)), stack)
        images = predictor.read(slice(0, number))
        seconds = cpu_seconds(lambda p=predictor, i=images: p.work(slice(0, number), i), 2)
        rows.append({"degree": degree, "predict, ms": seconds / number * 1e3})
    return rows


def ranks(folder: Path, number: int, counts: list[int]) -> list[dict[str, Any]]:
    """Return wall and CPU seconds of jobs with some ranks; starting them is counted."""
    star, model = write_particles(folder, number, 64), write_model(folder)
    rows = []
    for count in counts:
        for name, arguments in {
            "infer": ["--model", model, "--output", folder / "i.star", "--device", "cpu"],
            "reconstruct": ["--output", folder / "m.mrc", "--half-maps"],
            "train": ["--output", folder / f"run{count}", "--epochs", "0.25", "--device", "cpu"],
        }.items():
            launcher = [
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                str(count),
            ]
            module = [
                "-m",
                "napari_cryosphere",
                name,
                str(star),
                *map(str, arguments),
                "--overwrite",
            ]
            command = [sys.executable, *(launcher if count > 1 else []), *module]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            start = time.perf_counter()
            cpu = child_cpu_seconds(
                lambda c=command, e=environment: subprocess.run(
                    c, env=e, check=True, capture_output=True
                )
            )
            wall = time.perf_counter() - start
            rows.append(
                {"job": name, "ranks": count, "particles": number, "wall s": wall, "CPU s": cpu}
            )
    return rows


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--stack", type=int, help="particles for the run in bounded memory")
    parser.add_argument("--folder", type=Path, help="where files go and stay")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as temporary:
        folder = arguments.folder or Path(temporary.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.stack:
            rows = long_run(folder, arguments.stack)
            report("scaling: long run", rows, arguments, ["torch", "numpy"])
            return
        boxes, number = ([64, 128], 64) if arguments.quick else ([64, 96, 128, 192, 256], 256)
        tables = {
            "by box, CPU ms a particle": steps_by_box(folder, boxes, number),
            "by degree": predict_by_degree(
                folder, [4, 6] if arguments.quick else [4, 6, 8, 10], number
            ),
            "by order": evaluate_by_order([2, 3] if arguments.quick else [2, 3, 4, 5], 8),
            "by ranks": ranks(folder, 256 if arguments.quick else 4096, [1, 2]),
        }
        for title, rows in tables.items():
            print(f"\n{title}")
            only_here = argparse.Namespace(json=None)
            report(title, rows, only_here, [])
        flat = [{"table": title, **row} for title, rows in tables.items() for row in rows]
        write_figures("scaling", flat, arguments, ["torch", "numpy", "scipy"])


if __name__ == "__main__":
    main()
