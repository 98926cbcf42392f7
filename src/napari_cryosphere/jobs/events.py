"""What jobs say: progress, notes, maps that grow, spheres that sharpen, and one result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from napari_cryosphere._generators import converted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.so3.distributions import PoseDistribution

__all__ = [
    "Event",
    "Events",
    "Note",
    "Preview",
    "Progress",
    "Result",
    "Snapshot",
    "between",
    "follow",
    "part_of",
]


@dataclass(frozen=True)
class Progress:
    """How far a job is: ``fraction`` from 0 to 1, a short message, values worth plotting, seconds left."""

    fraction: float
    message: str
    metrics: dict[str, float] = field(default_factory=dict)
    remaining_seconds: float | None = None


@dataclass(frozen=True)
class Note:
    """Something the user should know; a warning if ``warning``."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Snapshot:
    """The map of the first ``particles`` particles, while a reconstruction goes on."""

    fraction: float
    density: DensityMap
    particles: int


@dataclass(frozen=True)
class Preview:
    """What a network that is being trained says of a few held-out particles, the same ones every time.

    ``fraction``: how much of the training is done, 0 to 1. ``rows``, ``(n,)``: rows of the
    particles in the stack that is trained on, counted from 0. ``distribution``: their predicted
    distributions, in the computer's own memory.
    """

    fraction: float
    rows: NDArray[np.int64]
    distribution: PoseDistribution


@dataclass(frozen=True)
class Result:
    """The last event: the files that were written, by role, and the values that were measured."""

    outputs: dict[str, Path]
    metrics: dict[str, float | int | str]

    def lines(self) -> list[str]:
        """Return values and files as lines of text."""
        shown = {
            _in_words(name): f"{value:.4g}" if isinstance(value, float) else str(value)
            for name, value in self.metrics.items()
        }
        shown |= {role.replace("_", " "): str(path) for role, path in self.outputs.items()}
        return [f"{name}: {text}" for name, text in shown.items()]


_UNITS = {"_angstrom": " (A)", "_degrees": " (degrees)"}
_THRESHOLDS = {"0143": "at FSC 0.143", "05": "at FSC 0.5"}


def _in_words(metric: str) -> str:
    """Return a metric's name in words: ``resolution_0143_angstrom`` has a threshold and a unit."""
    end = next((end for end in _UNITS if metric.endswith(end)), "")
    words = metric.removesuffix(end).split("_")
    return " ".join(_THRESHOLDS.get(word, word) for word in words) + _UNITS.get(end, "")


Event: TypeAlias = Progress | Note | Snapshot | Preview | Result
Events: TypeAlias = Generator[Event, None, None]


T = TypeVar("T")


StepT = TypeVar("StepT")


def part_of(
    work: Generator[StepT, None, T], place: Callable[[float], float]
) -> Generator[StepT, None, T]:
    """Pass on what a part of a job says, its progress as that of the whole, and return what it returns.

    ``work``: the part. ``place``: returns how far the whole is, 0 to 1, of how far the part is.
    What was said of the time that is left is that of the part, and left out.
    """

    def placed(event: StepT) -> StepT:
        if isinstance(event, Progress):
            fraction = place(event.fraction)
            return replace(event, fraction=fraction, remaining_seconds=None)
        return event

    return converted(work, placed)


def between(start: float, end: float) -> Callable[[float], float]:
    """Return where a part of a job is that takes it from one fraction to another, for `part_of`."""
    return lambda fraction: start * (1 - fraction) + end * fraction


def follow(events: Events, show: Callable[[Event], None]) -> Result:
    """Run a job to its end, passing each event on, and return its result; on an error the job is closed.

    Raises `RuntimeError` if the job ends without a result.
    """
    result: Result | None = None
    with closing(events):
        for event in events:
            show(event)
            if isinstance(event, Result):
                result = event
    if result is None:
        raise RuntimeError("the job ended without a result")
    return result
