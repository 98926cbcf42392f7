"""The training loop: batches in, reports out, averaged weights at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.so3.distribution import PoseDistribution
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.training.events import TrainingProgress
from napari_cryosphere.training.loss import pose_loss
from napari_cryosphere.training.sources import Batch, TrainingSource
from napari_cryosphere.training.trainer import Trainer

__all__ = ["LoopSettings", "ValidationSet", "predict_coefficients", "train_network"]

_WARM_UP = 0.03
_PREDICT_BATCH = 128
_PREVIEWED = 8


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and when to say what.

    Exactly one of ``minutes`` and ``total_images`` is set: a time budget, or a number of images.

    Attributes
    ----------
    halve_after
        The learning rate is halved when the validation loss has not fallen for so many images; None lets it
        fall to zero along a cosine over the budget. A linear warm-up comes first.
    stop_after
        The run ends when the validation loss has not fallen for so many images; None never does.
    validations
        How many there are in a whole run, the last one included.
    checkpoint
        File that keeps the state, every ``checkpoint_seconds`` and when the run is stopped; None keeps none.
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
class ValidationSet:
    """Held-out particles: ``(n, box, box)`` prepared images and their ``(n, 3, 3)`` poses."""

    images: Tensor
    rotations: NDArray[np.float64]


def predict_coefficients(network: PoseNetwork, images: Tensor) -> Tensor:
    """Return a network's coefficients for any number of images, in the computer's own memory.

    ``(n, box, box)`` to ``(n, L + 1, 2 L + 1, L + 1)`` complex.
    """
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(part.to(device)).cpu() for part in images.split(_PREDICT_BATCH)])


def train_network(
    trainer: Trainer,
    source: TrainingSource,
    validation: ValidationSet,
    symmetry: str,
    settings: LoopSettings,
    resume: bool = False,
) -> Generator[TrainingProgress, None, None]:
    """Train, yielding reports; closing the generator early keeps what is learnt so far.

    The time that a report is held is not part of the run's: who trains may pause it.
    With ``resume`` the state in ``settings.checkpoint`` is taken up. Counted in images, a run that was
    stopped and taken up ends with the same weights as one that was not.

    Raises
    ------
    CryosphereError
        If the loss is no longer a number, or the state cannot be kept; the last good one stays on disk.
    """
    clock = _Clock(settings)
    if resume and settings.checkpoint is not None:
        clock.restore(trainer.load(settings.checkpoint))
    keeper = _Keeper(trainer, clock, settings)
    try:
        while not clock.over:
            batch = source.batch(trainer.steps, settings.batch_size, clock.fraction)
            clock.count(settings.batch_size, trainer.step(batch, clock.rate))
            keeper.keep_if_due()
            if clock.report_due() or clock.validation_due():
                found = _validate(trainer, validation, symmetry) if clock.validation_due() else None
                with clock.held():
                    yield clock.report(found)
    except (GeneratorExit, KeyboardInterrupt):
        keeper.keep()
        raise
    yield clock.report(_validate(trainer, validation, symmetry))


@dataclass(frozen=True)
class _Validated:
    """What held-out particles say: mean loss, median and mean error in degrees, a few distributions."""

    loss: float
    median_degrees: float
    mean_degrees: float
    preview: PoseDistribution


def _validate(trainer: Trainer, validation: ValidationSet, symmetry: str) -> _Validated:
    coefficients = predict_coefficients(trainer.averaged(), validation.images)
    labels = torch.from_numpy(validation.rotations).float()
    losses = [
        float(pose_loss(part, Batch(torch.empty(0), poses, torch.ones(len(poses))), symmetry)) * len(poses)
        for part, poses in zip(coefficients.split(_PREDICT_BATCH), labels.split(_PREDICT_BATCH), strict=True)
    ]
    predicted = PoseDistribution.from_coefficients(coefficients, symmetry)
    errors = angular_error_degrees(validation.rotations, predicted.summary().rotations, symmetry)
    return _Validated(
        sum(losses) / len(labels),
        float(np.median(errors)),
        float(np.mean(errors)),
        PoseDistribution.from_coefficients(coefficients[:_PREVIEWED], symmetry),
    )


class _Clock:
    """Keeps time and counts: how far the run is, how fast to learn, and when to say what."""

    def __init__(self, settings: LoopSettings) -> None:
        if (settings.minutes is None) == (settings.total_images is None):
            raise ValueError("set either minutes or total_images")
        self._settings = settings
        self._start = self._last_report = time.monotonic()
        self._images = self._reported_images = 0
        self._losses: list[float] = []
        self._loss = math.nan
        self._validated = self._validated_at = 0
        self._best, self._best_at, self._halved_at, self._halved = math.inf, 0, 0, 0

    def progress(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {
            "seconds": time.monotonic() - self._start,
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
        self._start = time.monotonic() - progress["seconds"]
        self._images = self._reported_images = progress["images"]
        self._validated, self._validated_at = progress["validated"], progress["validated_at"]
        self._best = math.inf if progress["best"] is None else progress["best"]
        self._best_at = progress["best_at"]
        self._halved_at, self._halved = progress["halved_at"], progress["halved"]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Do not count the time that this block takes."""
        began = time.monotonic()
        yield
        self._start += time.monotonic() - began
        self._last_report = time.monotonic()

    @property
    def fraction(self) -> float:
        if self._settings.minutes is not None:
            return min(1.0, (time.monotonic() - self._start) / (60 * self._settings.minutes))
        return min(1.0, self._images / max(1, self._settings.total_images or 1))

    @property
    def over(self) -> bool:
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
        self._images += images
        self._losses.append(loss)

    def validation_due(self) -> bool:
        due = int(self.fraction * self._settings.validations)
        return self._validated < due < self._settings.validations

    def report_due(self) -> bool:
        return time.monotonic() - self._last_report >= self._settings.report_seconds

    def report(self, found: _Validated | None) -> TrainingProgress:
        """Return a report, and start counting for the next."""
        now = time.monotonic()
        elapsed, fraction = now - self._start, self.fraction
        if self._losses:
            self._loss = float(np.mean(self._losses))
        if found is not None:
            self._take(found.loss)
        report = TrainingProgress(
            fraction=1.0 if self.over else fraction,
            images=self._images,
            loss=self._loss,
            images_per_second=(self._images - self._reported_images) / max(now - self._last_report, 1e-9),
            remaining_seconds=0.0 if self.over else elapsed * (1 - fraction) / max(fraction, 1e-9),
            validation_loss=None if found is None else found.loss,
            validation_median_degrees=None if found is None else found.median_degrees,
            validation_mean_degrees=None if found is None else found.mean_degrees,
            preview=None if found is None else found.preview,
        )
        self._last_report, self._reported_images, self._losses = time.monotonic(), self._images, []
        return report

    def _take(self, loss: float) -> None:
        """Remember a validation: whether it was the best so far, and what that means for the rate."""
        self._validated = int(self.fraction * self._settings.validations)
        self._validated_at = self._images
        if loss < self._best:
            self._best, self._best_at, self._halved_at = loss, self._images, self._images
        elif self._settings.halve_after and self._images - self._halved_at >= self._settings.halve_after:
            self._halved += 1
            self._halved_at = self._images


class _Keeper:
    """Writes the state from time to time."""

    def __init__(self, trainer: Trainer, clock: _Clock, settings: LoopSettings) -> None:
        self._trainer, self._clock, self._settings = trainer, clock, settings
        self._kept = time.monotonic()

    def keep_if_due(self) -> None:
        if time.monotonic() - self._kept >= self._settings.checkpoint_seconds:
            self.keep()

    def keep(self) -> None:
        if self._settings.checkpoint is not None and self._trainer.steps and self._trainer.whole:
            self._trainer.save(self._settings.checkpoint, self._clock.progress())
        self._kept = time.monotonic()
