"""Probability distributions over poses, and the questions one asks of them.

`PoseDistribution` is a batch, one distribution per particle. It is stored in one of three ways, and
asked in one:

- Wigner coefficients of the log-density, as the network predicts
  (`PoseDistribution.from_coefficients`);
- cells of one or several HEALPix x S1 grids, as a search over poses leaves them (`from_cells`,
  `from_log_values`);
- weighted poses under an IGSO(3) kernel (`from_poses`).

Densities are relative to the uniform distribution (the normalised Haar measure): a log-density of 0
is the uniform one. A map's symmetry counts throughout: the density at R is the mean over the group of
the density at ``g R``, so that equivalent poses are one pose. Questions about volumes and masses
(entropy, credible sets, mean, marginals) are answered on a piecewise constant copy,
`PoseDistribution.cells`, which is refined where a peak is sharper than the grid; density and modes
are those of the distribution itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.distributions import questions
from napari_cryosphere.so3.distributions.cells import (
    Array,
    Cells,
    Index,
    from_log_values,
    join_cells,
    like_given,
    padded,
    per_particle,
)
from napari_cryosphere.so3.distributions.modes import Maxima, find_modes, local_maxima
from napari_cryosphere.so3.grid import Indices, SO3Grid
from napari_cryosphere.so3.pose_summary import EVALUATION_ORDER, Modes, PoseSummary
from napari_cryosphere.so3.symmetry import normalise_group_name

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CellDistribution", "CredibleSet", "PoseDistribution"]

Self = TypeVar("Self", bound="PoseDistribution")

_PARTICLES_AT_ONCE = 32
"""Keeps whole grids of order 3 below 10 MB each; chosen, not tuned."""


_SHOWN_SPHERES = 3  # in a notebook
_SPHERE_PIXELS = 192  # width of each


class PoseDistribution(ABC):
    """A batch of probability distributions over SO(3), one per particle.

    Wherever rotations are asked about, ``(n, 3, 3)`` is one per particle and ``(n, k, 3, 3)`` are
    several; a first axis of 1 gives the same rotations to all. The answer has the same
    leading shape.

    ``symmetry``: point group of the map in RELION's axes; poses that differ by an operator count as
    one.
    """

    symmetry: str
    _kinds: ClassVar[dict[str, Callable[..., PoseDistribution]]] = {}

    def __init_subclass__(cls, kind: str | None = None) -> None:
        """Register a kind that is defined above this module, for the constructions."""
        super().__init_subclass__()
        if kind is not None:
            PoseDistribution._kinds[kind] = cls

    # ------------------------------------------------------------------ constructions

    @staticmethod
    def from_coefficients(coefficients: Tensor, symmetry: str = "C1") -> PoseDistribution:
        """Take ``(n, L + 1, 2 L + 1, L + 1)`` complex Wigner coefficients of the unnormalised log-density."""
        return PoseDistribution._kinds["harmonic"](coefficients, symmetry)

    @staticmethod
    def from_cells(
        order: int | ArrayLike, indices: ArrayLike, log_density: ArrayLike, symmetry: str = "C1"
    ) -> CellDistribution:
        """Take the unnormalised log-density in cells of HEALPix x S1 grids; it is zero in all others.

        Raises `ValueError` if shapes do not fit, an index is out of range, cells of a row overlap,
        or a row is empty.

        - ``order``: HEALPix order of the cells: one number, or an array that broadcasts to
          ``(n, k)`` for cells of mixed orders, as a search from coarse to fine leaves them.
        - ``indices``: flat indices of the cells (see `SO3Grid`), ``(n, k)``, or ``(k,)`` for the
          same cells in all; -1 pads rows that have fewer.
        - ``log_density``, ``(n, k)``: of a search, log-likelihood plus log-prior density of the
          pose at the cell's centre. Volumes are not to be added: a coarse cell counts for more here
          because it is larger.
        - ``symmetry``: point group. Unless it is C1 the cells are read inside RELION's asymmetric
          unit alone (`SO3Grid.reduced` lists them); what lies outside of it counts nothing.
        """
        return CellDistribution(order, indices, log_density, symmetry)

    @staticmethod
    def from_log_values(log_values: ArrayLike, symmetry: str = "C1") -> CellDistribution:
        """Take unnormalised log-densities on a whole grid, ``(n, n_views, n_psi)``, views in RING order.

        With a symmetry, equivalent cells are averaged into the asymmetric unit.
        """
        name = normalise_group_name(symmetry)
        return CellDistribution(*from_log_values(log_values, name), name, check=False)

    @staticmethod
    def from_poses(
        rotations: ArrayLike, log_weights: ArrayLike, width_degrees: float, symmetry: str = "C1"
    ) -> PoseDistribution:
        """Take weighted poses ``(n, k, 3, 3)`` under an IGSO(3) kernel.

        ``log_weights`` is ``(n, k)``, minus infinity for padding; ``width_degrees`` is the standard
        deviation along each axis.
        """
        return PoseDistribution._kinds["poses"](rotations, log_weights, width_degrees, symmetry)

    # ------------------------------------------------------------------ what each kind answers itself

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
    def parts(self) -> Iterator[tuple[NDArray[np.int64], Cells]]:
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

    def cpu(self: Self) -> Self:
        """Return the distribution in the computer's own memory."""
        return self

    # ------------------------------------------------------------------ questions

    def cells(self) -> CellDistribution:
        """Return the piecewise constant copy of all particles at once; `parts` needs less memory."""
        joined = join_cells(len(self), list(self.parts()))
        return CellDistribution(*joined, self.symmetry, check=False)

    def fine_cells(self) -> CellDistribution:
        """Return a copy on smaller cells where that can be had, to rank and draw poses by density."""
        return self.cells()

    def _ask(self, question: Callable[[Cells], Any]) -> Any:
        """Put a question to all parts and bring the answers, arrays with one entry per particle, in order."""
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

        ``k``: how many. ``apart_degrees``: leave out a maximum that is not farther than this from a
        higher one. Without it, that is the spacing of the grid that the candidates come from.
        """
        return find_modes(self.maxima, len(self), self.symmetry, k, apart_degrees)

    def maxima(self, rows: NDArray[np.int64], most: int) -> Maxima:
        """Yield local maxima of some particles, batch by batch: what `mode` picks from.

        Yields particles ``(b,)``; ``most`` poses or more, or all there are, ``(b, c, 3, 3)``; their
        log-densities ``(b, c)``, minus infinity in padding; and the spacing of the grid that they
        come from in degrees, ``(b,)``.
        """
        for places, part in self[rows].parts():
            for place, row in enumerate(rows[places]):
                single, its = self[int(row)], part[place]
                poses = single.climb(local_maxima(its, 2 * most)[None])
                grid = SO3Grid(int(its.orders[0, its.log_density[0].argmax()]))
                spacing = np.array([grid.spacing_degrees])
                yield rows[places][[place]], poses, single.log_prob(poses), spacing

    def mean(self) -> Array:
        """Return the Bayes rotation under squared chordal error modulo symmetry, ``(n, 3, 3)``.

        The rotation that minimises the expected ``min_g |g R - M|^2``: for C1 the projection of the
        mean matrix on SO(3); otherwise each equivalent is first taken that is nearest to the
        estimate, from the best cell on, until nothing changes.
        """
        return np.asarray(self._ask(questions.mean))

    def entropy(self) -> Array:
        """Return the entropy relative to uniform in nats, ``(n,)``: 0 is uniform, negative is sharper."""
        return np.asarray(self._ask(questions.entropy))

    def spread_degrees(self) -> Array:
        """Return the expected angle between the truth and the best pose modulo symmetry, ``(n,)`` degrees."""
        return self.summary().spread_degrees

    def credible_set(self, level: float) -> CredibleSet:
        """Return the smallest set of poses that holds the truth with probability ``level``."""
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

    def _repr_html_(self) -> str:
        """Return a table and the spheres of the first particles, for notebooks."""
        from napari_cryosphere._html import page
        from napari_cryosphere.so3.mollweide import view_sphere

        few = self[:_SHOWN_SPHERES]
        summary = few.summary()
        spheres = [
            view_sphere(row, _SPHERE_PIXELS, f"views of particle {number}, confidence {sure:.2f}")
            for number, (row, sure) in enumerate(
                zip(few.view_map(), summary.confidence, strict=True), start=1
            )
        ]
        entries = {
            "particles": len(self),
            "symmetry": self.symmetry,
            "kind": type(self).__name__,
            "spread of the first, degrees": ", ".join(f"{x:.1f}" for x in summary.spread_degrees),
        }
        return page("Pose distributions", entries, spheres)

    def view_map(self, order: int = EVALUATION_ORDER) -> Array:
        """Return the probability of every view direction, ``(n, 12 * 4**order)``.

        Each row is a HEALPix map in RING order as healpy takes it, in the frame of the map: pixel
        ``healpy.vec2pix(2**order, *d)`` is that of direction d. `so3.figures.draw_views` draws one.
        """
        return np.asarray(self.probability_grid(order).sum(-1))

    def sample(self, number: int, rng: np.random.Generator) -> Array:
        """Draw poses, ``(n, number, 3, 3)``; with a symmetry they lie in RELION's asymmetric unit.

        Drawn from the piecewise constant copy: a cell by its probability, then evenly inside of it.
        """
        drawn = np.empty((len(self), number, 3, 3))
        for rows, part in self.parts():
            drawn[rows] = questions.sample(part, number, rng)
        return drawn

    def summary(self) -> PoseSummary:
        """Return best pose, entropy, spread and confidence of every particle, in bounded memory."""
        pieces = [
            (rows, questions.summarise(part, self[rows].climb)) for rows, part in self.parts()
        ]
        order = np.argsort(np.concatenate([rows for rows, _ in pieces]))
        return PoseSummary.concatenate([summary for _, summary in pieces])[order]

    def mixture(self, other: PoseDistribution, weight: ArrayLike = 0.5) -> PoseDistribution:
        """Return ``(1 - weight) p + weight q``; ``weight`` in [0, 1], one number or ``(n,)``.

        Densities are read at the centres of the cells that resolve both. Raises `ValueError` if the
        weight is out of range, or numbers of particles or symmetries differ.
        """
        shares = np.broadcast_to(np.asarray(weight, dtype=np.float64), len(self))
        if ((shares < 0) | (shares > 1)).any():
            raise ValueError("a mixture's weight must be between 0 and 1")
        if len(self) != len(other):
            raise ValueError(f"the distributions are of {len(self)} and {len(other)} particles")
        if self.symmetry != other.symmetry:
            raise ValueError(
                f"the distributions have symmetries {self.symmetry} and {other.symmetry}"
            )
        rows = []
        for row, share in enumerate(shares):
            both = self[row], other[row]
            leaves = _common_leaves([part.cells().leaves() for part in both])
            first, second = (part.log_prob_of_cells(*leaves) for part in both)
            with np.errstate(divide="ignore"):
                logs = np.logaddexp(first + np.log(1 - share), second + np.log(share))
            rows.append((*leaves, logs))
        return CellDistribution(*padded(rows), self.symmetry, check=False)

    # ------------------------------------------------------------------ helpers of the kinds

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of batches that are small enough for whole grids."""
        for start in range(0, len(self), _PARTICLES_AT_ONCE):
            yield np.arange(start, min(start + _PARTICLES_AT_ONCE, len(self)))


