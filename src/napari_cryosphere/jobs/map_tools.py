"""The jobs ``symmetry`` and ``flip-hand``: a map moved or mirrored, and its halves and poses with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.configs.map_tools import FlipHandConfig, MapSymmetryConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result
from napari_cryosphere.jobs.running.inputs import refuse_unposed
from napari_cryosphere.jobs.running.map_detail import map_detail
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.references import open_map
from napari_cryosphere.particles import DensityMap, ParticleStack, is_state_column
from napari_cryosphere.reconstruction.fsc_files import half_map_outputs
from napari_cryosphere.reconstruction.map_alignment import mirrored
from napari_cryosphere.reconstruction.map_symmetry import (
    GROUPS,
    SYMMETRIC,
    SymmetryFit,
    found_symmetry,
    symmetry_fits,
)

__all__ = ["flip_hand", "mirrored_poses", "symmetry"]

Values: TypeAlias = NDArray[np.float64]

_SHOWN = 5  # groups that are named, the best ones
_HAND = (
    "the particles fit both hands alike: projections of a map and of its mirror image are the same. Which "
    "hand is right has to come from elsewhere: helices (right-handed, seen from some 7 A), a known "
    "structure, or tilted images"
)
_ACROSS_X = np.diag([-1.0, 1.0, 1.0])
_ALONG_VIEW = np.diag([1.0, 1.0, -1.0])
_OTHER_FRAME = {"I3": "I4", "I4": "I3"}
"""Groups whose axes, mirrored across x, are those of another."""


@claims(files=("output",))
def symmetry(config: MapSymmetryConfig) -> Events:
    """Say which point groups a map has and how well it agrees with each; lay its axes.

    Raises `MetadataError` if axes are to be laid and the map has no symmetry, or not the one asked
    for.
    """
    _refuse(config.output, config)
    density = open_map(config, config.map)
    detail = map_detail(config.map, density, config.resolution_angstrom)
    yield Progress(0.0, "looking for axes")
    groups = GROUPS if config.symmetry is None else (config.symmetry,)
    fits = symmetry_fits(density, detail.resolution_angstrom, groups)
    best = found_symmetry(fits)
    for fit in sorted(fits, key=lambda one: -one.correlation)[:_SHOWN]:
        yield Note(_told(fit))
    name = "C1" if best is None else best.group
    metrics: dict[str, float | int | str] = {"symmetry": name}
    if best is None:
        asked = "no symmetry" if config.symmetry is None else f"no symmetry {config.symmetry}"
        none = f"{config.map} has {asked}: the best group, {_told(max(fits, key=_agreement))}"
        if config.output is not None:
            raise MetadataError(f"{none}; there are no axes to lay, leave --output out")
        yield Note(none)
        yield Result({}, metrics | {"correlation": max(map(_agreement, fits))})
        return
    metrics |= {
        "correlation": round(best.correlation, 4),
        "deviations_above_chance": round(best.deviations, 1),
        "axes_off_degrees": round(best.off_degrees, 2),
        "centre_off_angstrom": round(float(np.linalg.norm(best.centre_angstrom)), 2),
    }
    outputs: dict[str, Path] = {}
    if config.output is not None:
        outputs = _write(config, config.output, best.laid, best.laid_poses, best.group)
    yield Result(outputs, metrics)


def _agreement(fit: SymmetryFit) -> float:
    return fit.correlation


def _told(fit: SymmetryFit) -> str:
    return (
        f"{fit.group}: correlation {fit.correlation:.2f} under its worst operator, {fit.deviations:.0f} "
        f"deviations above a turn by chance ({fit.chance:.2f}); {SYMMETRIC} and more counts as symmetric"
    )


@claims(files=("output",))
def flip_hand(config: FlipHandConfig) -> Events:
    """Mirror a map across its yz plane, as RELION's --invert_hand does, and turn the poses with it."""
    _refuse(config.output, config)

    def flipped(density: DensityMap) -> DensityMap:
        voxels = np.ascontiguousarray(mirrored(density.voxels, axis=2))
        return DensityMap(voxels, density.pixel_size_angstrom, density.symmetry)

    group = _OTHER_FRAME.get(config.symmetry, config.symmetry)
    outputs = _write(config, config.output, flipped, mirrored_poses, group)
    if group != config.symmetry:
        yield Note(f"mirrored, the axes of {config.symmetry} are those of {group}")
    yield Note(_HAND)
    yield Result(outputs, {"maps": sum(path.suffix == ".mrc" for path in outputs.values())})


def mirrored_poses(rotations: Values, shifts_angstrom: Values) -> tuple[Values, Values]:
    """Return the poses ``(n, 3, 3)`` at which a map mirrored across x has the same images; shifts stay."""
    return _ACROSS_X @ rotations @ _ALONG_VIEW, shifts_angstrom


def _files(path: Path) -> dict[str, Path]:
    """Return a map and the half-maps that lie next to it, by role."""
    halves = [half_map_outputs(path), {r: path.with_name(f"{r}.mrc") for r in ("half1", "half2")}]
    for names in halves:
        pair = {role: names[role] for role in ("half1", "half2")}
        if all(half.is_file() and half != path for half in pair.values()):
            return {"map": path} | pair
    return {"map": path}


def _outputs(config: MapSymmetryConfig | FlipHandConfig, output: Path) -> dict[str, Path]:
    """Return what is written, by role."""
    places = {"map": output} | half_map_outputs(output)
    written = {role: places[role] for role in _files(config.map)}
    return written | ({} if config.particles is None else {"star": output.with_suffix(".star")})


def _refuse(output: Path | None, config: MapSymmetryConfig | FlipHandConfig) -> None:
    for path in {} if output is None else _outputs(config, output).values():
        refuse_overwrite(path, config.overwrite)


def _write(
    config: MapSymmetryConfig | FlipHandConfig,
    output: Path,
    move: Callable[[DensityMap], DensityMap],
    move_poses: Callable[[Values, Values], tuple[Values, Values]],
    group: str,
) -> dict[str, Path]:
    """Move a map, its half-maps and its particles, and write them."""
    outputs = _outputs(config, output)
    stack = None
    if config.particles is not None:
        stack = ParticleStack.read(config.particles, config.data_dir, require_images=False)
        refuse_unposed(stack, "to move; leave --particles out")
    for role, path in _files(config.map).items():
        move(open_map(config, path)).save(outputs[role], config.overwrite)
    if stack is not None:
        poses = move_poses(stack.rotations(), stack.shifts_angstrom())
        states = {
            name: stack.particles[name].to_numpy()
            for name in stack.particles
            if is_state_column(str(name))
        }
        # a frame has moved, and no particle to another state
        moved = stack.with_poses(*poses, group).with_columns(states)
        moved.save(outputs["star"], config.overwrite)
    return outputs
