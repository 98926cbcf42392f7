"""Continuous refinement of poses and shifts: Gauss-Newton on SO(3) x R^2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from napari_cryosphere.alignment.observation import Observation
from napari_cryosphere.imaging.slices import SliceSampler

__all__ = ["RefinedPoses", "refine_poses"]

_ENTRIES_AT_ONCE = 1 << 16
"""Samples (poses times frequencies) held at once: what fits a core's cache beats larger batches."""
_ARRIVED = 0.01
"""A step that changes the log-likelihood by less than this many nats is the last."""


@dataclass(frozen=True)
class RefinedPoses:
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
        ``(n, 5, 5)``: Fisher information in (rotation vector in the image's frame, shift); its inverse is
        the covariance of the pose's posterior where that is narrow.
    """

    rotations: Tensor
    shifts_px: Tensor
    log_likelihood: Tensor
    information: Tensor

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, rows: Tensor | slice) -> RefinedPoses:
        return RefinedPoses(
            self.rotations[rows], self.shifts_px[rows], self.log_likelihood[rows], self.information[rows]
        )

    @classmethod
    def join(cls, parts: Sequence[RefinedPoses]) -> RefinedPoses:
        """Put the poses of several together."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def log_evidence(self) -> Tensor:
        """``(n,)``: the logarithm of the likelihood's integral over rotations (radians^3) and shifts (px^2).

        Laplace's approximation: ``log L + 5/2 log 2 pi - 1/2 log det information``.
        """
        return self.log_likelihood + 2.5 * math.log(2 * math.pi) - 0.5 * torch.logdet(self.information)

    def rotation_covariance(self) -> Tensor:
        """Return the ``(n, 3, 3)`` covariance of the rotation vector, in radians^2, shifts marginalised."""
        return torch.linalg.inv(self.information.double())[:, :3, :3]


@dataclass(frozen=True)
class _State:
    """Poses, how well their images fit, and the normal equations of the next step."""

    rotations: Tensor
    shifts: Tensor
    score: Tensor
    normal: Tensor
    gradient: Tensor

    def __getitem__(self, rows: Tensor) -> _State:
        return _State(*(getattr(self, field.name)[rows] for field in fields(self)))

    def put(self, rows: Tensor, other: _State) -> None:
        """Replace some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)


def refine_poses(
    sampler: SliceSampler,
    observation: Observation,
    rotations: Tensor,
    shifts_px: Tensor,
    iterations: int = 5,
) -> RefinedPoses:
    """Climb from each pose to the maximum of the likelihood beside it.

    Levenberg and Marquardt's damped Gauss-Newton steps on ``R exp([w]) , t + dt``; a step is kept only if
    the likelihood grows, so that the result is never worse than the start.

    Parameters
    ----------
    sampler
        The map's slices, with derivatives (``moments=True``).
    observation
        One image for each pose.
    rotations
        ``(n, 3, 3)``.
    shifts_px
        ``(n, 2)``.
    iterations
        Steps tried at most; a pose that has arrived takes no more.
    """
    at_once = max(8, _ENTRIES_AT_ONCE // observation.data.shape[1])
    parts = [
        _refine_chunk(
            sampler,
            observation[start : start + at_once],
            rotations[start : start + at_once],
            shifts_px[start : start + at_once],
            iterations,
        )
        for start in range(0, len(rotations), at_once)
    ]
    if not parts:
        return RefinedPoses(rotations, shifts_px, shifts_px.new_empty(0), shifts_px.new_empty(0, 5, 5))
    return RefinedPoses.join(parts)


def _refine_chunk(
    sampler: SliceSampler, observation: Observation, rotations: Tensor, shifts: Tensor, iterations: int
) -> RefinedPoses:
    state = _evaluate(sampler, observation, rotations.float().clone(), shifts.float().clone())
    damping = torch.full_like(state.score, 1e-3)
    climbing = torch.arange(len(rotations), device=state.score.device)
    for _ in range(iterations):
        now = state[climbing]
        scale = torch.diagonal(now.normal, dim1=1, dim2=2)
        ridge = damping[climbing, None] * scale + 1e-6 * scale.amax(1, keepdim=True) + 1e-12
        step = torch.linalg.solve(now.normal + torch.diag_embed(ridge), now.gradient)
        moved = _evaluate(
            sampler, observation[climbing], now.rotations @ _rodrigues(step[:, :3]), now.shifts + step[:, 3:]
        )
        gain = moved.score - now.score
        better = gain > 0
        state.put(climbing[better], moved[better])
        damping[climbing] = torch.where(
            better, damping[climbing] * 0.2, (damping[climbing] * 10).clamp(min=0.1)
        )
        climbing = climbing[gain.abs() > _ARRIVED]
        if len(climbing) == 0:
            break
    baseline = -0.5 * torch.view_as_real(observation.data).square().sum((1, 2))
    return RefinedPoses(state.rotations, state.shifts, state.score - baseline, state.normal)


def _evaluate(sampler: SliceSampler, observation: Observation, rotations: Tensor, shifts: Tensor) -> _State:
    """Return how well the model's images fit, with ``J J^T`` and ``J residual`` of their Jacobian.

    With frequency ``p = R (x, y, 0)`` and ``R exp([w])``: turning about the image's x axis moves a point
    along the view by y, about its y axis by -x, and about the view axis by (-y, x) in the plane.
    """
    frequencies = observation.band.frequencies.to(sampler.device)
    slices, gradients = sampler.values_and_gradients(rotations, frequencies)
    along = torch.view_as_complex(
        torch.einsum("nkip,nij->njkp", torch.view_as_real(gradients), rotations).contiguous()
    )
    factor = observation.band.phases(shifts) * observation.filters
    model = slices * factor
    x, y = frequencies.unbind(-1)
    turn_x, turn_y = along[:, 2] * y, along[:, 2] * -x
    turn_z = along[:, 1] * x - along[:, 0] * y
    step = model * (-2j * math.pi / observation.band.box)
    parts = [turn_x * factor, turn_y * factor, turn_z * factor, step * x, step * y]
    jacobian = torch.view_as_real(torch.stack(parts, dim=1)).flatten(2)
    residual = torch.view_as_real(observation.data - model).flatten(1)
    score = -0.5 * residual.square().sum(1)
    gradient = (jacobian @ residual[..., None])[..., 0]
    return _State(rotations, shifts, score, jacobian @ jacobian.transpose(1, 2), gradient)


def _rodrigues(vectors: Tensor) -> Tensor:
    """Return the rotations of ``(n, 3)`` rotation vectors in radians."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3)
    angle = vectors.norm(dim=-1)[:, None, None]
    half = torch.sinc(angle / (2 * math.pi))
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return identity + torch.sinc(angle / math.pi) * skew + 0.5 * half**2 * (skew @ skew)
