"""Probability distributions over poses, and the questions one asks of them.

`PoseDistribution` is a batch, one distribution a particle. What holds it differs, the questions do
not:

- Wigner coefficients of the log-density, as the network predicts
  (`PoseDistribution.from_coefficients`);
- cells of one or several HEALPix x S1 grids, as a search over poses leaves them (`from_cells`,
  `from_log_values`);
- weighted poses under an IGSO(3) kernel (`from_poses`).

Densities are relative to the uniform distribution (the normalised Haar measure): a log-density of 0
knows nothing. A map's symmetry counts throughout: the density at R is the mean over the group of
the density at ``g R``, so that equivalent poses are one pose. Questions about volumes and masses
(entropy, credible sets, mean, marginals) are answered on a piecewise constant copy,
`PoseDistribution.cells`, which is refined where a peak is sharper than the grid; density and modes
are those of the distribution itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import rotation_from_relion_angles
from napari_cryosphere.so3.symmetry import normalise_group_name, point_group

if TYPE_CHECKING:
    from torch import Tensor

    from napari_cryosphere.so3._cells import CellDistribution, CredibleSet
    from napari_cryosphere.so3._harmonic import HarmonicDistribution
    from napari_cryosphere.so3._kernel import KernelDistribution

__all__ = [
    "CONFIDENCE_RADIUS_DEGREES",
    "EVALUATION_ORDER",
    "Modes",
    "PoseDistribution",
    "PoseSummary",
]

EVALUATION_ORDER = 3
"""HEALPix order of the grid (7.3 degree spacing) on which distributions are shown and counted."""

CONFIDENCE_RADIUS_DEGREES = 30.0
"""A pose's confidence is the probability that the truth lies within this angle of it."""

Array = NDArray[np.float64]
Index = int | slice | NDArray[np.integer] | NDArray[np.bool_]
Self = TypeVar("Self", bound="PoseDistribution")

_CHUNK = 32


