"""Alignment of realistic simulations: solvent noise, gradients, junk, wrong CTFs, a second state.

One row per set of `realistic/` (its README says what each adds): errors of the good particles,
claimed confidence against the share within 30 degrees, how many true poses the 50 % and 90 %
credible sets hold, how well confidence tells lost particles and presence tells junk (areas under
the ROC curve), and CPU time of the whole command, start included, with and without
``--distributions``. RELION's columns are those of the README: one global iteration at order 2 and
two local ones, same particles and reference.

``--train MINUTES`` adds the table of `infer --refine`: a network is trained for so long on the set
with everything (junk included, at the poses that `align` finds), and refined against the reference.

CRYOSPHERE_SHARED_DATA or ``--data`` names the folder of the reference data. ``--quick`` takes the
base set and the one with everything, every fifth particle of it.
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
from pathlib import Path
from typing import Any

import numpy as np
import starfile
from _common import DATA, child_cpu_seconds, report, roc_area
from numpy.typing import NDArray

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.distributions.store import DistributionStore
from napari_cryosphere.so3.rotations import geodesic_distance_degrees

RELION = {
    "r0": {"degrees": 3.6, "beyond_30_%": 3.2, "shift_px": 0.64},
    "r1": {"degrees": 3.7, "beyond_30_%": 4.4, "shift_px": 0.69},
    "r2": {"degrees": 3.6, "beyond_30_%": 2.8, "shift_px": 0.65},
    "r4": {"degrees": 4.6, "beyond_30_%": 3.2, "shift_px": 0.87},
    "all": {"degrees": 5.4, "beyond_30_%": 5.0, "shift_px": 0.74},
}
"""RELION 3.1.3's global and local search; from realistic/README.md."""
RELION_MS_PER_PARTICLE = 198.0
"""CPU time of that search, of one machine with our 5.6 ms there; from realistic/README.md."""
LOST_DEGREES = 30.0
PRESENCE = "cryospherePresence"
QUICK = {"r0": 1, "all": 5}
"""Sets of a quick run, and of which every so many particles are taken."""


def run(command: Sequence[str], folder: Path) -> float:
    """Run a program with two threads; return CPU seconds of the whole process."""
    waiting = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}

    def work() -> None:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | waiting, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")

    return child_cpu_seconds(work)


def ours(verb: str, particles: Path, folder: Path, arguments: Sequence[str]) -> float:
    """Run a command of napari-cryosphere on particles; return its CPU seconds."""
    program = [sys.executable, "-m", "napari_cryosphere"]
    return run([*program, verb, str(particles), *arguments], folder)


def subset(stem: Path, every: int, folder: Path) -> tuple[Path, Path, list[dict[str, str]]]:
    """Write every so many particles and their truth; return both files and the labels' rows."""
    with Path(f"{stem}_labels.csv").open() as stream:
        labels = list(csv.DictReader(stream))[::every]
    paths = []
    for name in (f"{stem.name}.star", f"{stem.name}_truth.star"):
        tables = starfile.read(stem.with_name(name))
        tables["particles"] = tables["particles"].iloc[::every]
        starfile.write(tables, folder / name)
        paths.append(folder / name)
    return paths[0], paths[1], labels


