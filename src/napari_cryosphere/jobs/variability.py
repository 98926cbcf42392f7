"""The job ``variability``: how particles at known poses differ, and where each is along that.

Each half of the particles finds its own mean and principal components. What the halves share counts, and the
coordinates of a particle are those along the components of the half that it is not in: its own noise is in
neither, so that a scatter of particles that do not differ is no scatter.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import write_json
from napari_cryosphere._generators import converted
from napari_cryosphere.alignment.coordinates import Evidence, Population
from napari_cryosphere.alignment.variability import Nuisances, Residuals
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.map_mask import map_radius_px, particle_mask
from napari_cryosphere.jobs._coarse_images import CoarseImages, coarse_grid
from napari_cryosphere.jobs._components import HalfMaps, Judged, judged, matched, principal
from napari_cryosphere.jobs._refinement import RESOLVED, reference_of
from napari_cryosphere.jobs.configs import VariabilityConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.jobs.running.batches import Arrays, Batches, finished, joined, work_through
from napari_cryosphere.jobs.running.halves import Halves, Reconstruction, refuse_empty_half
from napari_cryosphere.jobs.running.inputs import (
    described,
    digest_of_table,
    open_particles,
    warnings_of,
)
from napari_cryosphere.jobs.running.journal import Journal
from napari_cryosphere.jobs.running.memory import MemoryLimit
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.ranks import Ranks, current_ranks
from napari_cryosphere.jobs.running.references import open_mask, solvent_mask
from napari_cryosphere.jobs.running.run_folder import (
    UNFINISHED,
    clear_unfinished,
    refuse_ended,
    remove_stale,
)
from napari_cryosphere.particles import DensityMap, ParticleStack, spread_rows
from napari_cryosphere.reconstruction import WeightedPoses
from napari_cryosphere.reconstruction.slice_sums import SliceSums

__all__ = ["variability", "variability_outputs"]

_SHELLS = 16  # compared at most where no resolution is given: a box of 38 voxels
_FEWEST_SHELLS = 4  # to which half-maps have to agree; chosen, not tuned
_FEWEST = 50  # particles of a half; chosen, not tuned
_MOST = 10_000
"""Particles of a half from which components are found: with 16 shells 5 kB each, and 100 MB in all."""
_NOISE_ROUNDS = 2
"""Times that the noise is measured under the other half's components: what these miss counts as noise.
Chosen, not tuned.
"""
_ROUNDS = 25  # of expectation maximisation; chosen, not tuned
_CONTRAST = 0.3
"""Standard deviation of an image's contrast about 1: more than those of real sets (0.1 to 0.2)."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the coordinates along a component: where volumes are written."""
_IMAGE_BYTES = 12.0  # of a frequency of an image: its value and its filter
_WORK_BYTES = 0.3e9  # of slices and images that are worked on at once


def variability_outputs(config: VariabilityConfig, found: int = 0) -> dict[str, Path]:
    """Return what a run that finds so many components writes, by role."""
    names = {
        "particles": "particles.star",
        "mean": "mean.mrc",
        "mask": "mask.mrc",
        "variability": "variability.json",
        "config": "config.json",
    }
    for number in range(1, found + 1):
        names[f"component_{number}"] = f"component_{number}.mrc"
        for quantile in _QUANTILES:
            role = f"component_{number}_at_{100 * quantile:02.0f}"
            names[role] = f"component_{number}_volumes/at_{100 * quantile:02.0f}_percent.mrc"
    return {role: config.output / name for role, name in names.items()}


