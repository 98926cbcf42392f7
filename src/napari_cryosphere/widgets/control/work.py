"""Long work on particles: predicting, refining and training, as generators of events."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from importlib.resources import files
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
    "SAMPLE_MODEL",
    "Events",
    "Predicted",
    "load_model",
    "model_name",
    "own_map",
    "prediction_work",
    "refinement_work",
    "spare_a_core",
    "training_work",
    "writable_folder",
]


Events: TypeAlias = Generator[object, None, None]
"""Work in progress: what it makes, and a `Progress` after each part. Closing it stops the work."""


class Predicted(NamedTuple):
    """The poses of consecutive particles."""

    rows: slice
    distribution: PoseDistribution
    summary: PoseSummary


def writable_folder(near: Path | None) -> Path:
    """Return the folder of a file where that can be written, otherwise the one for temporary files."""
    parent = None if near is None else near.absolute().parent
    if parent is None or not os.access(parent, os.W_OK):
        return Path(tempfile.gettempdir())
    return parent


def spare_a_core() -> None:
    """Leave a core to the window: with all of them busy it stutters."""
    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 2) - 1)))


_OWN_MAP = "map.mrc"  # pose_model.REFERENCE_MAP, whose module imports torch

SAMPLE_MODEL = Path(str(files("napari_cryosphere") / "data" / "sample_model.safetensors"))
"""The package's own model, which knows its sample particles alone."""


def model_name(path: Path) -> str:
    """Return how a model is called in the window."""
    if path == SAMPLE_MODEL:
        return "sample model"
    return path.name if path.suffix else f"{path.parent.name}/{path.name}"


def own_map(model: Path | None) -> Path | None:
    """Return the map that a model's run left next to it; None if there is none. Without torch."""
    if model is None:
        return None
    found = (model if model.is_dir() else model.parent) / _OWN_MAP
    return found if found.is_file() else None


def load_model(path: Path) -> PoseModel:
    """Load a model file or a run folder's model."""
    from napari_cryosphere.jobs import sample
    from napari_cryosphere.jobs.running.compute import choose_device
    from napari_cryosphere.model.pose_model import PoseModel

    model = sample.sample_model() if path == SAMPLE_MODEL else PoseModel.load(path)
    return model.to(choose_device("auto"))


def prediction_work(
    stack: ParticleStack,
    model_path: Path,
    symmetry: str | None = None,
    accepted: frozenset[str] = frozenset(),
) -> Events:
    """Look whether the model fits, and predict batch by batch; the batches come as `Predicted`.

    ``stack``, ``symmetry``: the particles, and their point group where it is known. ``model_path``:
    model file or run folder. ``accepted``: what a person has accepted: the ``model`` though it
    seems foreign, its ``symmetry`` though it differs. Yields first the `ModelFit`; where it leaves
    a question that is not accepted, nothing more.
    """
    yield Progress(0.0, "loading the model")
    from napari_cryosphere.jobs.infer import images_for, predict
    from napari_cryosphere.jobs.running.model_fit import check_fit

    spare_a_core()
    model = load_model(model_path)
    yield Progress(0.0, "looking whether the model fits these particles")
    fit = check_fit(model, stack, symmetry, model_path)
    yield fit
    if (fit.foreign and "model" not in accepted) or (
        fit.symmetry_differs and "symmetry" not in accepted
    ):
        return
    yield Progress(0.0, f"predicting {len(stack)} poses")
    for rows, on_device in predict(images_for(model, stack), model):
        distribution = on_device.cpu()
        message = f"predicted {rows.stop} of {len(stack)} poses"
        yield Predicted(rows, distribution, distribution.summary())
        yield Progress(rows.stop / len(stack), message)


def refinement_work(stack: ParticleStack, model_path: Path, reference: DensityMap | None) -> Events:
    """Predict and refine batch by batch; last comes the stack with refined poses.

    ``stack``, ``model_path``: the particles and the model. ``reference``: the map to refine
    against; None for that of the model's run, as far as it can be trusted. Raises `CryosphereError`
    if there is no such map.
    """
    yield Progress(0.0, "loading the model")
    from napari_cryosphere.jobs.infer import reference_of, refine
    from napari_cryosphere.particles import DensityMap

    spare_a_core()
    model, resolution = load_model(model_path), None
    if reference is None:
        own = reference_of(model_path)
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
