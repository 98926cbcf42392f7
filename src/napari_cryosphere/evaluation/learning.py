"""Training on a fixed number of projections, as CryoSphere's experiments do, and what was learnt."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.evaluation.views import MapViews
from napari_cryosphere.model.card import ModelCard
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.training.events import TrainingProgress
from napari_cryosphere.training.loop import (
    LoopSettings,
    ValidationSet,
    predict_coefficients,
    train_network,
)
from napari_cryosphere.training.loss import pose_loss
from napari_cryosphere.training.masks import LabelledImages, inverse_mse_on_grid, label_targets
from napari_cryosphere.training.presets import LabelKind, TrainingPreset
from napari_cryosphere.training.sources import Batch
from napari_cryosphere.training.trainer import Optimisation, Trainer

__all__ = ["LabelledViews", "Learnt", "Measured", "learn", "measure", "untrained"]

_FOR_THE_LOOP = 16  # views that the loop itself validates on, which nothing here looks at

Steps: TypeAlias = Generator[float, None, "Learnt"]


@dataclass(frozen=True)
class LabelledViews:
    """Images of a map with their poses and 1/MSE on the labels' grid.

    ``images``: ``(n, box, box)`` as the network sees them. ``rotations``: ``(n, 3, 3)``.
    ``inverse_errors``: ``(n, cells)`` 1/MSE.
    """

    images: Tensor
    rotations: NDArray[np.float64]
    inverse_errors: Tensor

    @classmethod
    def draw(
        cls, views: MapViews, number: int, order: int, rng: np.random.Generator
    ) -> LabelledViews:
        """Draw uniform poses and label what is seen there, on the grid of an order."""
        rotations = random_rotations(number, rng)
        images = views.unmasked(rotations, rng)
        errors = inverse_mse_on_grid(images, views.voxels, order, views.contrast)
        return cls(images * views.mask, rotations, errors)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> LabelledViews:
        return LabelledViews(self.images[rows], self.rotations[rows], self.inverse_errors[rows])

    def targets(self, kind: LabelKind, preset: TrainingPreset, symmetry: str) -> Tensor:
        """Return a kind of label, ``(n, cells)``."""
        return label_targets(
            kind,
            self.inverse_errors,
            self.rotations,
            preset.label_order,
            fraction=preset.label_fraction,
            symmetry=symmetry,
        )


@dataclass(frozen=True)
class Learnt:
    """A trained model and how its training went.

    ``losses``: mean loss of every epoch, in nats relative to uniform. ``images``: images seen.
    ``cpu_seconds``: time of all processors on training alone.
    """

    model: PoseModel
    losses: NDArray[np.float64]
    images: int
    cpu_seconds: float


@dataclass(frozen=True)
class Measured:
    """What a model knows of some views.

    - ``loss``: cross-entropy against labels of a kind, nats relative to uniform.
    - ``truth_nats``: mean log-density at the true poses, relative to uniform.
    - ``median_degrees``: median pose error of the most probable pose, modulo symmetry.
    - ``beyond_30``: share of pose errors above 30 degrees.
    """

    loss: float
    truth_nats: float
    median_degrees: float
    beyond_30: float


def untrained(card: ModelCard, seed: int) -> PoseModel:
    """Return a model with the weights that a seed gives; the state of torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PoseModel.create(card)
    model.network.eval()
    return model


def learn(
    model: PoseModel, data: LabelledViews, targets: Tensor, preset: TrainingPreset, seed: int
) -> Steps:
    """Train a model of these weights by a preset, yielding how far it is, 0 to 1, once an epoch.

    Returns the model with its averaged weights, and the losses.
    """
    settings = LoopSettings(
        batch_size=min(preset.batch_size, len(data)),
        total_images=round(preset.epochs * len(data)),
        report_seconds=0.0,
        validations=1,
    )
    optimisation = Optimisation(
        learning_rate=preset.learning_rate,
        weight_decay=preset.weight_decay,
        optimizer=preset.optimizer,
        seed=seed,
    )
    trainer = Trainer(model.network, model.card.symmetry, optimisation)
    source = LabelledImages(data.images, data.rotations, targets, seed)
    few = data[:_FOR_THE_LOOP]
    validation = ValidationSet(few.images, few.rotations)
    steps: list[TrainingProgress] = []
    start, epochs = time.process_time(), 0
    for report in train_network(trainer, source, validation, model.card.symmetry, settings):
        steps.append(report)
        if report.images >= (epochs + 1) * len(data):
            epochs = report.images // len(data)
            yield report.fraction
    seconds = time.process_time() - start
    losses = _by_epoch(steps[:-1], len(data))  # the last report says the last step's loss again
    return Learnt(PoseModel(trainer.averaged(), model.card), losses, steps[-1].images, seconds)


def _by_epoch(steps: list[TrainingProgress], number: int) -> NDArray[np.float64]:
    """Return the mean loss of the steps that end within each pass over ``number`` images."""
    epoch = np.array([(step.images - 1) // number for step in steps])
    losses = np.array([step.loss for step in steps])
    return np.array([losses[epoch == index].mean() for index in np.unique(epoch)])


def measure(model: PoseModel, data: LabelledViews, targets: Tensor) -> Measured:
    """Compare a model's predictions with labels and with the true poses."""
    symmetry = model.card.symmetry
    coefficients = predict_coefficients(model.network, data.images)
    poses = torch.from_numpy(data.rotations).float()
    labelled = Batch(data.images, poses, torch.ones(len(data)), targets)
    predicted = PoseDistribution.from_coefficients(coefficients, symmetry)
    degrees = angular_error_degrees(data.rotations, predicted.summary().rotations, symmetry)
    return Measured(
        loss=float(pose_loss(coefficients, labelled, symmetry)),
        truth_nats=float(predicted.log_prob(data.rotations).mean()),
        median_degrees=float(np.median(degrees)),
        beyond_30=float(np.mean(degrees > 30)),
    )
