"""Alignment to a map: beside RELION on the same particles, its calibration, and its throughput.

Three tables. *Comparison*: `napari-cryosphere align` and `relion_refine` from the same particles
and the same reference, CPU seconds of the whole processes and errors by one scorer; once from
nothing (poses and shifts removed), once from disturbed poses. *Calibration*: how often the true
pose lies in the posterior's credible sets when map, CTF and noise are known. *Throughput*: cost and
memory of the search beside the speed of a plain matrix product.

The first two need the reference data (CRYOSPHERE_SHARED_DATA names its folder), RELION's columns
need relion_refine on the path; without them these are left out. ``--json FILE`` writes one file a
table, named FILE's stem and the table.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import starfile
import torch
from _common import DATA, cpu_seconds, report
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_cryosphere.alignment.aligner import Aligner
from napari_cryosphere.alignment.observation import NoiseModel
from napari_cryosphere.alignment.search import GlobalSearch
from napari_cryosphere.imaging.ctf import transfer_functions
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.jobs.align import AlignerInput
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.simulate import simulate_density
from napari_cryosphere.particles import DensityMap, ParticleStack, spread_rows

POSES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
ORIGINS = ["rlnOriginXAngst", "rlnOriginYAngst"]
LOW_PASS_ANGSTROM = 20.0
PACKAGES = ["torch", "numpy", "scipy", "starfile"]

# what `napari-cryosphere align` imports, in the way it does
_IMPORTS = (
    "import atexit, gc; gc.disable(); atexit.register(gc.freeze); "
    "import napari_cryosphere.cli, napari_cryosphere.jobs.align"
)


@dataclass(frozen=True)
class Sample:
    """Particles of known pose, and what RELION must be told of them.

    ``noise_in_images`` and ``noise_in_map`` are the noise's standard deviation in the images' grey
    values and in the map's: their quotient is the contrast. ``shell`` is the band of the
    calibration.
    """

    name: str
    stem: str
    truth: str
    symmetry: str
    pixel_size_angstrom: float
    diameter_angstrom: float
    noise_in_images: float
    noise_in_map: float
    shell: int

    @property
    def contrast(self) -> float:
        """Factor from the map's projections to the images' grey values."""
        return self.noise_in_images / self.noise_in_map

    @property
    def map(self) -> Path:
        """The map that the particles were projected from."""
        return DATA / "particles" / f"{self.stem}_truth.mrc"


RIBOSOME = Sample("70S", "ribo70S", "ribo70S_test", "C1", 5.0, 280.0, 1000.0, 5.0868, 16)
GALACTOSIDASE = Sample("D2", "betagalD2", "betagalD2_train", "D2", 3.2, 190.0, 20.0, 4.2669, 24)


@dataclass(frozen=True)
class Task:
    """One alignment that both sides do; ``local_iterations`` are RELION's after its global ones."""

    sample: Sample
    start: str
    low_passed: bool
    is_global: bool
    local_iterations: int

    @property
    def name(self) -> str:
        """The task in words."""
        start = "from nothing" if self.is_global else f"from {self.start}"
        reference = f"{LOW_PASS_ANGSTROM:.0f} A" if self.low_passed else "full"
        return f"{self.sample.name} {start}, map {reference}"


# "canon": poses inside RELION's asymmetric unit, outside of which its local searches lose their
# prior
TASKS = [
    Task(RIBOSOME, "ribo_pert", True, True, 3),
    Task(GALACTOSIDASE, "bgal_pert", False, True, 3),
    Task(RIBOSOME, "ribo_pert", True, False, 2),
    Task(GALACTOSIDASE, "bgal_pert", False, False, 4),
    Task(GALACTOSIDASE, "bgal_pert_canon", False, False, 4),
    Task(GALACTOSIDASE, "bgal_pert", True, True, 3),
    Task(GALACTOSIDASE, "bgal_pert", True, False, 4),
    Task(GALACTOSIDASE, "bgal_pert_canon", True, False, 4),
]


