"""The interface of all pose networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from napari_cryosphere.so3.grid_transform import evaluate_on_grid

__all__ = ["Answers", "PoseNetwork", "Shifts", "at_least_single", "log_contrast", "state_shares"]

_STATES_ORDER = 3  # of the grid on which states are averaged over poses: cells of 7.5 degrees


def log_contrast(ctf: Tensor) -> Tensor:
    """Return the logarithm of what a CTF lets through of a particle's power.

    The mean square of the CTF over frequencies, each as heavy as it has power on rings of an image: 1/k at k
    cycles per box, for a spectrum that falls as k to the -2. Weights of the molecule's own spectrum order
    particles alike (correlation 0.98 on RELION's simulated beta-galactosidase).

    ``ctf``, ``(n, box // 2 + 1)``: mean absolute values at 0, 1, ... cycles per box. Returns
    ``(n,)``: 0 without a CTF.
    """
    weights = 1 / torch.arange(1, ctf.shape[1], dtype=ctf.dtype, device=ctf.device)
    return torch.log(ctf[:, 1:].square() @ (weights / weights.sum()))


class Shifts(NamedTuple):
    """Where particles lie in their images: Gaussians of equal width along x and y.

    ``means_px``: ``(b, 2)`` x and y of the particle's centre from pixel n // 2, in pixels of the
    network's box. ``variances_px2``: ``(b,)`` along each axis.
    """

    means_px: Tensor
    variances_px2: Tensor


class Answers(NamedTuple):
    """What a network says of ``b`` images; None of what it does not say.

    ``coefficients``: of the log-density of their poses, see `PoseNetwork.forward`. ``shifts``:
    where the particles lie. ``states``: ``(b, k, L + 1, 2 L + 1, L + 1)`` complex: coefficients of
    the logarithms of k states' probabilities at each pose, up to a function that all states have in
    common, see `state_shares`.
    """

    coefficients: Tensor
    shifts: Shifts | None = None
    states: Tensor | None = None


def state_shares(states: Tensor, coefficients: Tensor, temperatures: Tensor) -> Tensor:
    """Return the probabilities of states, averaged over the poses that an image may have.

    ``sum_R p(R) p(k | R)`` over the cells of a grid.

    ``states``, ``coefficients``: `Answers.states` and `Answers.coefficients` of ``b`` images, the
    latter those of calibrated poses. ``temperatures``, ``(t,)``: the logarithms of the states'
    probabilities are divided by each. Returns ``(t, b, k)``.
    """
    poses = evaluate_on_grid(coefficients, _STATES_ORDER).flatten(1).softmax(dim=1)
    logits = evaluate_on_grid(states.flatten(0, 1), _STATES_ORDER).view(*states.shape[:2], -1)
    return torch.stack(
        [
            torch.einsum("bkr,br->bk", (logits / temperature).softmax(dim=1), poses)
            for temperature in temperatures
        ]
    )


def at_least_single(values: Tensor) -> Tensor:
    """Return values in float32 where they have less: bfloat16 has no transforms or complex numbers."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class PoseNetwork(nn.Module, ABC):
    """Maps images to unnormalised log-densities over SO(3).

    What it returns is in float32 at least, also where it learns in bfloat16.
    """

    @property
    def draws(self) -> bool:
        """Whether it may draw from torch's global generator while it is trained."""
        return True

    @property
    def learns_in_bfloat16(self) -> bool:
        """Whether its gradients are the same under autocast to bfloat16, but for rounding."""
        return False

    @abstractmethod
    def forward(self, images: Tensor, ctf: Tensor | None = None) -> Tensor:
        """Return the log-densities of images.

        ``images``: ``(b, box, box)`` real, background of mean 0 and sd 1, phases flipped. ``ctf``,
        ``(b, box // 2 + 1)``: mean absolute value of each image's CTF at 0, 1, ... cycles per box;
        None where it is not known. A network may look at it or not. Returns
        ``(b, L + 1, 2 L + 1, L + 1)`` complex: coefficients as in `napari_cryosphere.so3.wigner`,
        what `napari_cryosphere.so3.distributions.PoseDistribution.from_coefficients` takes.
        """

    def answers(self, images: Tensor, ctf: Tensor | None = None) -> Answers:
        """Return what `forward` does, and whatever else this network says."""
        return Answers(self(images, ctf))
