"""Distributions made of weighted poses under an IGSO(3) kernel."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from napari_cryosphere.so3.asymmetric_unit import reduce
from napari_cryosphere.so3.distributions.cells import Array, Cells, Index, whole_unit
from napari_cryosphere.so3.distributions.smooth import SmoothDistribution
from napari_cryosphere.so3.grid import MAX_ORDER, SO3Grid
from napari_cryosphere.so3.igso3 import igso3_log_density
from napari_cryosphere.so3.pose_summary import EVALUATION_ORDER
from napari_cryosphere.so3.symmetry import normalise_group_name, point_group

__all__ = ["KernelDistribution"]

_NARROWEST_DEGREES = SO3Grid(MAX_ORDER).spacing_degrees
# Poses of most weight around which cells are split; bounds the cost, chosen, not tuned.
_MOST_SEEDS = 64


class KernelDistribution(SmoothDistribution, kind="poses"):
    """Weighted poses under an IGSO(3) kernel, see `PoseDistribution.from_poses`.

    ``poses``: ``(n, k, 3, 3)``; image to map coordinates. ``log_weights``: ``(n, k)``, normalised;
    minus infinity for padding.
    """

    def __init__(
        self,
        rotations: ArrayLike,
        log_weights: ArrayLike,
        width_degrees: float,
        symmetry: str = "C1",
    ) -> None:
        self.poses: Array = np.asarray(rotations, dtype=np.float64)
        weights = np.asarray(log_weights, dtype=np.float64)
        if self.poses.ndim != 4 or self.poses.shape != (*weights.shape, 3, 3):
            raise ValueError(
                "rotations must be (n, k, 3, 3) and log-weights (n, k), "
                f"not {self.poses.shape} and {weights.shape}"
            )
        if not width_degrees >= _NARROWEST_DEGREES:
            raise ValueError(
                f"a kernel's width must be at least {_NARROWEST_DEGREES:.2f} degrees, not {width_degrees}"
            )
        peak = weights.max(1, keepdims=True, initial=-np.inf)
        if not np.isfinite(peak).all():
            raise ValueError("every particle needs a pose of finite log-weight")
        self.log_weights: Array = (
            weights - peak - np.log(np.exp(weights - peak).sum(1, keepdims=True))
        )
        self._width_degrees = float(width_degrees)
        self.symmetry = normalise_group_name(symmetry)

    @property
    def width_degrees(self) -> float:
        """Standard deviation of the kernel along each axis."""
        return self._width_degrees

    @property
    def coarse_order(self) -> int:
        """Order of the grid that refinement starts from."""
        return EVALUATION_ORDER

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, index: Index) -> KernelDistribution:
        """Select particles; an integer gives a batch of one."""
        rows = np.arange(len(self))[index].reshape(-1)
        return KernelDistribution(
            self.poses[rows], self.log_weights[rows], self._width_degrees, self.symmetry
        )

    def score(self, rotations: Array) -> Array:
        """Return the log-density; a kernel's is normalised already."""
        group = point_group(self.symmetry)
        flat = self.poses.reshape(*self.poses.shape[:2], 9)
        total = np.full(rotations.shape[:2], -np.inf)
        for operator in group:
            images = (operator @ rotations).reshape(*rotations.shape[:2], 9)
            cosine = ((images @ flat.swapaxes(1, 2) - 1) / 2).clip(-1, 1)
            logs = igso3_log_density(np.arccos(cosine), np.radians(self._width_degrees))
            total = np.logaddexp(
                total, np.logaddexp.reduce(logs + self.log_weights[:, None], axis=-1)
            )
        return total - np.log(len(group))

    def coarse(self) -> Cells:
        """Return the copy of a small batch on the grid of order 3."""
        unit = whole_unit(EVALUATION_ORDER, self.symmetry)
        grid = SO3Grid(EVALUATION_ORDER)
        values = np.concatenate(
            [
                self.score(np.broadcast_to(grid.rotations(cells), (len(self), len(cells), 3, 3)))
                for cells in np.array_split(
                    unit, max(1, len(unit) * self.poses.shape[1] // 100_000)
                )
            ],
            axis=1,
        )
        return Cells(EVALUATION_ORDER, unit, values, self.symmetry, check=False)

    def seeds(self, part: Cells) -> Array:
        """Return the poses of most weight, ``(n, up to 64, 3, 3)``."""
        best = np.argsort(-self.log_weights, axis=1, kind="stable")[:, :_MOST_SEEDS]
        return reduce(np.take_along_axis(self.poses, best[..., None, None], 1), part.symmetry)
