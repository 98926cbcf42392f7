"""Predicted poses refined locally, as in CESPED's Appendix F, and other ways to refined poses."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_cryosphere.evaluation.entries import HALVES, LocalEntry
from napari_cryosphere.evaluation.half_maps import FIGURE_OF_MERIT, posed_particles, run_relion
from napari_cryosphere.evaluation.matching import MatchedHalf, matched_halves
from napari_cryosphere.jobs.align import align
from napari_cryosphere.jobs.configs import AlignConfig
from napari_cryosphere.jobs.configs.evaluation import CespedConfig, EvaluateConfig
from napari_cryosphere.jobs.evaluate import Evaluation, evaluate_halves
from napari_cryosphere.jobs.events import Event, Progress
from napari_cryosphere.jobs.running.stages import ONE_HALF, Stages, result_of
from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = ["Refined", "refine_predictions"]

_RELION_SIGMAS = 3  # relion_refine looks within three times its sigma


@dataclass(frozen=True)
class Refined:
    """Refined poses, and other ways to them.

    ``evaluation``: poses and maps after `align --local`. ``settings``: how they were evaluated.
    ``others``: poses found by other programs or searches, by what they are called.
    """

    evaluation: Evaluation
    settings: EvaluateConfig
    others: dict[str, Evaluation] = field(default_factory=dict)


class _Refinement:
    """Each half refined against its own map, so that the halves stay apart."""

    def __init__(
        self,
        config: CespedConfig,
        entry: LocalEntry,
        mask: DensityMap | None,
        settings: EvaluateConfig,
    ) -> None:
        self.config, self.entry, self.mask = config, entry, mask
        self.folder = config.output / "refined"
        self.settings = settings.model_copy(update={"predicts": "SO3xR2", "output": self.folder})

    def references(self, found: Evaluation) -> tuple[list[Path], float]:
        """Write the half-maps to refine against and return them with the resolution that they share."""
        files = []
        for half in HALVES:
            density = found.maps[f"v_{half}"]
            if self.mask is not None:
                voxels = density.voxels * self.mask.voxels
                density = DensityMap(voxels, density.pixel_size_angstrom, density.symmetry)
            files.append(self.folder / f"reference_{half}.mrc")
            density.save(files[-1], overwrite=True)
        compared = found.masked or found.unmasked
        assert compared is not None  # there are maps
        return files, compared.predicted_halves.fscr_angstrom(0.143)

    def start(self, halves: Sequence[MatchedHalf]) -> list[Path]:
        """Write the predicted poses to begin with."""
        files = []
        for half, matched in enumerate(halves):
            files.append(self.folder / f"start_{half}.star")
            posed_particles(matched, self.config.predicts, weighted=False).save(
                files[-1], overwrite=True
            )
        return files

    def aligned(
        self, stars: Sequence[Path], maps: Sequence[Path], resolution: float, name: str, local: bool
    ) -> Generator[Event, None, list[Path]]:
        """Align both halves to their maps."""
        files = []
        for half, (star, reference) in enumerate(zip(stars, maps, strict=True)):
            settings = AlignConfig(
                particles=star,
                map=(reference,),
                output=self.folder / f"{name}_{half}.star",
                symmetry=self.entry.symmetry,
                local_degrees=self.config.local_degrees if local else None,
                resolution_angstrom=resolution,
                device=self.config.device,
                overwrite=True,
            )
            result = yield from result_of(align(settings), f"{name}, half {half}", ONE_HALF)
            files.append(result.outputs["star"])
        return files

    def by_relion(
        self, stars: Sequence[Path], maps: Sequence[Path], resolution: float
    ) -> Generator[Event, None, list[Path]]:
        """Refine both halves with relion_refine: one iteration of local search around the poses."""
        assert self.config.local_degrees is not None
        files = []
        for half, (star, reference) in enumerate(zip(stars, maps, strict=True)):
            yield Progress(half / len(HALVES), f"relion_refine, half {half}")
            grid = ParticleStack.read(star).grid
            sigma = self.config.local_degrees / _RELION_SIGMAS
            folder = self.folder / f"relion_{half}"
            folder.mkdir(exist_ok=True)
            options = f"""--i {star.name} --o {folder.name}/run --ref {reference.name} --firstiter_cc --iter 1
                --ini_high {resolution:.2f} --sym {self.entry.symmetry} --ctf --healpix_order 4
                --sigma_ang {sigma:g} --oversampling 1 --offset_range 3 --offset_step 1
                --particle_diameter {0.9 * grid.field_angstrom:.0f} --norm --scale --zero_mask
                --random_seed 1"""
            run_relion("relion_refine", options.split(), self.folder)
            files.append(folder / "run_it001_data.star")
        return files

    def evaluated(
        self,
        halves: Sequence[MatchedHalf],
        stars: Sequence[Path],
        truth_maps: Sequence[DensityMap] | None,
    ) -> Generator[Event, None, Evaluation]:
        """Compare refined poses with the truth; without ``truth_maps`` poses alone."""
        matched = list(_rematched(halves, stars, self.config.confidence))
        settings = self.settings.model_copy(update={"maps": truth_maps is not None})
        found = yield from evaluate_halves(matched, settings, self.mask, truth_maps)
        return found


def refine_predictions(
    found: Evaluation,
    config: CespedConfig,
    entry: LocalEntry,
    mask: DensityMap | None,
    settings: EvaluateConfig,
    stages: Stages,
) -> Generator[Event, None, Refined]:
    """Refine predicted poses in rounds of reconstruction and local alignment, and evaluate them.

    Shifts are found too, and evaluated with the rotations. Only the half-maps from predicted poses
    are used.
    """
    work = _Refinement(config, entry, mask, settings)
    truth_maps = [found.maps[f"gt_{half}"] for half in HALVES]
    start = work.start(found.halves)
    maps, resolution = work.references(found)
    stars, latest = start, found
    step = 0.05 / config.rounds
    for number in range(1, config.rounds + 1):
        where = 0.9 + step * (number - 1)
        if number > 1:
            maps, resolution = work.references(latest)
        aligning = work.aligned(stars, maps, resolution, f"local_{number}", local=True)
        stars = yield from stages.timed(f"refine_{number}", aligning, where, step * 0.6)
        evaluating = work.evaluated(found.halves, stars, truth_maps)
        latest = yield from stages.timed(
            f"evaluate_refined_{number}", evaluating, where + step * 0.6, step * 0.4
        )
    others = yield from _others(work, found, start, stages)
    return Refined(latest, work.settings, others)


def _others(
    work: _Refinement, found: Evaluation, start: Sequence[Path], stages: Stages
) -> Generator[Event, None, dict[str, Evaluation]]:
    """Search everywhere, and run relion_refine, on the first round's maps, where that was asked for."""
    maps, resolution = work.references(found)
    ways: list[tuple[str, str, Generator[Event, None, list[Path]]]] = []
    if work.config.compare_global:
        searching = work.aligned(start, maps, resolution, "global", local=False)
        ways.append(("global_search", "global search of the same maps", searching))
    if work.config.relion:
        refining = work.by_relion(start, maps, resolution)
        ways.append(("relion_refine", "relion_refine, one iteration on the same maps", refining))
    others = {}
    for name, label, way in ways:
        stars = yield from stages.timed(name, way, 0.95, 0.04)
        evaluation: Evaluation = yield from work.evaluated(found.halves, stars, None)
        others[label] = evaluation
    return others


def _rematched(
    halves: Sequence[MatchedHalf], stars: Sequence[Path], confidence: str
) -> Iterator[MatchedHalf]:
    """Yield the truth with other poses for it."""
    read = [ParticleStack.read(star, require_images=False) for star in stars]
    for matched in matched_halves([half.truth for half in halves], read):
        predicted = matched.predicted
        if confidence in predicted.particles:
            merit = predicted.particles[confidence].to_numpy(dtype=float)
            predicted = predicted.with_columns({FIGURE_OF_MERIT: merit})
        yield MatchedHalf(matched.truth, predicted)
