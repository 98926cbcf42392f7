"""Where the views of many particles fall on the sphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.widgets.state.predictions import PredictionStore

__all__ = ["ORDER", "ViewMap", "ViewStatistics"]

ORDER = 3
"""HEALPix order of the views: 768 directions, 7.3 degrees apart."""

_N_VIEWS = 12 * 4**ORDER
_CHUNK = 8192
_NEAR_DEGREES = 30.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ViewMap:
    """Where the views of some particles fall.

    - ``probability``, ``(n_views,)``: mean over the particles, summing to 1; a HEALPix map in RING
      order.
    - ``particles``: number of particles in it.
    - ``compensation_factor``, ``weak_fraction``: see
      `napari_cryosphere.reconstruction.fourier_sampling`.
    - ``peak``, ``(3,)``: the direction where views are densest.
    - ``peak_density``: density there; 1 is the mean over the sphere.
    - ``near_peak``: share of the views within 30 degrees of the peak or of an equivalent.
    - ``near_peak_if_even``: what that share would be for even views.
    """

    probability: Array
    particles: int
    compensation_factor: float
    weak_fraction: float
    peak: Array
    peak_density: float
    near_peak: float
    near_peak_if_even: float

    @property
    def density(self) -> Array:
        """``(n_views,)``: density of views; 1 is the mean over the sphere."""
        return self.probability * len(self.probability)


class ViewStatistics:
    """View directions of a data set's particles, each as a probability over the sphere.

    A particle whose distribution is known counts with its view marginal, one of which only the pose
    is known (predicted, or the file's) with that view. Both include all equivalents under the
    symmetry. They are worked out in batches by `fill` and kept in half precision, 1.5 kB a
    particle.

    ``stack``, ``store``: the particles and what is predicted of them. ``symmetry``: point group of
    the map, for poses without a distribution.
    """

    def __init__(self, stack: ParticleStack, store: PredictionStore, symmetry: str = "C1") -> None:
        self._stack, self._store = stack, store
        self.symmetry = symmetry
        self._marginals = np.zeros((0, _N_VIEWS), dtype=np.float16)
        self._known = np.zeros(len(stack), dtype=bool)
        self._version = 0  # what was forgotten while it was being worked out stays forgotten

    @property
    def possible(self) -> NDArray[np.bool_]:
        """Which particles have a view at all, ``(n,)``."""
        every = self._stack.has_poses
        return np.ones(len(self._stack), dtype=bool) if every else self._store.predicted.copy()

    def missing(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the particles among these whose views can be worked out and have not been."""
        return rows[~self._known[rows] & self.possible[rows]]

    def forget(self, rows: slice | None = None) -> None:
        """Recompute the views of some particles, or of all."""
        self._version += 1
        self._known[rows or slice(None)] = False

    def fill(self, rows: NDArray[np.int64]) -> None:
        """Work out the views of a batch of particles, see `missing`; may run in another thread."""
        if len(self._marginals) != len(self._stack):
            self._marginals = np.zeros((len(self._stack), _N_VIEWS), dtype=np.float16)
        version = self._version
        asked = np.zeros(len(self._stack), dtype=bool)
        asked[rows] = True
        batches = self._store.distributions(asked)
        if sum(map(len, batches)) == len(rows):
            marginals = [batch.view_map(ORDER) for batch in batches]
            self._marginals[np.flatnonzero(asked)] = np.concatenate(marginals) if marginals else 0
        else:
            self._fill_one_by_one(rows)
        if version == self._version:
            self._known[rows] = True

    def _fill_one_by_one(self, rows: NDArray[np.int64]) -> None:
        """Take particles of which only some have a distribution."""
        single = []
        for row in rows.tolist():
            distribution = self._store.distribution(row)
            if distribution is None:
                single.append(row)
            else:
                self._marginals[row] = distribution.view_map(ORDER)[0]
        if single:
            self._fill_single(np.array(single))

    def _fill_single(self, rows: NDArray[np.int64]) -> None:
        """Take the views of poses without distributions."""
        from napari_cryosphere.so3.healpix import vec2pix
        from napari_cryosphere.so3.symmetry import point_group

        directions = np.empty((len(rows), 3))
        predicted = self._store.predicted[rows]
        for at, row in enumerate(rows.tolist()):
            if predicted[at]:
                rotation = self._store.rotation(row)
                directions[at] = 0 if rotation is None else rotation[:, 2]
        if not predicted.all():
            directions[~predicted] = self._stack[rows[~predicted]].rotations()[:, :, 2]
        self._marginals[rows] = 0
        group = point_group(self.symmetry)
        for operator in group:
            turned = directions @ operator.T
            pixels = vec2pix(2**ORDER, *turned.T)
            np.add.at(self._marginals, (rows, pixels), np.float16(1 / len(group)))

    def summarise(self, rows: NDArray[np.int64]) -> ViewMap | None:
        """Return where the views of some particles fall; None if no view of theirs has been worked out."""
        from napari_cryosphere.reconstruction.fourier_sampling import fourier_sampling

        known = rows[self._known[rows]]
        if not len(known):
            return None
        total = np.zeros(_N_VIEWS)
        for part in _parts(known):
            total += self._marginals[part].sum(axis=0, dtype=np.float32)
        probability = total / total.sum()
        sampled = fourier_sampling(probability)
        peak = int(probability.argmax())
        near = self._near(peak)
        return ViewMap(
            probability,
            len(known),
            sampled.compensation_factor,
            sampled.weak_fraction,
            directions()[peak],
            float(probability[peak] * _N_VIEWS),
            float(probability[near].sum()),
            float(near.mean()),
        )

    def shares(self, rows: NDArray[np.int64], groups: NDArray[np.int64]) -> Array:
        """Return what part of the views of some particles is each group's, ``(k, n_views)``.

        ``groups``, ``(n,)``: the group of every particle of the data set, in ascending order of
        whose numbers the answer is.
        """
        known = rows[self._known[rows]]
        kinds = np.unique(groups)
        sums = [
            sum(
                (
                    self._marginals[part].sum(axis=0, dtype=np.float32)
                    for part in _parts(known[groups[known] == kind])
                ),
                np.zeros(_N_VIEWS),
            )
            for kind in kinds
        ]
        total = np.sum(sums, axis=0)
        return np.asarray(sums) / np.maximum(total, 1e-12)

    def _near(self, peak: int) -> NDArray[np.bool_]:
        """Return the directions near a peak or one of its equivalents, ``(n_views,)``."""
        from napari_cryosphere.so3.symmetry import point_group

        equivalents = point_group(self.symmetry) @ directions()[peak]
        cosines = (directions() @ equivalents.T).max(axis=1)
        return np.asarray(cosines >= np.cos(np.radians(_NEAR_DEGREES)))

    def symmetrised(self, region: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a region of the sphere, ``(n_views,)``, with all its equivalents."""
        from napari_cryosphere.so3.healpix import vec2pix
        from napari_cryosphere.so3.symmetry import point_group

        whole = region.copy()
        for operator in point_group(self.symmetry)[1:]:
            # the directions whose equivalent lies in the region: no holes, unlike mapping the
            # region's own
            whole |= region[vec2pix(2**ORDER, *(directions() @ operator.T).T)]
        return whole

    def inside(
        self, region: NDArray[np.bool_], rows: NDArray[np.int64], least: float
    ) -> NDArray[np.int64]:
        """Return the particles, among some, with at least a share of their probability in a region."""
        found = []
        for part in _parts(rows):
            mass = self._marginals[part][:, region].sum(axis=1, dtype=np.float32)
            found.append(part[self._known[part] & (mass >= least)])
        return np.concatenate(found) if found else rows[:0]


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return rows in parts of which single precision holds the sums."""
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


def directions() -> Array:
    """Return the view directions, ``(n_views, 3)`` unit vectors in the map frame."""
    from napari_cryosphere.so3.healpix import pix2vec

    return pix2vec(2**ORDER, np.arange(_N_VIEWS))
