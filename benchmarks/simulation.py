"""Simulating particles: CPU seconds beside relion_project on the same poses, and memory against
their number.

Both pad the map threefold. Ours writes the images with noise, relion_project without; each side's
start and the reading of the map are in its figure. Peak memory must not follow the number of
particles. The columns of relion_project need it on the path.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import child_cpu_seconds, options, report

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.particles import MrcStack

_SIMULATE = """
import json, resource, sys
import torch
from pathlib import Path
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.simulate import simulate
torch.set_num_threads(1)
config = SimulateConfig(map=Path("map.mrc"), output=Path("p.star"), number=int(sys.argv[1]))
follow(simulate(config), lambda event: None)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


def simulated(number: int, box: int, with_relion: bool) -> dict[str, Any]:
    """Simulate in a process of its own, and project the same particles with RELION."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        protein_phantom(box, 192.0 / box).save(folder / "map.mrc")
        peak: list[float] = []

        def ours() -> None:
            command = [sys.executable, "-c", _SIMULATE, str(number)]
            done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            peak.append(json.loads(done.stdout))

        def theirs() -> None:
            command = [
                "relion_project",
                "--i",
                "map.mrc",
                "--ang",
                "p.star",
                "--o",
                "seen",
                "--ctf",
                "--pad",
                "3",
            ]
            subprocess.run(
                [*command, "--angpix", str(192.0 / box)],
                cwd=folder,
                check=True,
                capture_output=True,
            )

        cpu = child_cpu_seconds(ours)
        size = (folder / "p.mrcs").stat().st_size
        if not with_relion:
            return _row(number, box, cpu, float("nan"), peak[0], size)
        relion_cpu = child_cpu_seconds(theirs)
        if MrcStack(folder / "seen.mrcs").shape[0] != number:
            raise RuntimeError("relion_project did not make all images")
        return _row(number, box, cpu, relion_cpu, peak[0], size)


def _row(
    number: int, box: int, ours: float, theirs: float, peak_mb: float, size: int
) -> dict[str, Any]:
    return {
        "particles": number,
        "box": box,
        "ours_cpu_ms_a_particle": 1e3 * ours / number,
        "relion_project_cpu_ms_a_particle": 1e3 * theirs / number,
        "ratio": theirs / ours,
        "ours_peak_mb": peak_mb,
        "images_mb": size / 1e6,
    }


def main() -> None:
    arguments = options(__doc__ or "")
    relion = shutil.which("relion_project") is not None
    cases = [(1000, 64), (5000, 64)] if arguments.quick else [(1000, 64), (10_000, 64), (2000, 128)]
    rows = [simulated(number, box, relion) for number, box in cases]
    if not arguments.quick:
        rows.append(simulated(100_000, 64, with_relion=False))
    report("simulation", rows, arguments, ["torch", "torch-ctf"])


if __name__ == "__main__":
    main()
