"""Distributions whose log-density is band-limited: Wigner coefficients, as the network predicts them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from napari_cryosphere.so3._cells import CellDistribution, whole_unit
from napari_cryosphere.so3._smooth import SmoothDistribution
from napari_cryosphere.so3.asymmetric_unit import reduce
from napari_cryosphere.so3.distribution import EVALUATION_ORDER, Array, Index, PoseDistribution
from napari_cryosphere.so3.grid import MAX_ORDER, SO3Grid
from napari_cryosphere.so3.grid_transform import evaluate_on_grid
from napari_cryosphere.so3.symmetry import normalise_group_name, point_group
from napari_cryosphere.so3.wigner import evaluate_at, rotate_coefficients

__all__ = ["HarmonicDistribution", "order_for_degree"]


def order_for_degree(l_max: int) -> int:
    """Return the order of the grid for functions up to a degree: six points to the shortest wave or more.

    That is order 3 up to degree 8, order 4 up to degree 16.
    """
    orders = range(EVALUATION_ORDER, MAX_ORDER)
    return next((k for k in orders if SO3Grid(k).spacing_degrees <= 60 / max(l_max, 1)), MAX_ORDER)


class HarmonicDistribution(SmoothDistribution):
    """See `PoseDistribution.from_coefficients`.

    Attributes
    ----------
    coefficients
        ``(n, L + 1, 2 L + 1, L + 1)`` complex: the unnormalised log-density, expanded as in
        `napari_cryosphere.so3.wigner`. At L = 6 this is 5 kB a particle.

    Notes
    -----
    The log-density has the degree L; the density itself may be sharper than any grid made for that degree.
    The normalisation is a sum over the grid of `order_for_degree`, refined around the best pose while a
    single cell there would hold more than 0.06, as a normal peak one spacing wide does.
    """

    def __init__(self, coefficients: Tensor, symmetry: str = "C1") -> None:
        shape = coefficients.shape
        count = shape[-1] if len(shape) == 4 else 0
        if shape[1:] != (count, 2 * count - 1, count):
            raise ValueError(f"coefficients must be (n, L + 1, 2 L + 1, L + 1), not {tuple(shape)}")
        self.coefficients = coefficients
        self.symmetry = normalise_group_name(symmetry)

    @property
    def l_max(self) -> int:
        """The largest degree."""
        return self.coefficients.shape[-1] - 1

    @property
    def width_degrees(self) -> float:
        """Not known beforehand."""
        return 0.0

    @property
    def _base_order(self) -> int:
        return order_for_degree(self.l_max)

    def __len__(self) -> int:
        return len(self.coefficients)

    def __getitem__(self, index: Index) -> HarmonicDistribution:
        """Select particles; an integer gives a batch of one."""
        rows = torch.from_numpy(np.arange(len(self))[index].reshape(-1)).to(self.coefficients.device)
        return HarmonicDistribution(self.coefficients[rows], self.symmetry)

    def cpu(self) -> HarmonicDistribution:
        """Return the distribution in the computer's own memory."""
        return HarmonicDistribution(self.coefficients.cpu(), self.symmetry)

    def score(self, rotations: Array) -> Array:
        """Return the unnormalised log-density, in double precision."""
        exact = self.coefficients.detach().to(torch.complex128)
        group = point_group(self.symmetry)
        images = np.einsum("gij,nqjk->nqgik", group, rotations).reshape(len(rotations), -1, 3, 3)
        values = evaluate_at(exact, torch.from_numpy(images).to(exact.device))
        return _group_mean(values.reshape(*rotations.shape[:2], len(group)).movedim(-1, 0)).cpu().numpy()

    def values_on_grid(self, order: int) -> Tensor:
        """Return the unnormalised log-density, averaged over the group, ``(n, n_views, n_psi)``."""
        coefficients = self.coefficients.detach()
        if self.symmetry == "C1":
            return evaluate_on_grid(coefficients, order)
        images = (rotate_coefficients(coefficients, operator) for operator in point_group(self.symmetry))
        total = None
        for image in images:
            values = evaluate_on_grid(image, order)
            total = values if total is None else torch.logaddexp(total, values)
        assert total is not None
        return total - float(np.log(len(point_group(self.symmetry))))

    def probability_grid(self, order: int = EVALUATION_ORDER) -> Array:
        """Return the probability of every cell, by the density at its centre, ``(n, n_views, n_psi)``."""
        values = self.values_on_grid(order)
        return values.flatten(1).softmax(1).reshape(values.shape).double().cpu().numpy()

    def coarse(self) -> CellDistribution:
        """Return the copy of a small batch on the grid of `order_for_degree`."""
        unit = whole_unit(self._base_order, self.symmetry)
        values = self.values_on_grid(self._base_order).flatten(1).double().cpu().numpy()
        if self.symmetry != "C1":
            values = values[:, unit]
        return CellDistribution(self._base_order, unit, values, self.symmetry, check=False)

    def seeds(self, part: CellDistribution) -> Array:
        """Return the maximum beside the best cell, ``(n, 1, 3, 3)``."""
        best = part.centres[0][part.log_density.argmax(1)][:, None]
        likely = part.probability.max(1) > 0.02  # less than that, and the peak is wider than the grid
        if likely.any():
            best[likely] = self[np.flatnonzero(likely)].climb(best[likely])
        return reduce(best, self.symmetry)

    def symmetrise(self, symmetry: str) -> PoseDistribution:
        """See `PoseDistribution.symmetrise`."""
        return HarmonicDistribution(self.coefficients, self._other_symmetry(symmetry))


def _group_mean(logs: Tensor) -> Tensor:
    """Return the logarithm of the mean over the first axis."""
    return logs[0] if len(logs) == 1 else logs.logsumexp(0) - float(np.log(len(logs)))
