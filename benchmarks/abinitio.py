"""Maps and poses from images alone: ``abinitio``, then ``refine`` from its map, seed by seed.

Simulated ribosome (C1) and beta-galactosidase (D2), also with preferred views: four fifths of the
particles about one axis, 98 % of these within 15 degrees. Two kinds of particles in one set
(`abinitio --classes 2`), and one kind sought as three. Errors are angles to the true poses after the
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
    """Particles, their true map and its symmetry; searches do not read the particles' true poses."""

    name: str
    symmetry: str
    particles: Path
    map: Path


PARTICLES = DATA / "particles"
SAMPLES = [
    Sample(name, symmetry, PARTICLES / f"{name}_train.star", PARTICLES / f"{name}_truth.mrc")
    for name, symmetry in (("betagalD2", "D2"), ("ribo70S", "C1"))
]
PREFERENCE, PREFERRED = "60", "0.8"  # strength, and share of the particles
VIEWED = {"betagalD2": "0.1", "ribo70S": "0.05"}
"""Signal-to-noise ratio of the sets with preferred views, 2000 particles each: that of the other sets."""


def preferred(sample: Sample, folder: Path) -> Sample:
    """Return a sample of the same map with preferred views."""
    star = folder / f"{sample.name}.star"
    command = [*PROGRAM, "simulate", str(sample.map), "--output", str(star), "--number", "2000"]
    command += ["--symmetry", sample.symmetry, "--snr", VIEWED[sample.name], "--quiet"]
    command += ["--preference", PREFERENCE, "--preferred-share", PREFERRED]
    subprocess.run([*command, "--preferred-axis", "1", "2", "3"], check=True)
    return Sample(f"{sample.name}_preferred", sample.symmetry, star, sample.map)


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


def run(seed: int, sample: Sample, folder: Path, refining: bool) -> tuple[float, float, str]:
    """Run both commands, or the first; returns the CPU seconds of each and what a failed search said."""
    first = [*PROGRAM, "abinitio", str(sample.particles), "--output", str(folder / "initial")]
    first += ["--symmetry", sample.symmetry, "--seed", str(seed), "--quiet"]
    said: list[subprocess.CompletedProcess[str]] = []

    def search() -> None:
        said.append(subprocess.run(first, capture_output=True, text=True, check=False))

    seconds = child_cpu_seconds(search)
    if said[0].returncode:
        return seconds, 0.0, said[0].stderr.strip()
    if not refining:
        return seconds, 0.0, ""
    second = [*PROGRAM, "refine", str(sample.particles), "--map", str(folder / "initial/map.mrc")]
    second += ["--output", str(folder / "refined"), "--symmetry", sample.symmetry, "--quiet"]
    return seconds, child_cpu_seconds(lambda: subprocess.run(second, check=True)), ""


