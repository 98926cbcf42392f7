"""Continuous refinement of poses and shifts: Gauss-Newton on SO(3) x R^2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from napari_cryosphere.alignment.observation import (
    Observation,
    best_contrast,
    contrast_integral,
)
from napari_cryosphere.imaging.slices import SliceSampler

__all__ = ["Climb", "RefinedPoses", "rotations_of"]

_ENTRIES_AT_ONCE = 1 << 16
"""Samples (poses times frequencies) held at once: what fits a core's cache beats larger batches."""
_ARRIVED = 0.01
"""A step that changes the log-likelihood by less than this many nats is the last."""


@dataclass(frozen=True)
class _Rows:
    """Tensors with one row per pose."""

    def __getitem__(self, rows: Tensor | slice) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def with_rows(self, rows: Tensor, other: Self) -> Self:
        """Return a copy with some rows replaced."""
        return type(self)(
            *(
                getattr(self, field.name).index_copy(0, rows, getattr(other, field.name))
                for field in fields(self)
            )
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Put the poses of several together."""
        return cls(
            *(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls))
        )


@dataclass(frozen=True)
class RefinedPoses(_Rows):
    """Poses at a maximum of the likelihood.

    Attributes
    ----------
    rotations
        ``(n, 3, 3)`` float32; image to map coordinates.
    shifts_px
        ``(n, 2)``: where the particle's centre sits relative to pixel n // 2.
    log_likelihood
        ``(n,)`` nats over an image without a particle.
    information
        ``(n, 5, 5)``: information in (rotation vector in the image's frame, shift), Fisher's; its
        inverse is the covariance of the pose's posterior where that is narrow.
    contrast
        ``(n,)``: the particle's own contrast, 1 is the mean.
    log_prior
        ``(n,)``: the logarithm of what was known of the pose before, as a density; 0 for nothing.
    """

    rotations: Tensor
    shifts_px: Tensor
    log_likelihood: Tensor
    information: Tensor
    contrast: Tensor
    log_prior: Tensor

    def __len__(self) -> int:
        return len(self.rotations)

    @property
    def log_evidence(self) -> Tensor:
        """``(n,)``: the log of prior times likelihood, integrated over rotations (rad^3) and shifts (px^2).

        Laplace's approximation: ``log p + log L + 5/2 log 2 pi - 1/2 log det information``, p at the mode.
        """
        volume = 2.5 * math.log(2 * math.pi) - 0.5 * torch.logdet(self.information)
        return self.log_prior + self.log_likelihood + volume

    def weighed(self, log_prior: Tensor) -> RefinedPoses:
        """Return the poses with the logarithm of a prior, ``(n,)``, on top of what they have."""
        return replace(self, log_prior=self.log_prior + log_prior.to(self.log_prior))

    def rotation_covariance(self) -> Tensor:
        """Return the ``(n, 3, 3)`` covariance of the rotation vector, in radians^2, shifts marginalised."""
        return torch.linalg.inv(self.information.double())[:, :3, :3]


@dataclass(frozen=True)
class _State(_Rows):
    """Poses, how well their images fit, and the normal equations of the next step."""

    rotations: Tensor
    shifts: Tensor
    score: Tensor
    normal: Tensor
    gradient: Tensor
    contrast: Tensor

    def put(self, rows: Tensor, other: _State) -> None:
        """Replace some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)


class Climb:
    """Poses on their way to the nearest maximum of the likelihood.

    Levenberg and Marquardt's damped Gauss-Newton steps on ``R exp([w]) , t + dt``; a step is kept
    only if the likelihood grows, so that the result is never worse than the start.

    Parameters
    ----------
    sampler
        The map's slices, with derivatives (``moments=True``).
    observation
        The images.
    image
        ``(n,)`` int64: which image each pose belongs to.
    rotations
        ``(n, 3, 3)``.
    shifts_px
        ``(n, 2)``.
    """

    def __init__(
        self,
        sampler: SliceSampler,
        observation: Observation,
        image: Tensor,
        rotations: Tensor,
        shifts_px: Tensor,
    ) -> None:
        self.image = image
        self._sampler = sampler
        self._observation = observation
        self._state = self._evaluate(image, rotations.float(), shifts_px.float())
        self._damping = torch.full_like(self._state.score, 1e-3)
        self._on_the_way = torch.ones_like(self._damping, dtype=torch.bool)

    def step(self, times: int) -> None:
        """Try up to so many steps from every pose that has not arrived."""
        for _ in range(times):
            climbing = torch.nonzero(self._on_the_way)[:, 0]
            if len(climbing) == 0:
                return
            now, damping = self._state[climbing], self._damping[climbing]
            moved = self._evaluate(self.image[climbing], *_stepped(now, damping))
            gain = moved.score - now.score
            better = gain > 0
            self._state.put(climbing[better], moved[better])
            self._damping[climbing] = torch.where(
                better, damping * 0.2, (damping * 10).clamp(min=0.1)
            )
            self._on_the_way[climbing] = gain.abs() > _ARRIVED

    def next_poses(self) -> tuple[Tensor, Tensor]:
        """Return the rotations and shifts that the next step would try."""
        return _stepped(self._state, self._damping)

    def keep(self, rows: Tensor) -> None:
        """Give up all poses but some."""
        self.image, self._state = self.image[rows], self._state[rows]
        self._damping, self._on_the_way = self._damping[rows], self._on_the_way[rows]

    def poses(self) -> RefinedPoses:
        """Return where the poses are now."""
        state = self._state
        return RefinedPoses(
            state.rotations,
            state.shifts,
            state.score,
            state.normal,
            state.contrast,
            torch.zeros_like(state.score),
        )

    def _evaluate(self, image: Tensor, rotations: Tensor, shifts: Tensor) -> _State:
        at_once = max(8, _ENTRIES_AT_ONCE // self._observation.data.shape[1])
        parts = [
            _evaluate(self._sampler, self._observation[image[rows]], rotations[rows], shifts[rows])
            for rows in (slice(start, start + at_once) for start in range(0, len(image), at_once))
        ]
        if not parts:
            count = shifts.new_empty(0)
            empty = count.new_empty(0, 5, 5), count.new_empty(0, 5), count
            return _State(rotations, shifts, count, *empty)
        return _State.join(parts)


def _stepped(state: _State, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotations and shifts after one damped step."""
    scale = torch.diagonal(state.normal, dim1=1, dim2=2)
    ridge = damping[:, None] * scale + 1e-6 * scale.amax(1, keepdim=True) + 1e-12
    step = torch.linalg.solve(state.normal + torch.diag_embed(ridge), state.gradient)
    return state.rotations @ rotations_of(step[:, :3]), state.shifts + step[:, 3:]


def _evaluate(
    sampler: SliceSampler, observation: Observation, rotations: Tensor, shifts: Tensor
) -> _State:
    """Return how well the model's images fit, with ``J^T J`` and ``J^T residual`` of their Jacobian J.

    With frequency ``p = R (x, y, 0)`` and ``R exp([w])``: turning about the image's x axis moves a
    point along the view by y, about its y axis by -x, and about the view axis by (-y, x) in the
    plane. The model's derivatives are ``-2 pi i / box * phases * K`` with K from the map's moments
    alone; the residual is turned back by the phases instead of K by them, and all is computed with
    real numbers, real parts before imaginary ones. The particle's contrast follows the pose: it is
    the best there (variable projection).
    """
    frequencies = observation.band.frequencies.to(sampler.device)
    unit = 2 * math.pi / observation.band.box
    moments = (
        sampler.values_and_moments(rotations, frequencies) * observation.filters[:, None, None]
    )
    model = moments[:, 0]
    turned_back = observation.data * observation.band.phases(-shifts)
    data = torch.stack([turned_back.real, turned_back.imag], dim=1)
    product, norm = (data * model).sum((1, 2)), 0.5 * model.square().sum((1, 2))
    spread = observation.contrast_spread
    contrast = best_contrast(product, norm, spread)
    residual = data - contrast[:, None, None] * model
    along = (rotations.transpose(1, 2) @ moments[:, 1:].flatten(2)).unflatten(2, (2, -1))
    x, y = frequencies.unbind(-1)
    kernel = torch.empty(len(rotations), 5, *model.shape[1:], device=sampler.device)
    torch.mul(along[:, 2], y, out=kernel[:, 0])
    torch.mul(along[:, 2], -x, out=kernel[:, 1])
    torch.mul(along[:, 1], x, out=kernel[:, 2]).addcmul_(along[:, 0], y, value=-1)
    torch.mul(model, x, out=kernel[:, 3])
    torch.mul(model, y, out=kernel[:, 4])
    rows = kernel.flatten(2)
    # Re conj(-i K) residual: the real part of K meets -1 times the imaginary part of the residual
    quarter_turned = torch.stack([-residual[:, 1], residual[:, 0]], dim=1).flatten(1)
    gradient = unit * contrast[:, None] * (rows @ quarter_turned[..., None])[..., 0]
    normal = (unit * contrast[:, None, None]) ** 2 * (rows @ rows.transpose(1, 2))
    score = contrast_integral(product, norm, spread)
    return _State(rotations, shifts, score, normal, gradient, contrast)


def rotations_of(vectors: Tensor) -> Tensor:
    """Return the rotations of ``(n, 3)`` rotation vectors in radians."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3)
    angle = vectors.norm(dim=-1)[:, None, None]
    half = torch.sinc(angle / (2 * math.pi))
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return identity + torch.sinc(angle / math.pi) * skew + 0.5 * half**2 * (skew @ skew)
