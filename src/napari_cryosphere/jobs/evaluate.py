"""The job ``evaluate``: predicted poses against true ones, by CESPED's metrics."""

from __future__ import annotations

import csv
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path, refuse_overwrite, write_json
from napari_cryosphere._generators import converted
from napari_cryosphere.errors import MetadataError, MissingImagesError
from napari_cryosphere.evaluation import half_maps, metrics, report
from napari_cryosphere.evaluation.matching import MatchedHalf, matched_halves
from napari_cryosphere.jobs.configs.evaluation import EvaluateConfig, EvaluatingConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.references import open_mask
from napari_cryosphere.particles import ANGLES, DensityMap, ParticleStack
from napari_cryosphere.reconstruction import write_fsc_csv

__all__ = ["Evaluation", "evaluate", "evaluate_halves", "evaluation_outputs", "write_evaluation"]

_WEIGHT = "rlnMaxValueProbDistribution"
_MAPS = ("gt_0", "gt_1", "gt", "v_0", "v_1", "v")
_PAIRS = {"gt0_gt1": "truth_halves", "v0_v1": "predicted_halves", "gt_v": "truth_predicted"}


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    - ``halves``: the particles of each half.
    - ``errors``: the pose errors of each half.
    - ``maps``: half-maps and their means by name: gt_0, gt_1, gt from true poses, v_0, v_1, v from
      predicted ones.
    - ``masked``, ``unmasked``: the maps' comparisons; None without maps, ``masked`` also without a
      mask.
    """

    halves: Sequence[MatchedHalf]
    errors: Sequence[metrics.PoseErrors]
    maps: dict[str, DensityMap] = field(default_factory=dict)
    masked: metrics.GoldStandard | None = None
    unmasked: metrics.GoldStandard | None = None

    @property
    def angles_degrees(self) -> NDArray[np.float64]:
        """The angular errors of all particles."""
        return np.concatenate([errors.angles_degrees for errors in self.errors])

    def values(self) -> dict[str, Any]:
        """Return the metrics by name; those of maps inside the mask if there is one."""
        angles = self.angles_degrees
        chosen = self.masked or self.unmasked
        return {
            "particles": sum(map(_different_images, self.halves)),
            **({"rows": len(angles)} if any(map(_copies, self.halves)) else {}),
            **_pose_metrics(self.errors),
            "median_error_degrees": float(np.median(angles)),
            "fraction_beyond_30_degrees": float(np.mean(angles > 30)),
            **({} if chosen is None else chosen.values()),
        }

    def content(self) -> dict[str, Any]:
        """Return all that metrics.json says of poses and maps."""
        halves = [
            {"particles": _different_images(half)} | _pose_metrics([errors])
            for half, errors in zip(self.halves, self.errors, strict=True)
        ]
        metrics = self.values() | {"halves": halves}
        if self.masked is not None and self.unmasked is not None:
            metrics["unmasked"] = self.unmasked.values()
        return metrics


def _different_images(half: MatchedHalf) -> int:
    """Return the number of particles of a half: those of several rows, symmetry-expanded, once."""
    return len(np.unique(half.truth.image_names().astype(str)))


def _copies(half: MatchedHalf) -> int:
    return len(half.truth) - _different_images(half)


def _pose_metrics(errors: Sequence[metrics.PoseErrors]) -> dict[str, float | None]:
    return {
        "mane_degrees": metrics.mean_angular_error_degrees(errors),
        "wmane_degrees": metrics.weighted_mean_angular_error_degrees(errors),
        "shift_rmse_angstrom": metrics.shift_rmse_angstrom(errors),
    }


def evaluation_outputs(folder: Path, maps: bool, masked: bool) -> dict[str, Path]:
    """Return what an evaluation writes, by role."""
    files = {"metrics": folder / "metrics.json", "errors": folder / "errors.csv"}
    if report.can_plot():
        files["plot"] = folder / "plot.svg"
    if maps:
        files |= {name: folder / f"{name}.mrc" for name in _MAPS} | {"fsc": folder / "fsc.csv"}
    if maps and masked:
        files["fsc_unmasked"] = folder / "fsc_unmasked.csv"
    return files


@claims(folders=("output",))
def evaluate(config: EvaluateConfig) -> Events:
    """Compare predictions with the truth and write what was found.

    Raises `MetadataError` if a column is missing, only some particles have several rows, or the two
    sides do not have the same particles.
    """
    for path in evaluation_outputs(config.output, True, True).values():
        refuse_overwrite(path, config.overwrite)
    truth, lacking = _read_truth(config)
    predicted = [ParticleStack.read(path, require_images=False) for path in config.predicted]
    halves = matched_halves(truth, predicted)
    if config.select is not None:
        halves = [_selected(half, config.select) for half in halves]
    if lacking is not None:
        yield Note(f"maps are not compared: {lacking}", warning=True)
        config = config.model_copy(update={"maps": False})
    mask = None
    if config.mask is not None and config.maps is not False:
        opened = open_mask(config.mask, truth[0].grid, f"{config.truth[0]}")
        yield from opened.notes
        mask = opened.density
    found = yield from evaluate_halves(halves, config, mask)
    if not report.can_plot():
        yield Note(report.NO_PLOT, warning=True)
    outputs = write_evaluation(found, config, config.output)
    metrics_shown = {name: value for name, value in found.values().items() if value is not None}
    yield Result(outputs, metrics_shown)


def _selected(half: MatchedHalf, expression: str) -> MatchedHalf:
    rows = half.predicted.rows_where(expression)
    return MatchedHalf(half.truth[rows], half.predicted[rows])


def _read_truth(config: EvaluateConfig) -> tuple[list[ParticleStack], MissingImagesError | None]:
    """Read the true poses, with their images if maps are wanted; returns also which images are not there."""
    lacking = None
    stacks = []
    for path in config.truth:
        if config.maps is not False and lacking is None:
            try:
                stack = ParticleStack.read(path, config.data_dir)
                stacks.append(stack.inverted() if config.invert else stack)
                continue
            except MissingImagesError as error:
                if config.maps:
                    raise
                lacking = error
        stacks.append(ParticleStack.read(path, config.data_dir, require_images=False))
    return stacks, lacking


def evaluate_halves(
    halves: Sequence[MatchedHalf],
    config: EvaluatingConfig,
    mask: DensityMap | None,
    truth_maps: Sequence[DensityMap] | None = None,
) -> Generator[Event, None, Evaluation]:
    """Compare matched particles.

    ``halves``: truth and predictions of each half. ``mask``: on the images' grid. ``truth_maps``:
    the half-maps from true poses, where they have been reconstructed before. Raises `MetadataError`
    if the mask is not on the images' grid, or maps are wanted and a column lacks.
    """
    errors = [_errors_of(half, config.symmetry) for half in halves]
    yield from _said_of(halves, errors)
    wanted = yield from _maps_wanted(halves, config)
    if not wanted:
        yield Progress(1.0, f"compared {sum(len(half.truth) for half in halves)} poses")
        return Evaluation(halves, errors)
    if mask is not None and mask.box != halves[0].truth.box:
        raise MetadataError(
            f"the mask has a box of {mask.box}, the images one of {halves[0].truth.box}"
        )
    truth = [half.truth for half in halves]
    posed = [half_maps.posed_particles(half, config.predicts, config.weighted) for half in halves]
    if truth_maps is None:
        truth_maps = yield from _half_maps(truth, config, 0.0, 0.5, "true")
    maps = yield from _half_maps(posed, config, 0.5, 0.95, "predicted")
    named = dict(zip(_MAPS[:3], (*truth_maps, metrics.mean_map(truth_maps)), strict=True))
    named |= dict(zip(_MAPS[3:], (*maps, metrics.mean_map(maps)), strict=True))
    unmasked = metrics.gold_standard(truth_maps, maps)
    masked = None if mask is None else metrics.gold_standard(truth_maps, maps, mask)
    yield Progress(1.0, "compared poses and maps")
    return Evaluation(halves, errors, named, masked, unmasked)


def _errors_of(half: MatchedHalf, symmetry: str) -> metrics.PoseErrors:
    for side, stack in (("truth", half.truth), ("prediction", half.predicted)):
        if not stack.has_poses:
            lacking = [name for name in ANGLES if name not in stack.particles]
            raise MetadataError(f"{stack.source}, the {side}, has no column {', '.join(lacking)}")
    weights = half.truth.particles.get(_WEIGHT)
    both = half.truth.has_shifts and half.predicted.has_shifts
    return metrics.pose_errors(
        half.truth.rotations(),
        half.predicted.rotations(),
        symmetry,
        half.truth.shifts_angstrom() if both else None,
        half.predicted.shifts_angstrom() if both else None,
        weights,
    )


def _said_of(
    halves: Sequence[MatchedHalf], errors: Sequence[metrics.PoseErrors]
) -> Generator[Event, None, None]:
    """Say which metrics there cannot be."""
    sources = " and ".join(dict.fromkeys(str(half.truth.source) for half in halves))
    if any(one.weights is None for one in errors):
        yield Note(f"{sources}: no column {_WEIGHT}, so there is no wMAnE", warning=True)
    elif metrics.weighted_mean_angular_error_degrees(errors) is None:
        yield Note(f"{sources}: {_WEIGHT} is 0 throughout, so there is no wMAnE", warning=True)
    repeated = sum(map(_copies, halves))
    if repeated:
        total = sum(len(half.truth) for half in halves)
        yield Note(
            f"{sources}: {total} rows of {total - repeated} particles (symmetry-expanded); errors are "
            "of rows, and rows of one particle are not independent",
            warning=True,
        )
    for half in halves:
        for stack in (half.truth, half.predicted):
            if not stack.has_shifts:
                yield Note(
                    f"{stack.source}: no origins, so there is no error of shifts", warning=True
                )


def _maps_wanted(
    halves: Sequence[MatchedHalf], config: EvaluatingConfig
) -> Generator[Event, None, bool]:
    """Return whether maps are to be compared, and say why not if that was not asked for."""
    if config.maps is False:
        return False
    if len(halves) < 2:
        text = f"all particles of {halves[0].truth.source} are in one half: there are no half-maps to compare"
        if config.maps:
            raise MetadataError(text)
        yield Note(text, warning=True)
        return False
    return True


def _half_maps(
    stacks: Sequence[ParticleStack], config: EvaluatingConfig, start: float, stop: float, kind: str
) -> Generator[Event, None, list[DensityMap]]:
    """Reconstruct the halves, one after the other."""
    total, before, maps = sum(map(len, stacks)), 0, []
    for stack in stacks:

        def progress(done: int, before: int = before) -> Progress:
            text = f"{kind} poses: inserted {before + done} of {total} particles"
            return Progress(start + (stop - start) * (before + done) / total, text)

        yield progress(0)
        if config.relion:
            maps.append(half_maps.reconstructed_by_relion(stack, config.symmetry, config.weighted))
        else:
            inserting = half_maps.reconstructed(stack, config.symmetry, config.weighted)
            maps.append((yield from converted(inserting, progress)))
        before += len(stack)
    return maps


def write_evaluation(found: Evaluation, config: EvaluateConfig, folder: Path) -> dict[str, Path]:
    """Write an evaluation's files; metrics.json comes last."""
    outputs = evaluation_outputs(folder, bool(found.maps), found.masked is not None)
    for name, density in found.maps.items():
        density.save(outputs[name], config.overwrite)
    chosen = found.masked or found.unmasked
    if chosen is not None:
        _write_curves(chosen, outputs["fsc"], config.overwrite)
    if found.masked is not None and found.unmasked is not None:
        _write_curves(found.unmasked, outputs["fsc_unmasked"], config.overwrite)
    _write_errors(found, outputs["errors"], config.overwrite)
    if "plot" in outputs:
        report.draw_panels(_panels(found), outputs["plot"], overwrite=config.overwrite)
    made_with = "relion_reconstruct" if config.relion else "napari-cryosphere"
    about = {
        "truth": [str(path) for path in config.truth],
        "predicted": [str(path) for path in config.predicted],
        "symmetry": config.symmetry,
        "mask": None if config.mask is None else str(config.mask),
        "reconstruction": made_with if found.maps else None,
        "predicts": config.predicts,
        "weighted": config.weighted,
    }
    write_json(about | found.content(), outputs["metrics"], overwrite=config.overwrite)
    return outputs


