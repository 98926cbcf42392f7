"""Threads of one process that learn from shares of the same batches, on one set of weights.

An operation on a batch is small: to wake threads for parts of each costs more than the parts save.
Threads that go through the network side by side, each with its share, wait for each other only where
batch normalisation needs the moments of all. Gradients are those of one thread, but for the order in
which sums are added up.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.training.replicas import Replicas
from napari_cryosphere.training.shared_norm import share_statistics

__all__ = ["Team", "threads_for"]

T = TypeVar("T")

_LEAST_SHARE = 8  # images of a thread: fewer take nearly as long; chosen, not tuned


class _Meeting:
    """Where threads lay tensors for each other; those of two exchanges, so that one wait each is enough."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count)
        self.slots = [[torch.empty(0)] * count for _ in range(2)]


class _Thread(Replicas):
    """One of several threads of a process; they share the weights and the running statistics."""

    def __init__(self, rank: int, count: int, meeting: _Meeting) -> None:
        super().__init__(rank, count)
        self._meeting, self._turn = meeting, 0

    @property
    def follows(self) -> bool:
        """Whether this is the one that moves the statistics that all have."""
        return self.first

    def begin(self) -> None:
        """Forget exchanges that others have not come to."""
        self._turn = 0

    def gather(self, values: Tensor) -> Tensor:
        """Return all threads' tensors, ``(count, ...)``, in all."""
        slots = self._meeting.slots[self._turn % 2]
        self._turn += 1
        slots[self.rank] = values.detach()
        self._meeting.barrier.wait()
        return torch.stack(slots)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of all threads' tensors, in all; in one order, so that it is the same each time."""
        return self.gather(values).sum(0)


class Team:
    """Threads of one process, each with a copy of a network on the same weights.

    ``network``: stays as it is; one thread works with it alone. ``count``: how many threads.
    """

    def __init__(self, network: PoseNetwork, count: int) -> None:
        self._meeting = _Meeting(count)
        self._replicas = [_Thread(rank, count, self._meeting) for rank in range(count)]
        self._networks = (
            [network] if count == 1 else [self._copy(network, r) for r in self._replicas]
        )
        self._pool: ThreadPoolExecutor | None = None

    @staticmethod
    def _copy(network: PoseNetwork, replicas: Replicas) -> PoseNetwork:
        """Return a copy whose batch normalisations count all shares; its tensors are the network's own."""
        shared = {id(each): each for each in chain(network.parameters(), network.buffers())}
        copied = copy.deepcopy(network, dict(shared))
        share_statistics(copied, replicas)
        return copied

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Let each thread's operations have its share of the cores while this block runs.

        The step is made in here too: threads that torch wakes for a part of an operation go on looking for
        the next, and take the core from those that share the batch.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // len(self._networks)))
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def work(self, task: Callable[[PoseNetwork, slice], T], size: int) -> list[T]:
        """Return what each thread makes of its network and its share of ``size`` images, in order.

        What one raises is raised when all have ended.
        """
        if len(self._networks) == 1:
            return [task(self._networks[0], slice(0, size))]
        count, threads = len(self._networks), torch.get_num_threads()
        self._meeting.barrier.reset()

        def one(rank: int) -> T:
            replica = self._replicas[rank]
            replica.begin()
            torch.set_num_threads(threads)
            try:
                return task(self._networks[rank], replica.share(size))
            except BaseException:
                self._meeting.barrier.abort()
                raise

        if self._pool is None:
            self._pool = ThreadPoolExecutor(count - 1, thread_name_prefix="replica")
        others = [self._pool.submit(one, rank) for rank in range(1, count)]
        try:
            own = one(0)
        except threading.BrokenBarrierError:
            for each in others:
                each.result()  # the reason
            raise
        finally:
            wait(others)
        return [own, *(each.result() for each in others)]


def threads_for(network: PoseNetwork, batch_size: int, processes: int) -> int:
    """Return how many threads a batch is worth sharing among, as many as torch computes with at most.

    One where the network draws at random, since threads have one generator together; where it is not on
    a CPU; and where the work is shared by processes already.
    """
    on_cpu = next(network.parameters()).device.type == "cpu"
    if network.draws or not on_cpu or processes > 1:
        return 1
    return max(1, min(torch.get_num_threads(), batch_size // _LEAST_SHARE))
