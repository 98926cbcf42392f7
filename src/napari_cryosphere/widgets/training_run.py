"""A training run as the dock sees it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cryosphere.widgets import steps
from napari_cryosphere.widgets.workers import Runner

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack

__all__ = ["TrainingRun", "new_run_folder"]


class TrainingRun:
    """Trains in the background and keeps the figures for the plot.

    Parameters
    ----------
    runner
        Runs long work.
    """

    changed = Signal()
    finished = Signal(object)
    """Sent with the run folder once it holds a model."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.active = False
        self.fractions: list[float] = []
        self.losses: list[float] = []
        self.validation_median_degrees: float | None = None
        self.remaining_seconds: float | None = None

    def start(self, stack: ParticleStack, minutes: float, folder: Path, symmetry: str) -> None:
        """Train for some minutes into a run folder, which must not hold a model."""
        if self.runner.busy:
            return
        from napari_cryosphere.jobs.configs import TrainConfig

        config = TrainConfig(particles=stack.source, output=folder, minutes=minutes, symmetry=symmetry)
        self.fractions, self.losses = [], []
        self.validation_median_degrees = self.remaining_seconds = None
        self.active = True
        self.changed.emit()
        self.runner.start(
            f"Training on {stack.source.name}",
            lambda: steps.training_steps(stack, config),
            self._take,
            lambda: self._end(folder),
        )

    def _take(self, step: steps.Step) -> None:
        metrics = getattr(step.payload, "metrics", {})
        if "images_per_second" in metrics:  # a report, not the job's result
            self.fractions.append(step.fraction)
            self.losses.append(metrics["loss"])
            median = metrics.get("validation_median_degrees")
            if median is not None:
                self.validation_median_degrees = median
            self.remaining_seconds = getattr(step.payload, "remaining_seconds", None)
        self.changed.emit()

    def _end(self, folder: Path) -> None:
        from napari_cryosphere.model.pose_model import MODEL_FILE

        self.active = False
        self.changed.emit()
        if self.losses and (folder / MODEL_FILE).is_file():
            self.finished.emit(folder)


def new_run_folder(beside: Path | None) -> Path:
    """Return the name of a run folder that does not exist yet, beside a file where that can be written."""
    parent = Path(tempfile.gettempdir()) if beside is None else beside.absolute().parent
    if not os.access(parent, os.W_OK):
        parent = Path(tempfile.gettempdir())
    number = 1
    while (parent / "runs" / f"run{number:02d}").exists():
        number += 1
    return parent / "runs" / f"run{number:02d}"
