"""The loss: how unlikely the known poses and shifts are under the predicted distributions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from napari_cryosphere.model.pose_network import Shifts
from napari_cryosphere.so3.grid import order_of_size
from napari_cryosphere.so3.grid_transform import evaluate_on_grid
from napari_cryosphere.so3.pose_summary import EVALUATION_ORDER
from napari_cryosphere.so3.symmetry import point_group
from napari_cryosphere.so3.wigner import evaluate_at
from napari_cryosphere.training.sources import Batch

__all__ = ["pose_loss", "shift_loss", "state_loss"]


def pose_loss(
    coefficients: Tensor, batch: Batch, symmetry: str, order: int = EVALUATION_ORDER
) -> Tensor:
    """Return the weighted cross-entropy of predicted distributions against known poses, or against targets.

    ``- sum_i w_i mean_g log p_i(g R_i) / sum_i w_i``: each label counts at all its
    symmetry-equivalent poses with weight 1/|G| (CESPED, section 2.1). The density is read at the
    pose itself, not at the nearest grid point, and normalised over the grid of ``order`` and the
    pose, which counts as one more cell: a peak that is sharper than a cell and lies between grid
    points would otherwise count as nothing, and the loss would reward it without bound.

    A batch with targets is compared with these on their own grid.

    ``coefficients``: ``(b, L + 1, 2 L + 1, L + 1)`` complex, the network's output. ``batch``: the
    known poses, with weights, or the targets. ``order``: of the grid.
    """
    if batch.targets is None:
        log_density = _label_log_density(coefficients, batch.rotations, symmetry, order)
    else:
        log_density = _target_log_density(coefficients, batch.targets)
    return -(batch.weights * log_density).sum() / batch.weights.sum()


def shift_loss(shifts: Shifts, batch: Batch) -> Tensor:
    """Return the mean of ``-log p`` of known shifts over ``(b,)`` particles, nats but for ``log 2 pi``."""
    assert batch.shifts_px is not None
    squares = (shifts.means_px - batch.shifts_px).square().sum(dim=1)
    nats = shifts.variances_px2.log() + squares / (2 * shifts.variances_px2)
    return (batch.weights * nats).sum() / batch.weights.sum()


def state_loss(states: Tensor, batch: Batch, symmetry: str) -> Tensor:
    """Return the cross-entropy of states' probabilities at the known poses against the known ones, in nats.

    ``- sum_i w_i mean_g sum_k q_ik log p_i(k | g R_i) / sum_i w_i``: with that of the poses it makes the
    likelihood of pose and state.

    ``states``: ``(b, k, L + 1, 2 L + 1, L + 1)`` complex, see
    `napari_cryosphere.model.pose_network.Answers`. ``batch``: the known poses and states, with
    weights.
    """
    assert batch.states is not None
    number, poses = states.shape[1], _equivalents(batch.rotations, symmetry)
    values = evaluate_at(states.flatten(0, 1), poses.repeat_interleave(number, dim=0))
    shares = values.view(len(poses), number, -1).log_softmax(dim=1)  # b, k, g
    nats = -(batch.states[..., None] * shares).sum(dim=1).mean(dim=1)
    return (batch.weights * nats).sum() / batch.weights.sum()


def _label_log_density(
    coefficients: Tensor, rotations: Tensor, symmetry: str, order: int
) -> Tensor:
    """Return the mean log-density at each pose's equivalents, ``(b,)`` nats relative to uniform."""
    labels = evaluate_at(coefficients, _equivalents(rotations, symmetry))
    cells = evaluate_on_grid(coefficients, order).flatten(1)
    over_grid: Tensor = _LogSumExp.apply(cells)  # type: ignore[no-untyped-call]
    total = torch.logaddexp(over_grid[:, None], labels)
    return (labels - total + math.log(cells.shape[1])).mean(dim=1)


def _equivalents(rotations: Tensor, symmetry: str) -> Tensor:
    """Return each pose's symmetry-equivalents, ``(b, g, 3, 3)``."""
    group = torch.from_numpy(point_group(symmetry).copy()).to(rotations)
    return torch.einsum("gij,bjk->bgik", group, rotations)


class _LogSumExp(torch.autograd.Function):
    """``log sum exp`` over the last axis, ``(b, k)`` to ``(b,)``, by one softmax, which is its gradient too.

    Of sharp densities most exponentials are below the smallest normal float32, where ``torch.exp`` on a
    CPU takes ten times as long; torch's softmax does not. The largest share is one over the sum.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        shares = values.softmax(dim=1)
        ctx.save_for_backward(shares)
        return values.amax(dim=1) - shares.amax(dim=1).log()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (shares,) = ctx.saved_tensors
        return gradients[0][:, None] * shares


def _target_log_density(coefficients: Tensor, targets: Tensor) -> Tensor:
    """Return the mean log-density under target probabilities on a grid, ``(b,)`` nats relative to uniform.

    ``sum_k t_k log p_k`` plus the log of the number of cells, p being normalised over the targets'
    grid. At best it is the targets' own information, ``log cells - entropy(t)``: 3 nats for a mask
    of 5 %.
    """
    cells = evaluate_on_grid(coefficients, order_of_size(targets.shape[1])).flatten(1)
    return (targets * cells.log_softmax(dim=1)).sum(dim=1) + math.log(cells.shape[1])
