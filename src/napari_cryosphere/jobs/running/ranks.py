"""Several processes for one job, started by torchrun: shares, waiting for each other, failing together.

Each rank works on its share and writes files that all can see; rank 0 puts them together. What goes
between ranks is small and goes through the store that torchrun keeps: who has arrived, and why one
failed. So a rank that waits can be told why, and can be stopped, at any time. Training alone needs
more: `Ranks.replicas` starts torch.distributed for it (gloo for what is in memory, nccl for what is
on GPUs).

torchrun ends all ranks when one is gone. Its messages say which; ours say why.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from napari_cryosphere.training.replicas import Replicas

__all__ = ["Ranks", "current_ranks", "report_failure", "this_rank", "under_torchrun", "who"]

T = TypeVar("T")

_ASK_SECONDS = 0.05  # between looks into the store; chosen, not tuned
_START_MINUTES = 10  # for all processes to appear: clusters start them one after another


def under_torchrun() -> bool:
    """Return whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def this_rank() -> int:
    """Return the number of this process among those that torchrun started; 0 without it."""
    return int(os.environ["RANK"]) if under_torchrun() else 0


def who() -> str:
    """Return what a message of this process begins with, where there are several."""
    return f"rank {this_rank()}: " if under_torchrun() else ""


class Ranks:
    """The processes of a job and which of them this is; one alone without torchrun.

    ``rank``: number of this process, from 0. ``count``: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1, store: Store | None = None) -> None:
        self.rank, self.count, self._store = rank, count, store
        self._waits = self._sayings = 0
        self._sent: dict[str, str] = {}

    @property
    def first(self) -> bool:
        """Whether this process puts together what the others made."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this rank's items: consecutive ones, as many as the others' within one."""
        return items[
            len(items) * self.rank // self.count : len(items) * (self.rank + 1) // self.count
        ]

    @property
    def first_here(self) -> bool:
        """Whether this is the first of the ranks on its computer."""
        return self.count == 1 or int(os.environ["LOCAL_RANK"]) == 0

    def share_here(self, number: int) -> slice:
        """Return this rank's part of so many items that the ranks on its computer share."""
        if self.count == 1:
            return slice(0, number)
        rank, count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        return slice(number * rank // count, number * (rank + 1) // count)

    def wait(self) -> None:
        """Return when all ranks have called this.

        Raises `CryosphereError` if another rank has failed; it says which and why.
        """
        if self._store is None:
            return
        self._waits += 1
        key = self._key("wait", str(self._waits))
        self._store.add(key, 1)
        while self._store.add(key, 0) < self.count:
            self._pause(self._store)

    @staticmethod
    def _key(kind: str, name: str) -> str:
        return f"cryosphere/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{kind}/{name}"

    def _pause(self, store: Store) -> None:
        """Wait a little, in Python, where a signal is heard; raise if a rank has failed."""
        if store.check([self._key("failed", "")]):
            raise CryosphereError(store.get(self._key("failed", "")).decode())
        time.sleep(_ASK_SECONDS)

    def send(self, name: str, value: str) -> None:
        """Make a value known to all ranks under a name that is used once."""
        if self._store is None:
            self._sent[name] = value
        else:
            self._store.set(self._key("sent", name), value)

    def receive(self, name: str) -> str:
        """Return what a rank sent under a name; waits for it. Raises as `wait`."""
        if self._store is None:
            return self._sent.pop(name)
        key = self._key("sent", name)
        while not self._store.check([key]):
            self._pause(self._store)
        return self._store.get(key).decode()

    def of_first(self, say: Callable[[], str], here: bool = False) -> str:
        """Return, in all ranks, what ``say`` returns in the first; with ``here``, in the first of a computer.

        Raises as `wait`.
        """
        self._sayings += 1
        name = f"first/{self._sayings}/{os.environ.get('GROUP_RANK', '0') if here else 'all'}"
        if self.first_here if here else self.first:
            self.send(name, say())
        return self.receive(name)

    def fail(self, reason: str) -> None:
        """Tell the other ranks why this one fails; the first to fail is heard."""
        if self._store is None or self._store.check([key := self._key("failed", "")]):
            return
        self._store.set(key, f"rank {self.rank} failed: {reason}")

    def replicas(self) -> Replicas:
        """Return what trains one network in all ranks; starts torch.distributed. Raises as `wait`."""
        import torch
        import torch.distributed as dist

        # Its functions have the group of the moment as a default. Optimisers import it; were it later than
        # the group, these defaults would keep the group, and its threads, until Python has ended.
        import torch.distributed.nn

        from napari_cryosphere.training.replicas import Replicas

        if self._store is None:
            return Replicas()
        self.wait()  # starting cannot be stopped: begin when all are there
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(
                backend, store=self._store, rank=self.rank, world_size=self.count
            )
            atexit.register(_end_group)
        return Replicas(self.rank, self.count, self._why_lost)

    def _why_lost(self) -> str:
        """Return why another rank does not answer: what it said before it ended, if it could."""
        if self._store is not None and self._store.check([key := self._key("failed", "")]):
            return self._store.get(key).decode()
        return "another rank is gone, and this one cannot go on alone; the same command with --resume goes on"


def _end_group() -> None:
    """End torch.distributed while Python still runs.

    Its threads let go of tensors of Python a little later than an exchange returns; one that has to do so
    after Python has ended takes the whole process down ("terminate called without an active exception").
    With the last reference to the group they are joined.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


@cache
def current_ranks() -> Ranks:
    """Return the ranks that torchrun started, or one alone; each takes a GPU of its own if there are any."""
    if not under_torchrun():
        return Ranks()
    import torch
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    store, rank, count = next(rendezvous("env://", timeout=timedelta(minutes=_START_MINUTES)))
    return Ranks(rank, count, store)


def report_failure(reason: str) -> str:
    """Tell the other ranks, if there are any, why this one fails; returns the line to show."""
    if under_torchrun():
        current_ranks().fail(reason)
    return who() + reason