@claims(folders=("output",))
def variability(config: VariabilityConfig) -> Events:
    """Find how particles at known poses differ and write the folder.

    Raises
    ------
    MetadataError
        If there are no poses, too few particles, or the halves' maps at these poses have nothing in common.
    """
    refuse_ended(
        config.output,
        variability_outputs(config)["particles"],
        resume=config.resume,
        overwrite=config.overwrite,
    )
    if not current_ranks().first:  # one process does the work
        yield Result({}, {})
        return
    stack = open_particles(config)
    if not stack.has_poses:
        raise MetadataError(
            f"{stack.source} has no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) at which particles could "
            "be compared; find them first, with align or refine"
        )
    stack = stack.with_half_sets()
    refuse_empty_half(stack)
    fewest = min(int((stack.half_sets() == half).sum()) for half in (1, 2))
    if fewest < _FEWEST:
        raise MetadataError(
            f"{stack.source}: {fewest} particles are in one half; variability takes {_FEWEST} in each, and "
            "rather thousands"
        )
    yield from warnings_of(stack, "they are compared as they are")
    mask = None
    if isinstance(config.mask, Path):
        opened = open_mask(config.mask, stack.grid, "the particles")
        yield from opened.notes
        mask = opened.density
    work = _Variability(config, stack, mask)
    yield from work.prepare()
    yield from work.find()
    each = yield from work.judge()
    real = [one.real for one in each]
    number = real.index(False) if False in real else len(real)
    yield _verdict(each, number, work)
    table = stack
    if number:
        table = yield from work.placed(stack, number)
    outputs, metrics = work.write(table, each, number)
    remove_stale(config.output, ["component_*.mrc", "component_*/*.mrc"], outputs.values())
    clear_unfinished(config.output)
    yield Result(outputs, metrics)


def _verdict(each: list[Judged], number: int, work: _Variability) -> Note:
    """Say how many components are real."""
    seen = f"to {work.resolution_angstrom:.1f} A"
    if not number:
        best = each[0]
        return Note(
            f"no variability found {seen}: what the halves of the particles find agrees no better than "
            f"chance (best component: correlation {best.correlation:.2f}, gain {best.gain_nats:.1f} nats)"
        )
    parts = "; ".join(
        f"{place}: correlation of the halves {one.correlation:.2f}, gain {one.gain_nats:.0f} nats"
        for place, one in enumerate(each[:number], start=1)
    )
    more = "" if number < len(each) else " (all that were sought; there may be more: --components)"
    return Note(
        f"{number} of {len(each)} components are found by both halves {seen}{more}: {parts}"
    )


