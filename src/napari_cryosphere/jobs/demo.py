"""The job ``demo``: simulate, predict, reconstruct, compare. Everything is computed, nothing is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_cryosphere._files import write_json
from napari_cryosphere.jobs.configs import DemoConfig, ReconstructConfig
from napari_cryosphere.jobs.events import Events, Note, Progress, Result
from napari_cryosphere.jobs.infer import pose_errors
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.running.batches import Arrays, Batches, joined
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.predictor import Predictor
from napari_cryosphere.jobs.running.prefetch import prefetched
from napari_cryosphere.jobs.sample import make_sample, sample_model
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import compare_maps, soft_mask, write_fsc_csv

__all__ = ["demo"]

_BATCH = 128  # particles; chosen, not tuned


@claims(folders=("output",))
def demo(config: DemoConfig) -> Events:
    """Run the whole way from a map made of code to a map made of predicted poses.

    Writes truth.mrc, particles.star/.mrcs, predicted.star, predicted_map.mrc with half-maps and
    their FSC, mask.mrc, fsc_to_truth.csv and metrics.json; an earlier demo in the same folder is
    replaced.
    """
    folder = config.output
    yield from _without_result(make_sample(folder, config.number, config.snr))
    stack = ParticleStack.read(folder / "particles.star")
    model = sample_model()
    predictor, parts = Predictor(model, stack), list[Arrays]()
    for rows, inputs in prefetched(predictor.read, Batches(len(stack), _BATCH).blocks()):
        parts.append(predictor.work(rows, inputs))
        yield Progress(
            0.2 + 0.4 * rows.stop / len(stack), f"predicted {rows.stop} of {len(stack)} poses"
        )
    done, summary = predictor.posed(joined(parts))
    predicted = folder / "predicted.star"
    done.save(predicted, overwrite=True)
    errors = pose_errors(stack, summary, model.card.symmetry)
    yield Note(f"median pose error against the known poses: {np.median(errors):.1f} degrees")

    truth = DensityMap.read(folder / "truth.mrc")
    mask = DensityMap(soft_mask(truth.voxels, truth.pixel_size_angstrom), truth.pixel_size_angstrom)
    mask.save(folder / "mask.mrc", overwrite=True)
    output = folder / "predicted_map.mrc"
    reconstruction = ReconstructConfig(
        particles=predicted, output=output, half_maps=True, mask=folder / "mask.mrc", overwrite=True
    )
    maps: dict[str, Path] = {}
    metrics: dict[str, float | int | str] = {}
    for event in reconstruct(reconstruction):
        if isinstance(event, Result):
            maps, metrics = event.outputs, event.metrics
        elif isinstance(event, Progress):
            yield Progress(0.6 + 0.35 * event.fraction, event.message)
    compared = compare_maps(DensityMap.read(output), truth, mask)
    write_fsc_csv({"fsc": compared.curve}, folder / "fsc_to_truth.csv", overwrite=True)
    metrics = {
        "particles": len(stack),
        "median_pose_error_degrees": float(np.median(errors)),
        "fraction_beyond_30_degrees": float(np.mean(errors > 30)),
        "half_map_resolution_0143_angstrom": metrics["half_map_resolution_0143_angstrom"],
        "resolution_to_truth_05_angstrom": compared.curve.resolution_angstrom(0.5),
        "masked_correlation_to_truth": compared.correlation,
    }
    write_json(metrics, folder / "metrics.json", overwrite=True)
    yield Progress(1.0, "done")
    outputs = {
        "truth": folder / "truth.mrc",
        "particles": folder / "particles.star",
        "predicted": predicted,
        "map": output,
        "half1": maps["half1"],
        "half2": maps["half2"],
        "half_map_fsc": maps["fsc"],
        "fsc_to_truth": folder / "fsc_to_truth.csv",
        "mask": folder / "mask.mrc",
        "metrics": folder / "metrics.json",
    }
    yield Result(outputs, metrics)


def _without_result(events: Events) -> Events:
    """Pass on what a part of the demo says, scaled to the first fifth, without its result."""
    for event in events:
        if isinstance(event, Progress):
            yield Progress(0.2 * event.fraction, event.message)
        elif isinstance(event, Note):
            yield event
