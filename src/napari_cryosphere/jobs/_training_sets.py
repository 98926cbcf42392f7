"""Several data sets of one molecule in one training: joined, checked, and judged one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.jobs._training_data import refuse_untrainable
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.events import Note
from napari_cryosphere.jobs.running.halves import Halves, Reconstruction
from napari_cryosphere.jobs.running.inputs import open_each
from napari_cryosphere.particles import ImageGrid, ParticleStack, number_of_states, spread_rows
from napari_cryosphere.reconstruction import WeightedPoses, fourier_shell_correlation, resampled_map

__all__ = ["TrainingSets"]

_BOX = 32  # of the maps that are compared
_FIRST, _SEEN = 2, 0.3
"""Shells are compared from the second, since the first tells of the particle's size alone, where
the half-maps of both sets have this FSC."""
_SHOWN = 1000  # particles of each that are reconstructed
_SAME_FRAME = 0.8
"""Agreement relative to what noise leaves: 1.00 to 1.04 for sets in one frame (phantoms, ribosome,
beta-galactosidase), 0.65 to 0.91 where one was turned by 11 degrees, 0.15 to 0.67 by 29 degrees."""

_FAR_COARSER = 2.0
"""Factor of resolutions beyond which one set's poses are doubted: 60 phantoms at random poses reach
56 A, at true ones 24; at most 1.2 between sets of 60 and 90 at true ones."""


class TrainingSets:
    """The particles of one or several data sets, and which set each is from.

    - ``stack``: all particles, one set after the other.
    - ``names``: the sets' file names.
    - ``states``: how many states each set has probabilities of, 1 without.
    - ``of``: ``(n,)`` int64: which set each particle is from.
    """

    def __init__(self, stacks: Sequence[ParticleStack]) -> None:
        self._stacks = stacks
        self.names = [stack.source.name for stack in stacks]
        self.states = [number_of_states(stack.particles) for stack in stacks]
        self.stack = stacks[0] if len(stacks) == 1 else ParticleStack.join(stacks)
        self.of = np.repeat(np.arange(len(stacks)), [len(stack) for stack in stacks])

    @classmethod
    def open(cls, config: TrainConfig) -> TrainingSets:
        """Open the data sets that a config names.

        Raises `CryosphereError` if one cannot be read or has no poses, or they do not go together;
        see `ParticleStack.join`.
        """
        stacks = open_each(config, config.particles)
        for stack in stacks:
            refuse_untrainable(stack)
        without = [stack for stack in stacks if not stack.has_ctf]
        if without and len(without) < len(stacks):
            raise MetadataError(
                f"{without[0].source} has no CTF (rlnDefocusU), other data sets have one; add it, or train "
                "without this set"
            )
        return cls(stacks)

    def frame_warnings(self, symmetry: str) -> Iterator[Note]:
        """Yield a warning for each set whose poses give another map than those of the set before.

        Poses from separate refinements have frames of their own, and a network cannot learn both. Or one
        set's poses give hardly a map at all, as random ones do: a ball, which is like any map's.
        """
        if len(self._stacks) == 1:
            return
        maps = [_coarse_map(stack, symmetry) for stack in self._stacks]
        for (first, one), (second, other) in pairwise(zip(self.names, maps, strict=True)):
            agreed = _agreement(one, other)
            if agreed < _SAME_FRAME:
                yield Note(
                    f"the poses of {first} and {second} give maps that agree to {agreed:.2f} of what the "
                    "half-maps of each do: their frames or hands differ, or the molecules; align one set to "
                    "the other's map first",
                    warning=True,
                )
                continue
            reached = [_reached_angstrom(map_) for map_ in (one, other)]
            if max(reached) > _FAR_COARSER * min(reached):
                poor, good = (first, second) if reached[0] > reached[1] else (second, first)
                yield Note(
                    f"the poses of {poor} give half-maps that agree to {max(reached):.0f} A only, those of "
                    f"{good} to {min(reached):.0f} A: they are wrong, or its particles too few or too noisy "
                    "to tell whether they are in one frame",
                    warning=True,
                )

    def errors(
        self, rows: NDArray[np.int64], degrees: NDArray[np.float64]
    ) -> list[dict[str, float | int | str]]:
        """Return the median error of held-out particles by data set, from their rows and errors."""
        return [
            {
                "particles": name,
                "held_out": int(mine.sum()),
                "validation_median_degrees": float(np.median(degrees[mine])),
            }
            for number, name in enumerate(self.names)
            for mine in [self.of[rows] == number]
            if mine.any()
        ]


def _coarse_map(stack: ParticleStack, symmetry: str) -> Reconstruction:
    """Return the map and half-maps of some particles at their own poses, in few voxels."""
    some = stack[spread_rows(len(stack), _SHOWN)].with_new_half_sets()
    box = min(_BOX, stack.box)
    some = some.on_grid(ImageGrid(box, stack.grid.field_angstrom / box))
    halves = Halves(some.grid, symmetry, padding=2)
    for _ in halves.fill(some, WeightedPoses.best(some.rotations())):
        pass
    return halves.solve(half_maps=True)


def _reached_angstrom(map_: Reconstruction) -> float:
    """Return how far half-maps agree."""
    assert map_.curve is not None
    return float(map_.curve.resolution_angstrom(_SEEN))


def _agreement(one: Reconstruction, other: Reconstruction) -> float:
    """Return the mean FSC of two maps, relative to what the noise of both leaves of one map's.

    A map of all particles has with itself without noise the FSC sqrt(2 F / (1 + F)), F that of its halves
    (Rosenthal & Henderson 2003).
    """
    grid = one.density
    maps = [
        [
            resampled_map(each, grid.box, grid.pixel_size_angstrom).voxels
            for each in (part.density, *part.halves)
        ]
        for part in (one, other)
    ]

    def correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
        return fourier_shell_correlation(first, second, grid.pixel_size_angstrom).values

    halves = np.clip([correlation(first, second) for _, first, second in maps], 0, 1)
    seen = halves.min(axis=0) > _SEEN
    seen[:_FIRST] = False
    if not seen.any():
        return 1.0
    expected = np.sqrt(2 * halves / (1 + halves)).prod(axis=0)
    return float(correlation(maps[0][0], maps[1][0])[seen].mean() / expected[seen].mean())
