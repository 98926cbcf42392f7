"""Probability distributions over poses: what the network predicts, and the questions one asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.symmetry import normalise_group_name, point_group
from napari_cryosphere.so3.wigner import evaluate_at, evaluate_on_grid

__all__ = ["CONFIDENCE_RADIUS_DEGREES", "EVALUATION_ORDER", "PoseDistribution", "PoseSummary"]

EVALUATION_ORDER = 3
"""HEALPix order of the grid (7.3 degree spacing) on which distributions are normalised and summarised."""

CONFIDENCE_RADIUS_DEGREES = 30.0
"""A pose's confidence is the probability that the truth lies within this angle of it."""

_CHUNK = 32


@dataclass(frozen=True)
class PoseSummary:
    """What one line of a STAR file can say of a distribution; one entry a particle.

    Attributes
    ----------
    rotations
        ``(n, 3, 3)``: the most probable pose, refined below the grid's spacing; image to map coordinates.
    max_probability
        ``(n,)``: probability of the best cell of the order-3 grid (RELION's rlnMaxValueProbDistribution).
    entropy
        ``(n,)`` nats, relative to the uniform distribution: 0 knows nothing, more negative is sharper;
        ``exp(entropy)`` is the fraction of SO(3) that the pose is spread over.
    spread_degrees
        ``(n,)``: expected angle between the true pose and the reported one, modulo symmetry.
    confidence
        ``(n,)``: probability that the truth is within `CONFIDENCE_RADIUS_DEGREES` of the reported pose.
    """

    rotations: NDArray[np.float64]
    max_probability: NDArray[np.float64]
    entropy: NDArray[np.float64]
    spread_degrees: NDArray[np.float64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rotations)

    @classmethod
    def concatenate(cls, parts: list[PoseSummary]) -> PoseSummary:
        """Join summaries of consecutive particles."""
        return cls(
            np.concatenate([part.rotations for part in parts]),
            np.concatenate([part.max_probability for part in parts]),
            np.concatenate([part.entropy for part in parts]),
            np.concatenate([part.spread_degrees for part in parts]),
            np.concatenate([part.confidence for part in parts]),
        )


@dataclass(frozen=True)
class PoseDistribution:
    """A batch of probability distributions over SO(3), one a particle.

    Attributes
    ----------
    coefficients
        ``(n, L + 1, 2 L + 1, L + 1)`` complex: the unnormalised log-density, expanded as in
        `napari_cryosphere.so3.wigner`. At L = 6 this is 5 kB a particle.
    symmetry
        Point group of the map; poses that differ by an operator count as one.

    Notes
    -----
    Densities are relative to the uniform distribution (the normalised Haar measure): a log-density of 0
    everywhere is the uniform distribution.
    """

    coefficients: Tensor
    symmetry: str = "C1"

    def __post_init__(self) -> None:
        shape = self.coefficients.shape
        count = shape[-1]
        if len(shape) != 4 or shape[1:] != (count, 2 * count - 1, count):
            raise ValueError(f"coefficients must be (n, L + 1, 2 L + 1, L + 1), not {tuple(shape)}")
        object.__setattr__(self, "symmetry", normalise_group_name(self.symmetry))

    def __len__(self) -> int:
        return len(self.coefficients)

    def __getitem__(self, index: int | slice | NDArray[np.integer]) -> PoseDistribution:
        """Select particles; an integer gives a batch of one."""
        if isinstance(index, (int, np.integer)):
            index = np.array([int(index)])
        if not isinstance(index, slice):
            index = torch.as_tensor(np.asarray(index))  # type: ignore[assignment]
        return PoseDistribution(self.coefficients[index], self.symmetry)

    def log_density_grid(self, order: int = EVALUATION_ORDER) -> Tensor:
        """Return the normalised log-density on the grid, ``(n, n_views, n_psi)``; differentiable."""
        values = evaluate_on_grid(self.coefficients, order)
        log_mean = values.flatten(1).logsumexp(1) - np.log(SO3Grid(order).size)
        return values - log_mean[:, None, None]

    def probability_grid(self, order: int = EVALUATION_ORDER) -> Tensor:
        """Return the probability of every grid cell, ``(n, n_views, n_psi)``; each particle's sum is 1."""
        values = evaluate_on_grid(self.coefficients, order)
        return values.flatten(1).softmax(1).reshape(values.shape)

    def log_density(self, rotations: Tensor, order: int = EVALUATION_ORDER) -> Tensor:
        """Return the log-density at each particle's own rotations; differentiable.

        Parameters
        ----------
        rotations
            ``(n, k, 3, 3)``; image to map coordinates.
        order
            Order of the grid on which the normalisation is summed.

        Returns
        -------
        ``(n, k)`` nats relative to uniform. With a symmetry other than C1 the density is first averaged
        over the group, so that equivalent poses get the same answer.
        """
        group = torch.from_numpy(point_group(self.symmetry).copy()).to(rotations)
        images = torch.einsum("gij,nkjl->nkgil", group, rotations)
        values = evaluate_at(self.coefficients, images.flatten(1, 2)).reshape(*images.shape[:3])
        averaged = values.logsumexp(-1) - np.log(len(group))
        grid_values = evaluate_on_grid(self.coefficients, order).flatten(1)
        return averaged - (grid_values.logsumexp(1) - np.log(grid_values.shape[1]))[:, None]

    def view_marginal(self, order: int = EVALUATION_ORDER) -> NDArray[np.float64]:
        """Return the probability of every view direction, ``(n, n_views)``, HEALPix RING order."""
        return self.probability_grid(order).sum(-1).double().cpu().numpy()

    def summary(self, order: int = EVALUATION_ORDER) -> PoseSummary:
        """Return best pose, entropy, spread and confidence of every particle, in bounded memory."""
        parts = [_summarise(chunk, order) for chunk in self._chunks()]
        return PoseSummary.concatenate(parts)

    def _chunks(self) -> Iterator[PoseDistribution]:
        for start in range(0, len(self), _CHUNK):
            yield self[start : start + _CHUNK]


