"""Working ahead: the next batches are read, or worked on, in threads while one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["prefetched"]

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


def prefetched(
    read: Callable[[KeyT], ValueT], keys: Iterable[KeyT], ahead: int = 2, threads: int = 1
) -> Iterator[tuple[KeyT, ValueT]]:
    """Yield each key with what ``read`` makes of it, in order.

    - ``read``: called in other threads. What it raises is raised when its key's turn comes.
    - ``keys``: what to read; taken one by one.
    - ``ahead``: how many values may wait: with the one in use, that many and one are held in
      memory. 0 reads in the caller's thread.
    - ``threads``: how many values are made at the same time.
    """
    if ahead == 0:
        yield from ((key, read(key)) for key in keys)
        return
    left, waiting = iter(keys), deque[tuple[KeyT, Future[ValueT]]]()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        waiting.extend((key, pool.submit(read, key)) for key in islice(left, ahead))
        while waiting:
            key, future = waiting.popleft()
            value = future.result()
            waiting.extend((more, pool.submit(read, more)) for more in islice(left, 1))
            yield key, value
            del value, future  # before the next is taken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