@dataclass(frozen=True)
class PoseSummary:
    """What one line of a STAR file can say of a distribution; one entry a particle.

    Attributes
    ----------
    rotations
        ``(n, 3, 3)``: the most probable pose, refined below the grid's spacing; image to map
        coordinates.
    max_probability
        ``(n,)``: probability of the best cell of the order-3 grid and its equivalents (RELION's
        rlnMaxValueProbDistribution).
    entropy
        ``(n,)`` nats, relative to the uniform distribution: 0 knows nothing, more negative is
        sharper; ``exp(entropy)`` is the fraction of SO(3) that the pose is spread over.
    spread_degrees
        ``(n,)``: expected angle between the true pose and the reported one, modulo symmetry.
    confidence
        ``(n,)``: probability that the truth is within `CONFIDENCE_RADIUS_DEGREES` of the reported
        pose.
    """

    rotations: Array
    max_probability: Array
    entropy: Array
    spread_degrees: Array
    confidence: Array

    def __len__(self) -> int:
        return len(self.rotations)

    @classmethod
    def concatenate(cls, parts: list[PoseSummary]) -> PoseSummary:
        """Join summaries of consecutive particles."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Modes:
    """The highest local maxima of every distribution, best first.

    Attributes
    ----------
    rotations
        ``(n, k, 3, 3)``; NaN where a distribution has fewer than k maxima. Equivalent maxima count
        once.
    log_prob
        ``(n, k)`` nats relative to uniform; minus infinity where there is none.
    """

    rotations: Array
    log_prob: Array


class PoseDistribution(ABC):
    """A batch of probability distributions over SO(3), one a particle; see the module.

    Wherever rotations are asked about, ``(n, 3, 3)`` is one a particle and ``(n, k, 3, 3)`` are
    several; a first axis of 1 stands for the same rotations for all. The answer has the same
    leading shape.

    Attributes
    ----------
    symmetry
        Point group of the map in RELION's axes; poses that differ by an operator count as one.
    """

    symmetry: str

    # ------------------------------------------------------------------ constructions

    @staticmethod
    def from_coefficients(coefficients: Tensor, symmetry: str = "C1") -> HarmonicDistribution:
        """Take ``(n, L + 1, 2 L + 1, L + 1)`` complex Wigner coefficients of the unnormalised log-density."""
        from napari_cryosphere.so3._harmonic import HarmonicDistribution

        return HarmonicDistribution(coefficients, symmetry)

    @staticmethod
    def from_cells(
        order: int | ArrayLike, indices: ArrayLike, log_density: ArrayLike, symmetry: str = "C1"
    ) -> CellDistribution:
        """Take the unnormalised log-density in cells of HEALPix x S1 grids; it is zero in all others.

        Parameters
        ----------
        order
            HEALPix order of the cells: one number, or an array that broadcasts to ``(n, k)`` for
            cells of mixed orders, as a search from coarse to fine leaves them.
        indices
            Flat indices of the cells (see `SO3Grid`), ``(n, k)``, or ``(k,)`` for the same cells in
            all; -1 pads rows that have fewer.
        log_density
            ``(n, k)``: of a search, log-likelihood plus log-prior density of the pose at the cell's
            centre. Volumes are not to be added: a coarse cell counts for more here because it is
            larger.
        symmetry
            Point group. Unless it is C1 the cells are read inside RELION's asymmetric unit alone
            (`SO3Grid.reduced` lists them); what lies outside of it counts nothing.

        Raises
        ------
        ValueError
            If shapes do not fit, an index is out of range, cells of a row overlap, or a row is
            empty.
        """
        from napari_cryosphere.so3._cells import CellDistribution

        return CellDistribution(order, indices, log_density, symmetry)

    @staticmethod
    def from_log_values(log_values: ArrayLike, symmetry: str = "C1") -> CellDistribution:
        """Take unnormalised log-densities on a whole grid, ``(n, n_views, n_psi)``, views in RING order.

        With a symmetry, equivalent cells are averaged into the asymmetric unit.
        """
        from napari_cryosphere.so3._cells import from_log_values

        return from_log_values(log_values, symmetry)

    @staticmethod
    def from_poses(
        rotations: ArrayLike, log_weights: ArrayLike, width_degrees: float, symmetry: str = "C1"
    ) -> KernelDistribution:
        """Take weighted poses ``(n, k, 3, 3)`` under an IGSO(3) kernel.

        ``log_weights`` is ``(n, k)``, minus infinity for padding; ``width_degrees`` is the standard
        deviation along each axis.
        """
        from napari_cryosphere.so3._kernel import KernelDistribution

        return KernelDistribution(rotations, log_weights, width_degrees, symmetry)

    # ------------------------------------------------------------------ what each kind answers
    # itself

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of particles."""

    @abstractmethod
    def __getitem__(self: Self, index: Index) -> Self:
        """Select particles; an integer gives a batch of one."""

    @abstractmethod
    def log_prob(self, rotations: ArrayLike) -> Array:
        """Return the log-density at rotations, in nats relative to uniform."""

    @abstractmethod
    def parts(self) -> Iterator[tuple[NDArray[np.int64], CellDistribution]]:
        """Yield particles and their piecewise constant copies, in batches of bounded memory.

        Together the batches hold every particle once; those that need a finer grid come apart from
        the rest.
        """

    @abstractmethod
    def log_prob_of_cells(self, orders: NDArray[np.int64], indices: NDArray[np.int64]) -> Array:
        """Return the first particle's log-density in ``(k,)`` cells of the unit, each within a single one."""

    @abstractmethod
    def climb(self, rotations: Array) -> Array:
        """Move poses ``(n, k, 3, 3)`` near maxima onto them, below the grid's spacing."""

    @abstractmethod
    def symmetrise(self, symmetry: str) -> PoseDistribution:
        """Return the mean of the densities at ``g R`` over a point group, as a distribution of that symmetry.

        Raises
        ------
        ValueError
            If the distribution has another symmetry already.
        """

    def cpu(self: Self) -> Self:
        """Return the distribution in the computer's own memory."""
        return self

    # ------------------------------------------------------------------ questions

    def cells(self) -> CellDistribution:
        """Return the piecewise constant copy of all particles at once; `parts` needs less memory."""
        from napari_cryosphere.so3._cells import join_cells

        return join_cells(len(self), list(self.parts()))

    def _ask(self, question: Callable[[CellDistribution], Any]) -> Any:
        """Put a question to all parts and bring the answers, arrays with one entry a particle, in order."""
        answers: Any = None
        for rows, part in self.parts():
            answer = question(part)
            if answers is None:
                answers = np.empty((len(self), *answer.shape[1:]), dtype=answer.dtype)
            answers[rows] = answer
        return answers

    def mode(self, k: int = 1, apart_degrees: float | None = None) -> Modes:
        """Return the k highest local maxima modulo symmetry.

        Candidates are cells whose density no neighbouring cell exceeds; each is then followed
        uphill below the grid's spacing, and candidates that meet are one.

        Parameters
        ----------
        k
            How many.
        apart_degrees
            Leave out a maximum that is not farther than this from a higher one. Without it, that is
            the spacing of the grid that the candidates come from.
        """
        from napari_cryosphere.so3._modes import find_modes

        return find_modes(self, k, apart_degrees)

    def maxima(
        self, rows: NDArray[np.int64], most: int
    ) -> Iterator[tuple[NDArray[np.int64], Array, Array, Array]]:
        """Yield local maxima of some particles, batch by batch: what `mode` picks from.

        Yields
        ------
        Particles ``(b,)``; ``most`` poses or more, or all there are, ``(b, c, 3, 3)``; their
        log-densities ``(b, c)``, minus infinity in padding; and the spacing of the grid that they
        come from in degrees, ``(b,)``.
        """
        from napari_cryosphere.so3._modes import cell_maxima

        for places, part in self[rows].parts():
            for place, row in enumerate(rows[places]):
                yield rows[places][[place]], *cell_maxima(self[int(row)], part[place], most)

    def mean(self) -> Array:
        """Return the Bayes rotation under squared chordal error modulo symmetry, ``(n, 3, 3)``.

        The rotation that minimises the expected ``min_g |g R - M|^2``: for C1 the projection of the
        mean matrix on SO(3); otherwise each equivalent is first taken that is nearest to the
        estimate, from the best cell on, until nothing changes.
        """
        from napari_cryosphere.so3._questions import mean

        return np.asarray(self._ask(mean))

    def entropy(self) -> Array:
        """Return the entropy relative to uniform in nats, ``(n,)``: 0 knows nothing, negative is sharper."""
        from napari_cryosphere.so3._questions import entropy

        return np.asarray(self._ask(entropy))

    def effective_poses(self, order: int = EVALUATION_ORDER) -> Array:
        """Return the entropy as a number of equally probable grid cells, modulo symmetry, ``(n,)``."""
        distinct = SO3Grid(order).size / len(point_group(self.symmetry))
        return np.exp(self.entropy()) * distinct

    def spread_degrees(self) -> Array:
        """Return the expected angle between the truth and the best pose modulo symmetry, ``(n,)`` degrees."""
        return self.summary().spread_degrees

    def credible_set(self, level: float) -> CredibleSet:
        """Return the smallest set of poses that holds the truth with probability ``level``."""
        from napari_cryosphere.so3._cells import CredibleSet

        return CredibleSet(self, level)

    def credible_level(self, rotations: ArrayLike) -> Array:
        """Return the level of the smallest credible set that holds each rotation, in [0, 1].

        Uniform between 0 and 1 over particles whose truth is drawn from their distribution: what a
        calibration plot shows. 1 where the density is zero.
        """
        given = per_particle(rotations, len(self))
        answers = np.empty(given.shape[:2])
        for rows, part in self.parts():
            answers[rows] = part.levels(given[rows])
        return like_given(answers, rotations)

    def probability_grid(self, order: int = EVALUATION_ORDER) -> Array:
        """Return the probability of every cell of a grid, ``(n, n_views, n_psi)``, equivalents included."""
        grid = SO3Grid(order)
        answer: Array = self._ask(lambda part: part.on_grid(order))
        return answer.reshape(len(self), grid.n_views, grid.n_psi)

    def view_marginal(self, order: int = EVALUATION_ORDER) -> Array:
        """Return the probability of every view direction, ``(n, n_views)``: a HEALPix map in RING order."""
        return np.asarray(self.probability_grid(order).sum(-1))

    def in_plane(self, directions: ArrayLike, order: int = EVALUATION_ORDER) -> Array:
        """Return the probability of the in-plane angle given the view direction.

        Parameters
        ----------
        directions
            ``(n, 3)`` unit vectors in the map frame, or ``(3,)`` for all.
        order
            The angle is given in ``6 * 2**order`` bins, see `SO3Grid.psi_angles`.

        Returns
        -------
        ``(n, n_psi)``; uniform where the view itself has probability zero.
        """
        given = np.broadcast_to(np.asarray(directions, dtype=np.float64), (len(self), 3))
        fine = 4  # each bin is the sum of four
        psi = 360 * (np.arange(fine * SO3Grid(order).n_psi) + 0.5) / (fine * SO3Grid(order).n_psi)
        rot = np.degrees(np.arctan2(given[:, 1], given[:, 0]))
        tilt = np.degrees(np.arctan2(np.hypot(given[:, 0], given[:, 1]), given[:, 2]))
        angles = np.stack(np.broadcast_arrays(rot[:, None], tilt[:, None], psi), axis=-1)
        logs = self.log_prob(rotation_from_relion_angles(angles))
        peak = logs.max(1, keepdims=True)
        density = np.exp(logs - np.where(np.isfinite(peak), peak, 0.0))
        density = np.where(np.isfinite(peak), density, 1.0)
        binned = density.reshape(len(self), -1, fine).sum(-1)
        return np.asarray(binned / binned.sum(1, keepdims=True))

    def sample(self, number: int, rng: np.random.Generator) -> Array:
        """Draw poses, ``(n, number, 3, 3)``; with a symmetry they lie in RELION's asymmetric unit.

        Drawn from the piecewise constant copy: a cell by its probability, then evenly inside of it.
        """
        from napari_cryosphere.so3._questions import sample

        drawn = np.empty((len(self), number, 3, 3))
        for rows, part in self.parts():
            drawn[rows] = sample(part, number, rng)
        return drawn

    def summary(self) -> PoseSummary:
        """Return best pose, entropy, spread and confidence of every particle, in bounded memory."""
        from napari_cryosphere.so3._questions import summarise

        pieces = [(rows, summarise(self[rows], part)) for rows, part in self.parts()]
        order = np.argsort(np.concatenate([rows for rows, _ in pieces]))
        joined = PoseSummary.concatenate([summary for _, summary in pieces])
        return PoseSummary(*(getattr(joined, field.name)[order] for field in fields(PoseSummary)))

    # ------------------------------------------------------------------ arithmetic

    def product(self, other: PoseDistribution) -> PoseDistribution:
        """Return the normalised product of the densities: what two independent sources say together.

        Raises
        ------
        ValueError
            If numbers of particles or symmetries differ, or the densities have nothing in common.
        """
        from napari_cryosphere.so3._algebra import product

        return product(self, other)

    def mixture(self, other: PoseDistribution, weight: ArrayLike = 0.5) -> PoseDistribution:
        """Return ``(1 - weight) p + weight q``; ``weight`` in [0, 1], one number or ``(n,)``."""
        from napari_cryosphere.so3._algebra import mixture

        return mixture(self, other, weight)

    def temperature(self, value: float) -> PoseDistribution:
        """Return ``p ** (1 / value)``, normalised: above 1 broader, below 1 sharper."""
        from napari_cryosphere.so3._algebra import temperature

        return temperature(self, value)

    # ------------------------------------------------------------------ helpers of the kinds

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of batches that are small enough for whole grids."""
        for start in range(0, len(self), _CHUNK):
            yield np.arange(start, min(start + _CHUNK, len(self)))

    def _other_symmetry(self, symmetry: str) -> str:
        """Return a canonical group name if the distribution may be symmetrised by it."""
        name = normalise_group_name(symmetry)
        if self.symmetry not in ("C1", name):
            raise ValueError(
                f"the distribution has symmetry {self.symmetry} already, not C1; cannot make it {name}"
            )
        return name


def per_particle(rotations: ArrayLike, number: int) -> Array:
    """Return rotations as ``(number, k, 3, 3)``, see `PoseDistribution`.

    Raises
    ------
    ValueError
        If the shape is neither ``(n, 3, 3)`` nor ``(n, k, 3, 3)`` with n the number of particles or
        1.
    """
    given = np.asarray(rotations, dtype=np.float64)
    if given.ndim == 3:
        given = given[:, None]
    if given.ndim != 4 or given.shape[2:] != (3, 3) or given.shape[0] not in (1, number):
        raise ValueError(
            f"rotations must be ({number}, 3, 3) or ({number}, k, 3, 3), or 1 in place of {number}, "
            f"not {np.shape(rotations)}"
        )
    return np.broadcast_to(given, (number, *given.shape[1:]))


def like_given(answers: Array, rotations: ArrayLike) -> Array:
    """Drop the second axis of ``(n, 1)`` answers if one rotation a particle was asked about."""
    return answers[:, 0] if np.ndim(rotations) == 3 else answers
