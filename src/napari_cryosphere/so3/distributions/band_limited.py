"""Band-limited functions on SO(3), averaged over a point group: values, derivatives, maxima."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from napari_cryosphere.so3.asymmetric_unit import expand
from napari_cryosphere.so3.distributions.cells import Array, Index
from napari_cryosphere.so3.distributions.modes import Derivatives, newton
from napari_cryosphere.so3.grid import MAX_ORDER, SO3Grid
from napari_cryosphere.so3.grid_transform import evaluate_alone, evaluate_on_grid
from napari_cryosphere.so3.plane_waves import PlaneWaves
from napari_cryosphere.so3.pose_summary import EVALUATION_ORDER
from napari_cryosphere.so3.symmetry import normalise_group_name, point_group
from napari_cryosphere.so3.wigner import evaluate_at, rotate_coefficients

__all__ = ["ROUNDING", "BandLimited", "order_for_degree"]

ROUNDING = 1e-5
"""Relative error of values in single precision."""

_NEWTON_STEPS = 4  # Newton's error is squared at each, from half a cell on; chosen, not tuned

Self = TypeVar("Self", bound="BandLimited")


def order_for_degree(l_max: int) -> int:
    """Return the order of the grid for functions up to a degree: some five points to the shortest wave.

    That is order 3 up to degree 10, order 4 up to degree 16.
    """
    orders = range(EVALUATION_ORDER, MAX_ORDER)
    return next((k for k in orders if SO3Grid(k).spacing_degrees <= 75 / max(l_max, 1)), MAX_ORDER)


class BandLimited:
    """Log-densities given by Wigner coefficients, one per particle, not normalised.

    ``coefficients``: ``(n, L + 1, 2 L + 1, L + 1)`` complex, expanded as in
    `napari_cryosphere.so3.wigner`. At L = 6 this is 5 kB per particle. ``symmetry``: point group
    over which the exponential of the function is averaged.
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
    def coarse_order(self) -> int:
        """Order of the grid that resolves functions of this degree, see `order_for_degree`."""
        return order_for_degree(self.l_max)

    def __len__(self) -> int:
        return len(self.coefficients)

    def __getitem__(self: Self, index: Index) -> Self:
        """Select particles; an integer gives a batch of one."""
        rows = torch.from_numpy(np.arange(len(self))[index].reshape(-1))
        return type(self)(self.coefficients[rows.to(self.coefficients.device)], self.symmetry)

    def cpu(self: Self) -> Self:
        """Return the functions in the computer's own memory."""
        return type(self)(self.coefficients.cpu(), self.symmetry)

    def score(self, rotations: Array) -> Array:
        """Return the unnormalised log-density, in double precision."""
        exact = self.coefficients.detach().to(torch.complex128)
        group = point_group(self.symmetry)
        images = np.einsum("gij,nqjk->nqgik", group, rotations).reshape(len(rotations), -1, 3, 3)
        values = evaluate_at(exact, torch.from_numpy(images).to(exact.device))
        values = values.reshape(*rotations.shape[:2], len(group))
        return (values.logsumexp(-1) - float(np.log(len(group)))).cpu().numpy()

    def values_on_grid(self, order: int, views: Tensor | None = None) -> Tensor:
        """Return the unnormalised log-density, averaged over the group, ``(n, n_views, n_psi)``.

        ``views`` are those wanted; without it all.
        """
        coefficients = self.coefficients.detach()
        if self.symmetry == "C1":
            return evaluate_on_grid(coefficients, order)
        group = point_group(self.symmetry)
        total = None
        for operator in group:
            values = evaluate_on_grid(rotate_coefficients(coefficients, operator), order)
            wanted = values if views is None else values[:, views]
            total = wanted if total is None else torch.logaddexp(total, wanted)
        assert total is not None
        return total - float(np.log(len(group)))

    def density_alone(self, order: int) -> Array:
        """Return the density of a batch of one, ``(n_views, n_psi)`` float32, of any scale.

        In the caller's thread and no other, see `evaluate_alone`.
        """
        coefficients = self.coefficients.detach().cpu().to(torch.complex64)
        total, top = None, 0.0
        for operator in point_group(self.symmetry):
            turned = coefficients
            if self.symmetry != "C1":
                turned = rotate_coefficients(coefficients, operator)
            values = evaluate_alone(turned[0].numpy(), order)
            top = float(values.max()) if total is None else top  # much the same of all copies
            values -= np.float32(top)
            density = np.exp(values, out=values)
            total = density if total is None else total + density
        assert total is not None
        return total

    def values_in_unit(self, order: int) -> Tensor:
        """Return the unnormalised log-density in the cells of the asymmetric unit, ``(n, k)``."""
        views = torch.from_numpy(SO3Grid(order).reduced(self.symmetry).views)
        return self.values_on_grid(order, views.to(self.coefficients.device)).flatten(1)

    def climb(self, rotations: Array) -> Array:
        """Move poses ``(n, k, 3, 3)`` uphill by Newton's method with exact derivatives."""
        return self.climb_to(rotations)[0]

    def climb_to(self, rotations: Array) -> tuple[Array, Array]:
        """Return what `climb` does, and the unnormalised log-density there."""
        spacing = SO3Grid(self.coarse_order).spacing_degrees
        return newton(self.derive(), rotations, spacing / 2, _NEWTON_STEPS, ROUNDING)[:2]

    def derive(self) -> Callable[[Array, int], Derivatives]:
        """Return the derivatives of the unnormalised log-density, for `newton`."""
        waves = PlaneWaves(self.coefficients.detach())
        order = len(point_group(self.symmetry))

        def derive(poses: Array, step: int) -> Derivatives:
            images = torch.from_numpy(expand(poses, self.symmetry).reshape(len(poses), -1, 3, 3))
            found = waves.derivatives(
                images.to(self.coefficients.device, self.coefficients.real.dtype)
            )
            value, gradient, hessian = (
                part.double().cpu().numpy().reshape(*poses.shape[:2], order, *part.shape[2:])
                for part in found
            )
            if order == 1:
                return value[:, :, 0], gradient[:, :, 0], hessian[:, :, 0]
            return _of_mean(value, gradient, hessian)

        return derive


def _of_mean(value: Array, gradient: Array, hessian: Array) -> Derivatives:
    """Return the derivatives of the logarithm of the mean of exponentials over axis 2."""
    highest = value.max(2, keepdims=True)
    shares = np.exp(value - highest)
    total = shares.sum(2, keepdims=True)
    shares = shares / total
    slope = np.einsum("nkg,nkgi->nki", shares, gradient)
    bend = hessian + gradient[..., :, None] * gradient[..., None, :]
    curvature = (
        np.einsum("nkg,nkgij->nkij", shares, bend) - slope[..., :, None] * slope[..., None, :]
    )
    return (highest + np.log(total))[..., 0] - np.log(value.shape[2]), slope, curvature
