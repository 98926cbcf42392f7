"""The training loop: batches in, progress out, averaged weights at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.model.network import PoseNetwork
from napari_cryosphere.so3.distribution import EVALUATION_ORDER, PoseDistribution
from napari_cryosphere.so3.grid import order_of_size
from napari_cryosphere.so3.grid_transform import evaluate_on_grid
from napari_cryosphere.so3.symmetry import angular_error_degrees, point_group
from napari_cryosphere.so3.wigner import evaluate_at
from napari_cryosphere.training.events import TrainingProgress
from napari_cryosphere.training.sources import Batch, TrainingSource

__all__ = ["LoopSettings", "ValidationSet", "pose_loss", "train_network"]

_WARM_UP = 0.03
_MEMORY = 0.998
_PREDICT_BATCH = 256


@dataclass(frozen=True)
class LoopSettings:
    """How long and how to train.

    Exactly one of ``minutes`` and ``total_images`` is set: a time budget, or a number of images.
    """

    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    minutes: float | None = None
    total_images: int | None = None
    report_seconds: float = 10.0
    validations: int = 10


@dataclass(frozen=True)
class ValidationSet:
    """Held-out particles: ``(n, box, box)`` prepared images and their ``(n, 3, 3)`` poses."""

    images: Tensor
    rotations: NDArray[np.float64]


def pose_loss(coefficients: Tensor, batch: Batch, symmetry: str) -> Tensor:
    """Return the weighted cross-entropy of predicted distributions against known poses, or against targets.

    ``- sum_i w_i mean_g log p_i(g R_i) / sum_i w_i``: each label stands at all its symmetry-equivalent poses
    with weight 1/|G| (CESPED, section 2.1). The density is read at the pose itself, not at the nearest grid
    point, and normalised over the grid of order 3 and the pose, which counts as one more cell: a peak that is
    sharper than a cell and stands between grid points would otherwise be counted as nothing, and the loss
    would reward it without bound.

    A batch with targets is compared with these on their own grid.

    Parameters
    ----------
    coefficients
        ``(b, L + 1, 2 L + 1, L + 1)`` complex, the network's output.
    """
    if batch.targets is None:
        log_density = _label_log_density(coefficients, batch.rotations, symmetry)
    else:
        log_density = _target_log_density(coefficients, batch.targets)
    return -(batch.weights * log_density).sum() / batch.weights.sum()


def _label_log_density(coefficients: Tensor, rotations: Tensor, symmetry: str) -> Tensor:
    """Return the mean log-density at each pose's equivalents, ``(b,)`` nats relative to uniform."""
    group = torch.from_numpy(point_group(symmetry).copy()).to(rotations)
    labels = evaluate_at(coefficients, torch.einsum("gij,bjk->bgik", group, rotations))
    cells = evaluate_on_grid(coefficients, EVALUATION_ORDER).flatten(1)
    total = torch.logaddexp(cells.logsumexp(dim=1, keepdim=True), labels)
    return (labels - total + math.log(cells.shape[1])).mean(dim=1)


def _target_log_density(coefficients: Tensor, targets: Tensor) -> Tensor:
    """Return the mean log-density under target probabilities on a grid, ``(b,)`` nats relative to uniform.

    ``sum_k t_k log p_k`` plus the log of the number of cells, p being normalised over the targets' grid. At
    best it is the targets' own information, ``log cells - entropy(t)``: 3 nats for a mask of 5 %.
    """
    cells = evaluate_on_grid(coefficients, order_of_size(targets.shape[1])).flatten(1)
    return (targets * cells.log_softmax(dim=1)).sum(dim=1) + math.log(cells.shape[1])


