"""Fourier slices, reconstruction and FSC beside torch-fourier-slice and RELION, on the same work in
one run.

Reconstructions and FSCs are whole processes on both sides, start-up and reading included. The cost
of a particle without what is fixed is the difference between many particles and few, the median of
three; RELION leaves its density compensation out of that (``--skip_gridding``): its cost does not
grow with the number but varies more than an insertion takes. RELION's figures need its programs on
the path; without them they are nan. Quality is the correlation with the truth inside a mask.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import child_cpu_seconds, cpu_seconds, options, report
from torch_fourier_slice import extract_central_slices_rfft_3d

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.simulate import simulate_density
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import masked_correlation, soft_mask
from napari_cryosphere.so3.rotations import random_rotations


def slices(box: int, repeats: int) -> dict[str, Any]:
    """64 central slices of a map padded to twice its box; the transform is made beforehand in both."""
    density = protein_phantom(box, 192.0 / box)
    rotations = random_rotations(64, np.random.default_rng(0))
    projector = Projector(density.voxels)
    padded = torch.nn.functional.pad(torch.from_numpy(density.voxels.copy()), (box // 2,) * 6)
    transform = torch.fft.fftshift(torch.fft.rfftn(torch.fft.ifftshift(padded)), dim=(0, 1))
    poses = torch.from_numpy(rotations).float()
    return {
        "task": f"64 slices, {box} px, padding 2",
        "ours_cpu_s": cpu_seconds(lambda: projector.slices(rotations), repeats),
        "theirs_cpu_s": cpu_seconds(
            lambda: extract_central_slices_rfft_3d(transform, poses), repeats
        ),
        "ours_quality": float("nan"),
        "theirs_quality": float("nan"),
        "other": "torch-fourier-slice",
    }


def _cpu(*command: str | Path, folder: Path) -> float:
    """CPU seconds of a process."""
    return child_cpu_seconds(
        lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True)
    )


def _ours(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "napari_cryosphere", "-q", *arguments, "--overwrite"]


def _particles(box: int, number: int, folder: Path) -> None:
    """Simulate p.star, truth.mrc and few.star, the first 200 particles."""
    density = protein_phantom(box, 192.0 / box)
    density.save(folder / "truth.mrc", overwrite=True)
    simulation = SimulateConfig(
        map=folder, output=folder / "p.star", number=number, snr=0.05, overwrite=True
    )
    follow(simulate_density(density, simulation), lambda event: None)
    ParticleStack.read(folder / "p.star")[:FEW].save(folder / "few.star", overwrite=True)


FEW = 200


def reconstructions(box: int, number: int, folder: Path, relion: bool) -> list[dict[str, Any]]:
    """A map from simulated particles at their true poses, and the cost of a particle."""
    _particles(box, number, folder)
    ours = {
        name: _ours("reconstruct", f"{name}.star", "--output", "ours.mrc") for name in ("few", "p")
    }
    theirs = {
        name: [
            "relion_reconstruct",
            "--i",
            f"{name}.star",
            "--o",
            "relion.mrc",
            "--ctf",
            "--pad",
            "2",
        ]
        for name in ("few", "p")
    }
    inserting = {name: [*command, "--skip_gridding"] for name, command in theirs.items()}
    each = [
        (_each(ours, number, folder), _each(inserting, number, folder) if relion else float("nan"))
        for _ in range(3)
    ]
    whole = (
        _cpu(*ours["p"], folder=folder),
        _cpu(*theirs["p"], folder=folder) if relion else float("nan"),
    )
    truth = DensityMap.read(folder / "truth.mrc")
    mask = soft_mask(truth.voxels, truth.pixel_size_angstrom)
    quality = [
        masked_correlation(DensityMap.read(folder / f"{name}.mrc").voxels, truth.voxels, mask)
        if (folder / f"{name}.mrc").exists()
        else float("nan")
        for name in ("ours", "relion")
    ]
    rows = (
        (f"map from {number} particles, {box} px", whole),
        (f"... each further particle, {box} px", tuple(np.median(each, axis=0))),
    )
    return [
        {
            "task": task,
            "ours_cpu_s": mine,
            "theirs_cpu_s": other,
            "ours_quality": quality[0],
            "theirs_quality": quality[1],
            "other": "relion_reconstruct",
        }
        for task, (mine, other) in rows
    ]


def _each(commands: dict[str, list[str]], number: int, folder: Path) -> float:
    """CPU seconds a particle beyond the first few."""
    few, many = (_cpu(*commands[name], folder=folder) for name in ("few", "p"))
    return (many - few) / (number - FEW)


def correlation_of_maps(box: int, folder: Path, relion: bool) -> dict[str, Any]:
    """The FSC of two noisy maps, reading included."""
    density, rng = protein_phantom(box, 192.0 / box), np.random.default_rng(0)
    for number in (1, 2):
        noise = rng.normal(scale=0.1, size=density.voxels.shape).astype(np.float32)
        voxels = DensityMap(density.voxels + noise, density.pixel_size_angstrom)
        voxels.save(folder / f"half{number}.mrc", overwrite=True)
    theirs = ["relion_image_handler", "--i", "half1.mrc", "--fsc", "half2.mrc"]
    ours = _ours("fsc", "half1.mrc", "half2.mrc", "--output", "fsc.csv")
    return {
        "task": f"FSC of two maps, {box} px",
        "ours_cpu_s": _cpu(*ours, folder=folder),
        "theirs_cpu_s": _cpu(*theirs, folder=folder) if relion else float("nan"),
        "ours_quality": float("nan"),
        "theirs_quality": float("nan"),
        "other": "relion_image_handler",
    }


def main() -> None:
    arguments = options(__doc__ or "")
    torch.set_num_threads(1)
    relion = shutil.which("relion_reconstruct") is not None
    rows = [slices(box, 3 if arguments.quick else 10) for box in (32, 64)]
    sizes = [(64, 2000)] if arguments.quick else [(64, 1000), (64, 4000), (96, 2000), (128, 2000)]
    with tempfile.TemporaryDirectory() as folder:
        for box, number in sizes:
            rows += reconstructions(box, number, Path(folder), relion)
        if not arguments.quick:
            rows += reconstructions(256, 2000, Path(folder), relion=False)  # RELION takes minutes
        rows.append(correlation_of_maps(128 if arguments.quick else 256, Path(folder), relion))
    report("reconstruction", rows, arguments, ["torch", "torch-fourier-slice"])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"largest process: {peak:.2f} GB")


if __name__ == "__main__":
    main()
