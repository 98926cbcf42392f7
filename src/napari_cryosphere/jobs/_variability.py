"""How particles at known poses differ, and where each is along that.

Each half of the particles finds its own mean and principal components. What the halves share counts, and the
coordinates of a particle are those along the components of the half that it is not in: its own noise is in
neither, so that a scatter of particles that do not differ is no scatter.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._generators import converted
from napari_cryosphere.alignment.coordinates import Evidence, Population
from napari_cryosphere.alignment.variability import Nuisances, Residuals
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.map_mask import map_radius_px, particle_mask
from napari_cryosphere.jobs._coarse_images import CoarseImages, coarse_grid
from napari_cryosphere.jobs._components import HalfMaps, Judged, judged, matched, principal
from napari_cryosphere.jobs._refinement import RESOLVED, reference_of
from napari_cryosphere.jobs.configs import VaryingConfig
from napari_cryosphere.jobs.events import Event, Note, Progress
from napari_cryosphere.jobs.running.batches import Arrays, Batches, finished, joined, work_through
from napari_cryosphere.jobs.running.halves import Halves, Reconstruction, refuse_few_in_half
from napari_cryosphere.jobs.running.inputs import refuse_unposed, warnings_of
from napari_cryosphere.jobs.running.journal import Finished
from napari_cryosphere.jobs.running.memory import MemoryLimit
from napari_cryosphere.jobs.running.ranks import Ranks
from napari_cryosphere.jobs.running.references import solvent_mask
from napari_cryosphere.particles import DensityMap, ParticleStack, spread_rows
from napari_cryosphere.reconstruction import WeightedPoses
from napari_cryosphere.reconstruction.slice_sums import SliceSums

__all__ = ["Component", "MaskWord", "Variability", "variability_stack"]

MaskWord: TypeAlias = Literal["auto", "none"]

_SHELLS = 16  # compared at most where no resolution is given: a box of 38 voxels
_FEWEST_SHELLS = 4  # to which half-maps have to agree; chosen, not tuned
_FEWEST = 50  # particles of a half; chosen, not tuned
_MOST = 10_000
"""Particles of a half from which components are found: with 16 shells 5 kB each, and 100 MB in all."""
_NOISE_ROUNDS = 2
"""Times that the noise is measured under the other half's components: what these miss counts as
noise. Chosen, not tuned."""
_ROUNDS = 25  # of expectation maximisation; chosen, not tuned
_CONTRAST = 0.3
"""Standard deviation of an image's contrast about 1: more than those of real sets (0.1 to 0.2)."""
_IMAGE_BYTES = 12.0  # of a frequency of an image: its value and its filter
_WORK_BYTES = 0.3e9  # of slices and images that are worked on at once


@dataclass(frozen=True)
class Component:
    """What is known of a component that both halves found.

    ``variance``: sum over voxels of the variance along it. ``share_of_mean_power``: the same over
    the power of the mean. ``half_set_correlation``: of the halves' maps of it.
    """

    variance: float
    share_of_mean_power: float
    half_set_correlation: float


@dataclass(frozen=True)
class Variability:
    """How particles differ.

    - ``particles``: the particles with their coordinates and errors, ``cryosphereComponent1``,
      ``cryosphereComponentError1``, ..., in standard deviations of the population.
    - ``mean``, ``mask``: the mean, and where particles may differ, on the coarse grid.
    - ``components``: one standard deviation along each component that both halves found, the
      largest first.
    - ``found``: what is known of each of these.
    - ``judged``: what the halves say of all that were sought.
    - ``resolution_angstrom``: finest detail compared.
    - ``half_map_resolution_angstrom``: where the half-maps at the particles' poses agree to 0.143.
    """

    particles: ParticleStack
    mean: DensityMap
    mask: DensityMap
    components: tuple[DensityMap, ...]
    found: tuple[Component, ...]
    judged: tuple[Judged, ...]
    resolution_angstrom: float
    half_map_resolution_angstrom: float

    def coordinates(self, component: int) -> NDArray[np.float64]:
        """Return all particles' coordinates along a component, counted from 1, ``(n,)``."""
        return self.particles.particles[f"cryosphereComponent{component}"].to_numpy(float)

    def errors(self, component: int) -> NDArray[np.float64]:
        """Return the standard deviations of their posteriors, ``(n,)``."""
        return self.particles.particles[f"cryosphereComponentError{component}"].to_numpy(float)

    def volume(self, component: int, coordinate: float) -> DensityMap:
        """Return the map at a coordinate along a component, counted from 1, and at 0 along the others."""
        along = self.components[component - 1].voxels
        return replace(self.mean, voxels=self.mean.voxels + np.float32(coordinate) * along)

    def _repr_html_(self) -> str:
        """Return the particles, the mean and the components, for notebooks."""
        maps = (self.mean, *self.components)
        return self.particles._repr_html_() + "".join(one._repr_html_() for one in maps)