def _summarise(distribution: PoseDistribution, order: int) -> PoseSummary:
    """Summarise a small batch; the angles to all grid rotations are held at once."""
    grid = SO3Grid(order)
    log_density = distribution.log_density_grid(order).flatten(1)
    probability = (log_density - np.log(grid.size)).exp()
    entropy = -(probability * log_density).sum(1)
    best = probability.argmax(1)
    table = _grid_rotations(order, probability.dtype, probability.device)
    rotations = _climb(distribution.coefficients, table[best], grid.spacing_degrees)
    angles = _angles_to_group(table, rotations, distribution.symmetry)
    near = angles <= CONFIDENCE_RADIUS_DEGREES
    return PoseSummary(
        rotations=rotations.double().cpu().numpy(),
        max_probability=probability.amax(1).double().cpu().numpy(),
        entropy=entropy.double().cpu().numpy(),
        spread_degrees=(probability * angles).sum(1).double().cpu().numpy(),
        confidence=(probability * near).sum(1).clamp(0, 1).double().cpu().numpy(),
    )


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _grid_rotations(order: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the grid's rotations as a ``(size, 3, 3)`` tensor (1.3 MB at order 3), built once."""
    return torch.from_numpy(SO3Grid(order).rotations()).to(device, dtype)


def _climb(coefficients: Tensor, start: Tensor, spacing_degrees: float, steps: int = 3) -> Tensor:
    """Move each pose from the best grid point to the maximum of its log-density beside it.

    Newton's method in the tangent space, with derivatives by central differences over a fraction of the
    grid's spacing. A step is at most half of the spacing and is kept only if it leads uphill.

    Parameters
    ----------
    coefficients
        ``(n, L + 1, 2 L + 1, L + 1)`` complex.
    start
        ``(n, 3, 3)``.

    Returns
    -------
    ``(n, 3, 3)`` float64.
    """
    exact = coefficients.detach().to(torch.complex128)
    poses = start.double()
    step = float(np.radians(spacing_degrees)) / 8
    stencil = torch.from_numpy(_STENCIL).to(poses) * step
    for _ in range(steps):
        values = evaluate_at(exact, poses[:, None] @ _exponential(stencil))
        centre, gradient, hessian = _derivatives(values, step)
        # bend every direction downwards, so that the step leads uphill; flat functions stay where they are
        excess = torch.linalg.eigvalsh(hessian)[:, -1].clamp(min=0) + 1e-3 * hessian.abs().amax((1, 2)) + 1e-9
        bent = hessian - excess[:, None, None] * torch.eye(3).to(hessian)
        move = torch.linalg.solve(-bent, gradient[..., None])[..., 0]
        length = move.norm(dim=1, keepdim=True).clamp(min=1e-12)
        move = move * (float(np.radians(spacing_degrees)) / 2 / length).clamp(max=1)
        moved = poses @ _exponential(move)
        better = evaluate_at(exact, moved[:, None])[:, 0] >= centre
        poses = torch.where(better[:, None, None], moved, poses)
    return poses


# Central differences: the centre, +-e_i (gradient, diagonal), then (+,+) and (-,-) of each pair (mixed).
_PAIRS = ((0, 1), (0, 2), (1, 2))
_STENCIL = np.concatenate(
    [np.zeros((1, 3)), np.eye(3), -np.eye(3)]
    + [sign * (np.eye(3)[[i]] + np.eye(3)[[j]]) for i, j in _PAIRS for sign in (1, -1)]
)


def _derivatives(values: Tensor, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Turn ``(n, 13)`` values on the stencil into value, gradient ``(n, 3)`` and Hessian ``(n, 3, 3)``."""
    centre, plus, minus = values[:, 0], values[:, 1:4], values[:, 4:7]
    gradient = (plus - minus) / (2 * step)
    second = plus + minus - 2 * centre[:, None]
    hessian = torch.diag_embed(second / step**2)
    for pair, (i, j) in enumerate(_PAIRS):
        both = values[:, 7 + 2 * pair] + values[:, 8 + 2 * pair] - 2 * centre
        hessian[:, i, j] = hessian[:, j, i] = (both - second[:, i] - second[:, j]) / (2 * step**2)
    return centre, gradient, hessian


def _exponential(vectors: Tensor) -> Tensor:
    """Return the rotations of rotation vectors ``(..., 3)`` in radians."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vectors.shape[:-1], 3, 3)
    return torch.linalg.matrix_exp(skew)


def _angles_to_group(table: Tensor, rotations: Tensor, symmetry: str) -> Tensor:
    """Return the angle from every grid rotation to each pose, modulo symmetry: ``(n, size)`` degrees."""
    group = torch.from_numpy(point_group(symmetry).copy()).to(rotations)
    images = torch.einsum("gij,njk->gnik", group, rotations).to(table.dtype)
    traces = torch.einsum("sij,nij->ns", table, images[0])
    for image in images[1:]:
        traces = torch.maximum(traces, torch.einsum("sij,nij->ns", table, image))
    return torch.rad2deg(torch.arccos(((traces - 1) / 2).clamp(-1, 1)))
