"""The job ``reconstruct``: particles with poses to a map, and half-maps with their FSC."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.ctf import transfer_values
from napari_cryosphere.jobs._notes import warnings_of
from napari_cryosphere.jobs.configs import ReconstructConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result, Snapshot
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import (
    BackProjector,
    FourierShellCorrelation,
    WeightedPoses,
    compare_maps,
    fourier_shell_correlation,
    ssnr_of_full_map,
    write_fsc_csv,
)

__all__ = ["Reconstruction", "half_map_outputs", "partial_output", "reconstruct", "reconstruct_stack"]

_CHUNK = 128


def half_map_outputs(output: Path) -> dict[str, Path]:
    """Return where half-maps and their FSC go, beside the map."""
    return {
        "half1": output.with_name(f"{output.stem}_half1.mrc"),
        "half2": output.with_name(f"{output.stem}_half2.mrc"),
        "fsc": output.with_name(f"{output.stem}_fsc.csv"),
    }


def partial_output(output: Path) -> Path:
    """Return where the map goes that a run leaves which is stopped."""
    return output.with_name(f"{output.stem}_partial.mrc")


@dataclass(frozen=True)
class Reconstruction:
    """A map; with half-maps also these and their FSC.

    Attributes
    ----------
    density
        The map of all particles.
    halves
        Half-maps without regularisation, as post-processing wants them.
    curve
        Their FSC.
    particles
        How many particles the map is made from.
    """

    density: DensityMap
    halves: tuple[DensityMap, ...] = ()
    curve: FourierShellCorrelation | None = None
    particles: int = 0


class _Halves:
    """Two back-projectors, one a half set, that fill while particles come."""

    def __init__(
        self, stack: ParticleStack, symmetry: str, padding: int, regularise: bool, poses: WeightedPoses
    ) -> None:
        self._stack, self._symmetry, self._regularise, self._poses = stack, symmetry, regularise, poses
        self._of = stack.half_sets()
        self._shifts_px = -stack.shifts_angstrom() / stack.pixel_size_angstrom
        self._pair = tuple(BackProjector(stack.box, padding, symmetry) for _ in range(2))

    @property
    def inserted(self) -> int:
        return sum(half.inserted for half in self._pair)

    def fill(self) -> Iterator[int]:
        """Insert all particles; yields how many are done."""
        frequencies = self._pair[0].frequencies / (self._stack.box * self._stack.pixel_size_angstrom)
        for start in range(0, len(self._stack), _CHUNK):
            rows = slice(start, min(start + _CHUNK, len(self._stack)))
            part = self._stack[rows]
            images, ctf = part.images(), transfer_values(part, frequencies)
            for half, projector in enumerate(self._pair, start=1):
                mine = np.flatnonzero(self._of[rows] == half)
                if len(mine):
                    projector.add(
                        images[mine],
                        self._poses.rotations[rows][mine],
                        None if ctf is None else ctf[mine],
                        self._shifts_px[rows][mine],
                        self._poses.weights[rows][mine],
                    )
            yield rows.stop

    def density(self, voxels: NDArray[np.float32]) -> DensityMap:
        return DensityMap(voxels, self._stack.pixel_size_angstrom, self._symmetry)

    def snapshot(self) -> DensityMap:
        """Return the map of the particles so far; the sums go on growing."""
        maps = [half.solve() * half.inserted for half in self._pair if half.inserted]
        return self.density(np.sum(maps, axis=0) / self.inserted)

    def solve(self, half_maps: bool, mask: DensityMap | None) -> Reconstruction:
        """Return the final maps; the sums of the halves become one."""
        both = all(half.inserted for half in self._pair)
        size = self._stack.pixel_size_angstrom
        maps = [self.density(half.solve()) for half in self._pair] if both else []
        ssnr = None
        if both and self._regularise:
            unmasked = fourier_shell_correlation(maps[0].voxels, maps[1].voxels, size)
            ssnr = ssnr_of_full_map(unmasked)
        count = self.inserted
        parts = tuple(maps) if half_maps else ()
        curve = compare_maps(maps[0], maps[1], mask).curve if half_maps else None
        full, other = self._pair
        full += other
        return Reconstruction(self.density(full.solve(ssnr)), parts, curve, count)


def reconstruct_stack(
    stack: ParticleStack,
    symmetry: str = "C1",
    half_maps: bool = False,
    padding: int = 2,
    mask: DensityMap | None = None,
    poses: WeightedPoses | None = None,
    regularise: bool = True,
    snapshot_seconds: float | None = None,
    keep_partial: Path | None = None,
) -> Generator[Progress | Note | Snapshot, None, Reconstruction]:
    """Reconstruct from particles; yields what a job yields and returns the maps.

    Parameters
    ----------
    stack
        Particles with poses.
    symmetry
        Point group of the map.
    half_maps
        Whether to keep the half-maps and correlate them, inside ``mask`` if there is one.
    padding
        Oversampling of the Fourier volume.
    poses
        Weighted poses, one row a particle; None takes the stack's own poses.
    regularise
        Whether the map of all particles is Wiener-filtered by its half-maps' FSC. Half-maps never are.
    snapshot_seconds
        Yield the growing map about that often; None for never.
    keep_partial
        Where the map so far is written if the work is stopped.

    Raises
    ------
    MetadataError
        If there are no poses, or half-maps are asked for and one half is empty.
    """
    chosen = _chosen_poses(stack, poses)
    counts = [int((stack.half_sets() == half).sum()) for half in (1, 2)]
    if half_maps and min(counts) == 0:
        raise MetadataError(
            f"{stack.source}: all particles are in half {1 + int(counts[0] == 0)}; half-maps need both "
            "halves: leave --half-maps away, or remove rlnRandomSubset for a new split"
        )
    if mask is not None and mask.box != stack.box:
        raise MetadataError(f"the mask has a box of {mask.box}, the images one of {stack.box}")
    yield from warnings_of(stack, "they are used as they are")
    halves = _Halves(stack, symmetry, padding, regularise, chosen)
    try:
        shown, worked = time.monotonic(), 0.0
        for done in halves.fill():
            yield Progress(done / len(stack) * 0.95, f"inserted {done} of {len(stack)} particles")
            # a snapshot may cost a third of the time at most
            if snapshot_seconds and time.monotonic() - shown > max(snapshot_seconds, 2 * worked):
                start = time.monotonic()
                yield Snapshot(done / len(stack) * 0.95, halves.snapshot(), done)
                shown, worked = time.monotonic(), time.monotonic() - start
    except (GeneratorExit, KeyboardInterrupt):
        if keep_partial is not None and halves.inserted:
            halves.snapshot().save(keep_partial, overwrite=True)
        raise
    result = halves.solve(half_maps, mask)
    yield Progress(1.0, f"reconstructed from {len(stack)} particles")
    return result


def _chosen_poses(stack: ParticleStack, poses: WeightedPoses | None) -> WeightedPoses:
    if poses is not None:
        if len(poses) != len(stack):
            raise MetadataError(f"{stack.source} has {len(stack)} particles, the distributions {len(poses)}")
        return poses
    if not stack.has_poses:
        raise MetadataError(
            f"{stack.source} has no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) to reconstruct from; "
            "predict them first"
        )
    return WeightedPoses.best(stack.rotations())


def _sampled_poses(config: ReconstructConfig, number: int) -> WeightedPoses | None:
    """Draw poses from the distributions that the config names, batch by batch; None if it names none."""
    if config.distributions is None:
        return None
    from napari_cryosphere.so3.distribution_store import DistributionStore

    store, rng = DistributionStore(config.distributions), np.random.default_rng(config.seed)
    if len(store) != number:
        raise MetadataError(
            f"{config.distributions} holds distributions of {len(store)} particles, "
            f"{config.particles} has {number}"
        )
    parts = [
        WeightedPoses.samples_of(store[first : min(first + _CHUNK, number)], config.samples, rng)
        for first in range(0, number, _CHUNK)
    ]
    return WeightedPoses(
        np.concatenate([part.rotations for part in parts]), np.concatenate([part.weights for part in parts])
    )


def reconstruct(config: ReconstructConfig) -> Events:
    """Reconstruct a map from particles at their poses and write it."""
    outputs = {"map": config.output} | (half_map_outputs(config.output) if config.half_maps else {})
    for path in outputs.values():
        refuse_overwrite(path, config.overwrite)
    stack = ParticleStack.read(config.particles, config.data_dir)
    mask = None if config.mask is None else DensityMap.read(config.mask)
    made = yield from reconstruct_stack(
        stack,
        config.symmetry,
        config.half_maps,
        config.padding,
        mask,
        poses=_sampled_poses(config, len(stack)),
        regularise=config.regularise,
        keep_partial=partial_output(config.output),
    )
    metrics: dict[str, float | int | str] = {"particles": len(stack)}
    if made.curve is not None:
        for density, role in zip(made.halves, ("half1", "half2"), strict=True):
            density.save(outputs[role], config.overwrite)
        write_fsc_csv({"fsc": made.curve}, outputs["fsc"], overwrite=config.overwrite)
        metrics["half_map_resolution_0143_angstrom"] = made.curve.resolution_angstrom(0.143)
    made.density.save(outputs["map"], config.overwrite)
    yield Result(outputs, metrics)
