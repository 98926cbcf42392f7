"""The job ``reconstruct``: particles with poses to a map, and half-maps with their FSC."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from napari_cryosphere._files import refuse_beyond_room, refuse_overwrite, temporary_folder
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs.configs import ReconstructConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result, Snapshot
from napari_cryosphere.jobs.running.batches import Pace
from napari_cryosphere.jobs.running.halves import (
    CHUNK,
    Halves,
    Reconstruction,
    chunks,
    refuse_empty_half,
)
from napari_cryosphere.jobs.running.inputs import open_particles, refuse_unposed, warnings_of
from napari_cryosphere.jobs.running.memory import MemoryLimit, reconstruction_bytes
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.ranks import Ranks, current_ranks
from napari_cryosphere.jobs.running.references import open_mask
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import WeightedPoses
from napari_cryosphere.reconstruction.fsc_files import half_map_outputs

__all__ = ["Reconstruction", "fill", "gather", "partial_output", "reconstruct", "reconstruct_stack"]


def partial_output(output: Path) -> Path:
    """Return where the map goes that a run leaves which is stopped."""
    return output.with_name(f"{output.stem}_partial.mrc")


def reconstruct_stack(
    stack: ParticleStack,
    symmetry: str = "C1",
    half_maps: bool = False,
    padding: int = 2,
    mask: DensityMap | None = None,
    poses: WeightedPoses | None = None,
    regularise: bool = True,
    snapshot_seconds: float | None = None,
) -> Generator[Progress | Note | Snapshot, None, Reconstruction]:
    """Reconstruct from particles; yields what a job yields and returns the maps.

    Raises `MetadataError` if there are no poses, or half-maps are asked for and one half is empty.

    - ``stack``: particles with poses.
    - ``symmetry``: point group of the map.
    - ``half_maps``: whether to keep the half-maps and correlate them.
    - ``padding``: oversampling of the Fourier volume.
    - ``mask``: for the FSC of the half-maps.
    - ``poses``: weighted poses, one row a particle; None takes the stack's own poses.
    - ``regularise``: whether the map of all particles is Wiener-filtered by its half-maps' FSC.
      Half-maps never are.
    - ``snapshot_seconds``: yield the growing map about that often; None for never.
    """
    chosen = _chosen_poses(stack, poses)
    _check_halves(stack, half_maps, mask)
    yield from warnings_of(stack, "they are used as they are")
    halves = Halves(stack.grid, symmetry, padding)
    yield from fill(halves, stack, chosen, chunks(len(stack)), snapshot_seconds)
    result = halves.solve(half_maps, mask, regularise)
    yield Progress(1.0, f"reconstructed from {len(stack)} particles")
    return result


def _check_halves(stack: ParticleStack, half_maps: bool, mask: DensityMap | None) -> None:
    if half_maps:
        refuse_empty_half(stack, "omit --half-maps, or ")
    if mask is not None and mask.box != stack.box:
        raise MetadataError(f"the mask has a box of {mask.box}, the images one of {stack.box}")


def fill(
    halves: Halves,
    stack: ParticleStack,
    poses: WeightedPoses,
    rows: Sequence[slice],
    snapshot_seconds: float | None = None,
) -> Generator[Progress | Snapshot, None, None]:
    """Insert some particles, and show the map as it grows if asked to."""
    total = sum(chunk.stop - chunk.start for chunk in rows)
    pace, shown, worked = Pace(total), time.monotonic(), 0.0
    for done in halves.fill(stack, poses, rows):
        share = done / total * 0.95
        left = pace.remaining_seconds(done)
        yield Progress(share, f"inserted {done} of {total} particles", remaining_seconds=left)
        # a snapshot may cost a third of the time at most
        if snapshot_seconds and time.monotonic() - shown > max(snapshot_seconds, 2 * worked):
            start = time.monotonic()
            yield Snapshot(share, halves.snapshot(), done)
            shown, worked = time.monotonic(), time.monotonic() - start


def gather(halves: Halves, ranks: Ranks, output: Path) -> None:
    """Add up the sums of all ranks in rank 0, in their order, through a folder next to the output."""
    if ranks.count == 1:
        return
    with ExitStack() as kept:
        shared = temporary_folder(output.parent)
        folder = Path(ranks.of_first(lambda: str(kept.enter_context(shared))))
        if not ranks.first:
            halves.save(folder, f"rank{ranks.rank}")
        ranks.wait()
        if ranks.first:
            for rank in range(1, ranks.count):
                halves.add_saved(folder, f"rank{rank}")


def _chosen_poses(stack: ParticleStack, poses: WeightedPoses | None) -> WeightedPoses:
    if poses is not None:
        if len(poses) != len(stack):
            raise MetadataError(
                f"{stack.source} has {len(stack)} particles, the distributions {len(poses)}"
            )
        return poses
    refuse_unposed(stack, "to reconstruct from; predict them first")
    return WeightedPoses.best(stack.rotations())


def _sampled_poses(config: ReconstructConfig, number: int) -> WeightedPoses | None:
    """Draw poses from the distributions that the config names, batch by batch; None if it names none."""
    if config.distributions is None:
        return None
    from napari_cryosphere.so3.distributions.store import DistributionStore

    store, rng = DistributionStore(config.distributions), np.random.default_rng(config.seed)
    if len(store) != number:
        raise MetadataError(
            f"{config.distributions} holds distributions of {len(store)} particles, "
            f"{config.particles} has {number}"
        )
    parts = [
        WeightedPoses.samples_of(store[first : min(first + CHUNK, number)], config.samples, rng)
        for first in range(0, number, CHUNK)
    ]
    return WeightedPoses(
        np.concatenate([part.rotations for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


@claims(files=("output",))
def reconstruct(config: ReconstructConfig) -> Events:
    """Reconstruct a map from particles at their poses; under torchrun each rank inserts a share."""
    outputs = {"map": config.output} | (half_map_outputs(config.output) if config.half_maps else {})
    for path in outputs.values():
        refuse_overwrite(path, config.overwrite)
    ranks = current_ranks()
    stack = open_particles(config)
    mask = None
    if config.mask is not None:
        opened = open_mask(config.mask, stack.grid, f"{config.particles}")
        yield from opened.notes
        mask = opened.density
    poses = _chosen_poses(stack, _sampled_poses(config, len(stack)))
    _check_halves(stack, config.half_maps, mask)
    MemoryLimit(config.max_memory_gb).refuse_beyond(
        reconstruction_bytes(stack.box, config.padding),
        f"the sums of two half-maps of {stack.box} px at padding {config.padding}",
        "allow more, or pad less (--set padding=1)",
    )
    written = 4.0 * stack.box**3 * (3 if config.half_maps else 1)
    refuse_beyond_room(config.output.parent, written, "the maps")
    yield from warnings_of(stack, "they are used as they are")
    halves = Halves(stack.grid, config.symmetry, config.padding)
    try:
        yield from fill(halves, stack, poses, ranks.share(chunks(len(stack))))
    except (GeneratorExit, KeyboardInterrupt):
        if halves.inserted and ranks.count == 1:
            halves.snapshot().save(partial_output(config.output), overwrite=True)
        raise
    gather(halves, ranks, config.output)
    if not ranks.first:
        yield Result({}, {})
        return
    made = halves.solve(config.half_maps, mask, config.regularise)
    yield Progress(1.0, f"reconstructed from {len(stack)} particles")
    metrics: dict[str, float | int | str] = {"particles": len(stack)}
    if made.curve is not None:
        metrics["half_map_resolution_0143_angstrom"] = made.curve.resolution_angstrom(0.143)
    yield Result(made.save(outputs, overwrite=config.overwrite), metrics)