def errors(task: Task, found: Path) -> dict[str, float]:
    """Score a STAR file against the truth: angles modulo symmetry, shifts in pixels, by image name."""
    truth = _by_image(DATA / "particles" / f"{task.sample.truth}.star")
    aligned = _by_image(found)
    truth = truth.loc[aligned.index]
    poses = [
        Rotation.from_euler("ZYZ", table[POSES].to_numpy(float), degrees=True)
        for table in (truth, aligned)
    ]
    group = Rotation.create_group(task.sample.symmetry)
    angles = np.degrees(
        np.min([(poses[0].inv() * g * poses[1]).magnitude() for g in group], axis=0)
    )
    shifts = np.linalg.norm(
        truth[ORIGINS].to_numpy(float) - aligned[ORIGINS].to_numpy(float), axis=1
    )
    return {
        "median_degrees": float(np.median(angles)),
        "beyond_30_percent": 100 * float(np.mean(angles > 30)),
        "median_shift_px": float(np.median(shifts)) / task.sample.pixel_size_angstrom,
    }


def _by_image(path: Path) -> Any:
    """Return a STAR file's particles, indexed by the image's number and its file's name."""
    read = starfile.read(path)
    table = read["particles"] if isinstance(read, dict) else read
    number, _, file = zip(*table["rlnImageName"].str.partition("@").to_numpy(), strict=True)
    names = [f"{int(n)}@{Path(f).name}" for n, f in zip(number, file, strict=True)]
    return table.set_index(np.array(names))


def write_start(task: Task, path: Path, every: int) -> int:
    """Write the particles to start from, every so many, without poses and shifts if the search is
    global.
    """
    tables = starfile.read(DATA / "relion_reference" / f"{task.start}.star")
    particles = tables["particles"].iloc[::every]
    tables["particles"] = particles.drop(columns=POSES + ORIGINS) if task.is_global else particles
    starfile.write(tables, path)
    return len(particles)


def write_reference(task: Task, path: Path) -> None:
    """Write the map in the images' grey values, cut off at 20 A in Fourier space if so asked."""
    density = DensityMap.read(task.sample.map)
    voxels = density.voxels * task.sample.contrast
    if task.low_passed:
        axis = np.fft.fftfreq(density.box, density.pixel_size_angstrom)
        squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
        voxels = np.fft.ifftn(np.fft.fftn(voxels) * (squared <= LOW_PASS_ANGSTROM**-2)).real
    DensityMap(voxels.astype(np.float32), density.pixel_size_angstrom).save(path)


def ours(task: Task, folder: Path) -> dict[str, float]:
    """Align with the command line: what the whole process costs, and what its imports alone do."""
    arguments = [
        "align",
        "start.star",
        "--map",
        "reference.mrc",
        "--symmetry",
        task.sample.symmetry,
    ]
    arguments += ["--output", "ours.star", "--data-dir", str(DATA / "relion_reference")]
    arguments += (
        ["--shift-range", "3.5"] if task.is_global else ["--shift-range", "2", "--local", "15"]
    )
    imports, _ = _run([sys.executable, "-c", _IMPORTS], folder)
    cpu, peak_mb = _run([sys.executable, "-m", "napari_cryosphere", *arguments], folder)
    cost = {"cpu_s": cpu, "cpu_s_beyond_imports": cpu - imports, "peak_mb": peak_mb}
    return cost | errors(task, folder / "ours.star")


def relions(task: Task, folder: Path) -> dict[str, float]:
    """Align with relion_refine: two global iterations at order 2 if need be, then local ones at
    order 4.
    """
    common = [
        "relion_refine",
        "--ref",
        str(folder / "reference.mrc"),
        "--K",
        "1",
        "--sym",
        task.sample.symmetry,
    ]
    common += [
        "--ctf",
        "--ctf_corrected_ref",
        "--flatten_solvent",
        "--zero_mask",
        "--dont_check_norm",
    ]
    common += ["--particle_diameter", str(task.sample.diameter_angstrom), "--j", "2"]
    common += ["--offset_range", "3", "--offset_step", "2"]
    if task.low_passed:
        common += ["--ini_high", str(LOW_PASS_ANGSTROM)]

    data, start, cpu = DATA / "relion_reference", folder / "start.star", 0.0
    if task.is_global:
        order = ["--healpix_order", "2", "--iter", "2"]
        cpu, _ = _run([*common, *order, "--i", str(start), "--o", str(folder / "global")], data)
        start = folder / "global_it002_data.star"
    order = ["--healpix_order", "4", "--sigma_ang", "5", "--iter", str(task.local_iterations)]
    cpu += _run([*common, *order, "--i", str(start), "--o", str(folder / "local")], data)[0]
    return {"cpu_s": cpu} | errors(task, folder / f"local_it{task.local_iterations:03d}_data.star")


