"""Gold-standard refinement: two half sets, each aligned to its own map until nothing improves.

The halves share one starting map, low-passed, and nothing finer. In every iteration each half is
aligned to its own masked half-map, filtered by the half-maps' FSC and compared as far as that
reaches (Scheres & Chen 2012; Scheres 2012, J. Struct. Biol. 180:519). A particle goes into its
half-map at its best pose, weighted by how probably it is a particle at all. Poses drawn from the
posteriors, as expectation maximisation would have it, are no better in the end and several times
slower to converge (docs/measurements.md). How sure the final poses are is judged by the other half's
map: a particle's own contributes the particle's own noise, and its posterior is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_cryosphere.jobs.align import (
    Aligned,
    Pilot,
    align_rows,
    batches_of,
    gathered,
    pilot_about_known,
    pilot_around,
    search_everywhere,
    with_alignment,
)
from napari_cryosphere.jobs.configs import RefineConfig
from napari_cryosphere.jobs.events import Event, Progress, between, part_of
from napari_cryosphere.jobs.running.halves import Halves, Reconstruction
from napari_cryosphere.jobs.running.inputs import described, digest_of_file, digest_of_table
from napari_cryosphere.jobs.running.journal import Journal
from napari_cryosphere.jobs.running.map_detail import MapDetail
from napari_cryosphere.jobs.running.ranks import current_ranks
from napari_cryosphere.jobs.running.references import solvent_mask
from napari_cryosphere.jobs.running.run_folder import UNFINISHED
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.reconstruction import (
    FourierShellCorrelation,
    HalfMapFsc,
    WeightedPoses,
    corrected_fsc,
    soft_mask,
)
from napari_cryosphere.reconstruction.filters import filtered_shells, low_passed, whitened
from napari_cryosphere.so3.pose_summary import CONFIDENCE_RADIUS_DEGREES, SUMMARY, PoseSummary
from napari_cryosphere.so3.symmetry import angular_error_degrees

__all__ = [
    "BEYOND_SHELLS",
    "HALVES_OF_ITERATION",
    "MAPS_OF_ITERATION",
    "RESOLVED",
    "SETTLED_ITERATIONS",
    "SETTLED_SHELLS",
    "Iteration",
    "Maps",
    "Refinement",
    "by_other_half",
    "reference_of",
]

Maps: TypeAlias = tuple[DensityMap, DensityMap]

_PRESENCE = "cryospherePresence"
RESOLVED = 0.143
"""FSC of half-maps that counts as resolved (Rosenthal & Henderson 2003)."""
BEYOND_SHELLS = 2
"""How many shells past the resolved ones are compared: their references are damped by the FSC."""
SETTLED_ITERATIONS = 2
"""Iterations without improvement after which the refinement ends; chosen, not tuned."""
SETTLED_SHELLS = 0.5
"""Shells by which the resolution has to grow to count as an improvement; chosen, not tuned."""
_SHARPER = 0.9
"""Of the smallest median spread so far: a smaller one is an improvement too. Real apoferritin, whose
resolution goes up and down by a shell, ended at 8.9 A where resolution alone decided; chosen, not tuned.
"""
_FEW_PRESENT = 0.2
"""Mean presence below which it weighs nothing: it would choose images that resemble the map by chance."""
_SURE, _SURE_DEGREES = 0.99, 3.0
"""Confidence from which, and spread up to which, a pose is only climbed from: a search would come
to the same."""
_LOST = 0.9
"""Confidence below which the shift counts as unknown too; chosen, not tuned. With shifts about the known
ones alone 8.3 % of the ribosomes of the benchmarks stay at wrong poses that the coarse map began with.
"""
_EDGE_ANGSTROM, _EDGE_OF_DETAIL = 6.0, 0.6
"""How far the solvent mask is grown, and again the width of its edge: at least, and as a share of the
finest detail compared. The halves share the mask: a sharper one shares detail that is not seen (of
noise alone, to 21 A from 40). Twice 6 A costs a tenth of the error on simulated beta-galactosidase.
"""
HALVES_OF_ITERATION = (between(0.0, 0.45), between(0.45, 0.9))
MAPS_OF_ITERATION = between(0.9, 1.0)
"""How much of an iteration its parts are, for its progress."""
_MARGIN, _MARGIN_SHELLS = 1.25, 12
"""Of the shells compared, the factor and the number up to which half-maps are made: an iteration
improves by no more."""


@dataclass(frozen=True)
class Iteration:
    """The state after one iteration.

    - ``number``: counted from 1.
    - ``stack``: all particles with their poses, shifts and uncertainties.
    - ``summary``: uncertainty of the poses, one row per particle.
    - ``maps``: the map of all particles, its unfiltered half-maps and their unmasked FSC.
    - ``mask``: solvent mask that the half-maps' FSC was measured in.
    - ``fsc``: half-map FSC, unmasked, masked and corrected for the mask.
    - ``compared_angstrom``: finest detail compared in this iteration.
    - ``change_degrees``: median angle between the poses before and after; NaN in the first
      iteration.
    """

    number: int
    stack: ParticleStack
    summary: PoseSummary
    maps: Reconstruction
    mask: DensityMap
    fsc: HalfMapFsc
    compared_angstrom: float
    change_degrees: float

    @property
    def resolution_angstrom(self) -> float:
        """Where the corrected half-map FSC falls below 0.143."""
        return self.fsc.corrected.resolution_angstrom(RESOLVED)

    @property
    def shells_resolved(self) -> float:
        """Shells up to which the half-maps agree: the mean of where their FSC falls to 0.5 and to 0.143."""
        field, curve = self.stack.grid.field_angstrom, self.fsc.corrected
        return sum(field / curve.resolution_angstrom(level) for level in (0.5, RESOLVED)) / 2

    def row(self) -> dict[str, float]:
        """Return the values of one line of history.csv; the last line is what the run ended with."""
        return {
            "iteration": self.number,
            "compared_angstrom": self.compared_angstrom,
            "resolution_0143_angstrom": self.resolution_angstrom,
            "resolution_05_angstrom": self.fsc.corrected.resolution_angstrom(0.5),
            "unmasked_resolution_0143_angstrom": self.fsc.unmasked.resolution_angstrom(RESOLVED),
            "median_spread_degrees": float(np.median(self.summary.spread_degrees)),
            "mean_confidence": float(np.mean(self.summary.confidence)),
            "median_change_degrees": self.change_degrees,
        }


class Refinement:
    """The two halves of a refinement, iteration by iteration.

    Everything that takes long is kept in journals in the run folder, so that a run that was
    stopped repeats its reconstructions alone and goes on with the same poses.

    - ``config``: settings and run folder.
    - ``stack``: particles with half sets.
    - ``references``: starting map on any grid, or one for each state; only frequencies up to
      ``config.initial_resolution_angstrom`` are used.
    - ``mask``: solvent mask on the particles' grid; None makes one from the map in every iteration.
    """

    def __init__(
        self,
        config: RefineConfig,
        stack: ParticleStack,
        references: Sequence[DensityMap],
        mask: DensityMap | None,
    ) -> None:
        self._config, self._mask = config, mask
        coarse, symmetry = config.initial_resolution_angstrom, config.symmetry
        self._starts = [
            DensityMap(low_passed(one.voxels, size, coarse), size, symmetry)
            for one in references
            for size in [one.pixel_size_angstrom]
        ]
        self._identity = described(config.model_copy(update={"mask": "none"})) | {
            "mask": digest_of_file(config.mask) if isinstance(config.mask, Path) else config.mask,
            "table": digest_of_table(stack),
        }
        self._stack, self._ranks = stack, current_ranks()
        self._half_rows = [np.flatnonzero(stack.half_sets() == half) for half in (1, 2)]
        self._order = np.argsort(np.concatenate(self._half_rows))

    def __iter__(self) -> Iterator[Event | Iteration]:
        """Yield progress, and every finished iteration; of that which it ends with, all detail."""
        (start,) = self._starts
        begun = (start, start), self._config.initial_resolution_angstrom
        yield from self._from(1, self._stack, *begun)

    def _from(
        self, first: int, stack: ParticleStack, references: Maps, compared: float
    ) -> Generator[Event | Iteration, None, None]:
        """Iterate from number ``first`` on until nothing improves.

        Where many poses are unsure, single iterations are worse than the one before. The run ends with
        the last one that resolves at most half a shell less than the best, and not while poses sharpen.
        """
        best, sharpest, settled = 0.0, math.inf, 0
        for number in range(first, self._config.iterations + 1):
            work = self._iterate(number, stack, references, compared)
            done = yield from part_of(work, self._course(number))
            stack = done.stack
            shell, spread = done.shells_resolved, float(np.median(done.summary.spread_degrees))
            improved = shell > best + SETTLED_SHELLS or spread < _SHARPER * sharpest
            settled = 0 if improved else settled + 1
            references, compared = self._next_references(done)
            if shell >= best - SETTLED_SHELLS:
                kept = done, references, compared
            best, sharpest = max(shell, best), min(spread, sharpest)
            ends = settled >= SETTLED_ITERATIONS or number == self._config.iterations
            if not ends or kept[0] is not done:
                yield done
            if ends:
                place = between(self._course(number)(1.0), 1.0)
                yield (yield from part_of(self._ended(*kept), place))
                return

    def _course(self, number: int) -> Callable[[float], float]:
        """Return how far the run is when an iteration is so far, for `part_of`.

        What is left is the least that can follow: iterations that settle it, and the judgement of the
        last one.
        """

        def place(part: float) -> float:
            done = number - 1 + part
            return done / (done + min(SETTLED_ITERATIONS, self._config.iterations - done) + 1)

        return place

    def _iterate(
        self, number: int, before: ParticleStack, references: Maps, compared: float
    ) -> Generator[Event, None, Iteration]:
        """Align both halves to their references and reconstruct them."""
        config, stack = self._config, before.on_grid(self._grid_for(compared))
        found: list[Aligned] = []
        for half, reference in enumerate(references):
            found.append((yield from self._align(number, half, stack, reference, compared)))
        stack, summary = self._posed(stack, found)
        change = float("nan")
        if number > 1 or config.local_degrees is not None:
            angles = angular_error_degrees(before.rotations(), stack.rotations(), config.symmetry)
            change = float(np.median(angles))
        made = self._reconstruct(stack, compared)
        maps, mask, fsc = yield from part_of(made, MAPS_OF_ITERATION)
        return Iteration(number, stack, summary, maps, mask, fsc, compared, change)

    def _next_references(self, done: Iteration) -> tuple[Maps, float]:
        """Return the references after an iteration, and the finest detail to compare with them, angstrom."""
        first, second = (
            reference_of(half, done.mask, done.fsc.corrected) for half in done.maps.halves
        )
        field = done.stack.grid.field_angstrom
        finest = field / (int(field / done.resolution_angstrom) + BEYOND_SHELLS)
        return (first, second), min(finest, self._config.initial_resolution_angstrom)

    def _grid_for(self, compared_angstrom: float) -> ImageGrid:
        """Return the coarsest grid on which what is compared and the margin can be held."""
        grid = self._stack.grid
        shells = int(_MARGIN * grid.field_angstrom / compared_angstrom) + _MARGIN_SHELLS
        box = 2 * int(scipy.fft.next_fast_len(shells, real=True))
        return ImageGrid(box, grid.field_angstrom / box) if box < grid.box else grid

    def _align(
        self,
        number: int,
        half: int,
        stack: ParticleStack,
        reference: DensityMap,
        compared: float,
        judging: bool = False,
    ) -> Generator[Event, None, Aligned]:
        """Align one half to a reference; ``judging`` searches all orientations also for sure poses."""
        config, mine = self._config, stack[self._half_rows[half]]
        batches = batches_of(mine, config)
        place = "judged" if judging else f"iteration{number:02d}"
        folder = config.output / UNFINISHED / f"{place}_half{half + 1}"
        journal = Journal(folder, self._identity, config.resume, self._ranks)
        if any(block.start not in journal for block in batches.blocks()):
            detail = MapDetail(compared, "as far as the half-maps agree")
            part = HALVES_OF_ITERATION[half]
            doing = "judged by the other half's map" if judging else f"iteration {number}"
            yield Progress(part(0.0), f"{doing}, half {half + 1}: measuring noise")
            pilot = self._pilot(number, mine, judging)
            work = align_rows(mine, reference, config, detail, pilot, batches, self._ranks, journal)
            yield from part_of(work, part)
        return gathered(mine, batches, journal, config.symmetry)

    def _pilot(self, number: int, stack: ParticleStack, judging: bool) -> Pilot:
        """Return how particles are aligned: around what is known of them."""
        if self._config.local_degrees is not None:
            return pilot_around(stack, self._config.local_degrees)
        if number == 1:
            return search_everywhere
        sure, lost = self._sure_and_lost(stack)
        return pilot_about_known(stack, sure & (not judging), lost)

    @staticmethod
    def _sure_and_lost(stack: ParticleStack) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which poses are only climbed from, and which tell nothing of the shift."""
        spread, confidence = (
            stack.particles[name].to_numpy(float)
            for name in ("cryosphereSpread", "cryosphereConfidence")
        )
        return (spread < _SURE_DEGREES) & (confidence > _SURE), confidence < _LOST

    def _ended(
        self, done: Iteration, references: Maps, compared: float
    ) -> Generator[Event, None, Iteration]:
        """Return an iteration as the run's last: judged, and with maps on the particles' own grid."""
        judged = yield from self._judged(done, references, compared)
        grid = self._stack.grid
        if judged.stack.grid.matches(grid):
            return judged
        stack = judged.stack.on_grid(grid)
        making = self._reconstruct(stack, judged.compared_angstrom)
        maps, mask, fsc = yield from part_of(making, MAPS_OF_ITERATION)
        return replace(judged, stack=stack, maps=maps, mask=mask, fsc=fsc)

    def _judged(
        self, done: Iteration, references: Maps, compared: float
    ) -> Generator[Event, None, Iteration]:
        """Return an iteration with its uncertainties from the map of the other half."""
        stack, own, found = done.stack, done.summary, list[Aligned]()
        for half, reference in enumerate(reversed(references)):
            number = done.number + 1
            one = yield from self._align(number, half, stack, reference, compared, judging=True)
            found.append(one)
        summary = by_other_half(own, self._summary_of(found), self._config.symmetry)
        table = stack.particles
        shifts_px = -stack.shifts_angstrom() / stack.pixel_size_angstrom
        likelihood = table["rlnLogLikeliContribution"].to_numpy(float)
        judged = with_alignment(stack, shifts_px, likelihood, summary, self._config.symmetry)
        judged = judged.with_columns({_PRESENCE: table[_PRESENCE].to_numpy(float)})
        return replace(done, stack=judged, summary=summary)

    def _both(self, *parts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values of both halves in the order of the file."""
        return np.concatenate(parts)[self._order]

    def _summary_of(self, found: list[Aligned]) -> PoseSummary:
        return PoseSummary(
            *(self._both(*(getattr(half.summary, name) for half in found)) for name in SUMMARY)
        )

    def _posed(
        self, stack: ParticleStack, found: list[Aligned]
    ) -> tuple[ParticleStack, PoseSummary]:
        """Return the particles with the poses of both halves, in the order of the file."""
        both, summary = self._both, self._summary_of(found)
        shifts_px = -both(*(half.shifts_angstrom for half in found)) / stack.pixel_size_angstrom
        likelihood = both(*(half.log_likelihood for half in found))
        present = both(*(half.particles.particles[_PRESENCE].to_numpy(float) for half in found))
        posed = with_alignment(stack, shifts_px, likelihood, summary, self._config.symmetry)
        return posed.with_columns({_PRESENCE: present}), summary

    def _reconstruct(
        self, stack: ParticleStack, compared: float, shares: NDArray[np.float64] | None = None
    ) -> Generator[Progress, None, tuple[Reconstruction, DensityMap, HalfMapFsc]]:
        """Insert all particles; return the map and its half-maps, the solvent mask and the FSC in it.

        ``shares``, ``(n,)``, is how much of each particle belongs to the map.
        """
        halves = Halves(stack.grid, self._config.symmetry, padding=2)
        present = stack.particles[_PRESENCE].to_numpy(float)
        if present.mean() < _FEW_PRESENT:
            present = np.ones(len(stack))
        present = present if shares is None else present * shares
        poses = WeightedPoses(stack.rotations()[:, None], present[:, None])
        for done in halves.fill(stack, poses):
            yield Progress(done / len(stack), f"inserted {done} of {len(stack)} particles")
        maps = halves.solve(half_maps=True)
        mask = self._solvent(maps.density, compared)
        first, second = maps.halves
        return maps, mask, self._fsc(first, second, mask)

    def _fsc(self, first: DensityMap, second: DensityMap, mask: DensityMap) -> HalfMapFsc:
        """Return how far halves agree inside a mask, corrected for what both began with."""
        began = self._config.initial_resolution_angstrom
        return corrected_fsc(*whitened(first, second), mask.voxels, shared_angstrom=began)

    def _solvent(self, density: DensityMap, compared: float) -> DensityMap:
        """Return the solvent mask: the one given, a new one from the map, or ones."""
        found = solvent_mask(density, self._config.mask, self._mask)
        if found is not None:
            return found
        size = density.pixel_size_angstrom
        edge_px = max(_EDGE_ANGSTROM, _EDGE_OF_DETAIL * compared) / size
        return DensityMap(soft_mask(density.voxels, size, edge_px=edge_px), size)


def reference_of(half: DensityMap, mask: DensityMap, curve: FourierShellCorrelation) -> DensityMap:
    """Return a half-map as the next reference: Wiener-filtered by the FSC, and masked.

    A half-map's signal-to-noise ratio is FSC / (1 - FSC), so its Wiener filter is the FSC.
    """
    first_below = int(np.flatnonzero(np.append(curve.values[1:] < RESOLVED, True))[0]) + 1
    weight = np.clip(curve.values, 0, 1)
    weight[0] = 1
    weight[first_below + BEYOND_SHELLS :] = 0
    voxels = filtered_shells(half.voxels, weight) * mask.voxels
    return DensityMap(voxels, half.pixel_size_angstrom, half.symmetry)


def by_other_half(own: PoseSummary, other: PoseSummary, symmetry: str) -> PoseSummary:
    """Return one's own poses, as sure as the other half's map says.

    Where it finds another pose, one's own is right only if that one is not.
    """
    apart = angular_error_degrees(own.rotations, other.rotations, symmetry)
    differ = apart > CONFIDENCE_RADIUS_DEGREES
    doubted = own.confidence * (1 - other.confidence)
    return replace(
        other,
        rotations=own.rotations,
        spread_degrees=np.where(
            differ, np.maximum(apart, other.spread_degrees), other.spread_degrees
        ),
        confidence=np.where(differ, doubted, other.confidence),
    )
