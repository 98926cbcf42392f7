"""Maps and poses from images alone: ``abinitio``, then ``refine`` from its map, seed by seed.

Simulated ribosome (C1) and beta-galactosidase (D2). Errors are angles to the true poses after the
one rotation and hand of the whole set that images cannot tell; correlation is with the true map,
inside a mask. A run that failed is told apart by its exit status: 1 with one line, or wrong and
silent. Pure noise has to end with status 1. CPU seconds are those of the whole processes. Needs the
reference data (CRYOSPHERE_SHARED_DATA names its folder).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import DATA, child_cpu_seconds, has_data, write_figures
from numpy.typing import NDArray

from napari_cryosphere.particles import (
    DensityMap,
    ParticleStack,
    read_star,
    write_stack,
    write_star,
)
from napari_cryosphere.reconstruction import masked_correlation, soft_mask
from napari_cryosphere.reconstruction.map_alignment import align_maps
from napari_cryosphere.so3.symmetry import angular_error_degrees

PROGRAM = [sys.executable, "-m", "napari_cryosphere"]
MIRROR = np.diag([1.0, 1.0, -1.0])
FRAMES = 40  # particles whose own errors propose the frame of the set
NOISE = 1000  # images of pure noise


@dataclass(frozen=True)
class Sample:
    """Particles, their true map and its symmetry."""

    name: str
    symmetry: str

    @property
    def particles(self) -> Path:
        """The STAR file with the true poses; searches do not read them."""
        return DATA / f"particles/{self.name}_train.star"

    @property
    def map(self) -> Path:
        """The true map."""
        return DATA / f"particles/{self.name}_truth.mrc"


SAMPLES = [Sample("betagalD2", "D2"), Sample("ribo70S", "C1")]


def free_frame_errors(
    truth: NDArray[np.float64], found: NDArray[np.float64], symmetry: str
) -> NDArray[np.float64]:
    """Return angles in degrees, ``(n,)``, after the rotation and hand that fit the whole set best."""
    rows = np.linspace(0, len(truth) - 1, FRAMES).astype(int)
    best = np.full(len(truth), np.inf)
    for poses in (found, MIRROR @ found @ MIRROR):
        for row in rows:
            frame = truth[row] @ poses[row].T
            errors = angular_error_degrees(truth, frame @ poses, symmetry)
            best = min(best, errors, key=np.median)
    return best


def run(seed: int, sample: Sample, folder: Path) -> tuple[float, float, str]:
    """Run both commands; returns the CPU seconds of each and what a failed search said."""
    first = [*PROGRAM, "abinitio", str(sample.particles), "--output", str(folder / "initial")]
    first += ["--symmetry", sample.symmetry, "--seed", str(seed), "--quiet"]
    said: list[subprocess.CompletedProcess[str]] = []

    def search() -> None:
        said.append(subprocess.run(first, capture_output=True, text=True, check=False))

    seconds = child_cpu_seconds(search)
    if said[0].returncode:
        return seconds, 0.0, said[0].stderr.strip()
    second = [*PROGRAM, "refine", str(sample.particles), "--map", str(folder / "initial/map.mrc")]
    second += ["--output", str(folder / "refined"), "--symmetry", sample.symmetry, "--quiet"]
    return seconds, child_cpu_seconds(lambda: subprocess.run(second, check=True)), ""


def row_of(seed: int, sample: Sample) -> dict[str, Any]:
    """Return one line of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        searched, refined, said = run(seed, sample, folder)
        row: dict[str, Any] = {"sample": sample.name, "seed": seed, "said": said}
        row |= {"abinitio_cpu_s": searched, "refine_cpu_s": refined}
        if said:
            return row
        truth = ParticleStack.read(sample.particles, require_images=False).rotations()
        true_map = DensityMap.read(sample.map)
        mask = soft_mask(true_map.voxels, true_map.pixel_size_angstrom)
        for stage in ("initial", "refined"):
            star = folder / stage / "particles.star"
            poses = ParticleStack.read(star, require_images=False).rotations()
            errors = free_frame_errors(truth, poses, sample.symmetry)
            found = DensityMap.read(folder / stage / "map.mrc")
            laid = align_maps(true_map, found).apply(found)
            row |= {
                f"{stage}_median_degrees": float(np.median(errors)),
                f"{stage}_beyond_30_percent": 100 * float(np.mean(errors > 30)),
                f"{stage}_correlation": masked_correlation(laid.voxels, true_map.voxels, mask),
            }
    return row


def noise_row() -> dict[str, Any]:
    """Return what the command says of images that hold nothing but noise."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = ParticleStack.read(SAMPLES[1].particles).grid
        images = np.random.default_rng(0).normal(size=(NOISE, grid.box, grid.box))
        write_stack(images.astype(np.float32), folder / "noise.mrcs", grid.pixel_size_angstrom)
        tables = read_star(SAMPLES[1].particles)
        table = tables["particles"].iloc[:NOISE].copy()
        table["rlnImageName"] = [f"{row + 1:06d}@noise.mrcs" for row in range(NOISE)]
        write_star(tables | {"particles": table}, folder / "noise.star")
        command = [*PROGRAM, "abinitio", str(folder / "noise.star"), "--starts", "1", "--quiet"]
        command += ["--output", str(folder / "found")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"sample": "noise", "status": done.returncode, "said": done.stderr.strip()}


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed of beta-galactosidase")
    parser.add_argument("--seeds", type=int, default=10, help="how many, counted from 0")
    names = [sample.name for sample in SAMPLES]
    parser.add_argument("--only", choices=[*names, "noise"])
    parser.add_argument("--json", type=Path, help="write the values here")
    arguments = parser.parse_args()
    if not has_data():
        return
    wanted = arguments.only or ("betagalD2" if arguments.quick else None)
    rows = []
    for sample in SAMPLES:
        if wanted not in (None, sample.name):
            continue
        for seed in range(1 if arguments.quick else arguments.seeds):
            rows.append(row_of(seed, sample))
            print(rows[-1], flush=True)
    if wanted in (None, "noise"):
        rows.append(noise_row())
        print(rows[-1], flush=True)
    write_figures("abinitio", rows, arguments, ["torch", "numpy", "scipy"])


if __name__ == "__main__":
    main()
