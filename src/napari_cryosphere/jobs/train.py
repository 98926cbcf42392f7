"""The job ``train``: a run folder with a model in it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.jobs._notes import warnings_of
from napari_cryosphere.jobs._writing import write_json
from napari_cryosphere.jobs.configs import TrainConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result
from napari_cryosphere.model.card import ModelCard
from napari_cryosphere.model.pose_model import MODEL_FILE, PoseModel, choose_device
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.training.events import TrainingProgress
from napari_cryosphere.training.loop import LoopSettings, ValidationSet, train_network
from napari_cryosphere.training.sources import (
    LoadedParticles,
    SimulatedProjections,
    TrainingSource,
)

__all__ = ["train", "train_on_stack"]

_MOST_VALIDATION = 500


def train(config: TrainConfig) -> Events:
    """Train on the particles that the config names."""
    refuse_overwrite(config.output / MODEL_FILE, config.overwrite)
    yield from train_on_stack(ParticleStack.read(config.particles, config.data_dir), config)


def train_on_stack(stack: ParticleStack, config: TrainConfig, report_seconds: float = 10.0) -> Events:
    """Train on particles in memory; ``config.particles`` is only recorded.

    The run folder gets ``config.json`` at the start, a line in ``log.jsonl`` for every report, and
    ``model.safetensors`` at the end; an earlier model there is replaced only then. Stopped early, the model
    learnt so far is written; it can be stopped at a report, of which there is one every ``report_seconds``.

    Raises
    ------
    MetadataError
        If the particles have no poses or are too few.
    """
    refuse_overwrite(config.output / MODEL_FILE, config.overwrite)
    chosen = _particles_to_train_on(stack, config)
    yield from warnings_of(chosen)
    grid = ImageGrid(config.network.box, chosen.grid.field_angstrom / config.network.box)
    yield Progress(0.0, f"preparing {len(chosen)} particles")
    particles = PreparedImages(chosen, Preprocessing(grid=grid))
    prepared = particles.load()
    for warning in particles.warnings:
        yield Note(warning, warning=True)
    training, held_out = _split(chosen, config)
    source = _source(chosen, prepared, training, grid, config)
    validation = ValidationSet(prepared[torch.from_numpy(held_out)], chosen.rotations()[held_out])

    torch.manual_seed(config.seed)
    card = ModelCard(
        network=config.network, pixel_size_angstrom=grid.pixel_size_angstrom, symmetry=config.symmetry
    )
    model = PoseModel.create(card).to(choose_device(config.device))
    write_json(config.model_dump(mode="json"), config.output / "config.json", overwrite=True)
    settings = LoopSettings(
        batch_size=min(config.batch_size, max(2, len(training))),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
        minutes=config.minutes,
        total_images=None if config.minutes else round(config.epochs * len(training)),
        report_seconds=report_seconds,
    )
    reports = train_network(model.network, source, validation, config.symmetry, settings)
    yield from _follow(reports, model, config, len(training))


def _particles_to_train_on(stack: ParticleStack, config: TrainConfig) -> ParticleStack:
    if not stack.has_poses:
        raise MetadataError(
            f"{stack.source} has no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) to train on; "
            "give particles from a refinement"
        )
    chosen = stack if config.half_set is None else stack[stack.half_sets() == config.half_set]
    if len(chosen) < 4:
        raise MetadataError(
            f"{stack.source}: {len(chosen)} particles are too few to train on; at least 4 are needed"
        )
    return chosen


def _split(stack: ParticleStack, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and, drawn at random, the rows held out for validation."""
    order = np.random.default_rng(config.seed).permutation(len(stack))
    number = int(
        np.clip(round(config.validation_fraction * len(stack)), 2, min(_MOST_VALIDATION, len(stack) - 2))
    )
    return np.sort(order[number:]), np.sort(order[:number])


def _source(
    stack: ParticleStack, prepared: torch.Tensor, rows: np.ndarray, grid: ImageGrid, config: TrainConfig
) -> TrainingSource:
    training = stack[rows]
    images = prepared[torch.from_numpy(rows)]
    if config.map is not None:
        return SimulatedProjections(DensityMap.read(config.map), training, images, grid)
    return LoadedParticles(images, training.rotations(), _label_weights(training))


def _label_weights(stack: ParticleStack) -> np.ndarray:
    """Return how much each pose is trusted: rlnMaxValueProbDistribution where present, else 1."""
    if "rlnMaxValueProbDistribution" not in stack.particles:
        return np.ones(len(stack))
    return stack.particles["rlnMaxValueProbDistribution"].to_numpy(dtype=np.float64).clip(1e-3, 1)


def _follow(
    reports: Generator[TrainingProgress, None, None], model: PoseModel, config: TrainConfig, particles: int
) -> Events:
    """Turn reports into events and log lines; write the model at the end, or when nobody listens any more."""
    start = time.monotonic()
    last: TrainingProgress | None = None
    log_path = config.output / "log.jsonl"
    with _open_log(log_path) as log:
        try:
            for report in reports:
                last = report
                log.write(json.dumps(dataclasses.asdict(report)) + "\n")
                log.flush()
                yield _progress(report)
        finally:
            reports.close()
            if last is not None:
                trained = PoseModel(model.network, _with_summary(model.card, last, config, particles, start))
                trained.save(config.output / MODEL_FILE, overwrite=True)
    if last is None:
        raise CryosphereError(
            "the training run ended before its first report; give it more time or particles"
        )
    metrics: dict[str, float | int | str] = {
        "images": last.images,
        "loss": last.loss,
        "seconds": time.monotonic() - start,
    }
    if last.validation_median_degrees is not None:
        metrics["validation_median_degrees"] = last.validation_median_degrees
    yield Result({"run": config.output, "model": config.output / MODEL_FILE, "log": log_path}, metrics)


def _open_log(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8")


def _progress(report: TrainingProgress) -> Progress:
    metrics = {"loss": report.loss, "images_per_second": report.images_per_second}
    message = f"loss {report.loss:.3f}, {report.images_per_second:.0f} images/s"
    if report.validation_median_degrees is not None:
        metrics["validation_median_degrees"] = report.validation_median_degrees
        message += f", validation error {report.validation_median_degrees:.1f} degrees (median)"
    return Progress(report.fraction, message, metrics, report.remaining_seconds)


def _with_summary(
    card: ModelCard, last: TrainingProgress, config: TrainConfig, particles: int, start: float
) -> ModelCard:
    summary = {
        "particles": str(config.particles.name),
        "number": particles,
        "map": None if config.map is None else config.map.name,
        "preset": config.preset,
        "images": last.images,
        "seconds": round(time.monotonic() - start, 1),
        "loss": last.loss,
        "validation_median_degrees": last.validation_median_degrees,
        "seed": config.seed,
    }
    return card.model_copy(update={"training": summary})
