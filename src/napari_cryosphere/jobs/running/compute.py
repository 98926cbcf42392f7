"""Which device a job computes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from napari_cryosphere.errors import CryosphereError

__all__ = ["batches_at_once", "choose_device"]


def choose_device(name: str) -> torch.device:
    """Return a device; ``auto`` takes CUDA, then the CPU. Raises `CryosphereError` if it is not there."""
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(name, False):
        present = ", ".join(device for device, there in available.items() if there)
        raise CryosphereError(f"device {name!r} is not available here; there is {present}")
    return torch.device(name)


_MOST = 8  # batches side by side: each holds its own temporaries; chosen, not tuned


@contextmanager
def batches_at_once(device: torch.device, limited: bool) -> Iterator[int]:
    """Yield how many batches to work on at once; the caller's and new threads compute with their share each.

    An operation on one batch is small: to wake threads for their shares of each takes as long as
    the shares save. Batches side by side need not wait for each other (docs/measurements/speed.md,
    "Alignment").

    ``device``: where the arithmetic is done: anywhere but on the CPU one batch at a time is enough.
    ``limited``: whether memory is: then it is one at a time too, as wide as the limit allows.
    """
    threads = torch.get_num_threads()
    workers = 1 if device.type != "cpu" or limited else min(threads, _MOST)
    torch.set_num_threads(threads // workers)
    try:
        yield workers
    finally:
        torch.set_num_threads(threads)