def _write_curves(compared: metrics.GoldStandard, path: Path, overwrite: bool) -> None:
    curves = {name: getattr(compared, attribute).curve for name, attribute in _PAIRS.items()}
    write_fsc_csv(curves, path, overwrite=overwrite)


def _write_errors(found: Evaluation, path: Path, overwrite: bool) -> None:
    """Write the error of every particle."""
    with (
        atomic_path(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["half", "rlnImageName", "error_degrees", "shift_error_angstrom", "weight"])
        for half, (matched, errors) in enumerate(zip(found.halves, found.errors, strict=True)):
            names = matched.truth.image_names()
            for row, (name, angle) in enumerate(zip(names, errors.angles_degrees, strict=True)):
                shift = (
                    "" if errors.shifts_angstrom is None else f"{errors.shifts_angstrom[row]:.4f}"
                )
                weight = "" if errors.weights is None else f"{errors.weights[row]:.6g}"
                writer.writerow([half, name, f"{angle:.4f}", shift, weight])


def _panels(found: Evaluation) -> list[report.Panel]:
    edges = np.linspace(0, 180, 37)
    middles = tuple((edges[1:] + edges[:-1]) / 2)
    errors = []
    for half, one in enumerate(found.errors):
        share = 100 * np.histogram(one.angles_degrees, edges)[0] / max(1, len(one.angles_degrees))
        errors.append(report.Series(f"half {half}", middles, tuple(share)))
    panels = [report.Panel("degrees", "particles, %", tuple(errors), title="Angular error")]
    chosen = found.masked or found.unmasked
    if chosen is None:
        return panels
    labels = {"gt0_gt1": "GT0, GT1", "v0_v1": "V0, V1", "gt_v": "GT, V"}
    curves = []
    for name, attribute in _PAIRS.items():
        curve = getattr(chosen, attribute).curve
        curves.append(
            report.Series(labels[name], tuple(curve.frequencies[1:]), tuple(curve.values[1:]))
        )
    places = tuple(part * curves[0].x[-1] for part in (0.2, 0.4, 0.6, 0.8, 1.0))
    fsc = report.Panel(
        "Å",
        "FSC",
        tuple(curves),
        ticks=tuple(f"{1 / place:.3g}" for place in places),
        tick_places=places,
        title="FSC inside the mask" if found.masked else "FSC, no mask",
        levels=(0.143, 0.5),
        y_range=(-0.1, 1.0),
    )
    return [*panels, fsc]
