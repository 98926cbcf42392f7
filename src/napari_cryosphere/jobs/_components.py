"""Components that two half sets share: each half finds its own, and the images of the other judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.alignment.coordinates import Evidence

__all__ = ["HalfMaps", "Judged", "judged", "matched", "principal"]

_SURE_NATS = 10.0
"""By which the images of both halves together have to be likelier with a component that the other half found
than without it, beyond what the same gives at the poses of other images. Particles that do not differ gave
-0.8 and 0.8 (docs/measurements/alignment.md)."""
_ALIKE = 0.3
"""Correlation of the halves' maps of a component, at least; chosen, not tuned."""


@dataclass(frozen=True)
class HalfMaps:
    """What one half of the particles found, on one grid.

    ``mean``, ``(box, box, box)``: its map. ``maps``, ``(q, box, box, box)``: one standard deviation
    along each component. ``noise``, ``(shells,)``: variance of the images' noise relative to what
    was measured before.
    """

    mean: NDArray[np.float32]
    maps: NDArray[np.float32]
    noise: NDArray[np.float64]

    @property
    def beyond_mean(self) -> NDArray[np.float32]:
        """``(1 + q, box, box, box)``: nothing beyond the mean, and the components."""
        return np.concatenate([np.zeros_like(self.mean)[None], self.maps])

    def turned(self, turn: NDArray[np.float64]) -> HalfMaps:
        """Return the same with components that are sums of these, ``(q, p)`` coefficients."""
        maps = np.tensordot(turn.T, self.maps, 1).astype(np.float32)
        return HalfMaps(self.mean, maps, self.noise)


def matched(first: HalfMaps, second: HalfMaps) -> tuple[HalfMaps, HalfMaps]:
    """Return both halves' components turned so that each is like one of the other's and like no further one.

    Those that share most are first. Coordinates along them are standard normal as they were before.
    """
    left, _, right = np.linalg.svd(_products(first.maps, second.maps))
    return first.turned(left), second.turned(right.T)


def principal(first: HalfMaps, second: HalfMaps, number: int) -> tuple[HalfMaps, HalfMaps]:
    """Return the first so many matched components, turned together so that their mean maps are orthogonal."""
    kept = [HalfMaps(one.mean, one.maps[:number], one.noise) for one in (first, second)]
    mean = 0.5 * (kept[0].maps + kept[1].maps)
    turn = np.linalg.eigh(_products(mean, mean))[1][:, ::-1]
    return kept[0].turned(turn), kept[1].turned(turn)


def _products(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    one, other = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second))
    return np.asarray(one @ other.T)


@dataclass(frozen=True)
class Judged:
    """What the halves say of one pair of components.

    - ``variance``: what the halves' maps share: sum over voxels of the variance along the
      component.
    - ``correlation``: of the two maps.
    - ``gain_nats``: by which all images are likelier with the other half's component than without
      it.
    - ``chance_nats``: the same where components are seen at the poses of other images.
    """

    variance: float
    correlation: float
    gain_nats: float
    chance_nats: float

    @property
    def real(self) -> bool:
        """Whether the halves agree on it."""
        sure = self.gain_nats - max(self.chance_nats, 0.0) > _SURE_NATS
        return sure and self.correlation > _ALIKE


def judged(
    halves: tuple[HalfMaps, HalfMaps],
    evidence: Sequence[Evidence],
    control: Sequence[Evidence],
    weights: Sequence[NDArray[np.float64]],
) -> list[Judged]:
    """Return what is to be said of each pair of matched components, in their order.

    ``halves``: both halves' matched components. ``evidence``, ``control``: of each half's images
    along the components of the **other** half; seen at the poses of other images. ``weights``: how
    much each image counts.
    """
    number = len(halves[0].maps)
    shared = _products(halves[0].maps, halves[1].maps).diagonal()
    sizes = [np.sqrt(_products(one.maps, one.maps).diagonal()) for one in halves]
    correlations = shared / np.maximum(sizes[0] * sizes[1], 1e-30)
    gains, chances = (
        np.diff(
            [
                sum(
                    one.first(count).population(weight).log_likelihood
                    for one, weight in zip(every, weights, strict=True)
                )
                for count in range(number + 1)
            ]
        )
        for every in (evidence, control)
    )
    columns = zip(shared, correlations, gains, chances, strict=True)
    return [Judged(*(float(value) for value in column)) for column in columns]
