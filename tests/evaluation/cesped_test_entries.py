"""Two small entries in CESPED's layout with predictions, of which the package's own evaluation is
stored.

``python cesped_test_entries.py SHARED FOLDER`` makes them for ``tests/data/make_cesped_reference.py
entry``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from napari_cryosphere.evaluation.entries import add_half, local_entry
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.rotations import rotation_from_vector

SYMMETRIES = {"ribo70S": "C1", "betagalD2": "D2"}
NUMBER = 240


def make_entries(shared: Path, folder: Path) -> None:
    """Write both entries: 240 particles each, predictions 12 degrees off (a tenth of them
    anywhere).
    """
    for seed, (name, symmetry) in enumerate(SYMMETRIES.items()):
        rng = np.random.default_rng(seed)
        stack = ParticleStack.read(shared / "particles" / f"{name}_test.star")
        stack = stack[:: len(stack) // NUMBER][:NUMBER]
        stack = stack.with_columns(
            {"rlnMaxValueProbDistribution": rng.uniform(0.1, 1, NUMBER).round(4)}
        )
        for half, part in enumerate(stack.halves()):
            for _ in add_half(part, folder, name, half, symmetry, simulated=True):
                pass
            _predictions(local_entry_half(folder, name, half), symmetry, rng).save(
                folder / name / f"predicted_{half}.star"
            )
        mask = shared / "relion_reference" / "reconstruct" / f"{name}_train_mask.mrc"
        shutil.copyfile(mask, folder / name / "mask.mrc")
        assert local_entry(folder, name).symmetry == symmetry


def local_entry_half(folder: Path, name: str, half: int) -> ParticleStack:
    return ParticleStack.read(folder / name / f"particles_{half}.star")


def _predictions(truth: ParticleStack, symmetry: str, rng: np.random.Generator) -> ParticleStack:
    number = len(truth)
    scale = np.where(np.arange(number) % 10, np.radians(12) / np.sqrt(3), 2.0)
    turns = rotation_from_vector(rng.normal(size=(number, 3)) * scale[:, None])
    moved = truth.shifts_angstrom() + rng.normal(0, 2, (number, 2))
    posed = truth.with_poses(truth.rotations() @ turns, moved, symmetry)
    return posed.with_columns({"rlnParticleFigureOfMerit": rng.uniform(0.2, 1, number).round(4)})


if __name__ == "__main__":
    make_entries(Path(sys.argv[1]), Path(sys.argv[2]))
