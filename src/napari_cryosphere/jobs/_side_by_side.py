"""Batches side by side, a thread each, instead of one whose every operation is shared out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["batches_at_once"]

_MOST = 8


@contextmanager
def batches_at_once(device: torch.device, limited: bool) -> Iterator[int]:
    """Yield how many batches to work on at once; the caller's and new threads compute with their share each.

    An operation on one batch is small: to wake threads for their shares of each takes as long as the shares
    save. Batches side by side need not wait for each other (docs/measurements.md, "Alignment").

    Parameters
    ----------
    device
        Where the arithmetic is done: anywhere but on the CPU one batch at a time is enough.
    limited
        Whether memory is: then it is one at a time too, as wide as the limit allows.
    """
    threads = torch.get_num_threads()
    workers = 1 if device.type != "cpu" or limited else min(threads, _MOST)
    torch.set_num_threads(threads // workers)
    try:
        yield workers
    finally:
        torch.set_num_threads(threads)
