"""The training loop: batches in, reports out, averaged weights at the end."""

from __future__ import annotations

import math
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.errors import CryosphereError, RankLostError
from napari_cryosphere.model.pose_network import Answers, PoseNetwork, Shifts
from napari_cryosphere.so3.distributions import HarmonicDistribution
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.training._clock import Clock, LoopSettings, Validated
from napari_cryosphere.training.events import TrainingProgress
from napari_cryosphere.training.loss import pose_loss
from napari_cryosphere.training.sources import Batch, TrainingSource
from napari_cryosphere.training.trainer import Trainer

__all__ = ["LoopSettings", "ValidationSet", "predict_coefficients", "train_network"]

_PREDICT_BATCH = 128  # images at once without gradients: 0.5 GB at 4 MB each


@dataclass(frozen=True)
class ValidationSet:
    """Held-out particles: ``(n, box, box)`` prepared images and their ``(n, 3, 3)`` poses.

    ``shifts_px`` are ``(n, 2)`` x and y of their centres from pixel n // 2, ``ctf`` and ``states`` are those
    of a `Batch`; None if not known.
    """

    images: Tensor
    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64] | None = None
    ctf: Tensor | None = None
    states: NDArray[np.float64] | None = None


def predict_coefficients(network: PoseNetwork, images: Tensor) -> Tensor:
    """Return a network's coefficients for any number of images, in the computer's own memory.

    ``(n, box, box)`` to ``(n, L + 1, 2 L + 1, L + 1)`` complex.
    """
    return _predict(network, images).coefficients


def _predict(network: PoseNetwork, images: Tensor, ctf: Tensor | None = None) -> Answers:
    """Return what a network says of any number of images, in the computer's own memory."""
    device = next(network.parameters()).device
    network.eval()
    parts = list[Answers]()
    with torch.inference_mode():
        for start in range(0, len(images), _PREDICT_BATCH):
            rows = slice(start, start + _PREDICT_BATCH)
            said = network.answers(
                images[rows].to(device), None if ctf is None else ctf[rows].to(device)
            )
            parts.append(_on_cpu(said))
    shifts = [part.shifts for part in parts if part.shifts is not None]
    states = [part.states for part in parts if part.states is not None]
    return Answers(
        torch.cat([part.coefficients for part in parts]),
        Shifts(*map(torch.cat, zip(*shifts, strict=True))) if shifts else None,
        torch.cat(states) if states else None,
    )


def _on_cpu(said: Answers) -> Answers:
    shifts = None if said.shifts is None else Shifts(*(each.cpu() for each in said.shifts))
    states = None if said.states is None else said.states.cpu()
    return Answers(said.coefficients.cpu(), shifts, states)


def train_network(
    trainer: Trainer,
    source: TrainingSource,
    validation: ValidationSet,
    symmetry: str,
    settings: LoopSettings,
    resume: bool = False,
) -> Generator[TrainingProgress, None, None]:
    """Train, yielding reports; closing the generator early keeps what is learnt so far.

    The time that a report is held is not part of the run's: who trains may pause it. With
    ``resume`` the state in ``settings.checkpoint`` is taken up. Counted in images, a run that was
    stopped and taken up ends with the same weights as one that was not.

    Where several processes train together, each makes its share of the batches; the first
    validates, keeps the state and tells the time, and all yield the same reports, the first with
    what the network predicts.

    Raises `CryosphereError` if the loss is no longer a number, the state cannot be kept, or a batch
    has fewer images than there are processes; the last good state stays on disk; `RankLostError` if
    another process is gone; the state is kept.
    """
    replicas = trainer.replicas
    if settings.batch_size < replicas.count:
        raise CryosphereError(
            f"a batch of {settings.batch_size} images cannot be shared by {replicas.count} processes; start "
            "fewer, or set a larger batch_size"
        )
    clock = Clock(settings, replicas)
    if resume and settings.checkpoint is not None:
        clock.restore(trainer.load(settings.checkpoint))
    ahead = _Ahead(source, settings.batch_size, replicas.share(settings.batch_size))
    try:
        while not clock.over:
            batch = ahead.take(trainer.steps, clock.fraction, clock.next_fraction)
            clock.count(settings.batch_size, trainer.step(batch, clock.rate))
            clock.tick()
            if clock.keeping_due:
                _keep(trainer, clock, settings)
            if clock.report_due or clock.validation_due:
                found = _validate(trainer, validation, symmetry) if clock.validation_due else None
                with clock.held():
                    yield clock.report(found)
    except (GeneratorExit, KeyboardInterrupt, RankLostError):
        _keep(trainer, clock, settings)
        raise
    finally:
        ahead.close()
    yield clock.report(_validate(trainer, validation, symmetry))


