"""The half sets' sums of many files of particles, which know the files that are in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from napari_cryosphere._files import write_tensors
from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.jobs.running.halves import Halves
from napari_cryosphere.particles import ImageGrid, ParticleStack
from napari_cryosphere.reconstruction import ExactSums, WeightedPoses

__all__ = ["RunningSums"]


class RunningSums:
    """Two half sets' sums, exact, so that the order in which files were added does not show.

    A file's own sums are made in one go from nothing, in the order of its rows, and then added
    exactly: the result depends on the files alone.

    Parameters
    ----------
    grid
        The images' box and pixel size.
    symmetry, padding
        As for `BackProjector`.

    Attributes
    ----------
    included
        Identity of each file in the sums, by name.
    """

    def __init__(self, grid: ImageGrid, symmetry: str, padding: int) -> None:
        self.grid, self.symmetry, self.padding = grid, symmetry, padding
        self._pair = tuple(ExactSums(grid.box, padding, symmetry) for _ in range(2))
        self.included: dict[str, str] = {}

    def add(self, name: str, identity: str, stack: ParticleStack) -> None:
        """Add the particles of a file at their poses.

        Raises
        ------
        CryosphereError
            If its images cannot be read or summed; nothing was added then.
        """
        halves = Halves(self.grid, self.symmetry, self.padding)
        for _ in halves.fill(stack, WeightedPoses.best(stack.rotations())):
            pass
        filled = [
            (sums, half)
            for sums, half in zip(self._pair, halves.pair, strict=True)
            if half.inserted
        ]
        fitting = [sums.fitting(half) for sums, half in filled]
        for (sums, half), numbers in zip(filled, fitting, strict=True):
            sums.add(numbers, half.inserted)
        self.included[name] = identity

    def join(self, other: RunningSums) -> None:
        """Add sums of other files. Raises ValueError if a file is in both."""
        if both := self.included.keys() & other.included.keys():
            raise ValueError(f"{min(both)} is in both sums")
        for mine, theirs in zip(self._pair, other._pair, strict=True):
            mine += theirs
        self.included |= other.included

    def holds_only(self, files: Mapping[str, str]) -> bool:
        """Return whether all files in the sums are among these, with the same identities."""
        return self.included.items() <= files.items()

    def halves(self) -> Halves:
        """Return the sums in float32, to make maps from."""
        first, second = (sums.projector() for sums in self._pair)
        return Halves(self.grid, self.symmetry, self.padding, (first, second))

    def save(self, path: Path) -> None:
        """Write sums and names of files as one safetensors file, at once."""
        arrays = {
            f"half{half}.{name}": array
            for half, sums in enumerate(self._pair, start=1)
            for name, array in sums.arrays().items()
        }
        about = {
            "included": self.included,
            "inserted": [sums.inserted for sums in self._pair],
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
                made._pair = tuple(
                    ExactSums.from_arrays(
                        {name: file.get_tensor(f"half{half}.{name}") for name in ("high", "low")},
                        made.padding,
                        made.symmetry,
                        inserted,
                    )
                    for half, inserted in enumerate(about["inserted"], start=1)
                )
            made.grid = ImageGrid(made._pair[0].box, about["pixel_size_angstrom"])
            made.included = about["included"]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise FileFormatError(f"{path} does not hold the sums of a watch: {error}") from error
        return made
