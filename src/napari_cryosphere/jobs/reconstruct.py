"""The job ``reconstruct``: particles with poses to a map, and half-maps with their FSC."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.ctf import transfer_functions
from napari_cryosphere.imaging.inspection import inspect_images
from napari_cryosphere.jobs._writing import write_fsc
from napari_cryosphere.jobs.configs import ReconstructConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import BackProjector, FourierShellCorrelation, compare_maps

__all__ = ["Reconstruction", "half_map_outputs", "insert_particles", "reconstruct", "reconstruct_stack"]

_CHUNK = 128


def insert_particles(
    stack: ParticleStack, into: dict[int, BackProjector], halves: NDArray[np.int64]
) -> Iterator[int]:
    """Insert every particle at its pose into the back-projector of its half; yields how many are done.

    Parameters
    ----------
    stack
        Particles with poses; shifts and CTF are used where present.
    into
        Back-projectors by half.
    halves
        ``(n,)``: a key of ``into`` for each particle.
    """
    rotations = stack.rotations()
    shifts_px = -stack.shifts_angstrom() / stack.pixel_size_angstrom
    for start in range(0, len(stack), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = stack[rows]
        images, ctf = part.images(), transfer_functions(part)
        for half, target in into.items():
            mine = halves[rows] == half
            if mine.any():
                target.add(
                    images[mine],
                    rotations[rows][mine],
                    None if ctf is None else ctf[mine],
                    shifts_px[rows][mine],
                )
        yield min(start + _CHUNK, len(stack))


def half_map_outputs(output: Path) -> dict[str, Path]:
    """Return where half-maps and their FSC go, beside the map."""
    return {
        "half1": output.with_name(f"{output.stem}_half1.mrc"),
        "half2": output.with_name(f"{output.stem}_half2.mrc"),
        "fsc": output.with_name(f"{output.stem}_fsc.csv"),
    }


@dataclass(frozen=True)
class Reconstruction:
    """A map; with half-maps also these and their FSC."""

    density: DensityMap
    halves: tuple[DensityMap, ...] = ()
    curve: FourierShellCorrelation | None = None


def reconstruct_stack(
    stack: ParticleStack,
    symmetry: str = "C1",
    half_maps: bool = False,
    padding: int = 2,
    mask: DensityMap | None = None,
) -> Generator[Progress | Note, None, Reconstruction]:
    """Reconstruct from particles in memory; yields what a job yields and returns the maps.

    Parameters
    ----------
    stack
        Particles with poses.
    symmetry
        Point group of the map.
    half_maps
        Whether to solve for the halves too and correlate them, inside ``mask`` if there is one.
    padding
        Oversampling of the Fourier volume.

    Raises
    ------
    MetadataError
        If there are no poses, or half-maps are asked for and one half is empty.
    """
    if not stack.has_poses:
        raise MetadataError(
            f"{stack.source} has no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) to reconstruct from; "
            "predict them first"
        )
    halves = stack.half_sets()
    if half_maps and len(np.unique(halves)) < 2:
        raise MetadataError(
            f"{stack.source}: all particles are in half {halves[0]}; half-maps need both halves"
        )
    for warning in (*stack.warnings, *inspect_images(stack).warnings):
        yield Note(warning, warning=True)
    if not stack.has_ctf:
        yield Note("the particles have no CTF columns: they are used as they are", warning=True)
    projectors = {half: BackProjector(stack.box, padding, symmetry) for half in (1, 2)}
    for done in insert_particles(stack, projectors, halves):
        yield Progress(done / len(stack) * 0.95, f"inserted {done} of {len(stack)} particles")

    def density(projector: BackProjector) -> DensityMap:
        return DensityMap(projector.solve(), stack.pixel_size_angstrom, symmetry)

    parts = (density(projectors[1]), density(projectors[2])) if half_maps else ()
    curve = compare_maps(*parts, mask).curve if parts else None
    projectors[1] += projectors[2]
    result = Reconstruction(density(projectors[1]), parts, curve)
    yield Progress(1.0, f"reconstructed from {len(stack)} particles")
    return result


def reconstruct(config: ReconstructConfig) -> Events:
    """Reconstruct a map from particles at their poses and write it."""
    outputs = {"map": config.output} | (half_map_outputs(config.output) if config.half_maps else {})
    for path in outputs.values():
        refuse_overwrite(path, config.overwrite)
    stack = ParticleStack.read(config.particles, config.data_dir)
    mask = None if config.mask is None else DensityMap.read(config.mask)
    made = yield from reconstruct_stack(stack, config.symmetry, config.half_maps, config.padding, mask)
    metrics: dict[str, float | int | str] = {"particles": len(stack)}
    if made.curve is not None:
        for density, role in zip(made.halves, ("half1", "half2"), strict=True):
            density.save(outputs[role], config.overwrite)
        write_fsc(made.curve, outputs["fsc"], overwrite=config.overwrite)
        metrics["half_map_resolution_0143_angstrom"] = made.curve.resolution_angstrom(0.143)
    made.density.save(outputs["map"], config.overwrite)
    yield Result(outputs, metrics)
