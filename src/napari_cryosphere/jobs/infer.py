"""The job ``infer``: particles and a model to predicted poses."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from napari_cryosphere._files import refuse_beyond_room, refuse_overwrite
from napari_cryosphere.errors import ModelError
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.jobs.align import band_note, prepare_aligner
from napari_cryosphere.jobs.configs import InferConfig, PredictingConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.jobs.running.batches import Arrays, Batches, finished, joined, work_through
from napari_cryosphere.jobs.running.compute import choose_device
from napari_cryosphere.jobs.running.inputs import (
    described,
    digest_of_file,
    digest_of_table,
    open_particles,
    warnings_of,
)
from napari_cryosphere.jobs.running.journal import Journal
from napari_cryosphere.jobs.running.map_detail import MapDetail, detail_of_map, map_detail
from napari_cryosphere.jobs.running.memory import predicting_batch
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.predictor import Predictor, images_for, pilot_of
from napari_cryosphere.jobs.running.prefetch import prefetched
from napari_cryosphere.jobs.running.ranks import current_ranks
from napari_cryosphere.jobs.running.references import open_reference
from napari_cryosphere.jobs.running.uncertainty import summary_metrics
from napari_cryosphere.model.novelty import is_novel
from napari_cryosphere.model.pose_model import REFERENCE_MAP, PoseModel, model_file
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.distributions import HarmonicDistribution, PoseDistribution
from napari_cryosphere.so3.distributions.store import write_distributions
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.so3.symmetry import angular_error_degrees

__all__ = ["images_for", "infer", "infer_stack", "pose_errors", "predict", "reference_of", "refine"]

_NOVELTY_BLOCK = "cryosphere_novelty"
# Complex single precision in the journal, and half floats in zarr.
_COEFFICIENT_BYTES = 12.0
_REFINED_AT_ONCE = 64  # particles; chosen, not tuned


def predict(
    images: PreparedImages, model: PoseModel, batch_size: int = 128
) -> Iterator[tuple[slice, PoseDistribution]]:
    """Yield the pose distributions of consecutive particles, batch by batch, in constant memory."""
    blocks = Batches(len(images), batch_size).blocks()
    for rows, (prepared, ctf) in prefetched(images.with_ctf, blocks):
        yield rows, model.predict(prepared, ctf)


def infer_stack(
    stack: ParticleStack, model: PoseModel, batch_size: int = 128
) -> Generator[Event, None, PoseDistribution]:
    """Predict the distributions of particles and return them, in the computer's own memory."""
    yield from warnings_of(stack, "phases are not flipped")
    images, parts = images_for(model, stack), list[torch.Tensor]()
    for rows, distribution in predict(images, model, batch_size):
        assert isinstance(distribution, HarmonicDistribution)
        parts.append(distribution.coefficients.cpu())
        share = rows.stop / len(stack)
        yield Progress(share, f"predicted {rows.stop} of {len(stack)} particles")
    for warning in images.warnings:
        yield Note(warning, warning=True)
    return PoseDistribution.from_coefficients(torch.cat(parts), model.card.symmetry)


def refine(
    stack: ParticleStack,
    model: PoseModel,
    reference: DensityMap,
    resolution_angstrom: float | None = None,
) -> Generator[Progress, None, ParticleStack]:
    """Predict and refine the poses of particles in memory, as the job does by default.

    ``stack``, ``model``: the particles, and the network whose modes are refined. ``reference``,
    ``resolution_angstrom``: the map to refine against, and the finest detail compared; None for
    what stands out of its noise. Yields how far it is. The particles are returned with refined
    poses and shifts, and the network's.
    """
    settings = PredictingConfig(model=Path())
    aligner = prepare_aligner(
        stack,
        reference,
        model.card.symmetry,
        resolution_angstrom or detail_of_map(reference).resolution_angstrom,
        settings.shift_range_px,
        next(model.network.parameters()).device,
        pilot_of(model, stack, settings.modes),
    )
    predictor = Predictor(model, stack, aligner, settings.modes, settings.climbed)
    parts = list[Arrays]()
    for rows, inputs in prefetched(predictor.read, Batches(len(stack), _REFINED_AT_ONCE).blocks()):
        parts.append(predictor.work(rows, inputs))
        share = rows.stop / len(stack)
        yield Progress(share, f"refined {rows.stop} of {len(stack)} particles")
    return predictor.posed(joined(parts))[0]


def pose_errors(stack: ParticleStack, summary: PoseSummary, symmetry: str) -> np.ndarray:
    """Return the angle between known and predicted poses in degrees, ``(n,)``."""
    return angular_error_degrees(stack.rotations(), summary.rotations, symmetry)


