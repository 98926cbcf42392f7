"""Where the pixels of each particle are: stacks and indices, and reading them in as few goes as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError, FileFormatError, MetadataError
from napari_cryosphere.particles._checks import Place, shown
from napari_cryosphere.particles._half_sets import dealt_halves
from napari_cryosphere.particles._stack_files import ArrayStack, StackFile
from napari_cryosphere.particles.mrc import MrcStack

__all__ = ["ImageSource"]


@dataclass(frozen=True)
class ImageSource:
    """Stack and index of each particle; slicing costs a few integers.

    - ``files``: all stacks of the data set.
    - ``file_of``, ``(n,)``: which of ``files`` a particle is in.
    - ``index_of``, ``(n,)``: its index there, from 0.
    - ``row_of``, ``(n,)``: its row in the STAR file, from 0, for messages.
    - ``image_of``, ``(n,)``: number of its image among the different ones, from 0 in the order of
      the rows; rows with the same image have the same number.
    - ``place_of``, ``(n,)``: which of ``places`` its row is in.
    - ``sign_of``: ``(n,)`` of 1 and -1: what its grey values are multiplied by as they are read.
    - ``half_of``: ``(n,)`` of 1 and 2: the half set that it is dealt to where the table names none.
    - ``places``: the tables that rows are from; several where stacks were joined.
    """

    files: tuple[StackFile, ...]
    file_of: NDArray[np.int64]
    index_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    image_of: NDArray[np.int64]
    place_of: NDArray[np.int32]
    sign_of: NDArray[np.int8]
    half_of: NDArray[np.int8]
    places: tuple[Place, ...]

    @classmethod
    def of_file(
        cls,
        place: Place,
        files: tuple[StackFile, ...],
        file_of: NDArray[np.int64],
        index_of: NDArray[np.int64],
    ) -> ImageSource:
        """Return the source of all rows of one table."""
        number, image_of = len(file_of), _image_numbers(file_of, index_of)
        where = np.zeros(number, dtype=np.int32)
        return cls(
            files,
            file_of,
            index_of,
            np.arange(number),
            image_of,
            where,
            np.ones(number, dtype=np.int8),
            dealt_halves(image_of, None),
            (place,),
        )

    @classmethod
    def joined(cls, sources: Sequence[ImageSource]) -> ImageSource:
        """Return the source of the particles of several sources, one after the other."""
        files: dict[Path | str, StackFile] = {}
        places: dict[Place, None] = {}
        for source in sources:
            for key, file in source._by_path():
                files.setdefault(key, file)
            places |= dict.fromkeys(source.places)
        file_numbers = {key: number for number, key in enumerate(files)}
        place_numbers = {place: number for number, place in enumerate(places)}
        file_of, place_of = [], []
        for source in sources:
            keys = [file_numbers[key] for key, _ in source._by_path()]
            new_files = np.array(keys, dtype=np.int64)
            new_places = np.array([place_numbers[place] for place in source.places], dtype=np.int32)
            file_of.append(new_files[source.file_of])
            place_of.append(new_places[source.place_of])
        all_files = np.concatenate(file_of)
        index_of = np.concatenate([source.index_of for source in sources])
        image_of = _image_numbers(all_files, index_of)
        return cls(
            tuple(files.values()),
            all_files,
            index_of,
            np.concatenate([source.row_of for source in sources]),
            image_of,
            np.concatenate(place_of),
            np.concatenate([source.sign_of for source in sources]),
            dealt_halves(image_of, None),
            tuple(places),
        )

    def __getitem__(self, indices: Any) -> ImageSource:
        """Return the source of some particles."""
        return replace(
            self,
            file_of=self.file_of[indices],
            index_of=self.index_of[indices],
            row_of=self.row_of[indices],
            image_of=self.image_of[indices],
            place_of=self.place_of[indices],
            sign_of=self.sign_of[indices],
            half_of=self.half_of[indices],
        )

    def dealt(self, tubes: NDArray[np.int64] | None) -> ImageSource:
        """Return the source with its rows dealt to new half sets: whole tubes, or images in turn."""
        images = pd.factorize(self.image_of)[0].astype(np.int64)
        return replace(self, half_of=dealt_halves(images, tubes))

    def inverted(self, which: NDArray[np.bool_] | None = None) -> ImageSource:
        """Return the source of the same images with inverted contrast: all, or some, ``(n,)`` bool."""
        chosen = True if which is None else which
        return replace(self, sign_of=np.where(chosen, -self.sign_of, self.sign_of))

    def _by_path(self) -> list[tuple[Path | str, StackFile]]:
        """Return the stacks with what tells them apart: their path, or the name of one not found."""
        return [
            (file.name if file.stack is None else file.stack.path.resolve(), file)
            for file in self.files
        ]

    @property
    def missing(self) -> list[str]:
        """Names of the stacks that particles are in and that were not found."""
        return [
            self.files[number].name
            for number in np.unique(self.file_of)
            if self.files[number].stack is None
        ]

    @property
    def used(self) -> list[MrcStack | ArrayStack]:
        """The stacks that particles are in."""
        stacks = [self.files[number].stack for number in np.unique(self.file_of)]
        return [stack for stack in stacks if stack is not None]

    def read(self, box: int) -> NDArray[np.float32]:
        """Return the images of all particles, ``(n, box, box)`` float32.

        Raises `CryosphereError` if a stack is missing, has changed, or holds pixels that are not
        finite.
        """
        images = np.empty((len(self.file_of), box, box), dtype=np.float32)
        if not len(images):
            return images
        order = np.argsort(self.file_of, kind="stable")
        starts = np.flatnonzero(np.diff(self.file_of[order], prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            rows = order[start:end]
            file = self.files[self.file_of[rows[0]]]
            if file.stack is None:
                raise MetadataError(
                    f"{self._where(rows[0])}: the stack {shown(file.name)} was not found"
                )
            try:
                pixels: NDArray[np.float32] = file.stack.read(self.index_of[rows])
                if len(rows) == len(images):
                    return self._signed(pixels)
                images[rows] = pixels
            except FileFormatError as error:
                raise FileFormatError(
                    f"{self._where(self._first_bad(file.stack, rows))}: {error}"
                ) from error
        return self._signed(images)

    def _signed(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return all particles' images, ``(n, box, box)``, with their signs."""
        if (self.sign_of > 0).all():
            return images
        return images * self.sign_of[:, np.newaxis, np.newaxis].astype(np.float32)

    def read_one(self, row: int) -> NDArray[np.float32]:
        """Return the image of one particle, ``(1, box, box)``: :meth:`read` without its fixed costs."""
        file = self.files[self.file_of[row]]
        if file.stack is None:
            raise MetadataError(f"{self._where(row)}: the stack {shown(file.name)} was not found")
        try:
            image = file.stack.read(int(self.index_of[row]))
            return image if self.sign_of[row] > 0 else -image
        except FileFormatError as error:
            raise FileFormatError(f"{self._where(row)}: {error}") from error

    def _where(self, particle: Any) -> str:
        return self.places[self.place_of[particle]].row(int(self.row_of[particle]))

    def _first_bad(self, stack: MrcStack | ArrayStack, rows: NDArray[Any]) -> Any:
        """Return the first of ``rows`` whose image cannot be read."""
        for row in rows:
            try:
                stack.read(self.index_of[row])
            except CryosphereError:
                return row
        return rows[0]


def _image_numbers(file_of: NDArray[np.int64], index_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which of the different images each row has, ``(n,)``, numbered in the order of the rows."""
    if not len(index_of):
        return np.zeros(0, dtype=np.int64)
    # an index of 18 digits would not leave room for the file
    codes, different = pd.factorize(index_of)
    return np.asarray(pd.factorize(file_of * len(different) + codes)[0], dtype=np.int64)
