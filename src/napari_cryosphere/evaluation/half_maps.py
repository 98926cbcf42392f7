"""Half-maps from poses: by this package, or by relion_reconstruct."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.evaluation.matching import MatchedHalf
from napari_cryosphere.imaging.corrections import corrected_images
from napari_cryosphere.imaging.ctf import transfer_values
from napari_cryosphere.particles import ANGLES, ORIGINS, DensityMap, ParticleStack, is_pose_column
from napari_cryosphere.particles.aberrations import aberrations_of
from napari_cryosphere.reconstruction import BackProjector
from napari_cryosphere.so3.rotations import rotation_from_relion_angles

__all__ = [
    "FIGURE_OF_MERIT",
    "Predicts",
    "posed_particles",
    "reconstructed",
    "reconstructed_by_relion",
]

FIGURE_OF_MERIT = "rlnParticleFigureOfMerit"
"""The column by which relion_reconstruct weighs particles, and CESPED's for a confidence."""
Predicts: TypeAlias = Literal["S2", "SO3", "SO3xR2"]
"""What a model predicts: views, rotations, or rotations and shifts. The rest is the truth's."""

_PADDING = 2  # as relion_reconstruct --pad 2
_DECIMALS = 6  # as RELION writes numbers to STAR files
_CHUNK = 128  # particles inserted at once


def posed_particles(half: MatchedHalf, predicts: Predicts, weighted: bool) -> ParticleStack:
    """Return the truth's particles at their predicted poses; what is not predicted stays the truth's.

    Numbers have six decimals, as in the tables that CESPED's package gives relion_reconstruct:
    where hardly any slice comes near a voxel, its map changes with the digits after these.

    ``half``: the truth and its predictions. ``predicts``: what is taken from the predictions.
    ``weighted``: whether the predictions' figures of merit replace the truth's; 1 where they have
    none. Raises `MetadataError` if the predictions lack a column that is taken from them.
    """
    truth, predicted = half.truth, half.predicted
    names = (*ANGLES, *ORIGINS)[: {"S2": 2, "SO3": 3, "SO3xR2": 5}[predicts]]
    missing = [name for name in names if name not in predicted.particles]
    if missing:
        raise MetadataError(
            f"{predicted.source} has no column {', '.join(missing)} to reconstruct with"
        )
    angles = [(predicted if name in names else truth).particles[name] for name in ANGLES]
    shifts = (predicted if ORIGINS[0] in names else truth).shifts_angstrom()
    rotations = rotation_from_relion_angles(np.stack(angles, axis=1).round(_DECIMALS))
    posed = truth.with_poses(rotations, shifts.round(_DECIMALS))
    numbers = posed.particles.select_dtypes("float").round(_DECIMALS)
    columns = {name: numbers[name].to_numpy() for name in numbers if not is_pose_column(name)}
    if weighted:
        merit = predicted.particles.get(FIGURE_OF_MERIT, np.ones(len(predicted)))
        columns[FIGURE_OF_MERIT] = np.asarray(merit, dtype=np.float64).round(_DECIMALS)
    return posed.with_columns(columns)


def reconstructed(
    stack: ParticleStack, symmetry: str, weighted: bool
) -> Generator[int, None, DensityMap]:
    """Reconstruct one half's particles as relion_reconstruct does; yields how many are done.

    Without regularisation, and with RELION's density compensation, so that noise reaches as far as
    in its maps.

    ``stack``: particles with poses. ``symmetry``: point group of the map. ``weighted``: whether
    particles count by their figure of merit, where that column exists.
    """
    projector = BackProjector(stack.box, _PADDING, symmetry)
    frequencies = projector.frequencies / stack.grid.field_angstrom
    rotations, shifts = stack.rotations(), -stack.shifts_angstrom() / stack.pixel_size_angstrom
    weights = np.ones(len(stack))
    if weighted and FIGURE_OF_MERIT in stack.particles:
        weights = stack.particles[FIGURE_OF_MERIT].to_numpy(dtype=np.float64)
    for first in range(0, len(stack), _CHUNK):
        rows = slice(first, min(first + _CHUNK, len(stack)))
        part = stack[rows]
        ctf = transfer_values(part, frequencies, undistorted=False)
        images = corrected_images(part, part.images(), stack.grid, undistort=False)
        matrices = aberrations_of(part).matrices()
        projector.add(images, rotations[rows], ctf, shifts[rows], weights[rows], matrices)
        yield rows.stop
    return DensityMap(projector.solve(gridding=True), stack.pixel_size_angstrom, symmetry)


def reconstructed_by_relion(stack: ParticleStack, symmetry: str, weighted: bool) -> DensityMap:
    """Reconstruct one half's particles with ``relion_reconstruct --ctf --pad 2``, as CESPED does.

    ``--fom_weighting`` is added where ``weighted`` and the column exists. Raises `CryosphereError`
    if relion_reconstruct is not installed, or fails; its last line is quoted.
    """
    with tempfile.TemporaryDirectory(prefix="cryosphere-") as name:
        folder = Path(name)
        stack.save(folder / "particles.star")
        options = f"--i particles.star --o map.mrc --ctf --sym {symmetry.lower()} --pad 2"
        if weighted and FIGURE_OF_MERIT in stack.particles:
            options += " --fom_weighting"
        run_relion("relion_reconstruct", options.split(), folder)
        density = DensityMap.read(folder / "map.mrc", symmetry)
    return replace(density, pixel_size_angstrom=stack.pixel_size_angstrom)


def run_relion(program: str, options: list[str], folder: Path) -> None:
    """Run a program of RELION's in a folder. Raises `CryosphereError` if it is not on the path, or fails."""
    if shutil.which(program) is None:
        raise CryosphereError(
            f"{program} is not on the path; install RELION, or leave --relion out"
        )
    done = subprocess.run(
        [program, *options], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise CryosphereError(
            f"{program} failed (exit {done.returncode}): {lines[-1] if lines else 'no message'}"
        )