def _run(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command with two threads, which sleep while they wait; return its CPU seconds and peak
    MB.
    """
    # by default threads spin between tasks: CPU time that no work has
    waiting = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
    environment = os.environ | {"OMP_NUM_THREADS": "2"} | waiting
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}\n{said.read()[-4000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def comparison(task: Task, every: int, with_relion: bool) -> dict[str, Any]:
    """Do a task on both sides."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        number = write_start(task, folder / "start.star", every)
        write_reference(task, folder / "reference.mrc")
        mine = ours(task, folder)
        nothing = dict.fromkeys(mine, float("nan"))
        theirs = relions(task, folder) if with_relion else nothing
    return {
        "task": task.name,
        "particles": number,
        "ours_cpu_s": mine["cpu_s"],
        "ours_beyond_imports_ms_a_particle": 1e3 * mine["cpu_s_beyond_imports"] / number,
        "relion_cpu_s": theirs["cpu_s"],
        "ratio": theirs["cpu_s"] / mine["cpu_s"],
        "ratio_beyond_imports": theirs["cpu_s"] / mine["cpu_s_beyond_imports"],
        "ours_degrees": mine["median_degrees"],
        "relion_degrees": theirs["median_degrees"],
        "ours_beyond_30_%": mine["beyond_30_percent"],
        "relion_beyond_30_%": theirs["beyond_30_percent"],
        "ours_shift_px": mine["median_shift_px"],
        "relion_shift_px": theirs["median_shift_px"],
        "ours_peak_mb": mine["peak_mb"],
    }


def comparisons(quick: bool, tasks: int | None = None) -> list[dict[str, Any]]:
    """All 500 particles of every task; quickly, 50 of the ribosome's, RELION's local search alone."""
    relion = shutil.which("relion_refine") is not None
    rows = []
    for task in [task for task in TASKS[:tasks] if not quick or task.sample is RIBOSOME]:
        row = (
            comparison(task, 10, relion and not task.is_global)
            if quick
            else comparison(task, 1, relion)
        )
        sys.stderr.write(json.dumps(row) + "\n")  # so that a run that is cut short is not lost
        rows.append(row)
    return rows


def credible_levels(
    sample: Sample, rows: slice | NDArray[np.int64], batch: int = 50
) -> NDArray[np.float64]:
    """Return the level of each true pose's smallest credible set; map, CTF and noise are known."""
    stack = ParticleStack.read(DATA / "particles" / f"{sample.stem}_test.star")[rows]
    density = DensityMap.read(sample.map)
    noise = NoiseModel.white(density.box, 1.0, 1 / sample.noise_in_map)
    aligner = Aligner(torch.from_numpy(density.voxels.copy()), sample.symmetry, noise, sample.shell)
    levels = []
    for first in range(0, len(stack), batch):
        part = stack[slice(first, min(first + batch, len(stack)))]
        images = torch.from_numpy(
            part.images().astype(np.float32) / np.float32(sample.noise_in_images)
        )
        found = aligner.search(images, transfer_functions(part), with_distribution=True)
        if found.distribution is None:
            raise RuntimeError("the search returned no posterior")
        levels.append(found.distribution.credible_level(part.rotations()))
    return np.concatenate(levels)


def calibration(sample: Sample, number: int, most: int) -> dict[str, Any]:
    """Count the true poses in the 50 % and 90 % sets, of ``most`` particles spread over ``number``."""
    start = time.process_time()
    levels = credible_levels(sample, spread_rows(number, most))
    return {
        "set": f"{sample.stem}_test",
        "particles": len(levels),
        "shells": sample.shell,
        "in_50_%_set": 100 * float(np.mean(levels <= 0.5)),
        "standard_error_50": 100 * math.sqrt(0.25 / len(levels)),
        "in_90_%_set": 100 * float(np.mean(levels <= 0.9)),
        "standard_error_90": 100 * math.sqrt(0.09 / len(levels)),
        "cpu_ms_a_particle": 1e3 * (time.process_time() - start) / len(levels),
    }


def matrix_product_gflops(threads: int, size: int = 2048) -> float:
    """Return what a large float32 matrix product reaches, 1e9 operations a CPU second of one
    thread.

    By CPU time and not by the clock, since other work may share the machine.
    """
    torch.set_num_threads(threads)
    a, b = torch.randn(2, size, size)
    seconds = cpu_seconds(lambda: torch.mm(a, b), 5)
    torch.set_num_threads(1)
    return 2e-9 * size**3 / seconds


def throughput(box: int, order: int, reach_px: float, number: int) -> dict[str, Any]:
    """Search simulated particles of one box with one coarse order and reach of shifts, on one
    thread.
    """
    torch.set_num_threads(1)
    density = protein_phantom(box, 192.0 / box)
    with tempfile.TemporaryDirectory() as name:
        simulation = SimulateConfig(
            map=Path(name), output=Path(name) / "p.star", number=number, snr=0.1
        )
        follow(simulate_density(density, simulation), lambda event: None)
        stack = ParticleStack.read(Path(name) / "p.star")
        images, ctf = AlignerInput(stack)(slice(None))
    voxels = torch.from_numpy(density.voxels.copy())
    aligner = Aligner.estimated(voxels, "C1", images, ctf)
    observation = aligner.observe(images, ctf)
    sampler = SliceSampler(voxels, aligner.band.max_shell)
    start = time.process_time()
    search = GlobalSearch(sampler, aligner.band, aligner.radius_px, reach_px, "C1", order)
    setup = time.process_time() - start
    whole = cpu_seconds(lambda: search.search(observation), 1)
    references, phases = search._coarse, search._coarse_phases
    coarse = observation.narrowed(references.band.max_shell)[:16]
    product = cpu_seconds(lambda: references.log_likelihoods(coarse, phases), 2)
    operations = 2 * references.slices.numel() * len(coarse) * len(phases)
    held = sum(t.numel() * 4 for g in (search._coarse, search._fine) for t in (g.slices, g.power))
    return {
        "box": box,
        "coarse_order": order,
        "poses": f"{len(references.slices)}/{len(search._fine.slices)}",
        "shells": f"{references.band.max_shell}/{search._fine.band.max_shell}",
        "shifts": f"{len(phases)}/{len(search.shifts_px)}",
        "setup_cpu_s": setup,
        "search_cpu_ms_a_particle": 1e3 * whole / number,
        "coarse_cpu_ms_a_particle": 1e3 * product / len(coarse),
        "coarse_gflops": 1e-9 * operations / product,
        "references_mb": held / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def throughputs(quick: bool) -> list[dict[str, Any]]:
    """One process a case, so that each has its own peak of memory; the machine's peak speed in
    every row.
    """
    cases = [
        (64, 1, 4.0),
        (64, 2, 2.0),
        (64, 2, 4.0),
        (64, 2, 8.0),
        (128, 1, 8.0),
        (128, 2, 4.0),
        (128, 2, 8.0),
    ]
    if quick:
        cases = [(64, 1, 4.0), (64, 2, 4.0)]
    peaks = {f"mm_gflops_{threads}_threads": matrix_product_gflops(threads) for threads in (1, 2)}
    rows = []
    for box, order, reach in cases:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(
                pool.submit(throughput, box, order, reach, 32 if quick else 128).result() | peaks
            )
    return rows


def _report(table: str, rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print one table and write it to a file of its own."""
    path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{table}")
    report(f"alignment-{table}", rows, argparse.Namespace(json=path), PACKAGES)
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--json", type=Path, help="write the values here")
    parser.add_argument("--only", choices=["comparison", "calibration", "throughput"])
    parser.add_argument("--tasks", type=int, help="of the comparison, how many: the first")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables: dict[str, Callable[[], list[dict[str, Any]]]] = {}
    if DATA.is_dir():
        most = 60 if arguments.quick else 1000
        samples = [(RIBOSOME, 1000), (GALACTOSIDASE, 500)][: 1 if arguments.quick else 2]
        tables["comparison"] = lambda: comparisons(arguments.quick, arguments.tasks)
        tables["calibration"] = lambda: [
            calibration(sample, size, most) for sample, size in samples
        ]
    tables["throughput"] = lambda: throughputs(arguments.quick)
    for table, rows in tables.items():
        if arguments.only in (None, table):
            _report(table, rows(), arguments)


if __name__ == "__main__":
    main()
