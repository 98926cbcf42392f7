"""What a model said of a data set's particles, as it arrives."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.so3.distributions import PoseDistribution
    from napari_cryosphere.so3.distributions.store import DistributionStore
    from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = ["ParticlePose", "PredictionStore"]


@dataclass(frozen=True)
class ParticlePose:
    """One particle's prediction in numbers.

    Attributes
    ----------
    angles_degrees
        rot, tilt and psi of the most probable pose.
    spread_degrees, confidence, entropy
        As in `napari_cryosphere.so3.distributions.PoseSummary`.
    error_degrees
        Angle to the known pose, modulo symmetry; None where no pose is known.
    """

    angles_degrees: tuple[float, float, float]
    spread_degrees: float
    confidence: float
    entropy: float
    error_degrees: float | None


class PredictionStore:
    """Distributions and summaries of the particles that have been predicted so far.

    Parameters
    ----------
    number
        Number of particles.
    known
        ``(n, 3, 3)`` poses that are taken for the truth, or None.
    """

    changed = Signal(slice)
    """Sent with the rows whose predictions are new."""

    def __init__(self, number: int, known: NDArray[np.float64] | None = None) -> None:
        self.number = number
        self.known = known
        self.clear()

    @classmethod
    def of(cls, stack: ParticleStack) -> PredictionStore:
        """Return a store for the particles of a stack; a file of predictions fills it."""
        from napari_cryosphere.widgets.state.stored_poses import StoredPoses

        stored = StoredPoses.of(stack)
        store = cls(len(stack), stored.known)
        if stored.predicted is not None:
            store.add(slice(0, len(stack)), None, stored.predicted)
        return store

    def clear(self) -> None:
        """Forget every prediction."""
        self.symmetry = "C1"
        self.predicted = np.zeros(self.number, dtype=bool)
        self.errors_degrees = np.full(self.number, np.nan)
        self._starts: list[int] = []
        self._parts: list[tuple[PoseDistribution | DistributionStore | None, PoseSummary]] = []
        self.changed.emit(slice(0, self.number))

    def add(
        self,
        rows: slice,
        distribution: PoseDistribution | DistributionStore | None,
        summary: PoseSummary,
    ) -> None:
        """Take the predictions of consecutive particles; batches come in order.

        Parameters
        ----------
        rows
            The particles.
        distribution
            Their distributions, in memory or on disk (read when they are asked for); None if only
            the summary is known.
        summary
            Their poses and how sure they are.
        """
        from napari_cryosphere.so3.symmetry import angular_error_degrees

        if distribution is not None:
            self.symmetry = distribution.symmetry
        self._starts.append(rows.start)
        self._parts.append((distribution, summary))
        self.predicted[rows] = True
        if self.known is not None:
            self.errors_degrees[rows] = angular_error_degrees(
                self.known[rows], summary.rotations, self.symmetry
            )
        self.changed.emit(rows)

    def _find(
        self, index: int
    ) -> tuple[PoseDistribution | DistributionStore | None, PoseSummary, int] | None:
        """Return the batch that holds a particle, and its place there."""
        starts, parts = (
            self._starts,
            self._parts,
        )  # before the check: pictures are drawn in other threads
        if not (0 <= index < self.number and self.predicted[index]):
            return None
        part = bisect_right(starts, index) - 1
        return *parts[part], index - starts[part]

    def distribution(self, index: int) -> PoseDistribution | None:
        """Return a particle's distribution, as a batch of one; None if it is not known."""
        found = self._find(index)
        return None if found is None or found[0] is None else found[0][found[2]]

    def distributions(self, rows: NDArray[np.bool_]) -> list[PoseDistribution]:
        """Return the distributions of some particles, batch by batch in order; rows with none are skipped."""
        chosen = []
        for start, (distribution, _) in zip(self._starts, self._parts, strict=True):
            if distribution is None:
                continue
            of_batch = np.flatnonzero(rows[start : start + len(distribution)])
            if len(of_batch):
                first, last = int(of_batch[0]), int(of_batch[-1])
                chosen.append(distribution[first : last + 1][of_batch - first])
        return chosen

    def rotation(self, index: int) -> NDArray[np.float64] | None:
        """Return a particle's most probable pose, ``(3, 3)``; None if it has not been predicted."""
        found = self._find(index)
        return None if found is None else found[1].rotations[found[2]]

    def known_rotation(self, index: int) -> NDArray[np.float64] | None:
        """Return a particle's known pose, ``(3, 3)``: the equivalent that is nearest to the prediction."""
        if self.known is None or not 0 <= index < self.number:
            return None
        return self.nearest_to_prediction(self.known[index], index)

    def nearest_to_prediction(
        self, rotation: NDArray[np.float64], index: int
    ) -> NDArray[np.float64]:
        """Return the equivalent of a pose, ``(3, 3)``, that is nearest to a particle's prediction."""
        predicted = self.rotation(index)
        if predicted is None or self.symmetry == "C1":
            return rotation
        from napari_cryosphere.so3.rotations import geodesic_distance_degrees
        from napari_cryosphere.so3.symmetry import point_group

        equivalents = np.asarray(point_group(self.symmetry)) @ rotation
        nearest: NDArray[np.float64] = equivalents[
            geodesic_distance_degrees(equivalents, predicted).argmin()
        ]
        return nearest

    def pose(self, index: int) -> ParticlePose | None:
        """Return a particle's prediction in numbers; None if there is none."""
        found = self._find(index)
        if found is None:
            return None
        from napari_cryosphere.so3.rotations import relion_angles_from_rotation

        _, summary, place = found
        rot, tilt, psi = relion_angles_from_rotation(summary.rotations[place])
        error = float(self.errors_degrees[index])
        return ParticlePose(
            (float(rot), float(tilt), float(psi)),
            float(summary.spread_degrees[place]),
            float(summary.confidence[place]),
            float(summary.entropy[place]),
            None if np.isnan(error) else error,
        )

    def uncertain_order(self) -> NDArray[np.int64]:
        """Return the particles predicted so far, the one with the widest spread first."""
        summary = self.summary()
        if summary is None:
            return np.empty(0, dtype=np.int64)
        rows = np.flatnonzero(self.predicted)
        return rows[np.argsort(-summary.spread_degrees, kind="stable")]

    def summary(self) -> PoseSummary | None:
        """Return the summary of all particles predicted so far, in order; None if there are none."""
        from napari_cryosphere.so3.pose_summary import PoseSummary

        return PoseSummary.concatenate([part[1] for part in self._parts]) if self._parts else None
