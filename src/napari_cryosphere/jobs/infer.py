"""The job ``infer``: particles and a model to predicted poses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.imaging.inspection import inspect_images
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.jobs.configs import InferConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result
from napari_cryosphere.model.pose_model import PoseModel, choose_device
from napari_cryosphere.particles import ImageGrid, ParticleStack
from napari_cryosphere.so3.distribution import PoseDistribution, PoseSummary
from napari_cryosphere.so3.symmetry import angular_error_degrees

__all__ = ["images_for", "infer", "pose_errors", "predict", "with_predictions"]


def images_for(model: PoseModel, stack: ParticleStack) -> PreparedImages:
    """Return a stack's images as a model takes them."""
    grid = ImageGrid(model.card.network.box, model.card.pixel_size_angstrom)
    return PreparedImages(stack, Preprocessing(grid=grid))


def predict(
    images: PreparedImages, model: PoseModel, batch_size: int = 128
) -> Iterator[tuple[slice, PoseDistribution]]:
    """Yield the pose distributions of consecutive particles, batch by batch, in constant memory."""
    for start in range(0, len(images), batch_size):
        rows = slice(start, min(start + batch_size, len(images)))
        yield rows, model.predict(images[rows])


def with_predictions(stack: ParticleStack, summary: PoseSummary, symmetry: str) -> ParticleStack:
    """Return the particles with predicted poses and their uncertainty; every other column is kept.

    Poses are written inside RELION's asymmetric unit of the point group.
    Poses that the input had are kept as ``cryosphereInputAngleRot`` and so on; its origins stay, since the
    network predicts no shifts.
    """
    return stack.with_poses(summary.rotations, symmetry=symmetry).with_columns(
        {
            "rlnMaxValueProbDistribution": summary.max_probability,
            "cryosphereEntropy": summary.entropy,
            "cryosphereSpread": summary.spread_degrees,
            "cryosphereConfidence": summary.confidence,
        }
    )


def pose_errors(stack: ParticleStack, summary: PoseSummary, symmetry: str) -> np.ndarray:
    """Return the angle between known and predicted poses in degrees, ``(n,)``."""
    return angular_error_degrees(stack.rotations(), summary.rotations, symmetry)


def infer(config: InferConfig) -> Events:
    """Predict poses and write them as a STAR file."""
    refuse_overwrite(config.output, config.overwrite)
    model = PoseModel.load(config.model).to(choose_device(config.device))
    stack = ParticleStack.read(config.particles, config.data_dir)
    for warning in (*stack.warnings, *inspect_images(stack).warnings):
        yield Note(warning, warning=True)
    if not stack.has_ctf:
        yield Note("the particles have no CTF columns: phases are not flipped", warning=True)
    parts, images = [], images_for(model, stack)
    for rows, distribution in predict(images, model, config.batch_size):
        parts.append(distribution.summary())
        yield Progress(rows.stop / len(stack), f"predicted {rows.stop} of {len(stack)} particles")
    for warning in images.warnings:
        yield Note(warning, warning=True)
    summary = PoseSummary.concatenate(parts)
    with_predictions(stack, summary, model.card.symmetry).save(config.output, config.overwrite)
    metrics: dict[str, float | int | str] = {
        "particles": len(stack),
        "median_spread_degrees": float(np.median(summary.spread_degrees)),
        "median_confidence": float(np.median(summary.confidence)),
    }
    if stack.has_poses:
        errors = pose_errors(stack, summary, model.card.symmetry)
        metrics["median_angle_to_input_poses_degrees"] = float(np.median(errors))
        metrics["fraction_beyond_30_degrees"] = float(np.mean(errors > 30))
    yield Result({"star": config.output}, metrics)
