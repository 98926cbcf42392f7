"""What a run costs over box, particles, degree of the network and ranks; and whether memory stays bounded.

``--stack N`` instead writes N noise particles of 64 px (int16) to ``--folder``, takes them through infer and
reconstruct, each in a process of its own, and reports peak memory and the throughput of every thousand. For
200,000 that is 1.6 GB on disk and, on one core, more than an hour.

Costs are CPU seconds. Images are noise: no step's cost depends on what is in them but that of refinement.
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
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
from _common import child_cpu_seconds, cpu_seconds, report, write_figures
from _long_run import long_run

from napari_cryosphere.particles import write_star

PIXEL = 3.0


def write_particles(folder: Path, number: int, box: int, name: str = "p") -> Path:
    """Write noise particles with poses and CTFs as int16, in chunks; returns the STAR file."""
    rng = np.random.default_rng(0)
    with mrcfile.new_mmap(folder / f"{name}.mrcs", (number, box, box), mrc_mode=1, overwrite=True) as stack:
        stack.voxel_size = PIXEL
        noise = (1000 * rng.standard_normal((4096, box, box), dtype=np.float32)).astype(np.int16)
        for start in range(0, number, 4096):
            stop = min(start + 4096, number)
            stack.data[start:stop] = np.roll(noise[: stop - start], start // 4096, axis=2)
    poses = {
        "rlnAngleRot": rng.uniform(-180, 180, number),
        "rlnAngleTilt": np.degrees(np.arccos(rng.uniform(-1, 1, number))),
        "rlnAnglePsi": rng.uniform(-180, 180, number),
        "rlnOriginXAngst": np.zeros(number),
        "rlnOriginYAngst": np.zeros(number),
        "rlnDefocusU": rng.uniform(8e3, 25e3, number),
        "rlnDefocusV": rng.uniform(8e3, 25e3, number),
        "rlnDefocusAngle": np.zeros(number),
        "rlnImageName": [f"{row:06d}@{name}.mrcs" for row in range(1, number + 1)],
        "rlnOpticsGroup": np.ones(number, dtype=np.int64),
    }
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL],
        "rlnImageSize": [box],
    }
    write_star(
        {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(poses)}, folder / f"{name}.star", True
    )
    return folder / f"{name}.star"


def write_model(folder: Path, box: int, l_max: int | None = None) -> Path:
    """Write an untrained model of the default network for images of a box, or of another degree."""
    import torch

    from napari_cryosphere.jobs.configs import TrainConfig
    from napari_cryosphere.model.card import ModelCard
    from napari_cryosphere.model.pose_model import PoseModel

    network = TrainConfig(particles=Path("p.star"), output=Path("run")).network
    if l_max is not None:
        network = network.model_copy(update={"l_max": l_max})
    torch.manual_seed(0)
    card = ModelCard(network=network, pixel_size_angstrom=PIXEL * box / network.box)
    PoseModel.create(card).save(folder / "model.safetensors", overwrite=True)
    return folder / "model.safetensors"


def steps_by_box(folder: Path, boxes: list[int], number: int) -> list[dict[str, Any]]:
    """Return CPU milliseconds a particle of every step, over the box."""
    import torch

    from napari_cryosphere.imaging.phantom import protein_phantom
    from napari_cryosphere.jobs._halves import Halves, chunks
    from napari_cryosphere.jobs._predictor import Predictor
    from napari_cryosphere.jobs.align import AlignerInput, prepare_aligner
    from napari_cryosphere.model.pose_model import PoseModel
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.reconstruction import ExactSums, WeightedPoses

    rows, every = [], slice(0, number)
    for box in boxes:
        stack = ParticleStack.read(write_particles(folder, number, box))
        predictor = Predictor(PoseModel.load(write_model(folder, box)), stack)
        images = predictor.read(every)
        halves = Halves(stack.grid, "C1", 2)
        poses = WeightedPoses.best(stack.rotations())

        def fill(halves: Halves = halves, stack: ParticleStack = stack, poses: WeightedPoses = poses) -> None:
            for _ in halves.fill(stack, poses, chunks(number), ahead=0):
                pass

        row: dict[str, Any] = {
            "box": box,
            "read and prepare": cpu_seconds(lambda p=predictor: p.read(every), 2),
            "predict": cpu_seconds(lambda p=predictor, i=images: p.work(every, i), 2),
            "insert": cpu_seconds(fill, 2),
        }
        row = {key: value / number * 1e3 if key != "box" else value for key, value in row.items()}
        sums = ExactSums(box)
        row["add a file's sums, s"] = (
            cpu_seconds(lambda s=sums, h=halves: s.add(s.fitting(h.pair[0]), 1), 1) * 2
        )
        row["solve, s"] = cpu_seconds(lambda h=halves: h.snapshot(), 1)
        density = DensityMap(protein_phantom(box, PIXEL * 64 / box).voxels, PIXEL)
        start = time.process_time()
        try:
            aligner = prepare_aligner(stack, density, "C1", resolution_angstrom=12.0)
        except Exception as error:  # noise: its contrast may come out as nothing
            row["align --local"] = str(error)[:20]
        else:
            row["prepare align, s"] = time.process_time() - start
            few = slice(0, min(16, number))
            given, ctf = AlignerInput(stack)(few)
            shifts = np.zeros((few.stop, 2))
            seconds = cpu_seconds(
                lambda a=aligner, s=stack, g=given, c=ctf, z=shifts: a.refine(
                    g, c, s.rotations()[: len(g)], z, 5.0
                ),
                1,
            )
            row["align --local"] = seconds / few.stop * 1e3
        torch.manual_seed(0)
        rows.append(row)
    return rows


def predict_by_degree(folder: Path, degrees: list[int], number: int) -> list[dict[str, Any]]:
    """Return CPU milliseconds a particle of prediction with its summary, over the network's degree."""
    from napari_cryosphere.jobs._predictor import Predictor
    from napari_cryosphere.model.pose_model import PoseModel
    from napari_cryosphere.particles import ParticleStack

    stack = ParticleStack.read(write_particles(folder, number, 64))
    rows = []
    for degree in degrees:
        predictor = Predictor(PoseModel.load(write_model(folder, 64, degree)), stack)
        images = predictor.read(slice(0, number))
        seconds = cpu_seconds(lambda p=predictor, i=images: p.work(slice(0, number), i), 2)
        rows.append({"degree": degree, "predict, ms": seconds / number * 1e3})
    return rows


def ranks(folder: Path, number: int, counts: list[int]) -> list[dict[str, Any]]:
    """Return wall and CPU seconds of infer and reconstruct with some ranks; starting them is counted."""
    star, model = write_particles(folder, number, 64), write_model(folder, 64)
    rows = []
    for count in counts:
        for name, arguments in {
            "infer": ["--model", model, "--output", folder / "i.star", "--device", "cpu"],
            "reconstruct": ["--output", folder / "m.mrc", "--half-maps"],
        }.items():
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
            module = ["-m", "napari_cryosphere", name, str(star), *map(str, arguments), "--overwrite"]
            command = [sys.executable, *(launcher if count > 1 else []), *module]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            start = time.perf_counter()
            cpu = child_cpu_seconds(
                lambda c=command, e=environment: subprocess.run(c, env=e, check=True, capture_output=True)
            )
            wall = time.perf_counter() - start
            rows.append({"job": name, "ranks": count, "particles": number, "wall s": wall, "CPU s": cpu})
    return rows


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--stack", type=int, help="particles for the run in bounded memory")
    parser.add_argument("--folder", type=Path, help="where that run's files go")
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
            "by degree": predict_by_degree(folder, [4, 6] if arguments.quick else [4, 6, 8, 10], number),
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