def row_of(seed: int, sample: Sample, refining: bool = True) -> dict[str, Any]:
    """Return one line of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        searched, refined, said = run(seed, sample, folder, refining)
        row: dict[str, Any] = {"sample": sample.name, "seed": seed, "said": said}
        row |= {"abinitio_cpu_s": searched, "refine_cpu_s": refined}
        if said:
            return row
        truth = ParticleStack.read(sample.particles, require_images=False).rotations()
        true_map = DensityMap.read(sample.map)
        mask = soft_mask(true_map.voxels, true_map.pixel_size_angstrom)
        for stage in ("initial", "refined")[: 1 + refining]:
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


def kinds_row(seed: int, folder: Path, classes: int = 2) -> dict[str, Any]:
    """Return how a GPCR complex and beta-galactosidase, 720 and 480, are told apart; of three classes, the
    complex alone.
    """
    maps = [folder / "gpcr.mrc", folder / "betagal.mrc"]
    sources = [DATA / "realistic/gpcr.mrc", PARTICLES / "betagalD2_truth.mrc"]
    for source, path in zip(sources, maps, strict=True):
        command = [*PROGRAM, "convert", str(source), str(path), "--box", "64", "--pixel-size", "4"]
        subprocess.run([*command, "--overwrite", "--quiet"], check=True)
    star = folder / "mixture.star"
    command = [*PROGRAM, "simulate", str(maps[0]), "--output", str(star), "--number", "1200"]
    command += ["--overwrite", "--quiet", "--seed", str(seed)]
    command += ["--snr", "0.2"]
    if classes == 2:
        command[-1] = "0.4"
        command += ["--other-map", str(maps[1]), "--share", "0.6", "--share", "0.4"]
    subprocess.run(command, check=True)
    command = [*PROGRAM, "abinitio", str(star), "--output", str(folder / "found"), "--quiet"]
    command += ["--classes", str(classes), "--resolution", "25", "--overwrite", "--seed", str(seed)]
    said: list[subprocess.CompletedProcess[str]] = []

    def search() -> None:
        said.append(subprocess.run(command, capture_output=True, text=True, check=False))

    row: dict[str, Any] = {"sample": "kinds" if classes == 2 else "one_kind", "seed": seed}
    row["abinitio_cpu_s"] = child_cpu_seconds(search)
    row["said"] = said[0].stderr.strip() if said[0].returncode else ""
    if row["said"]:
        return row
    truth, found = (
        ParticleStack.read(path, require_images=False)
        for path in (star, folder / "found/particles.star")
    )
    number = len(list((folder / "found").glob("map*.mrc")))
    row["kinds"] = number
    true = np.ones(len(truth), dtype=int)
    own = true
    if classes == 2:
        true = truth.particles["rlnClassNumber"].to_numpy(int)
    if number > 1:
        own = found.particles["rlnClassNumber"].to_numpy(int)
    for kind, (path, symmetry) in enumerate(zip(maps[:classes], ("C1", "D2"), strict=False), 1):
        mine = true == kind
        if not mine.any():
            continue
        chosen = int(np.bincount(own[mine]).argmax())
        right = mine & (own == chosen)
        row[f"own_percent_{kind}"] = 100 * float(right.sum() / mine.sum())
        errors = free_frame_errors(truth.rotations()[right], found.rotations()[right], symmetry)
        row[f"median_degrees_{kind}"] = float(np.median(errors))
        true_map = DensityMap.read(path)
        name = "map.mrc" if chosen == 1 else f"map_class{chosen:03d}.mrc"
        density = DensityMap.read(folder / "found" / name)
        laid = align_maps(true_map, density).apply(density)
        mask = soft_mask(true_map.voxels, true_map.pixel_size_angstrom)
        row[f"correlation_{kind}"] = masked_correlation(laid.voxels, true_map.voxels, mask)
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
    names = [name for sample in SAMPLES for name in (sample.name, f"{sample.name}_preferred")]
    parser.add_argument("--only", choices=[*names, "kinds", "one_kind", "noise"])
    parser.add_argument("--json", type=Path, help="write the values here")
    arguments = parser.parse_args()
    if not has_data():
        return
    wanted = arguments.only or ("betagalD2" if arguments.quick else None)
    rows, seeds = list[dict[str, Any]](), range(1 if arguments.quick else arguments.seeds)

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(row, flush=True)

    with tempfile.TemporaryDirectory() as name:
        for sample in SAMPLES:
            if wanted in (None, sample.name):
                for seed in seeds:
                    add(row_of(seed, sample))
            if wanted in (None, f"{sample.name}_preferred"):
                viewed = preferred(sample, Path(name))
                for seed in seeds:
                    add(row_of(seed, viewed, refining=False))
        for kind, classes in (("kinds", 2), ("one_kind", 3)):
            for seed in seeds if wanted in (None, kind) else ():
                add(kinds_row(seed, Path(name), classes))
    if wanted in (None, "noise"):
        add(noise_row())
    write_figures("abinitio", rows, arguments, ["torch", "numpy", "scipy"])


if __name__ == "__main__":
    main()
