"""Gold-standard refinement from a coarse map, compared with RELION's auto-refine on the same particles.

Simulated ribosome and beta-galactosidase from the true map at 40 A (errors against the true poses,
correlation with the true map), real apoferritin from an atomic model's map at 30 A (half-map FSC
inside one soft sphere for both programs). ``--only junk`` adds as many images of pure noise to
beta-galactosidase, ``--only noise`` gives 1000 of them alone with the ribosome's map: nothing may be
seen. Coverage is the share of 1000 true poses in credible sets of posteriors under the map of the
other half, filtered as the last reference is. CPU seconds are those of the whole processes. Needs
the reference data (CRYOSPHERE_SHARED_DATA names its folder); ``--relion`` also runs relion_refine,
which takes an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import DATA, child_cpu_seconds, has_data, write_figures

from napari_cryosphere.imaging.map_mask import soft_sphere
from napari_cryosphere.jobs.align import AlignerInput, prepare_aligner
from napari_cryosphere.particles import (
    DensityMap,
    ParticleStack,
    read_star,
    spread_rows,
    write_stack,
    write_star,
)
from napari_cryosphere.reconstruction import (
    corrected_fsc,
    fourier_shell_correlation,
    masked_correlation,
    soft_mask,
)
from napari_cryosphere.reconstruction.filters import filtered_shells, whitened
from napari_cryosphere.so3.symmetry import angular_error_degrees

NOISE = 1000  # images of pure noise
COVERED = 1000  # particles whose credible sets are asked

PROGRAM = [sys.executable, "-m", "napari_cryosphere"]


@dataclass(frozen=True)
class Sample:
    """Particles, their starting map, and what RELION has to be given."""

    name: str
    particles: Path
    map: Path
    symmetry: str
    initial_angstrom: float
    diameter_angstrom: float
    has_truth: bool = True


SAMPLES = [
    Sample(
        "ribo70S",
        DATA / "particles/ribo70S_train.star",
        DATA / "particles/ribo70S_truth.mrc",
        "C1",
        40.0,
        280.0,
    ),
    Sample(
        "betagalD2",
        DATA / "particles/betagalD2_train.star",
        DATA / "particles/betagalD2_truth.mrc",
        "D2",
        40.0,
        190.0,
    ),
    Sample(
        "apoferritin",
        DATA / "real/apoferritin.star",
        DATA / "real/apoferritin_model_map.mrc",
        "O",
        30.0,
        150.0,
        has_truth=False,
    ),
]


def coverage(sample: Sample, found: dict[str, Path]) -> dict[str, float]:
    """Return the percentages of true poses in the 50 % and 90 % sets under the other half's map."""
    halves = [DensityMap.read(found[name]) for name in ("half1", "half2")]
    mask = DensityMap.read(found["mask"]).voxels
    began = sample.initial_angstrom
    curve = corrected_fsc(*whitened(*halves), mask, shared_angstrom=began).corrected
    first_below = int(np.flatnonzero(np.append(curve.values[1:] < 0.143, True))[0]) + 1
    weight = np.clip(curve.values, 0, 1)
    weight[first_below + 2 :] = 0
    detail = halves[0].box * halves[0].pixel_size_angstrom / (first_below + 1)
    stack, levels = ParticleStack.read(sample.particles).with_half_sets(), []
    for half, other in ((1, halves[1]), (2, halves[0])):
        mine = stack[np.flatnonzero(stack.half_sets() == half)]
        voxels = filtered_shells(other.voxels, weight) * mask
        reference = DensityMap(voxels, other.pixel_size_angstrom)
        aligner = prepare_aligner(mine, reference, sample.symmetry, detail)
        read, rows = AlignerInput(mine), spread_rows(len(mine), COVERED // 2)
        for some in np.array_split(rows, len(rows) // 50):
            posterior = aligner.search(*read(some), with_distribution=True).distribution
            assert posterior is not None
            levels.append(np.ravel(posterior.credible_level(mine.rotations()[some])))
    level = np.concatenate(levels)
    return {
        f"in_{part}_percent_set": 100 * float(np.mean(level <= part / 100)) for part in (50, 90)
    }


def noise_row() -> dict[str, Any]:
    """Return what the command says of images that hold nothing but noise."""
    ribosome = SAMPLES[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid, tables = ParticleStack.read(ribosome.particles).grid, read_star(ribosome.particles)
        images = np.random.default_rng(0).normal(size=(NOISE, grid.box, grid.box))
        write_stack(images.astype(np.float32), folder / "noise.mrcs", grid.pixel_size_angstrom)
        table = tables["particles"].iloc[:NOISE].copy()
        table["rlnImageName"] = [f"{row + 1:06d}@noise.mrcs" for row in range(NOISE)]
        write_star(tables | {"particles": table}, folder / "noise.star")
        command = [*PROGRAM, "refine", str(folder / "noise.star"), "--map", str(ribosome.map)]
        command += ["--output", str(folder / "run"), "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        fsc = np.genfromtxt(folder / "run/fsc.csv", delimiter=",", names=True)
        beyond = fsc[fsc["resolution_angstrom"] < 30]
    return {
        "sample": "noise",
        "fsc_beyond_30_angstrom": [round(float(value), 3) for value in beyond["fsc"][:5]],
        "status": done.returncode,
        "said": [line for line in done.stderr.splitlines() if "warning" in line],
    }


def with_junk(sample: Sample, folder: Path) -> Sample:
    """Return a sample with as many images of pure noise behind its particles."""
    stack, tables = ParticleStack.read(sample.particles), read_star(sample.particles)
    images = np.array(stack.images(), dtype=np.float32)
    junk = np.random.default_rng(5).normal(size=images.shape) * images[:, :3].std()
    both = np.concatenate([images, junk.astype(np.float32)])
    write_stack(both, folder / "junk.mrcs", stack.pixel_size_angstrom)
    table = pd.concat([tables["particles"]] * 2, ignore_index=True)
    table["rlnImageName"] = [f"{row + 1:06d}@junk.mrcs" for row in range(len(table))]
    write_star(tables | {"particles": table}, folder / "junk.star")
    return replace(sample, name=f"{sample.name}, half junk", particles=folder / "junk.star")


def junk_row() -> dict[str, Any]:
    """Return the line of beta-galactosidase with junk; errors are those of its particles alone."""
    sample = SAMPLES[1]
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), dict[str, Path]()
        dirty = with_junk(sample, folder)
        seconds = child_cpu_seconds(lambda: found.update(ours(dirty, folder / "run")))
        number = len(ParticleStack.read(sample.particles, require_images=False))
        table = ParticleStack.read(found["star"], require_images=False)
        table[np.arange(number)].save(folder / "own.star")
        density = DensityMap.read(sample.map)
        mask = soft_mask(density.voxels, density.pixel_size_angstrom)
        own = found | {"star": folder / "own.star"}
        row = row_of("napari-cryosphere", sample, own, mask, seconds)
        present = table.particles["cryospherePresence"].to_numpy(float)
        shares = {
            "presence": float(present[:number].mean()),
            "of_junk": float(present[number:].mean()),
        }
    return row | {"sample": dirty.name} | shares


def ours(sample: Sample, folder: Path) -> dict[str, Path]:
    """Refine with this package's command; returns its files by role."""
    command = [*PROGRAM, "refine", str(sample.particles), "--map", str(sample.map)]
    command += ["--output", str(folder), "--symmetry", sample.symmetry, "--quiet"]
    command += ["--initial-resolution", str(sample.initial_angstrom)]
    subprocess.run(command, check=True)
    return {name: folder / f"{name}.mrc" for name in ("map", "half1", "half2", "mask")} | {
        "star": folder / "particles.star"
    }


def relion(sample: Sample, folder: Path) -> dict[str, Path]:
    """Refine with relion_refine --auto_refine, three processes; returns its files by role."""
    folder.mkdir(parents=True)
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "relion_refine_mpi"]
    command += ["--i", str(sample.particles), "--o", str(folder / "run"), "--ref", str(sample.map)]
    command += ["--auto_refine", "--split_random_halves", "--firstiter_cc", "--ctf", "--norm"]
    command += ["--ini_high", str(sample.initial_angstrom), "--sym", sample.symmetry, "--scale"]
    command += ["--particle_diameter", str(sample.diameter_angstrom), "--zero_mask", "--pad", "2"]
    command += ["--healpix_order", "2", "--auto_local_healpix_order", "4", "--offset_range", "5"]
    command += ["--offset_step", "2", "--flatten_solvent", "--low_resol_join_halves", "40"]
    subprocess.run(command, check=True, cwd=sample.particles.parent, stdout=subprocess.DEVNULL)
    return {
        "map": folder / "run_class001.mrc",
        "half1": folder / "run_half1_class001_unfil.mrc",
        "half2": folder / "run_half2_class001_unfil.mrc",
        "star": folder / "run_data.star",
    }


def row_of(
    program: str, sample: Sample, found: dict[str, Path], mask: np.ndarray, seconds: float
) -> dict[str, Any]:
    """Return one line of the table."""
    first, second = DensityMap.read(found["half1"]), DensityMap.read(found["half2"])
    curve = fourier_shell_correlation(first.voxels, second.voxels, first.pixel_size_angstrom, mask)
    row: dict[str, Any] = {
        "sample": sample.name,
        "program": program,
        "cpu_s": seconds,
        "fsc_0143_angstrom": curve.resolution_angstrom(0.143),
        "fsc_05_angstrom": curve.resolution_angstrom(0.5),
    }
    if sample.has_truth:
        truth = ParticleStack.read(sample.particles, require_images=False)
        poses = ParticleStack.read(found["star"], require_images=False).rotations()
        errors = angular_error_degrees(truth.rotations(), poses, sample.symmetry)
        true_map = DensityMap.read(sample.map).voxels
        row |= {
            "median_degrees": float(np.median(errors)),
            "beyond_30_percent": 100 * float(np.mean(errors > 30)),
            "correlation": masked_correlation(DensityMap.read(found["map"]).voxels, true_map, mask),
        }
    return row


def main() -> None:
    """Run all samples and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="beta-galactosidase alone")
    parser.add_argument("--relion", action="store_true", help="also run relion_refine (an hour)")
    names = [sample.name for sample in SAMPLES]
    parser.add_argument("--only", choices=[*names, "noise", "junk"])
    parser.add_argument("--json", type=Path, help="write the values here")
    arguments = parser.parse_args()
    if not has_data():
        return
    wanted = arguments.only or ("betagalD2" if arguments.quick else None)
    rows = []
    for sample in SAMPLES:
        if wanted not in (None, sample.name):
            continue
        density = DensityMap.read(sample.map)
        mask = (
            soft_mask(density.voxels, density.pixel_size_angstrom)
            if sample.has_truth
            else soft_sphere(density.box, 68 / density.pixel_size_angstrom, 6.0)
        )
        for program, run in (("napari-cryosphere", ours), ("RELION 3.1.3", relion)):
            if run is relion and not arguments.relion:
                continue
            with tempfile.TemporaryDirectory() as name:
                found: dict[str, Path] = {}
                seconds = child_cpu_seconds(
                    lambda found=found, run=run, sample=sample, name=name: found.update(
                        run(sample, Path(name) / "run")
                    )
                )
                row = row_of(program, sample, found, mask, seconds)
                if run is ours and sample.has_truth:
                    row |= coverage(sample, found)
                rows.append(row)
                print(rows[-1], flush=True)
    for extra, row_maker in (("noise", noise_row), ("junk", junk_row)):
        if wanted in (None, extra):
            rows.append(row_maker())
            print(rows[-1], flush=True)
    write_figures("refinement", rows, arguments, ["torch", "numpy", "scipy"])


if __name__ == "__main__":
    main()
