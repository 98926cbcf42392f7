"""Maps as people have them: with and without a mask, and with a constant added to the whole box.

Real apoferritin is aligned with defaults to two half-maps of our own, reconstructed from poses found
with the atomic model's map. One row per kind of reference: the share of particles whose poses against
either half-map agree within 10 and 30 degrees, and the mean confidence claimed. Rows of the model's own
map say how many poses agree with those of the first half-map inside a sphere made by hand.

CRYOSPHERE_SHARED_DATA names the folder of the reference data. ``--quick`` takes every fifth particle.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import starfile
from _common import DATA, options, report
from numpy.typing import NDArray

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.symmetry import angular_error_degrees

SYMMETRY = "O"
BY_HAND = ["--mask-radius", "68"]  # Angstrom: the shell's outer radius is 62
CONSTANT = 0.05  # of the map's maximum
FIRST_RESOLUTION_ANGSTROM = "12"  # the poses that the half-maps are made of


def command(verb: str, *arguments: str | Path) -> None:
    """Run a command of napari-cryosphere."""
    program = [sys.executable, "-m", "napari_cryosphere", verb, *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(program)}\n{done.stderr[-4000:]}")


def raised(path: Path, folder: Path) -> Path:
    """Write a map plus a constant, and return its file."""
    density = DensityMap.read(path)
    voxels = density.voxels + np.float32(CONSTANT * density.voxels.max())
    file = folder / f"raised_{path.name}"
    DensityMap(voxels, density.pixel_size_angstrom).save(file)
    return file


class Poses:
    """Alignments of one set to several maps."""

    def __init__(self, particles: Path, images: Path, folder: Path) -> None:
        self._common = [particles, "--symmetry", SYMMETRY, "--data-dir", images]
        self._images, self._folder, self._number = images, folder, 0

    def against(self, density: Path, *how: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return poses ``(n, 3, 3)`` and confidence ``(n,)`` of `align` to a map."""
        self._number += 1
        output = self._folder / f"poses_{self._number}.star"
        command("align", *self._common, "--map", density, "--output", output, *how)
        found = ParticleStack.read(output, self._images)
        return found.rotations(), found.particles["cryosphereConfidence"].to_numpy(float)


def row(
    name: str,
    one: tuple[NDArray[np.float64], NDArray[np.float64]],
    other: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> dict[str, Any]:
    """Compare two alignments of the same particles."""
    angles = angular_error_degrees(one[0], other[0], SYMMETRY)
    return {
        "reference": name,
        "particles": len(angles),
        "within_10_%": 100 * float(np.mean(angles < 10)),
        "within_30_%": 100 * float(np.mean(angles < 30)),
        "confidence": float(one[1].mean()),
    }


def main() -> None:
    arguments = options(__doc__)
    images = DATA / "real"
    if not images.is_dir():
        print(f"not run: no real particles at {images} (CRYOSPHERE_SHARED_DATA)")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        particles, model = folder / "particles.star", images / "apoferritin_model_map.mrc"
        tables = starfile.read(images / "apoferritin.star")
        tables["particles"] = tables["particles"].iloc[:: 5 if arguments.quick else 1]
        starfile.write(tables, particles)
        common = ["--symmetry", SYMMETRY, "--data-dir", images]
        found = folder / "found.star"
        at = ["--resolution", FIRST_RESOLUTION_ANGSTROM]
        command("align", particles, *common, "--map", model, "--output", found, *at)
        command("reconstruct", found, *common, "--half-maps", "--output", folder / "own.mrc")
        halves = sorted(folder.glob("own*half*.mrc"))[:2]
        poses = Poses(particles, images, folder)
        kinds: dict[str, tuple[list[Path], list[str]]] = {
            "own half-maps, sphere by hand": (halves, BY_HAND),
            "own half-maps": (halves, []),
            "own half-maps plus a constant": ([raised(half, folder) for half in halves], []),
            "own half-maps, --mask none": (halves, ["--mask", "none"]),
        }
        rows, by_hand = [], None
        for name, (maps, how) in kinds.items():
            one, other = (poses.against(density, *how) for density in maps)
            by_hand = by_hand or one
            rows.append(row(name, one, other))
        assert by_hand is not None
        for name, density in (("model", model), ("model plus a constant", raised(model, folder))):
            rows.append(row(name, poses.against(density), by_hand))
    report("masks", rows, arguments, ["torch", "numpy"])


if __name__ == "__main__":
    main()
