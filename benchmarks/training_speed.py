"""How many images a second a training run learns from, with one thread and with all.

All share either every batch, as the product does, or every operation on it, as torch does by itself.
Runs of a few steps are made one after another, one way, the next, the first again, so that other
work on the machine weighs on all alike; the ratio to one thread is the median over neighbours.
Starting is measured once: opening, preparing, the map, noise and contrast.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

from _common import DATA, has_data, options, report

STEPS = 12  # of a run that is timed, after two that are not
WARM = 2


def _prepared(particles: Path) -> tuple[Any, Any, dict[str, float]]:
    """Return the config, what a run is shown, and how long it took to prepare, wall and CPU seconds."""
    from napari_cryosphere.jobs._training_data import training_data
    from napari_cryosphere.jobs.configs.training import TrainConfig
    from napari_cryosphere.jobs.running.inputs import open_particles

    config = TrainConfig(particles=particles, output=Path("unused"))
    wall, cpu = time.perf_counter(), time.process_time()
    events = training_data(open_particles(config), config)
    while True:
        try:
            next(events)
        except StopIteration as end:
            data = end.value
            break
    return config, data, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _speed(config: Any, data: Any, threads: int, share_batches: bool) -> dict[str, float]:
    """Return images a second and CPU milliseconds an image of a few steps of the product's own loop."""
    import torch

    from napari_cryosphere.model.pose_model import build_network
    from napari_cryosphere.training.loop import LoopSettings, train_network
    from napari_cryosphere.training.team import threads_for
    from napari_cryosphere.training.trainer import Optimisation, Trainer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network, size = build_network(config.network), config.batch_size
    optimisation = Optimisation(config.learning_rate, config.weight_decay)
    trainer = Trainer(network, config.symmetry, optimisation, threads=threads_for(network, size, 1))
    settings = LoopSettings(size, total_images=10**9, report_seconds=0)
    reports = train_network(trainer, data.source, data.validation, config.symmetry, settings)
    for _ in range(WARM):
        next(reports)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        last = next(reports)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    reports.close()
    images = STEPS * size
    return {"images/s": images / wall, "CPU ms/image": cpu / images * 1e3, "loss": last.loss}


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each way; ``ratio`` is its speed over that of one thread."""
    config, data, start = _prepared(DATA / "particles" / "ribo70S_train.star")
    cores, rounds = os.cpu_count() or 1, 3 if arguments.quick else 12
    ways = {
        "one thread": (1, False),
        f"{cores} threads share batches": (cores, True),
        f"{cores} threads share operations": (cores, False),
    }
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (threads, share_batches) in ways.items():
            runs[way].append(_speed(config, data, threads, share_batches))
    alone = [each["images/s"] for each in runs["one thread"]]
    rows: list[dict[str, Any]] = []
    for way, found in runs.items():
        medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
        ratios = [each["images/s"] / one for each, one in zip(found, alone, strict=True)]
        rows.append({"way": way, **medians, "ratio": statistics.median(ratios)})
    print(f"start: {start['wall']:.1f} s, {start['cpu']:.1f} CPU s")
    return rows


def main() -> None:
    """Run the benchmark."""
    arguments = options(__doc__ or "")
    if has_data():
        report("training_speed", compare(arguments), arguments, ["torch"])


if __name__ == "__main__":
    main()
