"""The pose network: trained on particles and their poses alone, judged on others.

Three tables. *Poses*: presets trained for the same time on the same particles; errors of the network
alone and after refinement of its best modes against the map that the training particles gave; how
often the truth lies in the credible sets; how well the confidence tells large errors (area under
the ROC curve, errors beyond 30 degrees); cost. *In-plane turns*: how far the predicted pose of a
turned image lies from the turned pose. *Defocus*: errors and credible sets in each quarter of the
test set by defocus.

The first needs the reference data (CRYOSPHERE_SHARED_DATA names its folder); ``--minutes`` is the
time that a training takes. ``--json FILE`` writes one file a table, named FILE's stem and the
table.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import DATA, has_data, report, roc_area
from numpy.typing import NDArray

from napari_cryosphere.jobs.configs import InferConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.infer import images_for, infer
from napari_cryosphere.jobs.train import train
from napari_cryosphere.model.pose_model import MODEL_FILE, PoseModel
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.distributions.store import DistributionStore
from napari_cryosphere.so3.rotations import geodesic_distance_degrees
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.training.sources import turn_and_shift, turned_rotations

PACKAGES = ["torch", "numpy", "scipy"]
LARGE_DEGREES = 30
TURNS = np.radians([7.3, 45.0, 91.0, 133.7, 201.2, 300.4])


@dataclass(frozen=True)
class Sample:
    """A training and a test set of the reference data."""

    name: str
    symmetry: str

    def path(self, part: str) -> Path:
        """The STAR file of ``train`` or ``test``."""
        return DATA / "particles" / f"{self.name}_{part}.star"


SAMPLES = [Sample("ribo70S", "C1"), Sample("betagalD2", "D2")]


def trained(
    sample: Sample, preset: str, arguments: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Train, and return what that took."""
    config = TrainConfig(
        particles=sample.path("train"),
        output=folder,
        preset=preset,
        symmetry=sample.symmetry,
        minutes=arguments.minutes,
        seed=arguments.seed,
    )
    start, wall = time.process_time(), time.monotonic()
    result = follow(train(config), _print_progress)
    model = folder / MODEL_FILE
    weights = sum(
        value.numel() * value.element_size()
        for value in PoseModel.load(model).network.state_dict().values()
    )
    return {
        "set": sample.name,
        "preset": preset,
        "train_wall_s": time.monotonic() - wall,
        "train_cpu_s": time.process_time() - start,
        "images": result.metrics["images"],
        "file_over_weights": model.stat().st_size / weights,
    }


def _print_progress(event: Any) -> None:
    metrics = getattr(event, "metrics", {})
    if "validation_median_degrees" in metrics:
        print(getattr(event, "message", ""), flush=True)


