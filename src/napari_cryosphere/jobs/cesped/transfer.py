"""Predictions by models of another data set: brought from its map's frame to that of the particles."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._generators import converted
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.evaluation.entries import HALVES, LocalEntry
from napari_cryosphere.evaluation.half_maps import reconstructed
from napari_cryosphere.evaluation.metrics import mean_map
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.jobs.events import Event, Note, Progress
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction.map_alignment import align_maps
from napari_cryosphere.so3.symmetry import angular_error_degrees

__all__ = ["frame_of"]

# Of correlation by which the mirrored map fits better; chosen, not tuned.
_SURELY_ANOTHER_HAND = 0.02
# Below it a note doubts that the maps are of one molecule; chosen, not tuned.
_POOR_CORRELATION = 0.5


def frame_of(
    entry: LocalEntry, source: LocalEntry
) -> Generator[Event, None, tuple[NDArray[np.float64], str]]:
    """Find how the map of a model's data set lies in the frame of another.

    Both maps are reconstructed from the true poses, which differ by an arbitrary rotation between
    data sets that were refined apart; the source's is brought to the entry's grid and aligned.
    Returns ``(3, 3)``: takes a pose that the model predicts, from the left, to the entry's frame;
    and what to say of the two data sets in a report. Raises `MetadataError` if the two maps are of
    opposite hands.
    """
    target, target_grid = yield from _true_map(entry)
    other, other_grid = yield from _true_map(source)
    voxels = map_on_grid(other, target.box, target.pixel_size_angstrom).numpy()
    found = align_maps(target, DensityMap(voxels, target.pixel_size_angstrom))
    if found.mirrored and found.correlation > found.correlation_other_hand + _SURELY_ANOTHER_HAND:
        raise MetadataError(
            f"the maps of {entry.name} and {source.name} are of opposite hands (correlation "
            f"{found.correlation:.2f} mirrored, {found.correlation_other_hand:.2f} not); no model goes over"
        )
    correlation = found.correlation_other_hand if found.mirrored else found.correlation
    if correlation < _POOR_CORRELATION:
        yield Note(
            f"the maps of {entry.name} and {source.name} correlate at {correlation:.2f} only", True
        )
    if found.mirrored:  # as likely as not: look again without the mirror
        found = align_maps(target, DensityMap(voxels, target.pixel_size_angstrom), check_hand=False)
    # r_source = rotation r_entry, and R takes image coordinates to the source's
    turn = found.rotation.T
    angle = float(angular_error_degrees(np.eye(3)[None], turn[None], entry.symmetry)[0])
    said = (
        f"Models were trained on {source.name} ({other_grid}) and used on {entry.name} ({target_grid}): "
        f"images were brought to the networks' grid by Fourier rescaling, and predictions turned by "
        f"{angle:.1f}° into its frame (maps correlate at {correlation:.2f})."
    )
    return turn, said


def _true_map(entry: LocalEntry) -> Generator[Event, None, tuple[DensityMap, str]]:
    """Reconstruct an entry from its true poses; also says its number, box and pixel size."""
    halves: list[DensityMap] = []
    stacks: Sequence[ParticleStack] = [entry.read(half) for half in HALVES]
    for stack in stacks:

        def progress(done: int, number: int = len(stack)) -> Event:
            text = f"map of {entry.name}: inserted {done} of {number} particles"
            return Progress(0.84, text)

        inserting = reconstructed(stack, entry.symmetry, weighted=False)
        halves.append((yield from converted(inserting, progress)))
    grid = stacks[0].grid
    said = f"{sum(map(len, stacks))} particles of {grid.box} px, {grid.pixel_size_angstrom:g} Å"
    return mean_map(halves), said