@claims(files=("output",), stores=("distributions",))
def infer(config: InferConfig) -> Events:
    """Predict poses, refine them against a map if there is one, and write them as a STAR file.

    Under torchrun each rank predicts a share.
    """
    refuse_overwrite(config.output, config.overwrite)
    if config.distributions is not None:
        refuse_overwrite(config.distributions, config.overwrite)
    ranks = current_ranks()
    model = PoseModel.load(config.model).to(choose_device(config.device))
    stack = open_particles(config)
    yield from warnings_of(stack, "phases are not flipped")
    symmetry, aligner = model.card.symmetry, None
    if config.refine:
        yield Progress(0.0, "measuring noise and contrast")
        opened = open_reference(config, _reference(config), stack.grid)
        density = opened.density
        yield from opened.notes
        detail = _detail_of_reference(config, model, opened.whole)
        aligner = prepare_aligner(
            stack,
            density,
            symmetry,
            detail.resolution_angstrom,
            config.shift_range_px,
            choose_device(config.device),
            pilot_of(model, stack, config.modes),
        )
        yield Note(band_note(aligner, stack, detail))
    keep = config.distributions is not None
    if config.distributions is not None:
        degree = model.card.network.l_max
        each = _COEFFICIENT_BYTES * (degree + 1) ** 2 * (2 * degree + 1)
        refuse_beyond_room(config.distributions.parent, each * len(stack), "the distributions")
    predictor = Predictor(model, stack, aligner, config.modes, config.climbed, keep)
    size = predicting_batch(config, stack.box)
    batches = Batches.in_blocks(len(stack), size)
    journal = Journal(config.journal, _identity(config, stack, size), config.resume, ranks)
    yield from work_through(batches, ranks, journal, predictor.read, predictor.work, "predicted")
    for warning in predictor.warnings:
        yield Note(warning, warning=True)
    if not ranks.first:
        yield Result({}, {})
        return
    results = joined(finished(batches, journal, predictor.results))
    done, summary = predictor.posed(results)
    done, novel = _with_novelty_of_set(done, model, results.get("novelty"))
    files = {"star": config.output}
    if config.distributions is not None:
        files["distributions"] = config.distributions
        with write_distributions(config.distributions, overwrite=config.overwrite) as writer:
            for block in finished(batches, journal, ("coefficients",)):
                coefficients = torch.from_numpy(block["coefficients"])
                writer.append(PoseDistribution.from_coefficients(coefficients, symmetry))
    done.save(config.output, config.overwrite)
    journal.remove()
    yield from novel
    yield Result(files, summary_metrics(stack, summary, symmetry))


def _with_novelty_of_set(
    stack: ParticleStack, model: PoseModel, novelty: NDArray[np.float64] | None
) -> tuple[ParticleStack, list[Note]]:
    """Return predicted particles with a block on the novelty of the whole set, and a warning if it is novel.

    A set is novel where most of its particles, ``(n,)``, are suspect one by one.
    """
    if novelty is None or model.card.novelty is None:
        return stack.with_block(_NOVELTY_BLOCK, None), []
    suspect, expected = int((novelty > 1).sum()), model.card.novelty.false_alarm_rate
    values = {"cryosphereNovelShare": suspect / len(novelty), "cryosphereExpectedShare": expected}
    stack = stack.with_block(_NOVELTY_BLOCK, pd.DataFrame([values]))
    if not is_novel(novelty):
        return stack, []
    text = (
        f"{suspect} of {len(novelty)} particles are unlike those that the model was trained on "
        f"(cryosphereNovelty above 1, where {expected:.0%} are expected): the set as a whole is novel, "
        "and the network's poses and confidence are not to be trusted"
    )
    return stack, [Note(text, warning=True)]


def reference_of(model: Path) -> Path | None:
    """Return the map that a model's run left beside it; None if there is none."""
    own = model_file(model).with_name(REFERENCE_MAP)
    return own if own.is_file() else None


def _reference(config: InferConfig) -> Path:
    """Return the map to refine against: that given, or the run's. Raises `ModelError` without either."""
    found = config.map or reference_of(config.model)
    if found is None:
        raise ModelError(
            f"there is no {REFERENCE_MAP} beside the model {config.model}; give --map to refine"
        )
    return found


def _detail_of_reference(config: InferConfig, model: PoseModel, density: DensityMap) -> MapDetail:
    """Return how far the map can be trusted; of its own map a run remembers it."""
    reference, own = _reference(config), reference_of(config.model)
    known = model.card.map_resolution_angstrom
    same = own is not None and own.resolve() == reference.resolve()
    if known and not config.resolution_angstrom and same:
        return MapDetail(known, "where the half-maps of the run's map differ")
    return map_detail(reference, density, config.resolution_angstrom)


def _identity(config: InferConfig, stack: ParticleStack, batch_size: int) -> dict[str, Any]:
    """Return all that the results depend on."""
    return described(config) | {
        "number": len(stack),
        "batch_size": batch_size,
        "model": digest_of_file(model_file(config.model)),
        "map": digest_of_file(_reference(config)) if config.refine else None,
        "table": digest_of_table(stack),
    }