class CellDistribution(Cells, PoseDistribution):
    """Piecewise constant distributions, see `PoseDistribution.from_cells`; a copy of any other kind.

    A density and its piecewise constant copy define each other, so they share a module.
    """

    def parts(self) -> Iterator[tuple[NDArray[np.int64], Cells]]:
        """Yield consecutive particles ``(b,)`` and their cells."""
        for rows in self._chunks():
            yield rows, self if len(rows) == len(self) else self[rows]


@dataclass(frozen=True)
class CredibleSet:
    """The smallest set of poses, modulo symmetry, that holds the truth with a given probability.

    ``distribution``: what it is a set of; every particle has its own. ``level``: the probability,
    in [0, 1].
    """

    distribution: PoseDistribution
    level: float

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise ValueError(f"a credible set's level must be between 0 and 1, not {self.level}")

    @cached_property
    def volume(self) -> Array:
        """The share of SO(3) that the set fills, equivalents included, ``(n,)``."""
        return np.asarray(self.distribution._ask(self._volume))

    def _volume(self, part: Cells) -> Array:
        mass = part.probability
        left = np.maximum(self.level - part.below, 0)
        share = np.divide(left, mass, out=np.zeros_like(mass), where=mass > 0).clip(0, 1)
        return np.asarray((share * part.volumes).sum(1))

    def contains(self, rotations: ArrayLike) -> NDArray[np.bool_]:
        """Return whether each of ``(n, 3, 3)`` rotations, or an equivalent, is in its particle's set."""
        return self.distribution.credible_level(rotations) < self.level


