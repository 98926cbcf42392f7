"""The dock's long work: generators of steps over the jobs."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from napari_cryosphere.jobs.training_configs import TrainConfig
    from napari_cryosphere.model.pose_model import PoseModel
    from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = [
    "Step",
    "Steps",
    "load_model",
    "prediction_steps",
    "refinement_steps",
    "spare_a_core",
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


def spare_a_core() -> None:
    """Leave a core to the window: with all of them busy it stutters."""
    import os

    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 2) - 1)))


def load_model(path: Path | None) -> PoseModel:
    """Load a model file or a run folder's model; None stands for the sample model of the package."""
    from napari_cryosphere.jobs import sample
    from napari_cryosphere.jobs.running.compute import choose_device
    from napari_cryosphere.model.pose_model import PoseModel

    model = sample.sample_model() if path is None else PoseModel.load(path)
    return model.to(choose_device("auto"))


def prediction_steps(stack: ParticleStack, model_path: Path | None) -> Steps:
    """Predict batch by batch; payloads are ``(rows, PoseDistribution, PoseSummary)``."""
    yield Step(0.0, "loading the model")
    from napari_cryosphere.jobs.infer import images_for, predict

    spare_a_core()
    model = load_model(model_path)
    yield Step(0.0, f"predicting {len(stack)} poses")
    for rows, on_device in predict(images_for(model, stack), model):
        distribution = on_device.cpu()
        message = f"predicted {rows.stop} of {len(stack)} poses"
        yield Step(rows.stop / len(stack), message, (rows, distribution, distribution.summary()))


def refinement_steps(
    stack: ParticleStack, model_path: Path | None, reference: DensityMap | None
) -> Steps:
    """Predict and refine batch by batch; the last payload is the stack with refined poses.

    Parameters
    ----------
    stack, model_path
        The particles and the model.
    reference
        The map to refine against; None for that of the model's run, as far as it can be trusted.

    Raises
    ------
    CryosphereError
        If there is no such map.
    """
    yield Step(0.0, "loading the model")
    from napari_cryosphere.jobs.infer import reference_of, refine
    from napari_cryosphere.particles import DensityMap

    spare_a_core()
    model, resolution = load_model(model_path), None
    if reference is None:
        own = None if model_path is None else reference_of(model_path)
        if own is None:
            raise CryosphereError(
                "no map to refine against; open one, or a model with its run's map"
            )
        reference, resolution = DensityMap.read(own), model.card.map_resolution_angstrom
    yield Step(0.0, "measuring noise and contrast")
    work = refine(stack, model, reference, resolution)
    while True:
        try:
            done_so_far = next(work)
        except StopIteration as done:
            yield Step(1.0, f"refined {len(stack)} poses", done.value)
            return
        yield Step(done_so_far.fraction, done_so_far.message)


def training_steps(stack: ParticleStack, config: TrainConfig) -> Steps:
    """Train; payloads are the job's events."""
    from napari_cryosphere.jobs.events import Progress
    from napari_cryosphere.jobs.train import train_on_stack

    spare_a_core()
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
