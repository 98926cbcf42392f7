"""The half sets' sums of many files of particles, state by state, which know the files that are in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from napari_cryosphere._files import write_tensors
from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.jobs.running.halves import Halves
from napari_cryosphere.particles import ImageGrid, ParticleStack
from napari_cryosphere.reconstruction import BackProjector, ExactSums, WeightedPoses

__all__ = ["RunningSums"]


class RunningSums:
    """Two half sets' sums of each state, exact, so that the order in which files were added does not show.

    A file's own sums are made in one go from nothing, in the order of its rows, and then added
    exactly: the result depends on the files alone.

    ``grid``: the images' box and pixel size. ``symmetry``, ``padding``: as for `BackProjector`.
    ``states``: how many; particles of several are told apart by rlnClassNumber. ``included``:
    identity of each file in the sums, by name.
    """

    def __init__(self, grid: ImageGrid, symmetry: str, padding: int, states: int = 1) -> None:
        self.grid, self.symmetry, self.padding = grid, symmetry, padding
        self._pairs = [
            tuple(ExactSums(grid.box, padding, symmetry) for _ in range(2)) for _ in range(states)
        ]
        self.included: dict[str, str] = {}

    def add(self, name: str, identity: str, stack: ParticleStack) -> None:
        """Add the particles of a file at their poses.

        Raises `CryosphereError` if its images cannot be read or summed; nothing was added then.
        """
        filled = list[tuple[ExactSums, BackProjector]]()
        for mine, pair in zip(self._of_states(stack), self._pairs, strict=True):
            halves = Halves(self.grid, self.symmetry, self.padding)
            for _ in halves.fill(mine, WeightedPoses.best(mine.rotations())):
                pass
            both = zip(pair, halves.pair, strict=True)
            filled += [(sums, half) for sums, half in both if half.inserted]
        fitting = [sums.fitting(half) for sums, half in filled]
        for (sums, half), numbers in zip(filled, fitting, strict=True):
            sums.add(numbers, half.inserted)
        self.included[name] = identity

    def _of_states(self, stack: ParticleStack) -> list[ParticleStack]:
        """Return the particles of each state."""
        if self.states == 1:
            return [stack]
        of = stack.particles["rlnClassNumber"].to_numpy()
        return [stack[np.flatnonzero(of == state)] for state in range(1, self.states + 1)]

    @property
    def states(self) -> int:
        """How many states there are sums of."""
        return len(self._pairs)

    def join(self, other: RunningSums) -> None:
        """Add sums of other files. Raises ValueError if a file is in both."""
        if both := self.included.keys() & other.included.keys():
            raise ValueError(f"{min(both)} is in both sums")
        for pair, others in zip(self._pairs, other._pairs, strict=True):
            for mine, theirs in zip(pair, others, strict=True):
                mine += theirs
        self.included |= other.included

    def holds_only(self, files: Mapping[str, str]) -> bool:
        """Return whether all files in the sums are among these, with the same identities."""
        return self.included.items() <= files.items()

    def halves(self, state: int | None = None) -> Halves:
        """Return the sums of a state, counted from 1, or of all, in float32, to make maps from."""
        chosen = self._all() if state is None else self._pairs[state - 1]
        first, second = (sums.projector() for sums in chosen)
        return Halves(self.grid, self.symmetry, self.padding, (first, second))

    def _all(self) -> tuple[ExactSums, ...]:
        """Return the two half sets' sums over all states."""
        if self.states == 1:
            return self._pairs[0]
        whole = tuple(ExactSums(self.grid.box, self.padding, self.symmetry) for _ in range(2))
        for pair in self._pairs:
            for total, sums in zip(whole, pair, strict=True):
                total += sums
        return whole

    def save(self, path: Path) -> None:
        """Write sums and names of files as one safetensors file, at once."""
        arrays = {
            f"state{state}.half{half}.{name}": array
            for state, pair in enumerate(self._pairs, start=1)
            for half, sums in enumerate(pair, start=1)
            for name, array in sums.arrays().items()
        }
        about = {
            "included": self.included,
            "inserted": [[sums.inserted for sums in pair] for pair in self._pairs],
            "pixel_size_angstrom": self.grid.pixel_size_angstrom,
            "symmetry": self.symmetry,
            "padding": self.padding,
        }
        write_tensors(arrays, path, {"sums": json.dumps(about)}, overwrite=True)

    @classmethod
    def load(cls, path: Path) -> RunningSums:
        """Read what `save` wrote. Raises FileFormatError if the file is something else or damaged."""
        made = cls.__new__(cls)
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["sums"])
                made.symmetry, made.padding = about["symmetry"], about["padding"]
                made._pairs = [
                    tuple(
                        ExactSums.from_arrays(
                            {
                                name: file.get_tensor(f"state{state}.half{half}.{name}")
                                for name in ("high", "low")
                            },
                            made.padding,
                            made.symmetry,
                            number,
                        )
                        for half, number in enumerate(inserted, start=1)
                    )
                    for state, inserted in enumerate(about["inserted"], start=1)
                ]
            made.grid = ImageGrid(made._pairs[0][0].box, about["pixel_size_angstrom"])
            made.included = about["included"]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise FileFormatError(f"{path} does not hold the sums of a watch: {error}") from error
        return made
