"""Ratios that must not get worse: this package against other programs on the same work, in one run.

``--against docs/results/ratios.json`` compares with what was reached before and ends with status 1 where a
ratio of CPU seconds has fallen by more than 15 %. Of each task the best of three ratios counts: a busy
machine makes one side slower now and then.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import cpu_seconds, write_figures

from alignment import throughput
from napari_cryosphere.imaging.fourier import rescale
from napari_cryosphere.imaging.preprocess import rescale_to_grid
from napari_cryosphere.particles import ImageGrid
from so3 import activation, grid_evaluation

LEAST = 0.85  # of an earlier ratio
TRIES = 3
PACKAGES = ["torch", "numpy", "e3nn"]


def rescaling() -> float:
    """Images of 128 px to 32 px, against cutting their transform."""
    images = torch.randn(256, 128, 128)
    grids = ImageGrid(128, 1.0), ImageGrid(32, 4.0)
    ours = cpu_seconds(lambda: rescale_to_grid(images, *grids, keep_noise=False), 5)
    return cpu_seconds(lambda: rescale(images, 32), 5) / ours


def searching() -> float:
    """A search of 36,864 poses and shifts, against a plain product of matrices as large: its ideal."""
    row = throughput(64, 2, 4.0, 32)
    matrices = torch.randn(2, 1024, 1024)
    product = cpu_seconds(lambda: matrices[0] @ matrices[1], 10)
    return 1e3 * product / row["search_cpu_ms_a_particle"]


TASKS: dict[str, Callable[[], float]] = {
    "degree 6 on 36,864 rotations, against a dense matrix": lambda: float(
        grid_evaluation(6, 3, 32, 5)["ratio"]
    ),
    "ReLU on SO(3), degree 6, against e3nn": lambda: float(activation(6, 128, 3)["ratio"]),
    "rescaling 128 px to 32 px, against a cut transform": rescaling,
    "search of a particle, against a product of 1024 x 1024 matrices": searching,
}


def fallen(now: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[str]:
    """Return one line for each task whose ratio has fallen below what is allowed."""
    known = {row["task"]: row["ratio"] for row in before}
    return [
        f"{row['task']}: {row['ratio']:.3g}, before {known[row['task']]:.3g}"
        for row in now
        if row["ratio"] < LEAST * known.get(row["task"], 0)
    ]


def main() -> int:
    """Measure, write, compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the values here")
    parser.add_argument("--against", type=Path, help="values to compare with")
    parser.add_argument("--quick", action="store_true", help="one try instead of three")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tries = 1 if arguments.quick else TRIES
    rows = [
        {"task": name, "ratio": max(measure() for _ in range(tries))}
        for name, measure in TASKS.items()
    ]
    for row in rows:
        print(f"{row['task']}: {row['ratio']:.3g}")
    write_figures("ratios", rows, arguments, PACKAGES)
    if arguments.against is None:
        return 0
    worse = fallen(rows, json.loads(arguments.against.read_text())["rows"])
    for line in worse:
        print(f"worse: {line}", file=sys.stderr)
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
