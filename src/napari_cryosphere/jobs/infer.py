"""The job ``infer``: particles and a model to predicted poses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.alignment.aligner import Alignment
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.jobs._notes import warnings_of
from napari_cryosphere.jobs._uncertainty import summary_metrics, uncertainty_columns
from napari_cryosphere.jobs.align import AlignerInput, prepare_aligner, with_alignment
from napari_cryosphere.jobs.configs import InferConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result
from napari_cryosphere.model.pose_model import PoseModel, choose_device
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.so3.distribution import PoseDistribution, PoseSummary
from napari_cryosphere.so3.distribution_store import write_distributions
from napari_cryosphere.so3.symmetry import angular_error_degrees

__all__ = ["images_for", "infer", "pose_errors", "predict", "with_predictions"]

_REFINED_WITHIN_DEGREES = 10.0


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
    return stack.with_poses(summary.rotations, symmetry=symmetry).with_columns(uncertainty_columns(summary))


def pose_errors(stack: ParticleStack, summary: PoseSummary, symmetry: str) -> np.ndarray:
    """Return the angle between known and predicted poses in degrees, ``(n,)``."""
    return angular_error_degrees(stack.rotations(), summary.rotations, symmetry)


def infer(config: InferConfig) -> Events:
    """Predict poses, refine them against a map if there is one, and write them as a STAR file."""
    refuse_overwrite(config.output, config.overwrite)
    if config.distributions is not None:
        refuse_overwrite(config.distributions, config.overwrite)
    model = PoseModel.load(config.model).to(choose_device(config.device))
    stack = ParticleStack.read(config.particles, config.data_dir)
    yield from warnings_of(stack, "phases are not flipped")
    symmetry = model.card.symmetry
    refinement = None
    if config.refine and config.map is not None:
        yield Progress(0.0, "measuring noise and contrast")
        refinement = _Refinement(stack, DensityMap.read(config.map), symmetry, config)
    parts, images = [], images_for(model, stack)
    with ExitStack() as outputs:
        writer = None
        if config.distributions is not None:
            writer = outputs.enter_context(
                write_distributions(config.distributions, overwrite=config.overwrite)
            )
        for rows, distribution in predict(images, model, config.batch_size):
            parts.append(distribution.summary())
            if writer is not None:
                writer.append(distribution)
            if refinement is not None:
                refinement.refine(rows, distribution)
            yield Progress(rows.stop / len(stack), f"predicted {rows.stop} of {len(stack)} particles")
    for warning in images.warnings:
        yield Note(warning, warning=True)
    summary = PoseSummary.concatenate(parts)
    done = with_predictions(stack, summary, symmetry)
    if refinement is not None:
        done, summary = refinement.applied_to(done), refinement.summary()
    done.save(config.output, config.overwrite)
    files = {"star": config.output}
    if config.distributions is not None:
        files["distributions"] = config.distributions
    yield Result(files, summary_metrics(stack, summary, symmetry))


class _Refinement:
    """The network's best modes, refined against a map; gathers what it finds batch by batch."""

    def __init__(self, stack: ParticleStack, density: DensityMap, symmetry: str, config: InferConfig) -> None:
        self._aligner = prepare_aligner(
            stack,
            density,
            symmetry,
            config.resolution_angstrom,
            config.shift_range_px,
            choose_device(config.device),
        )
        self._read = AlignerInput(stack)
        self._origins_px = -stack.shifts_angstrom() / stack.grid.pixel_size_angstrom
        self._modes = config.modes
        self._found: list[Alignment] = []

    def refine(self, rows: slice, distribution: PoseDistribution) -> None:
        """Refine a batch: each of its modes within the width of a network's peak."""
        images, ctf = self._read(rows)
        starts = distribution.mode(self._modes).rotations
        origins = self._origins_px[rows]
        self._found.append(self._aligner.refine(images, ctf, starts, origins, _REFINED_WITHIN_DEGREES))

    def summary(self) -> PoseSummary:
        """Return what is known of all refined poses."""
        return PoseSummary.concatenate([found.summary for found in self._found])

    def applied_to(self, predicted: ParticleStack) -> ParticleStack:
        """Return the particles with refined poses; the network's stay as ``cryosphereNetworkAngleRot``..."""
        kept = {
            f"cryosphereNetwork{name.removeprefix('rln')}": predicted.particles[name].to_numpy()
            for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
        }
        return with_alignment(
            predicted.with_columns(kept),
            np.concatenate([found.shifts_px for found in self._found]),
            np.concatenate([found.log_likelihood for found in self._found]),
            self.summary(),
            self._aligner.symmetry,
        )
