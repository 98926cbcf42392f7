"""Long work on particles: predicting, refining and training, as generators of events."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.events import Progress

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs.training import TrainConfig
    from napari_cryosphere.model.pose_model import PoseModel
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.so3.distributions import PoseDistribution
    from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = [
    "Events",
    "Predicted",
    "load_model",
    "prediction_work",
    "refinement_work",
    "spare_a_core",
    "training_work",
]


Events: TypeAlias = Generator[object, None, None]
"""Work in progress: what it makes, and a `Progress` after each part. Closing it stops the work."""


class Predicted(NamedTuple):
    """The poses of consecutive particles."""

    rows: slice
    distribution: PoseDistribution
    summary: PoseSummary


def spare_a_core() -> None:
    """Leave a core to the window: with all of them busy it stutters."""
    import os

    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 2) - 1)))


def load_model(path: Path | None) -> PoseModel:
    """Load a model file or a run folder's model; None for the sample model of the package."""
    from napari_cryosphere.jobs import sample
    from napari_cryosphere.jobs.running.compute import choose_device
    from napari_cryosphere.model.pose_model import PoseModel

    model = sample.sample_model() if path is None else PoseModel.load(path)
    return model.to(choose_device("auto"))


def prediction_work(stack: ParticleStack, model_path: Path | None) -> Events:
    """Predict batch by batch; the batches come as `Predicted`."""
    yield Progress(0.0, "loading the model")
    from napari_cryosphere.jobs.infer import images_for, predict

    spare_a_core()
    model = load_model(model_path)
    yield Progress(0.0, f"predicting {len(stack)} poses")
    for rows, on_device in predict(images_for(model, stack), model):
        distribution = on_device.cpu()
        message = f"predicted {rows.stop} of {len(stack)} poses"
        yield Predicted(rows, distribution, distribution.summary())
        yield Progress(rows.stop / len(stack), message)


def refinement_work(
    stack: ParticleStack, model_path: Path | None, reference: DensityMap | None
) -> Events:
    """Predict and refine batch by batch; last comes the stack with refined poses.

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
    yield Progress(0.0, "loading the model")
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
    yield Progress(0.0, "measuring noise and contrast")
    yield (yield from refine(stack, model, reference, resolution))
    yield Progress(1.0, f"refined {len(stack)} poses")


def training_work(stack: ParticleStack, config: TrainConfig) -> Events:
    """Train; the events are the job's. Closed, it writes the model learnt so far."""
    from napari_cryosphere.jobs.train import train_on_stack

    spare_a_core()
    yield Progress(0.0, "preparing the particles")
    yield from train_on_stack(stack, config, report_seconds=1.0)
