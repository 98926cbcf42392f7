"""Particles as a PyTorch data set, with the interface of CESPED's (Sanchez-Garcia et al., listings 1 and 2).

>>> dataset = ParticleDataset(ParticleStack.read("particles.star"), Preprocessing(grid=ImageGrid(32, 6.0)))
>>> for ids, images, (rotations, shifts, confidence), metadata in DataLoader(dataset, batch_size=32):
...     predicted, probability = model(images)
...     dataset.update_poses(ids, predicted, confidence=probability)
>>> dataset.save("predictions.star")
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.particles import ParticleStack

__all__ = ["ParticleDataset", "Sample"]

Pose: TypeAlias = tuple[Tensor, Tensor, Tensor]
Sample: TypeAlias = tuple[str, Tensor, Pose, dict[str, Any]]

_CONFIDENCE = "rlnMaxValueProbDistribution"


class ParticleDataset(Dataset[Sample]):
    """Particles one by one, as ``(id, image, (rotation, shifts, confidence), metadata)``.

    - id: rlnImageName.
    - image: ``(1, box, box)`` float32, prepared.
    - rotation: ``(3, 3)`` float32; image to map coordinates. The identity where the particles have
      no poses.
    - shifts: ``(2,)`` float32; rlnOriginX/YAngst.
    - confidence: ``(1,)`` float32 in 0-1: rlnMaxValueProbDistribution, 1 without it, 0 without a
      pose.
    - metadata: every column of the particle table and the optics table, by name.

    A `torch.utils.data.DataLoader` collates them; its workers read whole batches in one go. A half
    set is ``ParticleDataset(stack.halves()[0])``.

    ``stack``: the particles; each image may occur once. ``steps``: what is done to the images; None
    for the default: background normalised, phases flipped, soft mask. ``symmetry``: point group of
    the map: saved poses are inside RELION's asymmetric unit of it. Raises `MetadataError` if an
    image occurs twice, so that its id would be ambiguous.
    """

    def __init__(
        self, stack: ParticleStack, steps: Preprocessing | None = None, symmetry: str = "C1"
    ) -> None:
        self._stack = stack
        self._symmetry = symmetry
        self._images = PreparedImages(stack, steps or Preprocessing())
        names = stack.image_names()
        self._row_of = {str(name): row for row, name in enumerate(names)}
        if len(self._row_of) < len(names):
            raise MetadataError(
                f"{stack.source}: {len(names) - len(self._row_of)} rows with the image of an earlier row; a "
                "data set finds particles by their image, so that each may occur once: remove the others"
            )
        known = stack.has_poses
        self._has_pose = np.full(len(stack), known)
        self._rotations = stack.rotations() if known else np.tile(np.eye(3), (len(stack), 1, 1))
        self._shifts = stack.shifts_angstrom()
        given = stack.particles.get(_CONFIDENCE, np.full(len(stack), float(known)))
        self._confidence = np.asarray(given, dtype=np.float64).clip(0, 1) * known

    def __len__(self) -> int:
        return len(self._stack)

    def __getitem__(self, index: int) -> Sample:
        """Return one particle; a negative index counts from the end."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return several particles; a DataLoader asks for a whole batch by this.

        Raises `IndexError` if an index is past the end; `CryosphereError` if an image cannot be
        read.
        """
        rows = np.arange(len(self))[np.asarray(indices, dtype=np.int64)]
        images = self._images[rows]
        rotations, shifts, confidence = (
            torch.from_numpy(values[rows]).float()
            for values in (self._rotations, self._shifts, self._confidence[:, None])
        )
        part = self._stack[rows]
        records = part.particles.to_dict("records")
        optics = {int(row["rlnOpticsGroup"]): row for row in part.optics.to_dict("records")}
        return [
            (
                str(record["rlnImageName"]),
                images[place][None],
                (rotations[place], shifts[place], confidence[place]),
                {
                    str(name): value
                    for name, value in (optics[record["rlnOpticsGroup"]] | record).items()
                },
            )
            for place, record in enumerate(records)
        ]

    def update_poses(
        self,
        ids: Sequence[str],
        rotations: ArrayLike | Tensor,
        shifts_angstrom: ArrayLike | Tensor | None = None,
        confidence: ArrayLike | Tensor | None = None,
    ) -> None:
        """Set the poses of some particles.

        Raises `MetadataError` if an id is unknown, a shape is wrong or a value not legal; nothing
        is changed then.

        - ``ids``: ``k`` ids, in any order.
        - ``rotations``: ``(k, 3, 3)``; image to map coordinates.
        - ``shifts_angstrom``: ``(k, 2)`` as rlnOriginX/YAngst; None keeps the shifts.
        - ``confidence``: ``(k,)`` or ``(k, 1)`` in 0-1, for rlnMaxValueProbDistribution; None for
          1.
        """
        unknown = [name for name in ids if name not in self._row_of]
        if unknown:
            raise MetadataError(
                f"{self._stack.source}: no particle {unknown[0]!r} (an id is its rlnImageName)"
            )
        rows = np.array([self._row_of[name] for name in ids], dtype=np.int64)
        new = _array(rotations)
        shifts = self._shifts[rows] if shifts_angstrom is None else _array(shifts_angstrom)
        self._stack[rows].with_poses(new, shifts)  # checks shapes and values
        trust = np.ones(len(rows)) if confidence is None else _array(confidence).reshape(-1)
        if trust.shape != rows.shape or not ((trust >= 0) & (trust <= 1)).all():
            raise MetadataError(
                f"confidence must be {len(rows)} numbers from 0 to 1, one per particle"
            )
        self._rotations[rows], self._shifts[rows], self._confidence[rows] = new, shifts, trust
        self._has_pose[rows] = True

    def stack(self) -> ParticleStack:
        """Return the particles with their present poses; those of the input are kept in further columns.

        Raises `MetadataError` if some particles have no pose yet.
        """
        missing = int((~self._has_pose).sum())
        if missing:
            raise MetadataError(
                f"{self._stack.source}: {missing} of {len(self)} particles have no pose yet; update them, or "
                "use a stack of those that have one"
            )
        moved = self._stack.with_poses(self._rotations, self._shifts, self._symmetry)
        return moved.with_columns({_CONFIDENCE: self._confidence})

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write `stack` as a STAR file; see `ParticleStack.save`."""
        self.stack().save(path, overwrite)


def _array(values: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return numbers of any kind as float64, from any device."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