Leaves: TypeAlias = tuple[NDArray[np.int64], Indices]
"""Orders and indices of cells that do not overlap, each ``(k,)``."""


def _common_leaves(lists: list[Leaves]) -> Leaves:
    """Return the coarsest cells of which every listed cell is one or a union.

    A cell that holds a finer one of the lists gives way to its children, from the coarsest order
    down.
    """
    orders = np.concatenate([part[0] for part in lists]).astype(np.int64)
    indices = np.concatenate([part[1] for part in lists])
    levels = {int(order): np.unique(indices[orders == order]) for order in np.unique(orders)}
    coarsest, finest = min(levels), max(levels)
    for order in range(coarsest, finest):
        below = [
            SO3Grid(fine).ancestors(cells, order)
            for fine, cells in levels.items()
            if fine > order and len(cells)
        ]
        here = levels.get(order, np.zeros(0, dtype=np.int64))
        split = np.isin(here, np.concatenate(below)) if below else np.zeros(len(here), dtype=bool)
        levels[order] = here[~split]
        children = SO3Grid(order).children(here[split]).reshape(-1)
        levels[order + 1] = np.union1d(levels.get(order + 1, here[:0]), children)
    return (
        np.concatenate([np.full(len(cells), order) for order, cells in sorted(levels.items())]),
        np.concatenate([cells for _, cells in sorted(levels.items())]),
    )
