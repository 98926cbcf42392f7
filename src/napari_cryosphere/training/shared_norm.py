"""Batch normalisation over the whole batch where several processes or threads have shares of it.

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
    """Batch normalisation by the moments of all replicas' values, through which gradients flow too.

    Gradients of weight and bias are those of this share alone, as all gradients of parameters are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        moments: tuple[Tensor, Tensor, Tensor],
        eps: float,
        replicas: Replicas,
    ) -> Tensor:
        mean, variance, ctx.number = moments
        mean, variance = mean.to(x), variance.to(x)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.replicas = eps, replicas
        return torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, eps, False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, mean, variance = ctx.saved_tensors
        # with the moments held fixed, the parameters' gradients are the two sums that are needed
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = ctx.replicas.sum(torch.stack([of_weight, of_bias]).double())
        across, along = (sums / ctx.number).to(x)
        scale = (variance + ctx.eps).rsqrt()
        slope = -across * scale * weight * scale
        offset = -along * weight * scale - slope * mean
        shape = (1, -1, *[1] * (x.ndim - 2))
        of_x = gradient * (weight * scale).view(shape)
        of_x.addcmul_(x, slope.view(shape)).add_(offset.view(shape))
        return of_x, of_weight, of_bias, None, None, None


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch normalisation with the parameters and statistics of another, over all processes' shares.

    Moments are computed in each of them about its own mean, and put together in float64 (Chan,
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
        moments = self._moments(values.detach())
        if self._replicas.follows:
            self._follow(*moments)
        normalised: Tensor = _Normalised.apply(
            values.contiguous(), self.weight, self.bias, moments, self.eps, self._replicas
        )  # type: ignore[no-untyped-call]
        return normalised.to(input.dtype)

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and variance over all shares, ``(channels,)`` float64, and of how many values."""
        axes = (0, *range(2, values.ndim))
        mean = values.mean(axes, keepdim=True)
        variance = (values - mean).square_().mean(axes)  # torch.var_mean takes six times as long
        number = torch.full_like(variance, values.numel() // len(variance), dtype=torch.float64)
        numbers, means, variances = self._replicas.gather(
            torch.stack([number, mean.flatten().double(), variance.double()])
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


def share_statistics(network: nn.Module, replicas: Replicas) -> None:
    """Let the batch normalisations of a network, in place, count all processes' shares; names stay."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(
                child, SharedBatchNorm
            ):
                setattr(module, name, SharedBatchNorm(child, replicas))
