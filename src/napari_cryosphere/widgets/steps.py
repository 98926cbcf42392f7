"""The dock's long work: generators of steps over the jobs. Knows no Qt."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs import TrainConfig
    from napari_cryosphere.model.pose_model import PoseModel
    from napari_cryosphere.particles import ParticleStack

__all__ = [
    "Step",
    "Steps",
    "load_model",
    "prediction_steps",
    "training_steps",
]


@dataclass(frozen=True)
class Step:
    """How far the work is, a short message, and what it has made since the last step."""

    fraction: float
    message: str
    payload: Any = None


Steps: TypeAlias = Generator[Step, None, None]
"""Work in progress; closing it stops the work."""


def _spare_a_core() -> None:
    """Leave a core to the window: with all of them busy it stutters."""
    import os

    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 2) - 1)))


def load_model(path: Path | None) -> PoseModel:
    """Load a model file or a run folder's model; None stands for the sample model of the package."""
    from napari_cryosphere.jobs import sample
    from napari_cryosphere.model.pose_model import PoseModel, choose_device

    model = sample.sample_model() if path is None else PoseModel.load(path)
    return model.to(choose_device("auto"))


def prediction_steps(stack: ParticleStack, model_path: Path | None) -> Steps:
    """Predict batch by batch; payloads are ``(rows, PoseDistribution, PoseSummary)``."""
    yield Step(0.0, "loading the model")
    from napari_cryosphere.jobs.infer import images_for, predict

    _spare_a_core()
    model = load_model(model_path)
    yield Step(0.0, f"predicting {len(stack)} poses")
    for rows, on_device in predict(images_for(model, stack), model):
        distribution = on_device.cpu()
        message = f"predicted {rows.stop} of {len(stack)} poses"
        yield Step(rows.stop / len(stack), message, (rows, distribution, distribution.summary()))


def training_steps(stack: ParticleStack, config: TrainConfig) -> Steps:
    """Train; payloads are the job's events."""
    from napari_cryosphere.jobs.events import Progress
    from napari_cryosphere.jobs.train import train_on_stack

    _spare_a_core()
    events = train_on_stack(stack, config, report_seconds=1.0)
    fraction, message = 0.0, "preparing the particles"
    yield Step(fraction, message)
    try:
        for event in events:
            if isinstance(event, Progress):
                fraction, message = event.fraction, event.message
            yield Step(fraction, message, event)
    finally:
        events.close()  # writes the model learnt so far
