"""How much memory a job may take, and what fits into it."""

from __future__ import annotations

import math
import os
import sys

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.configs import PredictingConfig

__all__ = [
    "NETWORK_BYTES",
    "REFERENCES_BYTES",
    "SEARCH_BYTES",
    "MemoryLimit",
    "peak_gigabytes",
    "predicting_batch",
    "reconstruction_bytes",
    "watch_bytes",
]

# Allowances, generous ones: what a library takes at its peak is not known beforehand.
NETWORK_BYTES = 4e6
"""What a network takes for one image."""
SEARCH_BYTES = 4e6
"""What a search against a map takes for one image."""
REFERENCES_BYTES = 0.7e9
"""What the slices of a map take that images are compared with (docs/measurements.md)."""
_BASE = 0.7e9  # Python, torch and a network
_COPIES = 12  # of an image, between the file and the network
_AWAIT = 3  # batches in memory: one in use and two read ahead
_GIGABYTE = 1e9  # bytes


class MemoryLimit:
    """A limit on a process's resident memory; without one, what the machine has.

    ``gigabytes``: the limit, in 10^9 bytes, or None. What a process holds before it has read
    anything counts, as a constant, so that the same limit always gives the same batches.
    """

    def __init__(self, gigabytes: float | None) -> None:
        self.gigabytes = gigabytes

    @property
    def room_bytes(self) -> float:
        """What is left for data; infinity without a limit."""
        return math.inf if self.gigabytes is None else self.gigabytes * _GIGABYTE - _BASE

    def refuse_beyond(self, needed_bytes: float, what: str, remedy: str) -> None:
        """Check that what is to come fits. Raises `CryosphereError`, which says what would, if not."""
        total = (needed_bytes + _BASE) / _GIGABYTE
        limit, name = self.gigabytes, "--max-memory"
        if limit is None:
            limit, name = _machine_gigabytes(), "the memory of this machine,"
        if total > limit:
            raise CryosphereError(
                f"{what} would bring this process to {total:.2g} GB, over {name} {limit:.3g}; {remedy}"
            )

    def batch_size(
        self, wanted: int, box: int, each_bytes: float = 0.0, once_bytes: float = 0.0
    ) -> int:
        """Return how many images of ``box`` pixels may be worked on at once, at most ``wanted``.

        What is computed from an image takes ``each_bytes``; ``once_bytes`` are held whatever the
        number of images. Raises `CryosphereError` if not even one image fits.
        """
        if self.gigabytes is None:
            return wanted
        each = 4.0 * box**2 * (_COPIES + _AWAIT) + each_bytes
        self.refuse_beyond(
            each + once_bytes, f"one image of {box} px and what is computed from it", "allow more"
        )
        return max(1, min(wanted, int((self.room_bytes - once_bytes) / each)))


def _machine_gigabytes() -> float:
    """Return the memory of this machine in 10^9 bytes; infinity where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIGABYTE
    except (AttributeError, ValueError, OSError):
        return math.inf


def predicting_batch(config: PredictingConfig, box: int) -> int:
    """Return how many images of ``box`` pixels are predicted, and refined where there is a map, at once."""
    refining = config.map is not None
    each = NETWORK_BYTES + (SEARCH_BYTES if refining else 0.0)
    limit = MemoryLimit(config.max_memory_gb)
    return limit.batch_size(config.batch_size, box, each, REFERENCES_BYTES if refining else 0.0)


def reconstruction_bytes(box: int, padding: int) -> float:
    """Return what two half-maps' sums take while they are filled and solved."""
    from napari_cryosphere.reconstruction import BackProjector  # scipy, which aligning does without

    filled, solving = BackProjector.memory_bytes(box, padding)
    return 2.0 * filled + solving


def watch_bytes(box: int, padding: int, states: int = 1) -> float:
    """Return what two half-maps' running sums of each state take, with one file's or the maps made."""
    from napari_cryosphere.reconstruction import ExactSums

    pairs = states if states == 1 else states + 1  # and the sums of all states
    one = reconstruction_bytes(box, padding)
    return 2.0 * pairs * ExactSums.memory_bytes(box, padding) + states * one


def peak_gigabytes() -> float:
    """Return the most memory that this process has held, in 10^9 bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIGABYTE
