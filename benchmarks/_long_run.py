"""Many particles on disk through simulate, infer and reconstruct: is memory bounded, does speed
stay?

Each job runs in a process of its own. The particles are the sample's (64 px of 3 A, signal-to-noise
ratio 0.3), the network is the one that the package ships, and the map is made at the poses that it
predicts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from napari_cryosphere.jobs.events import Event, Events, Progress, follow
from napari_cryosphere.jobs.running.memory import peak_gigabytes

__all__ = ["JOBS", "long_run", "run_one"]

JOBS = ("simulate", "infer", "reconstruct")
_WINDOW = 1000  # particles over which speed is told


def long_run(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return, job by job, peak memory and milliseconds a particle of the first and the last
    thousand.

    What a job tells stays in the folder as ``JOB.json``; a job that has one there is not run again.
    """
    folder = folder.resolve()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for job in JOBS:
        if not (folder / f"{job}.json").is_file():
            command = [sys.executable, "-m", "_long_run", job, str(folder), str(number)]
            subprocess.run(command, env=environment, check=True, cwd=Path(__file__).parent)
    return [_row(job, number, json.loads((folder / f"{job}.json").read_text())) for job in JOBS]


def _row(job: str, number: int, told: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table from what a job's process told."""
    particles, cpu, peak = np.array(told["marks"]).T
    edges = np.arange(particles[0], particles[-1], min(_WINDOW, (number - particles[0]) / 2))
    edges = np.append(edges[:-1], particles[-1])  # the last window is the longer one, not a sliver
    each = np.diff(np.interp(edges, particles, cpu)) / np.diff(edges) * 1e3
    after = peak[np.searchsorted(particles, min(number // 10, 10_000))]
    return {
        "job": job,
        "particles": number,
        "first thousand, CPU ms": float(each[0]),
        "last thousand, CPU ms": float(each[-1]),
        "median, CPU ms": float(np.median(each)),
        "1st and 99th percentile, CPU ms": " ".join(
            f"{value:.3g}" for value in np.percentile(each, [1, 99])
        ),
        "whole process, CPU s": float(told["cpu_s"]),
        "wall s": float(told["wall_s"]),
        "peak GB at a tenth": float(after),
        "peak GB before the end": float(peak[-1]),
        "peak GB": float(told["peak_gb"]),
        **told["metrics"],
    }


def run_one(job: str, folder: Path, number: int) -> None:
    """Run a job in this process and write ``JOB.json``: CPU time and peak memory so far after each
    step.
    """
    start = time.perf_counter()
    marks: list[tuple[int, float, float]] = []

    def note(event: Event) -> None:
        if isinstance(event, Progress) and event.message.startswith(
            ("simulated", "predicted", "inserted")
        ):
            marks.append((int(event.message.split()[1]), time.process_time(), peak_gigabytes()))

    with as_file(files("napari_cryosphere") / "data" / "sample_model.safetensors") as model:
        result = follow(_events(job, folder, number, model), note)
    wanted = ("median_angle_to_input_poses_degrees", "half_map_resolution_0143_angstrom")
    metrics = {name: result.metrics.get(name, "") for name in wanted}
    told = {"marks": marks, "metrics": metrics, "peak_gb": peak_gigabytes()}
    told |= {"cpu_s": time.process_time(), "wall_s": time.perf_counter() - start}
    (folder / f"{job}.json").write_text(json.dumps(told))


def _events(job: str, folder: Path, number: int, model: Path) -> Events:
    from napari_cryosphere.jobs.configs import InferConfig, ReconstructConfig

    particles, predicted = folder / "particles.star", folder / "predicted.star"
    if job == "simulate":
        from napari_cryosphere.jobs.sample import make_sample

        return make_sample(folder, number)
    if job == "infer":
        from napari_cryosphere.jobs.infer import infer

        settings = {"model": model, "output": predicted, "device": "cpu", "overwrite": True}
        return infer(InferConfig(particles=particles, **settings))
    from napari_cryosphere.jobs.reconstruct import reconstruct

    output = folder / "map.mrc"
    return reconstruct(
        ReconstructConfig(particles=predicted, output=output, half_maps=True, overwrite=True)
    )


if __name__ == "__main__":
    run_one(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