def train_network(
    network: PoseNetwork,
    source: TrainingSource,
    validation: ValidationSet,
    symmetry: str,
    settings: LoopSettings,
) -> Generator[TrainingProgress, None, None]:
    """Train a network in place, yielding reports; closing the generator early keeps what is learnt so far.

    AdamW with a linear warm-up and a cosine fall to zero over the budget. The weights that remain are an
    exponential average over the steps, which on noisy images is worth a lower learning rate.

    Raises
    ------
    CryosphereError
        If the loss is no longer a number.
    """
    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    averaged = AveragedModel(network, avg_fn=_average, use_buffers=True)
    clock = _Clock(settings)
    try:
        while clock.fraction < 1:
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _schedule(clock.fraction)
            loss = _step(network, optimizer, source.batch(settings.batch_size, clock.fraction, rng), symmetry)
            averaged.update_parameters(network)
            clock.count(settings.batch_size, loss)
            if clock.report_due():
                median = _validate(averaged.module, validation, symmetry) if clock.validation_due() else None
                yield clock.report(median)
    finally:
        network.load_state_dict(averaged.module.state_dict())
        network.eval()
    yield clock.report(_validate(network, validation, symmetry))


def _average(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
    """Return the exponential average of the weights; its memory grows with the number of updates."""
    decay = min(_MEMORY, (1 + float(updates)) / (10 + float(updates)))
    return average + (current - average) * (1 - decay)


def _schedule(fraction: float) -> float:
    if fraction < _WARM_UP:
        return (fraction + 1e-3) / (_WARM_UP + 1e-3)
    return 0.5 + 0.5 * math.cos(math.pi * (fraction - _WARM_UP) / (1 - _WARM_UP))


def _step(network: PoseNetwork, optimizer: torch.optim.Optimizer, batch: Batch, symmetry: str) -> float:
    network.train()
    loss = pose_loss(network(batch.images), batch, symmetry)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise CryosphereError(f"the training loss became {value}; try a learning rate ten times lower")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return value


def _validate(network: torch.nn.Module, validation: ValidationSet, symmetry: str) -> float:
    """Return the median pose error on held-out particles in degrees."""
    network.eval()
    with torch.inference_mode():
        coefficients = torch.cat([network(images) for images in validation.images.split(_PREDICT_BATCH)])
        summary = PoseDistribution.from_coefficients(coefficients, symmetry).summary()
    return float(np.median(angular_error_degrees(validation.rotations, summary.rotations, symmetry)))


class _Clock:
    """Keeps time and counts: how far the run is, and when a report or a validation is due."""

    def __init__(self, settings: LoopSettings) -> None:
        if (settings.minutes is None) == (settings.total_images is None):
            raise ValueError("set either minutes or total_images")
        self._settings = settings
        self._start = self._last_report = time.monotonic()
        self._images = self._reported_images = 0
        self._losses: list[float] = []
        self._loss = math.nan
        self._validated = 0

    @property
    def fraction(self) -> float:
        if self._settings.minutes is not None:
            return min(1.0, (time.monotonic() - self._start) / (60 * self._settings.minutes))
        return min(1.0, self._images / max(1, self._settings.total_images or 1))

    def count(self, images: int, loss: float) -> None:
        self._images += images
        self._losses.append(loss)

    def validation_due(self) -> bool:
        due = int(self.fraction * self._settings.validations)
        if due <= self._validated or due >= self._settings.validations:
            return False
        self._validated = due
        return True

    def report_due(self) -> bool:
        return time.monotonic() - self._last_report >= self._settings.report_seconds

    def report(self, median: float | None) -> TrainingProgress:
        now = time.monotonic()
        elapsed = now - self._start
        fraction = self.fraction
        if self._losses:
            self._loss = float(np.mean(self._losses))
        report = TrainingProgress(
            fraction=fraction,
            images=self._images,
            loss=self._loss,
            images_per_second=(self._images - self._reported_images) / max(now - self._last_report, 1e-9),
            remaining_seconds=elapsed * (1 - fraction) / max(fraction, 1e-9),
            validation_median_degrees=median,
        )
        self._last_report, self._reported_images, self._losses = now, self._images, []
        return report
