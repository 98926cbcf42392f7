"""Batch normalisation over the whole batch where several processes have shares of it.

Ioffe & Szegedy (2015) normalise by the mean and the variance of a batch. Normalised by those of its
share, every process would train another network than one process does. torch's own
``SyncBatchNorm`` needs GPUs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from napari_cryosphere.training.replicas import Replicas

__all__ = ["SharedBatchNorm", "share_statistics"]


class _Normalised(torch.autograd.Function):
    """``(x - mean) / sd`` with the moments of all processes' values, through which gradients flow too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, number: Tensor, replicas: Replicas
    ) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        ctx.replicas, ctx.shape = replicas, shape
        normalised = (x - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normalised, scale, number)
        return normalised

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        normalised, scale, number = ctx.saved_tensors
        axes = _axes(normalised)
        sums = torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)]).double()
        along, across = (ctx.replicas.sum(sums) / number).to(gradient)
        of_x = gradient - along.view(ctx.shape) - normalised * across.view(ctx.shape)
        return of_x * scale.view(ctx.shape), None, None, None, None


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch normalisation with the parameters and statistics of another, over all processes' shares.

    Moments are computed in each process about its own mean, and put together in float64 (Chan,
    Golub & LeVeque 1983).
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, replicas: Replicas) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.training, self._replicas = norm.training, replicas

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of axes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``(b, channels, ...)``; in training by all shares' moments, else by the running ones."""
        if not self.training:
            return super().forward(input)
        values = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        mean, variance, number = self._moments(values.detach())
        self._follow(mean, variance, number)
        scale = (variance + self.eps).rsqrt().to(values)
        normalised: Tensor = _Normalised.apply(
            values, mean.to(values), scale, number, self._replicas
        )  # type: ignore[no-untyped-call]
        shape = (1, -1, *[1] * (input.ndim - 2))
        return (normalised * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and variance over all shares, ``(channels,)`` float64, and of how many values."""
        variance, mean = torch.var_mean(values, _axes(values), correction=0)
        number = torch.full_like(mean, values.numel() // values.shape[1], dtype=torch.float64)
        numbers, means, variances = self._replicas.gather(
            torch.stack([number, mean.double(), variance.double()])
        ).unbind(1)
        total = numbers.sum(0)
        overall = (numbers * means).sum(0) / total
        squares = numbers * (variances + (means - overall) ** 2)
        return overall, squares.sum(0) / total, total

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        """Move the running moments; the variance without its bias, as torch does."""
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        unbiased = variance * number / (number - 1)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(unbiased.to(self.running_var), share)


def _axes(values: Tensor) -> tuple[int, ...]:
    return (0, *range(2, values.ndim))


def share_statistics(network: nn.Module, replicas: Replicas) -> None:
    """Let the batch normalisations of a network, in place, count all processes' shares; names stay."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(
                child, SharedBatchNorm
            ):
                setattr(module, name, SharedBatchNorm(child, replicas))
