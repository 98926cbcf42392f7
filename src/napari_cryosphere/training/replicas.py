"""Copies of a network in several processes that learn from shares of the same batches.

Every process holds the same weights, takes its share of each batch, and adds its gradient to the
others' before it makes the step that all make. What a batch is does not depend on their number;
sums over a batch are taken over all shares. So the weights are those of one process, but for the
order in which sums are added up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_cryosphere.errors import RankLostError

__all__ = ["Replicas"]


def _no_reason() -> str:
    return "another process of the training is gone"


class Replicas:
    """The processes that train one network, and which of them this is; one alone by default.

    With several, torch.distributed must have been started, and all of them must call the same
    methods in the same order. Tensors are exchanged in memory or between GPUs, wherever they are.

    ``rank``, ``count``: number of this process, from 0, and how many there are. ``why``: says why
    another process is gone, when one is.
    """

    def __init__(self, rank: int = 0, count: int = 1, why: Callable[[], str] = _no_reason) -> None:
        self.rank, self.count, self._why = rank, count, why

    def __deepcopy__(self, memo: dict[int, object]) -> Replicas:
        """Return itself: copies of a network belong to the same processes."""
        return self

    @property
    def first(self) -> bool:
        """Whether this process validates, keeps the state and the time."""
        return self.rank == 0

    @property
    def follows(self) -> bool:
        """Whether this one moves the running statistics of its network."""
        return True

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def share(self, size: int) -> slice:
        """Return which images of a batch are this process's; as many as the others' within one."""
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)

    def seconds(self) -> float:
        """Return a clock's reading, the same in all processes."""
        return self.of_first([time.monotonic()])[0]

    def of_first(self, values: Sequence[float]) -> list[float]:
        """Return the first process's values, in all."""
        if not self.several:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64)
        self._do(lambda: dist.broadcast(shared, 0))
        return [float(value) for value in shared]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of all processes' tensors, of the same shape, in all of them."""
        if not self.several:
            return values
        total = values.detach().clone()
        self._do(lambda: dist.all_reduce(total))
        return total

    def gather(self, values: Tensor) -> Tensor:
        """Return all processes' tensors, ``(count, ...)``, in all."""
        if not self.several:
            return values[None]
        every = [torch.empty_like(values) for _ in range(self.count)]
        self._do(lambda: dist.all_gather(every, values.contiguous()))
        return torch.stack(every)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes."""
        gradients = [each.grad for each in parameters if each.grad is not None]
        if not self.several:
            return
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = total.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _do(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise RankLostError(self._why()) from error
