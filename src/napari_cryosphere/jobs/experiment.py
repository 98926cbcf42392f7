"""The job ``experiment``: CryoSphere's experiments, one folder each."""

from __future__ import annotations

import math
from collections.abc import Generator

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere._generators import converted
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.evaluation.equivariance import Predictor
from napari_cryosphere.evaluation.equivariance_report import EquivarianceTest, equivariance_report
from napari_cryosphere.evaluation.experiments import (
    Setting,
    labels_experiment,
    projections_experiment,
    train_one,
)
from napari_cryosphere.evaluation.learning import Learnt, untrained
from napari_cryosphere.evaluation.views import MapViews
from napari_cryosphere.jobs.configs.training import ExperimentConfig
from napari_cryosphere.jobs.equivariance import report_steps, volume_of, write_report
from napari_cryosphere.jobs.events import Event, Events, Note, Progress
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.model.pose_model import MODEL_FILE
from napari_cryosphere.particles import ImageGrid

__all__ = ["experiment"]

_QUICK_TEST = EquivarianceTest(pairs=8, images=4, angles=4)


@claims(folders=("output",))
def experiment(config: ExperimentConfig) -> Events:
    """Run one of CryoSphere's experiments and write its report; the same seed gives the same values."""
    refuse_overwrite(config.output / f"{config.name}.md", config.overwrite)
    setting = _setting(config)
    yield Note(f"volume: {setting.volume}")
    if config.name == "equivariance":
        yield from _equivariance(config, setting)
    elif config.name == "projections":
        steps = projections_experiment(setting, config.projections)
        report = yield from report_steps(
            steps, f"training on {', '.join(map(str, config.projections))}"
        )
        yield from write_report(report, config, config.output)
    else:
        report = yield from report_steps(
            labels_experiment(setting, _number(config)), "training on three labels"
        )
        yield from write_report(report, config, config.output)


def _setting(config: ExperimentConfig) -> Setting:
    density, volume = volume_of(config)
    box = config.preset.network.box
    field = config.field_angstrom or density.box * density.pixel_size_angstrom
    views = MapViews(
        density, ImageGrid(box, field / box), math.inf if config.snr is None else config.snr
    )
    return Setting(views, config.preset, config.test_views, config.symmetry, config.seed, volume)


def _number(config: ExperimentConfig) -> int:
    """Return how many projections the preset trains on."""
    if config.preset.projections is None:
        raise CryosphereError(
            "the preset does not say on how many projections to train; set preset.projections"
        )
    return config.preset.projections


def _equivariance(config: ExperimentConfig, setting: Setting) -> Events:
    """Train by the preset, then test: the model, an untrained one, and shuffled rotations."""
    number = _number(config)
    data = setting.training_views(number)
    learnt = yield from _training(
        train_one(setting, data, config.preset.labels or "one-hot"), number
    )
    model = learnt.model
    models: dict[str, Predictor] = {
        "trained": model,
        "untrained": untrained(model.card, config.seed),
    }
    test = _QUICK_TEST if config.quick else EquivarianceTest()
    steps = equivariance_report(
        models, setting.views, test, f"{setting.volume}, which the model was trained on"
    )
    report = yield from report_steps(steps, "turning volume and images")
    path = config.output / MODEL_FILE
    model.save(path, overwrite=config.overwrite)
    yield from write_report(report, config, config.output, {"model": path})


def _training(steps: Generator[float, None, Learnt], number: int) -> Generator[Event, None, Learnt]:
    text = f"training on {number} projections"
    return converted(steps, lambda fraction: Progress(0.9 * fraction, text))