def variability_stack(
    stack: ParticleStack,
    config: VaryingConfig,
    mask: DensityMap | MaskWord,
    components: Finished,
    coordinates: Finished,
) -> Generator[Event, None, Variability]:
    """Find how particles differ; yields what the job yields.

    ``stack``, ``config``: particles with poses, and settings. ``mask``: where particles may differ,
    0 to 1, in the particles' box; or whether to make one. ``components``, ``coordinates``: keep the
    halves' components and the finished batches. Raises `MetadataError` if there are no poses, too
    few particles, or the halves' maps at these poses have nothing in common.
    """
    refuse_unposed(stack, "to compare particles at; find them first, with align or refine")
    stack = stack.with_half_sets()
    refuse_few_in_half(stack, _FEWEST)
    yield from warnings_of(stack, "they are compared as they are")
    work = _Work(stack, config, mask, components, coordinates)
    yield from work.prepare()
    yield from work.find()
    each = yield from work.judge()
    real = [one.real for one in each]
    number = real.index(False) if False in real else len(real)
    yield _verdict(each, number, work)
    if number:
        stack = yield from work.placed(stack, number)
    return work.result(stack, each, number)


def _verdict(each: list[Judged], number: int, work: _Work) -> Note:
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

    ``other``: what the other half found. ``population``: of this half's coordinates along these.
    """

    other: HalfMaps
    population: Population

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Standard deviations of the population along each component."""
        return np.sqrt(self.population.covariance.diagonal())


class _Work:
    """The steps of the job, and what each finds.

    ``stack``, ``config``, ``mask``, ``components``, ``coordinates``: see `variability_stack`.
    """

    def __init__(
        self,
        stack: ParticleStack,
        config: VaryingConfig,
        mask: DensityMap | MaskWord,
        components: Finished,
        coordinates: Finished,
    ) -> None:
        self._config, self._stack, self._given = config, stack, mask
        halves = stack.half_sets()
        self._rows = [np.flatnonzero(halves == half) for half in (1, 2)]
        self._components, self._coordinates = components, coordinates
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
            max(_CONTRAST, self._images.contrast_spread), error, math.radians(error) * radius_px
        )
        self._refuse_beyond_memory()

    def _solvent(self, density: DensityMap) -> DensityMap:
        """Return where particles may differ, on the grid of a map."""
        given = self._given
        found = solvent_mask(
            density, *(("auto", given) if isinstance(given, DensityMap) else (given, None))
        )
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
        columns = dict[str, NDArray[np.float64]]()
        for place in range(number):
            columns[f"cryosphereComponent{place + 1}"] = found["coordinates"][:, place]
            columns[f"cryosphereComponentError{place + 1}"] = found["errors"][:, place]
        return stack.with_columns(columns)

    def result(self, table: ParticleStack, each: list[Judged], number: int) -> Variability:
        """Return so many components as maps, and what is known of them."""
        assert self._halves is not None
        size, symmetry = self._images.grid.pixel_size_angstrom, self._config.symmetry

        def density(voxels: NDArray[np.floating]) -> DensityMap:
            return DensityMap(voxels.astype(np.float32), size, symmetry)

        mean = 0.5 * (self._halves[0].mean + self._halves[1].mean)
        power = float((mean.astype(np.float64) ** 2).sum())
        found, axes = list[Component](), list[DensityMap]()
        shared = zip(self._halves[0].maps[:number], self._halves[1].maps[:number], strict=True)
        for first, second in shared:
            variance = float((first.astype(np.float64) * second).sum())
            axis = 0.5 * (first.astype(np.float64) + second)
            axes.append(density(axis * math.sqrt(max(variance, 0.0) / float((axis**2).sum()))))
            found.append(Component(variance, variance / power, _correlation(first, second)))
        return Variability(
            table,
            density(mean),
            density(self._images.mask(self.mask)),
            tuple(axes),
            tuple(found),
            tuple(each),
            self.resolution_angstrom,
            self.halves_resolution_angstrom,
        )


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