@dataclass(frozen=True)
class _Placed:
    """How coordinates of a half's particles are found: along the other half's components.

    Attributes
    ----------
    other
        What the other half found.
    population
        Of this half's coordinates along these.
    """

    other: HalfMaps
    population: Population

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Standard deviations of the population along each component."""
        return np.sqrt(self.population.covariance.diagonal())


class _Variability:
    """The steps of the job, and what each finds.

    Parameters
    ----------
    config
        Settings and folder.
    stack
        Particles with poses and half sets.
    mask
        Where particles may differ, on their grid; None makes one or uses none, as the config says.
    """

    def __init__(
        self, config: VariabilityConfig, stack: ParticleStack, mask: DensityMap | None
    ) -> None:
        self._config, self._stack, self._given = config, stack, mask
        halves = stack.half_sets()
        self._rows = [np.flatnonzero(halves == half) for half in (1, 2)]
        settings: dict[str, Any] = described(config) | {"table": digest_of_table(stack)}
        self._components, self._coordinates = (
            Journal(config.output / UNFINISHED / name, settings, config.resume)
            for name in ("components", "coordinates")
        )
        self._limit = MemoryLimit(config.max_memory_gb)
        self._halves: tuple[HalfMaps, HalfMaps] | None = None

    def prepare(self) -> Generator[Event, None, None]:
        """Make the halves' maps and the mask, choose the resolution, and measure the noise."""
        config, field = self._config, self._stack.grid.field_angstrom
        shells = _SHELLS
        if config.resolution_angstrom is not None:
            shells = int(field / config.resolution_angstrom + 1e-6)
            if shells < _FEWEST_SHELLS:
                raise MetadataError(
                    f"--resolution {config.resolution_angstrom:g} leaves {shells} shells of images "
                    f"{field:g} A wide; give {field / _FEWEST_SHELLS:.0f} A or finer"
                )
        shells = min(shells, self._stack.box // 2 - 2)
        yield Progress(0.0, "making the halves' maps")
        stack = self._stack.on_grid(coarse_grid(self._stack.grid, shells))
        made = yield from _reconstructed(stack, config.symmetry)
        assert made.curve is not None
        agreed = field / made.curve.resolution_angstrom(RESOLVED)
        if agreed < _FEWEST_SHELLS:
            raise MetadataError(
                f"{self._stack.source}: the half-maps at these poses agree to {field / max(agreed, 1):.0f} A "
                "only: nothing can be compared at them; refine the poses first"
            )
        if config.resolution_angstrom is None:
            shells = min(shells, int(agreed + 1e-6))
        self.halves_resolution_angstrom = field / agreed
        self.mask = self._solvent(made.density)
        whole = reference_of(made.density, self.mask, made.curve)
        yield Progress(0.02, "measuring noise and contrast")
        self._images = CoarseImages(
            self._stack, whole, shells, config.symmetry, None, config.batch_size
        )
        self.resolution_angstrom = field / self._images.max_shell
        self._references = [reference_of(one, self.mask, made.curve) for one in made.halves]
        radius_px = max(1.0, float(map_radius_px(self._images.voxels(whole).numpy())))
        error = config.pose_error_degrees
        self._nuisances = Nuisances(
            max(_CONTRAST, self._images.contrast_spread),
            error,
            math.radians(error) * radius_px,
        )
        self._refuse_beyond_memory()

    def _solvent(self, density: DensityMap) -> DensityMap:
        """Return where particles may differ, on the grid of a map."""
        found = solvent_mask(density, self._config.mask, self._given)
        if found is not None:
            return found
        size = density.pixel_size_angstrom
        return DensityMap(particle_mask(density.voxels, size), size)

    def _refuse_beyond_memory(self) -> None:
        """Check that the sums fit in memory, and count the particles that fit next to them."""
        self._most = _MOST
        box = self._images.grid.box
        sums = SliceSums.memory_bytes(box, 1 + self._config.components)
        self._limit.refuse_beyond(
            sums + _WORK_BYTES,
            f"the sums of {self._config.components} components in a box of {box}",
            "seek fewer components, or give a coarser --resolution",
        )
        if self._limit.gigabytes is not None:
            each = 2 * _IMAGE_BYTES * math.pi / 2 * self._images.max_shell**2
            room = self._limit.room_bytes - sums - _WORK_BYTES
            self._most = max(_FEWEST, min(_MOST, int(room / each)))

    def _chosen(self, half: int) -> NDArray[np.int64]:
        """Return the particles of a half from which components are found."""
        rows = self._rows[half]
        return np.asarray(rows[spread_rows(len(rows), self._most)])

    def find(self) -> Generator[Event, None, None]:
        """Find each half's mean and components."""
        config, found = self._config, list[HalfMaps]()
        voxel_mask = self._images.mask(self.mask)
        for half in range(2):
            if half not in self._components:
                yield Progress(0.05 + 0.35 * half, f"half {half + 1}: reading images")
                reference = self._images.voxels(self._references[half])
                residuals = self._images.residuals(
                    self._chosen(half), reference, voxel_mask, self._nuisances
                )
                rounds = residuals.component_rounds(config.components, _ROUNDS, config.seed)
                made = yield from converted(rounds, partial(_round_of, half))
                arrays: Arrays = {
                    "mean": reference.numpy() + made.mean,
                    "maps": made.maps,
                    "noise": residuals.noise,
                }
                self._components.write(half, arrays)
            names = ("mean", "maps", "noise")
            found.append(HalfMaps(**self._components.read(half, names)))
        self._halves = matched(found[0], found[1])

    def _residuals(self, rows: NDArray[np.int64], of: HalfMaps) -> Residuals:
        """Return what a half's mean leaves over in some images."""
        import torch

        mask = self._images.mask(self.mask)
        mean = torch.from_numpy(of.mean.copy())
        return self._images.residuals(rows, mean, mask, self._nuisances, of.noise)

    def _evidence(
        self, residuals: Residuals, of: HalfMaps, order: NDArray[np.int64] | None = None
    ) -> Evidence:
        """Return what images say of their coordinates along a half's components."""
        return residuals.evidence(of.beyond_mean, order).without(residuals.integrated)

    def judge(self) -> Generator[Event, None, list[Judged]]:
        """Return what each half's images say of the other half's components."""
        assert self._halves is not None
        evidence, control, weights = list[Evidence](), list[Evidence](), list[NDArray[np.float64]]()
        rng = np.random.default_rng(self._config.seed)
        for half in range(2):
            yield Progress(0.75 + 0.03 * half, f"half {half + 1}: judging the other's components")
            other, rows = self._halves[1 - half], self._chosen(half)
            residuals = self._residuals(rows, other)
            evidence.append(self._evidence(residuals, other))
            order = rng.permutation(len(rows))
            control.append(self._evidence(residuals, other, order))
            weights.append(residuals.weights)
        self._evidences, self._weights = evidence, weights
        return judged(self._halves, evidence, control, weights)

    def placed(self, stack: ParticleStack, number: int) -> Generator[Event, None, ParticleStack]:
        """Return the particles with their coordinates along so many components."""
        assert self._halves is not None
        self._halves = principal(*self._halves, number)
        yield Progress(0.8, "measuring the population")
        places = list[_Placed]()
        for half in range(2):
            other = self._halves[1 - half]
            residuals = self._residuals(self._chosen(half), other)
            for _ in range(_NOISE_ROUNDS):
                evidence, nuisances = residuals.evidence(other.beyond_mean), residuals.integrated
                population = evidence.without(nuisances).population(residuals.weights)
                posterior = evidence.posterior(population.after(nuisances))
                residuals.rescale(residuals.left_over(other.beyond_mean, *posterior))
            population = self._evidence(residuals, other).population(residuals.weights)
            places.append(_Placed(replace(other, noise=residuals.noise), population))
        of, config = stack.half_sets(), self._config

        def work(rows: slice, inputs: None) -> Arrays:
            count = rows.stop - rows.start
            values, errors = np.empty((count, number)), np.empty((count, number))
            for half, place in enumerate(places, start=1):
                mine = np.flatnonzero(of[rows] == half)
                if not len(mine):
                    continue
                residuals = self._residuals(rows.start + mine, place.other)
                evidence = self._evidence(residuals, place.other)
                means, covariances = evidence.posterior(place.population)
                values[mine] = (means - place.population.mean) / place.deviations
                variances = np.einsum("nqq->nq", covariances)
                errors[mine] = np.sqrt(variances) / place.deviations
            return {"coordinates": values, "errors": errors}

        size = self._limit.batch_size(config.batch_size, stack.box)
        batches = Batches.in_blocks(len(stack), size)
        yield from work_through(
            batches, Ranks(), self._coordinates, lambda rows: None, work, "placed"
        )
        found = joined(finished(batches, self._coordinates, ("coordinates", "errors")))
        self.coordinates, self.errors = found["coordinates"], found["errors"]
        columns = dict[str, NDArray[np.float64]]()
        for place in range(number):
            columns[f"cryosphereComponent{place + 1}"] = self.coordinates[:, place]
            columns[f"cryosphereComponentError{place + 1}"] = self.errors[:, place]
        return stack.with_columns(columns)

    def write(
        self, table: ParticleStack, each: list[Judged], number: int
    ) -> tuple[dict[str, Path], dict[str, float | int | str]]:
        """Write all outputs; returns them by role, and the values that the run ends with."""
        assert self._halves is not None
        config, size = self._config, self._images.grid.pixel_size_angstrom
        outputs, overwrite = variability_outputs(config, number), True

        def save(voxels: NDArray[np.float32], role: str) -> None:
            outputs[role].parent.mkdir(exist_ok=True)
            DensityMap(voxels.astype(np.float32), size, config.symmetry).save(
                outputs[role], overwrite
            )

        mean = 0.5 * (self._halves[0].mean + self._halves[1].mean)
        save(mean, "mean")
        save(self._images.mask(self.mask), "mask")
        power = float((mean.astype(np.float64) ** 2).sum())
        rows = [asdict(one) | {"found_by_both_halves": one.real} for one in each]
        shared = zip(self._halves[0].maps[:number], self._halves[1].maps[:number], strict=True)
        kept = list[dict[str, Any]]()
        for place, (first, second) in enumerate(shared):
            variance = float((first.astype(np.float64) * second).sum())
            axis = 0.5 * (first.astype(np.float64) + second)
            axis *= math.sqrt(max(variance, 0.0) / float((axis**2).sum()))
            save(axis.astype(np.float32), f"component_{place + 1}")
            at = np.quantile(self.coordinates[:, place], _QUANTILES)
            for quantile, value in zip(_QUANTILES, at, strict=True):
                role = f"component_{place + 1}_at_{100 * quantile:02.0f}"
                save((mean + value * axis).astype(np.float32), role)
            kept.append(
                {
                    "variance": variance,
                    "share_of_mean_power": variance / power,
                    "half_set_correlation": _correlation(first, second),
                    "median_error": float(np.median(self.errors[:, place])),
                    "coordinates_of_volumes": dict(
                        zip([f"{q:g}" for q in _QUANTILES], at.tolist(), strict=True)
                    ),
                }
            )
        content = {
            "particles": len(table),
            "components_sought": config.components,
            "components_found": number,
            "resolution_angstrom": self.resolution_angstrom,
            "half_map_resolution_angstrom": self.halves_resolution_angstrom,
            "box": self._images.grid.box,
            "pixel_size_angstrom": size,
            "components": kept,
            "judged": rows,
        }
        write_json(content, outputs["variability"], overwrite=overwrite)
        write_json(config.model_dump(mode="json"), outputs["config"], overwrite=overwrite)
        table.save(outputs["particles"], overwrite)
        metrics: dict[str, float | int | str] = {
            "particles": len(table),
            "components": number,
            "resolution_angstrom": round(self.resolution_angstrom, 2),
        }
        for place, one in enumerate(kept, start=1):
            metrics[f"half_set_correlation_of_component_{place}"] = round(
                one["half_set_correlation"], 3
            )
            metrics[f"median_error_of_component_{place}"] = round(one["median_error"], 3)
        return outputs, metrics


def _round_of(half: int, done: int) -> Progress:
    """Say how many rounds of expectation maximisation of a half are done."""
    share = 0.05 + 0.35 * (half + done / _ROUNDS)
    return Progress(share, f"half {half + 1}: round {done} of {_ROUNDS}")


def _reconstructed(
    stack: ParticleStack, symmetry: str
) -> Generator[Progress, None, Reconstruction]:
    """Return the map and half-maps of particles at their poses, weighted by their presence."""
    weights = np.ones(len(stack))
    if "cryospherePresence" in stack.particles:
        weights = stack.particles["cryospherePresence"].to_numpy(float)
        if not weights.any():
            raise MetadataError(
                f"{stack.source}: cryospherePresence is 0 in every row: there is no particle to compare"
            )
    halves = Halves(stack.grid, symmetry, padding=2)
    for done in halves.fill(stack, WeightedPoses(stack.rotations()[:, None], weights[:, None])):
        yield Progress(0.02 * done / len(stack), f"inserted {done} of {len(stack)} particles")
    return halves.solve(half_maps=True)


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    one, other = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    return float(one @ other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-30)
