"""The job ``equivariance``: a model's report, from outside."""

from __future__ import annotations

import math
from collections.abc import Generator
from pathlib import Path

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere._generators import converted
from napari_cryosphere.evaluation.equivariance import Predictor
from napari_cryosphere.evaluation.equivariance_report import EquivarianceTest, equivariance_report
from napari_cryosphere.evaluation.learning import untrained
from napari_cryosphere.evaluation.report import NO_PLOT, Report, can_plot
from napari_cryosphere.evaluation.views import MapViews
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import EquivarianceConfig, JobConfig, MapInput
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.jobs.running.compute import choose_device
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.references import open_map
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ImageGrid

__all__ = ["equivariance", "report_steps", "volume_of", "write_report"]


@claims(folders=("output",))
def equivariance(config: EquivarianceConfig) -> Events:
    """Compare a model with an untrained one of the same shape, and both with shuffled rotations."""
    refuse_overwrite(config.output / "equivariance.md", config.overwrite)
    model = PoseModel.load(config.model).to(choose_device(config.device))
    density, volume = volume_of(config)
    yield Note(f"volume: {volume}")
    grid = ImageGrid(model.card.network.box, model.card.pixel_size_angstrom)
    views = MapViews(density, grid, math.inf if config.snr is None else config.snr)
    blank = untrained(model.card, config.seed).to(choose_device(config.device))
    models: dict[str, Predictor] = {"model": model, "untrained": blank}
    test = EquivarianceTest(config.pairs, config.images, config.angles, config.order, config.seed)
    report = yield from report_steps(
        equivariance_report(models, views, test, volume), "turning volume and images"
    )
    yield from write_report(report, config, config.output)


def volume_of(config: MapInput) -> tuple[DensityMap, str]:
    """Return the map of a config and its name; without one, the package's phantom."""
    if config.map is None:
        return protein_phantom(), "the package's phantom"
    return open_map(config, config.map), config.map.name


def report_steps(
    steps: Generator[float, None, Report], message: str
) -> Generator[Event, None, Report]:
    """Run a benchmark, turning how far it is into progress, and return its report."""
    return converted(steps, lambda fraction: Progress(0.99 * fraction, message))


def write_report(
    report: Report, config: JobConfig, folder: Path, others: dict[str, Path] | None = None
) -> Events:
    """Write a report's files and end the job."""
    if not can_plot():
        yield Note(NO_PLOT, warning=True)
    files = report.save(folder, config.model_dump(mode="json"), overwrite=config.overwrite)
    yield Result(files | (others or {}), dict(report.values))
