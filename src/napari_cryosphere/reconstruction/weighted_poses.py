"""Several weighted poses for each particle: what a distribution becomes when it is reconstructed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.so3.rotations import are_rotations

if TYPE_CHECKING:
    from napari_cryosphere.so3.distributions import PoseDistribution

__all__ = ["WeightedPoses"]


@dataclass(frozen=True, eq=False)
class WeightedPoses:
    """k poses per particle: the modes of its distribution or samples from it.

    ``rotations``: ``(n, k, 3, 3)``; image to map coordinates. ``weights``: ``(n, k)``, not
    negative. A particle's weights sum to 1, or to less if it is to count for less. Raises
    `MetadataError` if shapes differ, a matrix is no rotation, or a weight is negative or not
    finite.
    """

    rotations: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        rotations = np.asarray(self.rotations, dtype=np.float64)
        weights = np.asarray(self.weights, dtype=np.float64)
        if (
            rotations.ndim != 4
            or rotations.shape[2:] != (3, 3)
            or weights.shape != rotations.shape[:2]
        ):
            raise MetadataError(
                f"weighted poses must be (n, k, 3, 3) with weights (n, k), not {rotations.shape} and "
                f"{weights.shape}"
            )
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            row = int(np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)).all(axis=1))[0])
            raise MetadataError(
                f"particle {row + 1} has a pose weight that is negative or not a finite number"
            )
        proper = are_rotations(rotations).all(axis=1)
        if not proper.all():
            raise MetadataError(
                f"particle {int(np.flatnonzero(~proper)[0]) + 1} has a pose that is no rotation"
            )
        object.__setattr__(self, "rotations", rotations)
        object.__setattr__(self, "weights", weights)

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.weights)

    @classmethod
    def best(cls, rotations: NDArray[np.float64]) -> WeightedPoses:
        """Return one pose per particle, ``(n, 3, 3)``, with weight 1."""
        poses = np.asarray(rotations, dtype=np.float64)
        return cls(poses[:, None], np.ones((len(poses), 1)))

    @classmethod
    def samples_of(
        cls, distribution: PoseDistribution, number: int, rng: np.random.Generator
    ) -> WeightedPoses:
        """Return poses drawn from each distribution, all with the same weight."""
        drawn = distribution.sample(number, rng)
        return cls(drawn, np.full(drawn.shape[:2], 1 / number))
