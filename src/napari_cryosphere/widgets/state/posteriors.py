"""What a map says of the particles' poses: read from a folder, or computed for one particle."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

if TYPE_CHECKING:
    from napari_cryosphere.alignment.aligner import Aligner
    from napari_cryosphere.jobs.align import AlignerInput
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.so3.distributions import PoseDistribution
    from napari_cryosphere.so3.distributions.store import DistributionStore

__all__ = ["MapAligner", "Posterior", "Posteriors"]

_MOST_KEPT = 256


@dataclass(frozen=True)
class Posterior:
    """One particle's distribution given a map.

    ``distribution``: a batch of one. ``rotation``, ``(3, 3)``: its best pose. ``shift_px``,
    ``(2,)``: where the particle's centre sits relative to pixel n // 2, x and y; None if not known.
    """

    distribution: PoseDistribution
    rotation: NDArray[np.float64]
    shift_px: NDArray[np.float64] | None = None


class MapAligner:
    """Aligns single particles of a stack to a map; noise and contrast are measured at the first one.

    That takes seconds, and each particle some tenths of a second: call it from a thread.

    ``stack``, ``density``, ``symmetry``: the particles, the map, and its point group.
    """

    def __init__(self, stack: ParticleStack, density: DensityMap, symmetry: str) -> None:
        self.stack = stack
        self.density = density
        self.symmetry = symmetry
        self._ready: tuple[Aligner, AlignerInput] | None = None

    def __call__(self, index: int) -> Posterior:
        """Search all poses of a particle.

        Raises `CryosphereError` if the images cannot be read, or nothing of the map is seen in
        them.
        """
        from napari_cryosphere.jobs.align import AlignerInput, prepare_aligner

        if self._ready is None:
            aligner = prepare_aligner(self.stack, self.density, self.symmetry)
            self._ready = aligner, AlignerInput(self.stack)
        aligner, read = self._ready
        found = aligner.search(*read([index]), with_distribution=True)
        assert found.distribution is not None
        return Posterior(found.distribution, found.rotations[0], found.shifts_px[0])


class Posteriors:
    """The posteriors known so far of a data set.

    A folder of distributions answers for all particles, read row by row. Without one, posteriors
    are known that have been added; the last 256 are kept.
    """

    changed = Signal(int)
    """Sent with the particle whose posterior is new; -1 for all."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Posterior] = OrderedDict()
        self._folder: DistributionStore | None = None

    @property
    def stored(self) -> bool:
        """Whether a folder answers for all particles."""
        return self._folder is not None

    def read_from(self, folder: DistributionStore | None) -> None:
        """Ask a folder of distributions, one row per particle; None to ask none."""
        self._folder = folder
        self.clear()

    def clear(self) -> None:
        """Forget what was computed or read."""
        self._kept.clear()
        self.changed.emit(-1)

    def add(self, index: int, posterior: Posterior) -> None:
        """Keep a particle's posterior."""
        self._keep(index, posterior)
        self.changed.emit(index)

    def get(self, index: int) -> Posterior | None:
        """Return a particle's posterior; None if it is not known."""
        if index not in self._kept and self._folder is not None and 0 <= index < len(self._folder):
            distribution = self._folder[index]
            self._keep(index, Posterior(distribution, _best_cell(distribution)))
        if index in self._kept:
            self._kept.move_to_end(index)
        return self._kept.get(index)

    def _keep(self, index: int, posterior: Posterior) -> None:
        self._kept[index] = posterior
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)


def _best_cell(distribution: PoseDistribution) -> NDArray[np.float64]:
    """Return the centre of the densest cell: the modes themselves take longer than a slider's step may."""
    from napari_cryosphere.so3.grid import cell_centres

    cells = distribution.cells()
    best = int(cells.log_density[0].argmax())
    centre: NDArray[np.float64] = cell_centres(cells.orders[0, best], cells.indices[0, best])
    return centre