class _Ahead:
    """Batches of a source, the next of which is made in a thread while one is learnt from."""

    def __init__(self, source: TrainingSource, size: int, share: slice) -> None:
        self._source, self._size, self._share = source, size, share
        # one thread for its operations too, so that none of them waits for the network's
        self._pool = ThreadPoolExecutor(
            1, thread_name_prefix="batches", initializer=torch.set_num_threads, initargs=(1,)
        )
        self._next: Future[Batch] | None = None

    def take(self, step: int, progress: float, next_progress: float) -> Batch:
        """Return a step's batch, and begin with that of the next unless the run is over by then.

        Steps are taken one after another, each at the progress that was said before.
        """
        # the first in that thread too: a resumed run begins with any step, to the last bit
        if self._next is None:
            self._next = self._pool.submit(self._make, step, progress)
        batch = self._next.result()
        self._next = None
        if next_progress < 1:
            self._next = self._pool.submit(self._make, step + 1, next_progress)
        return batch

    def _make(self, step: int, progress: float) -> Batch:
        return self._source.batch(step, self._size, progress, self._share)

    def close(self) -> None:
        """End the thread, once it has made what it is making."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(torch.get_num_threads())  # for threads that begin from now on, too


def _keep(trainer: Trainer, clock: Clock, settings: LoopSettings) -> None:
    """Write the state, in the first process."""
    if (
        settings.checkpoint is not None
        and trainer.replicas.first
        and trainer.steps
        and trainer.whole
    ):
        trainer.save(settings.checkpoint, clock.progress())
    clock.kept()


def _validate(trainer: Trainer, validation: ValidationSet, symmetry: str) -> Validated:
    """Look at held-out particles in the first process, and tell the others what it finds."""
    found = Validated(math.nan, math.nan, math.nan, math.nan)
    if trainer.replicas.first:
        found = _held_out(trainer.averaged(), validation, symmetry)
    values = [found.loss, found.median_degrees, found.mean_degrees, found.shift_px]
    loss, median, mean, shift_px = trainer.replicas.of_first(values)
    return Validated(loss, median, mean, shift_px, found.predicted, found.shifts, found.states)


def _held_out(network: PoseNetwork, validation: ValidationSet, symmetry: str) -> Validated:
    """Return what a network says of held-out particles, and how far off it is."""
    coefficients, shifts, states = _predict(network, validation.images, validation.ctf)
    labels = torch.from_numpy(validation.rotations).float()
    losses = [
        float(pose_loss(part, Batch(torch.empty(0), poses, torch.ones(len(poses))), symmetry))
        * len(poses)
        for part, poses in zip(
            coefficients.split(_PREDICT_BATCH), labels.split(_PREDICT_BATCH), strict=True
        )
    ]
    predicted = HarmonicDistribution(coefficients, symmetry)
    errors = angular_error_degrees(validation.rotations, predicted.summary().rotations, symmetry)
    return Validated(
        loss=sum(losses) / len(labels),
        median_degrees=float(np.median(errors)),
        mean_degrees=float(np.mean(errors)),
        shift_px=_median_shift_error_px(shifts, validation),
        predicted=predicted,
        shifts=shifts,
        states=states,
    )


def _median_shift_error_px(shifts: Shifts | None, validation: ValidationSet) -> float:
    """Return the median distance of predicted from known centres; NaN where one is not there."""
    if shifts is None or validation.shifts_px is None:
        return math.nan
    errors = np.linalg.norm(shifts.means_px.numpy() - validation.shifts_px, axis=1)
    return float(np.median(errors))