def predicted(
    sample: Sample, arguments: argparse.Namespace, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Predict the test set, and score it: all of it, and its quarters by defocus."""
    stack, blind = _test_set(sample, arguments, folder)
    start = time.process_time()
    config = InferConfig(
        particles=blind,
        model=folder,
        output=folder / "predicted.star",
        distributions=folder / "d.zarr",
    )
    follow(infer(config), lambda event: None)
    spent = time.process_time() - start
    found = ParticleStack.read(config.output)
    errors = angular_error_degrees(stack.rotations(), found.rotations(), sample.symmetry)
    levels = DistributionStore(folder / "d.zarr")[:].credible_level(stack.rotations())
    large = errors > LARGE_DEGREES
    ctf = stack.ctf_parameters()
    defocus = (ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2
    quarters = [
        {"defocus_angstrom": float(defocus[rows].mean())} | _scores(errors[rows], levels[rows])
        for rows in np.array_split(np.argsort(defocus), 4)
    ]
    return _scores(errors, levels) | {
        "auroc_confidence": roc_area(-_column(found, "cryosphereConfidence"), large),
        "auroc_max_probability": roc_area(-_column(found, "rlnMaxValueProbDistribution"), large),
        "infer_ms": 1e3 * spent / len(stack),
    }, quarters


def _scores(errors: NDArray[np.float64], levels: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "median_deg": float(np.median(errors)),
        "beyond_30": float((errors > LARGE_DEGREES).mean()),
        "in_50_set": float((levels <= 0.5).mean()),
        "in_90_set": float((levels <= 0.9).mean()),
    }


def refined(sample: Sample, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Refine the best modes on the test set against the training particles' map, and score them."""
    stack, blind = _test_set(sample, arguments, folder)
    start = time.process_time()
    config = InferConfig(
        particles=blind,
        model=folder,
        output=folder / "refined.star",
        refine=True,
        modes=arguments.modes,
        overwrite=True,
    )
    follow(infer(config), lambda event: None)
    spent = time.process_time() - start
    found = ParticleStack.read(config.output)
    errors = angular_error_degrees(stack.rotations(), found.rotations(), sample.symmetry)
    shifts = np.linalg.norm(found.shifts_angstrom() - stack.shifts_angstrom(), axis=1)
    return {
        "refined_median_deg": float(np.median(errors)),
        "refined_beyond_30": float((errors > LARGE_DEGREES).mean()),
        "refined_shift_px": float(np.median(shifts)) / stack.pixel_size_angstrom,
        "infer_and_refine_ms": 1e3 * spent / len(stack),
    }


def _test_set(
    sample: Sample, arguments: argparse.Namespace, folder: Path
) -> tuple[ParticleStack, Path]:
    """Return the test particles, and a file with them whose shifts are set to 0: nothing knows the
    truth.
    """
    stack = ParticleStack.read(sample.path("test"))
    if arguments.quick:
        stack = stack[:: max(1, len(stack) // 100)]
    blind = folder / "blind.star"
    stack.with_poses(stack.rotations(), np.zeros((len(stack), 2))).save(blind, overwrite=True)
    return stack, blind


def _column(stack: ParticleStack, name: str) -> NDArray[np.float64]:
    return stack.particles[name].to_numpy(float)


def turns(sample: Sample, preset: str, folder: Path) -> dict[str, Any]:
    """Turn images and compare the predicted poses with the turned ones."""
    model = PoseModel.load(folder)
    stack = ParticleStack.read(sample.path("test"))
    chosen = stack[:: max(1, len(stack) // 100)]
    images, ctf = images_for(model, chosen).with_ctf(slice(None))
    still = model.predict(images, ctf).mode(1).rotations[:, 0]
    apart = []
    for angle in TURNS:
        angles = torch.full((len(images),), float(angle))
        moved = model.predict(turn_and_shift(images, angles, torch.zeros(len(images), 2)), ctf)
        expected = turned_rotations(torch.from_numpy(still), angles.double()).numpy()
        found = moved.mode(1).rotations[:, 0]
        apart.append(
            geodesic_distance_degrees(expected, found)
            if sample.symmetry == "C1"
            else angular_error_degrees(expected, found, sample.symmetry)
        )
    every = np.concatenate(apart)
    return {
        "set": sample.name,
        "preset": preset,
        "median_deg": float(np.median(every)),
        "p90_deg": float(np.percentile(every, 90)),
        "largest_deg": float(every.max()),
    }


def main() -> None:
    """Run all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--minutes", type=float, default=20.0, help="time of a training")
    modes = InferConfig.model_fields["modes"].default
    parser.add_argument(
        "--modes", type=int, default=modes, help="modes that are compared with the map"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", default=[sample.name for sample in SAMPLES])
    parser.add_argument("--presets", nargs="+", default=["default", "image2sphere"])
    parser.add_argument(
        "--keep", type=Path, help="folder for the runs; one that is there is not trained again"
    )
    arguments = parser.parse_args()
    if not has_data():
        return
    if arguments.quick:
        arguments.minutes = 0.1
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    poses, plane, by_defocus = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        for sample in SAMPLES:
            if sample.name not in arguments.sets:
                continue
            for preset in arguments.presets:
                folder = (arguments.keep or Path(temporary)) / f"{sample.name}-{preset}"
                cost = folder / "cost.json"
                if not cost.is_file():
                    cost_of = trained(sample, preset, arguments, folder)
                    cost.write_text(json.dumps(cost_of))
                scores, quarters = predicted(sample, arguments, folder)
                row = json.loads(cost.read_text()) | scores
                by_defocus += [{"set": sample.name, "preset": preset} | each for each in quarters]
                if (folder / "map.mrc").is_file():
                    row |= refined(sample, arguments, folder)
                else:
                    row |= dict.fromkeys(
                        (
                            "refined_median_deg",
                            "refined_beyond_30",
                            "refined_shift_px",
                            "infer_and_refine_ms",
                        )
                    )
                poses.append(row)
                plane.append(turns(sample, preset, folder))
    for name, rows in (("poses", poses), ("turns", plane), ("defocus", by_defocus)):
        print(f"\n{name}")
        part = argparse.Namespace(json=None)
        if arguments.json:
            part.json = arguments.json.with_name(f"{arguments.json.stem}-{name}.json")
        report(name, rows, part, PACKAGES)


if __name__ == "__main__":
    main()
