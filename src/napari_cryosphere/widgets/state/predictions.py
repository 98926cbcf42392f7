"""What a model said of a data set's particles, as it arrives, and their poses refined against a map."""

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

    ``angles_degrees``: rot, tilt and psi of the most probable pose. ``spread_degrees``,
    ``confidence``, ``entropy``: as in `napari_cryosphere.so3.distributions.PoseSummary`.
    ``error_degrees``: angle to the known pose, modulo symmetry; None where no pose is known.
    """

    angles_degrees: tuple[float, float, float]
    spread_degrees: float
    confidence: float
    entropy: float
    error_degrees: float | None


class PredictionStore:
    """Distributions and summaries of the particles that have been predicted so far.

    The network's poses and those refined against a map are kept apart, each with its own spread,
    confidence and error.

    ``known``: ``(n, 3, 3)`` poses that are taken for the truth, or None. ``symmetry``: point group
    of the particles: errors are modulo it. ``refined``: poses refined against a map and their
    uncertainty, of all particles; None if there are none. ``of_file``, ``only_refined``: whether
    the predictions are those of the particles' file, and refined ones, as ``align`` writes them: no
    network has predicted others.
    """

    changed = Signal(slice)
    """Sent with the rows whose predictions are new."""

    def __init__(
        self, number: int, known: NDArray[np.float64] | None = None, symmetry: str = "C1"
    ) -> None:
        self.number = number
        self.known = known
        self._symmetry = symmetry
        self.clear()

    @classmethod
    def of(cls, stack: ParticleStack) -> PredictionStore:
        """Return a store for the particles of a stack; a file of predictions fills it."""
        from napari_cryosphere.widgets.state.stored_poses import StoredPoses

        stored = StoredPoses.of(stack)
        store = cls(len(stack), stored.known, stored.symmetry or "C1")
        if stored.predicted is not None:
            store.add(slice(0, len(stack)), None, stored.predicted)
            store.of_file = True
            store.only_refined = stored.predicted is stored.refined
        store.refined = stored.refined
        return store

    def clear(self) -> None:
        """Forget every prediction, and what was refined from it."""
        self.predicted = np.zeros(self.number, dtype=bool)
        self.errors_degrees = np.full(self.number, np.nan)
        self.refined: PoseSummary | None = None
        self.of_file = self.only_refined = False
        self._starts: list[int] = []
        self._parts: list[tuple[PoseDistribution | DistributionStore | None, PoseSummary]] = []
        self.changed.emit(slice(0, self.number))

    @property
    def symmetry(self) -> str:
        """Point group of the particles."""
        return self._symmetry

    @symmetry.setter
    def symmetry(self, name: str) -> None:
        """Compare the predictions again, modulo another point group."""
        if name == self._symmetry:
            return
        self._symmetry = name
        for start, (_, summary) in zip(self._starts, self._parts, strict=True):
            self._compare(slice(start, start + len(summary)), summary)
        self.changed.emit(slice(0, self.number))

    def take_refined(self, refined: PoseSummary | None) -> None:
        """Keep the refined poses of all particles; None forgets them."""
        self.refined = refined
        self.changed.emit(slice(0, self.number))

    def attach(self, distributions: DistributionStore) -> None:
        """Take the distributions, on disk, that the summaries of all particles belong to."""
        summary = self.summary()
        assert summary is not None
        self._starts, self._parts = [0], [(distributions, summary)]
        self.changed.emit(slice(0, self.number))

    def add(
        self,
        rows: slice,
        distribution: PoseDistribution | DistributionStore | None,
        summary: PoseSummary,
    ) -> None:
        """Take the predictions of consecutive particles; batches come in order.

        ``distribution``: their distributions, in memory or on disk (read when they are asked for);
        None if only the summary is known. ``summary``: their poses and how sure they are.
        """
        self._starts.append(rows.start)
        self._parts.append((distribution, summary))
        self.predicted[rows] = True
        self._compare(rows, summary)
        self.changed.emit(rows)

    def _compare(self, rows: slice, summary: PoseSummary) -> None:
        """Compare the predicted poses of some particles with the known ones."""
        if self.known is not None:
            self.errors_degrees[rows] = self._errors(self.known[rows], summary.rotations)

    def _errors(
        self, known: NDArray[np.float64], rotations: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        from napari_cryosphere.so3.symmetry import angular_error_degrees

        return angular_error_degrees(known, rotations, self.symmetry)

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
        _, summary, place = found
        return _numbers(summary, place, float(self.errors_degrees[index]))

    def refined_pose(self, index: int) -> ParticlePose | None:
        """Return a particle's refined pose in numbers; None if there is none."""
        if self.refined is None or not 0 <= index < self.number:
            return None
        error = np.nan
        if self.known is not None:
            one = slice(index, index + 1)
            error = float(self._errors(self.known[one], self.refined.rotations[one])[0])
        return _numbers(self.refined, index, error)

    def refined_errors_degrees(self) -> NDArray[np.float64] | None:
        """Return the angles between known and refined poses, ``(n,)``; None if either is not known."""
        if self.refined is None or self.known is None:
            return None
        return self._errors(self.known, self.refined.rotations)

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


def _numbers(summary: PoseSummary, place: int, error: float) -> ParticlePose:
    """Return one entry of a summary in numbers; an error of NaN is none."""
    from napari_cryosphere.so3.rotations import relion_angles_from_rotation

    rot, tilt, psi = relion_angles_from_rotation(summary.rotations[place])
    return ParticlePose(
        (float(rot), float(tilt), float(psi)),
        float(summary.spread_degrees[place]),
        float(summary.confidence[place]),
        float(summary.entropy[place]),
        None if np.isnan(error) else error,
    )
