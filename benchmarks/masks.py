"""Maps as people have them: with and without a mask, and with a constant added to the whole box.

Real apoferritin is aligned with defaults to two half-maps of our own, reconstructed from poses found
with the atomic model's map. One row per kind of reference: the share of particles whose poses against
either half-map agree within 10 and 30 degrees, and the mean confidence claimed. Rows of the model's own
map say how many poses agree with those of the first half-map inside a sphere made by hand. One split into
halves says little: the shares are means over several, and "than by hand" is the mean difference to the sphere
by hand on the same splits, with its standard error.

CRYOSPHERE_SHARED_DATA names the folder of the reference data. ``--quick`` takes every fifth particle and two
splits.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import starfile
from _common import DATA, options, report
from numpy.typing import NDArray

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.symmetry import angular_error_degrees

SYMMETRY = "O"
BY_HAND = ["--mask-radius", "68"]  # Angstrom: the shell's outer radius is 62
CONSTANT = 0.05  # of the map's maximum
SPLITS, QUICK_SPLITS = 6, 2
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


Found: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Poses ``(n, 3, 3)`` and how sure each is, ``(n,)``."""


class Poses:
    """Alignments of one set to several maps."""

    def __init__(self, particles: Path, images: Path, folder: Path) -> None:
        self._common = [particles, "--symmetry", SYMMETRY, "--data-dir", images]
        self._images, self._folder, self._number = images, folder, 0

    def against(self, density: Path, *how: str) -> Found:
        """Return poses ``(n, 3, 3)`` and confidence ``(n,)`` of `align` to a map."""
        self._number += 1
        output = self._folder / f"poses_{self._number}.star"
        command("align", *self._common, "--map", density, "--output", output, *how)
        found = ParticleStack.read(output, self._images)
        return found.rotations(), found.particles["cryosphereConfidence"].to_numpy(float)


def agreement(one: Found, other: Found) -> tuple[float, float, float]:
    """Return the percent of poses within 10 and 30 degrees of each other, and the confidence of the first."""
    angles = angular_error_degrees(one[0], other[0], SYMMETRY)
    shares = [100 * float(np.mean(angles < limit)) for limit in (10, 30)]
    return shares[0], shares[1], float(one[1].mean())


def row(name: str, found: list[tuple[float, float, float]], by_hand: list[float]) -> dict[str, Any]:
    """Return one kind of reference, over all splits into halves."""
    within_10, within_30, confidence = np.transpose(found)
    gained = within_10 - np.asarray(by_hand)
    return {
        "reference": name,
        "splits": len(found),
        "within_10_%": float(within_10.mean()),
        "within_30_%": float(within_30.mean()),
        "confidence": float(confidence.mean()),
        "than_by_hand_%": float(gained.mean()),
        "standard_error": float(gained.std(ddof=1) / np.sqrt(len(gained))),
    }


def with_halves(particles: Path, seed: int, output: Path) -> Path:
    """Write particles split at random into two equal halves, and return the file."""
    tables = starfile.read(particles)
    number = len(tables["particles"])
    halves = np.random.default_rng(seed).permutation(number) % 2 + 1
    tables["particles"] = tables["particles"].assign(rlnRandomSubset=halves)
    starfile.write(tables, output)
    return output


def main() -> None:
    arguments = options(__doc__)
    images = DATA / "real"
    if not images.is_dir():
        print(f"not run: no real particles at {images} (CRYOSPHERE_SHARED_DATA)")
        return
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        particles, model = folder / "particles.star", images / "apoferritin_model_map.mrc"
        tables = starfile.read(images / "apoferritin.star")
        tables["particles"] = tables["particles"].iloc[:: 5 if arguments.quick else 1]
        starfile.write(tables, particles)
        common = ["--symmetry", SYMMETRY, "--data-dir", images]
        aligned = folder / "found.star"
        at = ["--resolution", FIRST_RESOLUTION_ANGSTROM]
        command("align", particles, *common, "--map", model, "--output", aligned, *at)
        poses = Poses(particles, images, folder)
        by_model = {
            "model": poses.against(model),
            "model plus a constant": poses.against(raised(model, folder)),
        }
        for seed in range(QUICK_SPLITS if arguments.quick else SPLITS):
            split = with_halves(aligned, seed, folder / f"split{seed}.star")
            own = folder / f"own{seed}.mrc"
            command("reconstruct", split, *common, "--half-maps", "--output", own)
            halves = [own.with_name(f"{own.stem}_half{half}.mrc") for half in (1, 2)]
            constant = [raised(half, folder) for half in halves]
            kinds = {
                "own half-maps, sphere by hand": (halves, BY_HAND),
                "own half-maps": (halves, []),
                "own half-maps plus a constant": (constant, []),
                "own half-maps, --mask none": (halves, ["--mask", "none"]),
            }
            first = None
            for name, (maps, how) in kinds.items():
                one, other = (poses.against(density, *how) for density in maps)
                first = first or one
                found.setdefault(name, []).append(agreement(one, other))
            assert first is not None
            for name, one in by_model.items():
                found.setdefault(name, []).append(agreement(one, first))
    by_hand = [share for share, _, _ in found["own half-maps, sphere by hand"]]
    rows = [row(name, each, by_hand) for name, each in found.items()]
    report("masks", rows, arguments, ["torch", "numpy"])


if __name__ == "__main__":
    main()
