"""What a training run does when: how far it is, how fast it learns, when it reports, validates and ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from napari_cryosphere.model.pose_network import Shifts
from napari_cryosphere.so3.distributions import HarmonicDistribution
from napari_cryosphere.training.events import TrainingProgress
from napari_cryosphere.training.replicas import Replicas

__all__ = ["Clock", "LoopSettings", "Validated"]

_WARM_UP = 0.03  # of the run over which the learning rate rises; chosen, not tuned


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and when to say what.

    Exactly one of ``minutes`` and ``total_images`` is set: a time budget, or a number of images.

    - ``halve_after``: the learning rate is halved when the validation loss has not fallen for so
      many images; None lets it fall to zero along a cosine over the budget. A linear warm-up comes
      first.
    - ``stop_after``: the run ends when the validation loss has not fallen for so many images; None
      never does.
    - ``validations``: how many there are in a whole run, the last one included.
    - ``checkpoint``: file that keeps the state, every ``checkpoint_seconds`` and when the run is
      stopped; None keeps none.
    """

    batch_size: int
    minutes: float | None = None
    total_images: int | None = None
    halve_after: int | None = None
    stop_after: int | None = None
    validations: int = 10
    report_seconds: float = 10.0
    checkpoint: Path | None = None
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class Validated:
    """What held-out particles say: mean loss, median and mean error in degrees, median error of shifts.

    The error of shifts is in the network's pixels, NaN where there is none. Distributions, shifts and
    states are in the process that validates alone.
    """

    loss: float
    median_degrees: float
    mean_degrees: float
    shift_px: float
    predicted: HarmonicDistribution | None = None
    shifts: Shifts | None = None
    states: Tensor | None = None


class Clock:
    """Keeps time and counts: how far the run is, how fast to learn, and when to say what.

    All that it says between two ticks follows from one reading of the time, the first process's. So
    processes that train together do the same in the same order, and end at the same step.
    """

    def __init__(self, settings: LoopSettings, replicas: Replicas) -> None:
        if (settings.minutes is None) == (settings.total_images is None):
            raise ValueError("set either minutes or total_images")
        self._settings, self._replicas = settings, replicas
        self._now = self._start = self._last_report = self._kept = replicas.seconds()
        self._images = self._reported_images = 0
        self._losses: list[float] = []
        self._loss = math.nan
        self._validated = self._validated_at = 0
        self._best, self._best_at, self._halved_at, self._halved = math.inf, 0, 0, 0

    def tick(self) -> None:
        """Read the time."""
        self._now = self._replicas.seconds()

    def progress(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {
            "seconds": self._now - self._start,
            "images": self._images,
            "validated": self._validated,
            "validated_at": self._validated_at,
            "best": None if math.isinf(self._best) else self._best,
            "best_at": self._best_at,
            "halved_at": self._halved_at,
            "halved": self._halved,
        }

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from where a run was."""
        self._start = self._now - progress["seconds"]
        self._images = self._reported_images = progress["images"]
        self._validated, self._validated_at = progress["validated"], progress["validated_at"]
        self._best = math.inf if progress["best"] is None else progress["best"]
        self._best_at = progress["best_at"]
        self._halved_at, self._halved = progress["halved_at"], progress["halved"]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Do not count the time that this block takes."""
        self.tick()
        began = self._now
        yield
        self.tick()
        self._start += self._now - began
        self._last_report = self._now

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1."""
        return self._fraction_at(self._images)

    @property
    def next_fraction(self) -> float:
        """How much is done after the step that is being made; of a time budget, before it."""
        return self._fraction_at(self._images + self._settings.batch_size)

    def _fraction_at(self, images: int) -> float:
        if self._settings.minutes is not None:
            return min(1.0, (self._now - self._start) / (60 * self._settings.minutes))
        return min(1.0, images / max(1, self._settings.total_images or 1))

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        stop_after = self._settings.stop_after
        return self.fraction >= 1 or (stop_after is not None and self._waited >= stop_after)

    @property
    def _waited(self) -> int:
        """Images between the lowest validation loss and the latest validation."""
        return self._validated_at - self._best_at

    @property
    def rate(self) -> float:
        """The share of the learning rate at this moment."""
        fraction = self.fraction
        if fraction < _WARM_UP:
            return (fraction + 1e-3) / (_WARM_UP + 1e-3)
        if self._settings.halve_after is not None:
            return 0.5**self._halved
        return 0.5 + 0.5 * math.cos(math.pi * (fraction - _WARM_UP) / (1 - _WARM_UP))

    def count(self, images: int, loss: float) -> None:
        """Take note of a step."""
        self._images += images
        self._losses.append(loss)

    @property
    def keeping_due(self) -> bool:
        """Whether the state is to be kept."""
        return self._now - self._kept >= self._settings.checkpoint_seconds

    def kept(self) -> None:
        """Take note that the state was kept."""
        self._kept = self._now

    @property
    def validation_due(self) -> bool:
        """Whether held-out particles are to be looked at."""
        due = int(self.fraction * self._settings.validations)
        return self._validated < due < self._settings.validations

    @property
    def report_due(self) -> bool:
        """Whether it is time to say how far the run is."""
        return self._now - self._last_report >= self._settings.report_seconds

    def report(self, found: Validated | None) -> TrainingProgress:
        """Return a report, and start counting for the next."""
        elapsed, fraction = self._now - self._start, self.fraction
        if self._losses:
            self._loss = float(np.mean(self._losses))
        if found is not None:
            self._take(found.loss)
        seconds = max(self._now - self._last_report, 1e-9)
        report = TrainingProgress(
            fraction=1.0 if self.over else fraction,
            images=self._images,
            loss=self._loss,
            images_per_second=(self._images - self._reported_images) / seconds,
            remaining_seconds=0.0 if self.over else elapsed * (1 - fraction) / max(fraction, 1e-9),
            validation_loss=None if found is None else found.loss,
            validation_median_degrees=None if found is None else found.median_degrees,
            validation_mean_degrees=None if found is None else found.mean_degrees,
            validation_shift_px=(
                None if found is None or math.isnan(found.shift_px) else found.shift_px
            ),
            predicted=None if found is None else found.predicted,
            predicted_shifts=None if found is None else found.shifts,
            predicted_states=None if found is None else found.states,
        )
        self._last_report, self._reported_images, self._losses = self._now, self._images, []
        return report

    def _take(self, loss: float) -> None:
        """Remember a validation: whether it was the best so far, and what that means for the rate."""
        self._validated = int(self.fraction * self._settings.validations)
        self._validated_at = self._images
        if loss < self._best:
            self._best, self._best_at, self._halved_at = loss, self._images, self._images
        elif (
            self._settings.halve_after
            and self._images - self._halved_at >= self._settings.halve_after
        ):
            self._halved += 1
            self._halved_at = self._images