def row_of(data: Path, name: str, every: int, options: Sequence[str]) -> dict[str, Any]:
    """Align one set twice, without and with posteriors, and score it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        particles, truth_star, labels = subset(data / f"gpcr_{name}", every, folder)
        common = ["--map", str(data / "gpcr_ref15.mrc"), "--data-dir", str(data), *options]
        plain = ours("align", particles, folder, [*common, "--output", "plain.star"])
        posteriors = ["--output", "full.star", "--distributions", "full.zarr"]
        full = ours("align", particles, folder, [*common, *posteriors])
        truth = ParticleStack.read(truth_star, data)
        found = ParticleStack.read(folder / "plain.star", data)
        levels = DistributionStore(folder / "full.zarr")[:].credible_level(truth.rotations())
    return scores(name, truth, found, levels, labels) | {
        "ms_per_particle": 1e3 * plain / len(found),
        "relion_ms_per_particle": RELION_MS_PER_PARTICLE,
        "relion_cpu_over_ours": RELION_MS_PER_PARTICLE / (1e3 * plain / len(found)),
        "distributions_cost": full / plain,
        **{f"relion_{key}": value for key, value in RELION[name].items()},
    }


def errors(
    truth: ParticleStack, found: ParticleStack, good: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], dict[str, float]]:
    """Return which good particles are lost, and how far the good ones are from the truth."""
    angles = geodesic_distance_degrees(truth.rotations(), found.rotations())[good]
    shifts = np.linalg.norm(truth.shifts_angstrom() - found.shifts_angstrom(), axis=1)[good]
    lost = angles > LOST_DEGREES
    return lost, {
        "degrees": float(np.median(angles)),
        "beyond_30_%": 100 * float(lost.mean()),
        "shift_px": float(np.median(shifts)) / found.grid.pixel_size_angstrom,
    }


def refined_row(data: Path, minutes: float) -> dict[str, Any]:
    """Train on the set with everything, refine the network's poses, and score what is claimed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        particles, truth_star, labels = subset(data / "gpcr_all", 1, folder)
        common = ["--map", str(data / "gpcr_ref15.mrc"), "--data-dir", str(data)]
        ours("align", particles, folder, [*common, "--output", "aligned.star"])
        training = [*common, "--minutes", str(minutes), "--output", "run"]
        ours("train", folder / "aligned.star", folder, training)
        refining = [*common, "--model", "run", "--refine", "--output", "refined.star"]
        cpu = ours("infer", particles, folder, refining)
        truth = ParticleStack.read(truth_star, data)
        found = ParticleStack.read(folder / "refined.star", data)
    good = np.array([label["kind"] == "good" for label in labels])
    confidence, presence = _column(found, "cryosphereConfidence"), _column(found, PRESENCE)
    lost, row = errors(truth, found, good)
    return row | {
        "confidence": float(confidence[good].mean()),
        "within_30": float(1 - lost.mean()),
        "confidence_of_junk": float(confidence[~good].mean()),
        "auroc_junk": roc_area(-presence, ~good),
        "good_below_half_presence_%": 100 * float(np.mean(good[presence < 0.5])),
        "ms_per_particle": 1e3 * cpu / len(found),
    }


def scores(
    name: str,
    truth: ParticleStack,
    found: ParticleStack,
    levels: NDArray[np.float64],
    labels: list[dict[str, str]],
) -> dict[str, Any]:
    """Return how well poses, confidence, credible sets and presence fit the truth."""
    good = np.array([label["kind"] == "good" for label in labels])
    lost, far = errors(truth, found, good)
    confidence = _column(found, "cryosphereConfidence")
    presence = _column(found, PRESENCE)
    doubtful = presence < 0.5
    return {
        "set": name,
        "good": int(good.sum()),
        **far,
        "confidence": float(confidence[good].mean()),
        "within_30": float(1 - lost.mean()),
        "in_50_%_set": 100 * float(np.mean(levels[good] <= 0.5)),
        "in_90_%_set": 100 * float(np.mean(levels[good] <= 0.9)),
        "auroc_lost": roc_area(-confidence[good], lost) if lost.any() else float("nan"),
        "auroc_junk": float("nan") if good.all() else roc_area(-presence, ~good),
        "good_below_half_presence_%": 100 * float(np.mean(good[doubtful]))
        if doubtful.any()
        else float("nan"),
    }


def _column(found: ParticleStack, name: str) -> NDArray[np.float64]:
    """Return a column of numbers; presence is the confidence where a version writes none."""
    column = name if name in found.particles else "cryosphereConfidence"
    return found.particles[column].to_numpy(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sets, about a minute")
    parser.add_argument("--json", type=Path, help="write the values here")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the reference data")
    parser.add_argument("--only", nargs="+", choices=list(RELION), help="some of the sets")
    parser.add_argument(
        "--train", type=float, metavar="MINUTES", help="table of infer --refine too"
    )
    parser.add_argument("--options", default="", help="further options of align")
    arguments = parser.parse_args()
    data = arguments.data / "realistic"
    if not data.is_dir():
        print(f"not run: no realistic particles at {data} (CRYOSPHERE_SHARED_DATA, --data)")
        return
    sets = QUICK if arguments.quick else dict.fromkeys(RELION, 1)
    rows = []
    for name, every in sets.items():
        if arguments.only and name not in arguments.only:
            continue
        row = row_of(data, name, every, arguments.options.split())
        sys.stderr.write(json.dumps(row) + "\n")  # a run that is cut short is not lost
        rows.append(row)
    packages = ["torch", "numpy", "starfile"]
    report("realistic", rows, arguments, packages)
    if arguments.train:
        if arguments.json:
            arguments.json = arguments.json.with_stem(f"{arguments.json.stem}-refined")
        report("refined", [refined_row(data, arguments.train)], arguments, packages)


if __name__ == "__main__":
    main()
