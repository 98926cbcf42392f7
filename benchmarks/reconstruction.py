"""Fourier slices and back-projection beside torch-fourier-slice and RELION, on the same work in one run.

RELION's rows need relion_reconstruct on the path; without it they are left out.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import child_cpu_seconds, cpu_seconds, options, report
from torch_fourier_slice import extract_central_slices_rfft_3d

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.jobs.configs import ReconstructConfig, SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.simulate import simulate_density
from napari_cryosphere.particles import DensityMap
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
        "theirs_cpu_s": cpu_seconds(lambda: extract_central_slices_rfft_3d(transform, poses), repeats),
        "ours_correlation": float("nan"),
        "theirs_correlation": float("nan"),
        "other": "torch-fourier-slice",
    }


def map_from_particles(number: int, folder: Path) -> dict[str, Any]:
    """A map from simulated particles at their true poses, reading included, against the true map."""
    density = protein_phantom()
    simulation = SimulateConfig(map=folder, output=folder / "p.star", number=number, snr=0.05)
    follow(simulate_density(density, simulation), lambda event: None)
    start = time.process_time()
    config = ReconstructConfig(particles=folder / "p.star", output=folder / "ours.mrc", overwrite=True)
    follow(reconstruct(config), lambda event: None)
    ours = time.process_time() - start
    command = ["relion_reconstruct", "--i", "p.star", "--o", "relion.mrc", "--ctf", "--pad", "2"]
    theirs = child_cpu_seconds(lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True))
    mask = soft_mask(density.voxels, density.pixel_size_angstrom)
    maps = [DensityMap.read(folder / name).voxels for name in ("ours.mrc", "relion.mrc")]
    correlations = [masked_correlation(voxels, density.voxels, mask) for voxels in maps]
    return {
        "task": f"map from {number} particles, 64 px",
        "ours_cpu_s": ours,
        "theirs_cpu_s": theirs,
        "ours_correlation": correlations[0],
        "theirs_correlation": correlations[1],
        "other": "relion_reconstruct",
    }


def main() -> None:
    arguments = options(__doc__ or "")
    torch.set_num_threads(1)
    rows = [slices(box, 3 if arguments.quick else 10) for box in (32, 64)]
    if shutil.which("relion_reconstruct"):
        for number in (1000,) if arguments.quick else (1000, 4000):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(map_from_particles(number, Path(folder)))
    report("reconstruction", rows, arguments, ["torch", "torch-fourier-slice"])


if __name__ == "__main__":
    main()
