"""Gold-standard refinement: two half sets, each aligned to its own map until nothing improves.

The halves share one starting map, low-passed, and nothing finer. In every iteration each half is
aligned to its own masked half-map, filtered by the half-maps' FSC and compared as far as that
reaches (Scheres & Chen 2012; Scheres 2012, J. Struct. Biol. 180:519).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import scipy.fft
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path, refuse_overwrite, write_json
from napari_cryosphere.imaging.map_mask import masked_map, particle_mask
from napari_cryosphere.jobs.align import (
    Aligned,
    align_rows,
    batches_of,
    gathered,
    refuse_without_poses,
    with_alignment,
)
from napari_cryosphere.jobs.configs import RefineConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result, Snapshot
from napari_cryosphere.jobs.running.halves import Halves, Reconstruction, refuse_empty_half
from napari_cryosphere.jobs.running.inputs import (
    described,
    digest_of_file,
    digest_of_table,
    open_particles,
    warnings_of,
)
from napari_cryosphere.jobs.running.journal import Journal
from napari_cryosphere.jobs.running.map_detail import MapDetail
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.ranks import current_ranks
from napari_cryosphere.jobs.running.references import open_map, pixel_size_notes
from napari_cryosphere.jobs.running.uncertainty import summary_metrics
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import (
    FourierShellCorrelation,
    WeightedPoses,
    resampled_map,
    soft_mask,
    write_fsc_csv,
)
from napari_cryosphere.reconstruction._shells import scale_shells, shell_sums, transform_of
from napari_cryosphere.reconstruction.postprocessing import HalfMapFsc, corrected_fsc
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.so3.symmetry import angular_error_degrees

Maps: TypeAlias = tuple[DensityMap, DensityMap]

_SUMMARY = tuple(field.name for field in fields(PoseSummary))
_RESOLVED = 0.143
"""FSC of half-maps that counts as resolved (Rosenthal & Henderson 2003)."""
_BEYOND_SHELLS = 2
"""How many shells past the resolved ones are compared: their references are damped by the FSC."""
_SETTLED_ITERATIONS = 2
"""Iterations without improvement after which the refinement ends."""
_SETTLED_SHELLS = 0.5
"""Shells by which the resolution has to grow to count as an improvement."""


@dataclass(frozen=True)
class Iteration:
    """The state after one iteration.

    Attributes
    ----------
    number
        Counted from 1.
    stack
        All particles with their poses, shifts and uncertainties.
    summary
        Uncertainty of the poses, one row per particle.
    maps
        The map of all particles, its unfiltered half-maps and their unmasked FSC.
    mask
        Solvent mask that the half-maps' FSC was measured in.
    fsc
        Half-map FSC, unmasked, masked and corrected for the mask.
    compared_angstrom
        Finest detail compared in this iteration.
    change_degrees
        Median angle between the poses before and after; NaN in the first iteration.
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
        return self.fsc.corrected.resolution_angstrom(_RESOLVED)

    def row(self) -> dict[str, float]:
        """Return the values of one line of history.csv."""
        return {
            "iteration": self.number,
            "compared_angstrom": self.compared_angstrom,
            "resolution_0143_angstrom": self.resolution_angstrom,
            "resolution_05_angstrom": self.fsc.corrected.resolution_angstrom(0.5),
            "unmasked_resolution_0143_angstrom": self.fsc.unmasked.resolution_angstrom(_RESOLVED),
            "median_spread_degrees": float(np.median(self.summary.spread_degrees)),
            "mean_confidence": float(np.mean(self.summary.confidence)),
            "median_change_degrees": self.change_degrees,
        }


class Refinement:
    """The two halves of a refinement, iteration by iteration.

    Everything that takes long is kept in journals in the run folder, so that a run that was
    stopped repeats its reconstructions alone and goes on with the same poses.

    Parameters
    ----------
    config
        Settings and run folder.
    stack
        Particles with half sets.
    reference
        Starting map on any grid; only frequencies up to ``config.initial_resolution_angstrom`` are
        used.
    mask
        Solvent mask on the reference's grid; None makes one from the map in every iteration.
    """

    def __init__(
        self,
        config: RefineConfig,
        stack: ParticleStack,
        reference: DensityMap,
        mask: DensityMap | None,
    ) -> None:
        self._config, self._mask = config, mask
        grid = stack.grid
        start = resampled_map(reference, grid.box, grid.pixel_size_angstrom)
        self._start = low_passed(start, config.initial_resolution_angstrom)
        file = config.mask not in ("auto", "none")
        self._identity = described(config.model_copy(update={"mask": None})) | {
            "mask": digest_of_file(Path(config.mask)) if file else config.mask,
            "table": digest_of_table(stack),
        }
        self._stack, self._ranks = stack, current_ranks()
        self._half_rows = [np.flatnonzero(stack.half_sets() == half) for half in (1, 2)]
        self._journals: list[Journal] = []

    def __iter__(self) -> Iterator[Event | Iteration]:
        """Yield progress, and every finished iteration."""
        config, stack = self._config, self._stack
        references: Maps = (self._start, self._start)
        compared = config.initial_resolution_angstrom
        best, settled, local = 0.0, 0, config.local_degrees
        for number in range(1, config.iterations + 1):
            found: list[Aligned] = []
            for half, reference in enumerate(references):
                found.append((yield from self._align(number, half, stack, reference, compared)))
            before = stack
            stack, summary = self._posed(found)
            change = float("nan")
            if number > 1 or local is not None:
                angles = angular_error_degrees(
                    before.rotations(), stack.rotations(), config.symmetry
                )
                change = float(np.median(angles))
            maps = yield from self._reconstruct(stack)
            mask = self._solvent(maps.density)
            first, second = maps.halves
            fsc = corrected_fsc(*whitened(first, second), mask.voxels)
            done = Iteration(number, stack, summary, maps, mask, fsc, compared, change)
            yield done
            shell = stack.grid.field_angstrom / done.resolution_angstrom
            settled = 0 if shell > best + _SETTLED_SHELLS else settled + 1
            best = max(shell, best)
            if settled >= _SETTLED_ITERATIONS:
                return
            references = (
                self._reference(first, mask, fsc.corrected),
                self._reference(second, mask, fsc.corrected),
            )
            compared = stack.grid.field_angstrom / (int(shell) + _BEYOND_SHELLS)

    def _align(
        self, number: int, half: int, stack: ParticleStack, reference: DensityMap, compared: float
    ) -> Generator[Event, None, Aligned]:
        """Align one half to its reference."""
        config, mine = self._config, stack[self._half_rows[half]]
        batches = batches_of(mine, config)
        folder = config.output / "unfinished" / f"iteration{number:02d}_half{half + 1}"
        journal = Journal(folder, self._identity, config.resume, self._ranks)
        self._journals.append(journal)
        if any(block.start not in journal for block in batches.blocks()):
            detail = MapDetail(compared, "as far as the half-maps agree")
            yield Progress(0.0, f"iteration {number}, half {half + 1}: measuring noise")
            yield from align_rows(
                mine, reference, config, detail, False, batches, self._ranks, journal
            )
        return gathered(mine, batches, journal, config.symmetry)

    def _posed(self, found: list[Aligned]) -> tuple[ParticleStack, PoseSummary]:
        """Return the particles with the poses of both halves, in the order of the file."""
        order = np.argsort(np.concatenate(self._half_rows))
        summary = PoseSummary(
            *(
                np.concatenate([getattr(half.summary, name) for half in found])[order]
                for name in _SUMMARY
            )
        )
        shifts = np.concatenate([half.shifts_angstrom for half in found])[order]
        likelihood = np.concatenate([half.log_likelihood for half in found])[order]
        shifts_px = -shifts / self._stack.grid.pixel_size_angstrom
        symmetry = self._config.symmetry
        return with_alignment(self._stack, shifts_px, likelihood, summary, symmetry), summary

    def _reconstruct(self, stack: ParticleStack) -> Generator[Progress, None, Reconstruction]:
        """Insert all particles and return the map, its half-maps and their FSC."""
        halves = Halves(stack.grid, self._config.symmetry, padding=2)
        for done in halves.fill(stack, WeightedPoses.best(stack.rotations())):
            yield Progress(0.0, f"inserted {done} of {len(stack)} particles")
        return halves.solve(half_maps=True)

    def _solvent(self, density: DensityMap) -> DensityMap:
        """Return the solvent mask: the one given, a new one from the map, or ones."""
        if self._mask is not None:
            return self._mask
        size = density.pixel_size_angstrom
        if self._config.mask == "none":
            return DensityMap(np.ones_like(density.voxels), size)
        return DensityMap(soft_mask(density.voxels, size), size)

    def _reference(
        self, half: DensityMap, mask: DensityMap, curve: FourierShellCorrelation
    ) -> DensityMap:
        """Return a half-map as the next reference: Wiener-filtered by the FSC, and masked.

        A half-map's signal-to-noise ratio is FSC / (1 - FSC), so its Wiener filter is the FSC.
        """
        first_below = int(np.flatnonzero(np.append(curve.values[1:] < _RESOLVED, True))[0]) + 1
        weight = np.clip(curve.values, 0, 1)
        weight[0] = 1
        weight[first_below + _BEYOND_SHELLS :] = 0
        return DensityMap(
            filtered(half.voxels, weight) * mask.voxels, half.pixel_size_angstrom, half.symmetry
        )

    def remove_journals(self) -> None:
        """Delete what was kept to resume."""
        for journal in self._journals:
            journal.remove()
        folder = self._config.output / "unfinished"
        if folder.is_dir():
            folder.rmdir()


def filtered(voxels: NDArray[np.float32], weight: NDArray[np.float64]) -> NDArray[np.float32]:
    """Multiply the shells of a map's transform, ``(box // 2 + 1,)``; zero beyond the last."""
    transform = transform_of(voxels)
    scale_shells(transform, weight)
    return np.asarray(scipy.fft.irfftn(transform, voxels.shape), dtype=np.float32)


def whitened(first: DensityMap, second: DensityMap) -> Maps:
    """Return half-maps with the same mean power in all shells.

    Strong coarse shells would spill through a mask into weak fine ones, which both halves share.
    """
    transforms = [transform_of(half.voxels) for half in (first, second)]
    powers = shell_sums(first.box, *(np.abs(transform) ** 2 for transform in transforms))
    counts = shell_sums(first.box, np.ones(transforms[0].shape))[0]
    mean = powers.sum(0) / counts
    weight = np.divide(1, np.sqrt(mean), out=np.zeros_like(mean), where=mean > 0)
    halves = []
    for transform in transforms:
        scale_shells(transform, weight)
        voxels = np.asarray(scipy.fft.irfftn(transform, first.voxels.shape), dtype=np.float32)
        halves.append(DensityMap(voxels, first.pixel_size_angstrom, first.symmetry))
    return halves[0], halves[1]


def low_passed(density: DensityMap, resolution_angstrom: float) -> DensityMap:
    """Return a map without what is finer than a resolution; a cosine of two shells ends the band."""
    last = density.box * density.pixel_size_angstrom / resolution_angstrom
    beyond = np.clip((np.arange(density.box // 2 + 1) - last) / 2, 0, 1)
    weight = 0.5 + 0.5 * np.cos(np.pi * beyond)
    return DensityMap(
        filtered(density.voxels, weight), density.pixel_size_angstrom, density.symmetry
    )


def refine_outputs(config: RefineConfig) -> dict[str, Path]:
    """Return what a run writes, by role."""
    names = {
        "particles": "particles.star",
        "map": "map.mrc",
        "half1": "half1.mrc",
        "half2": "half2.mrc",
        "mask": "mask.mrc",
        "fsc": "fsc.csv",
        "history": "history.csv",
        "config": "config.json",
    }
    return {role: config.output / name for role, name in names.items()}


@claims(folders=("output",))
def refine(config: RefineConfig) -> Events:
    """Refine poses and map with independent halves and write the run folder.

    Raises
    ------
    MetadataError
        If a half set is empty, a local search has no poses, or the map is not seen in the images.
    """
    outputs = refine_outputs(config)
    if not config.resume:
        refuse_overwrite(outputs["particles"], config.overwrite)
    stack = open_particles(config).with_half_sets()
    refuse_empty_half(stack)
    refuse_without_poses(stack, config)
    yield from warnings_of(stack, "they are compared as they are")
    mask = None if config.mask in ("auto", "none") else DensityMap.read(Path(config.mask))
    density = open_map(config, config.map)
    if config.map_pixel_size_angstrom is None:
        yield from pixel_size_notes(config.map, density, stack.grid)
    wide = None
    if config.mask == "auto":
        wide = particle_mask(density.voxels, density.pixel_size_angstrom)
    refinement = Refinement(config, stack, masked_map(density, wide), mask)
    history: list[Iteration] = []
    for event in refinement:
        if not isinstance(event, Iteration):
            yield event
            continue
        history.append(event)
        share = event.number / config.iterations
        yield Progress(share, _told(event), event.row())
        yield Snapshot(share, event.maps.density, len(stack))
    if not current_ranks().first:
        yield Result({}, {})
        return
    last = history[-1]
    reached, began = last.resolution_angstrom, config.initial_resolution_angstrom
    if reached > 0.9 * began:
        yield Note(
            f"the halves agree to {reached:.1f} A and no further than the {began:g} A of the map "
            "they began with: nothing of it is seen in these particles",
            warning=True,
        )
    _write(history, config, outputs)
    refinement.remove_journals()
    measured = summary_metrics(stack, last.summary, config.symmetry)
    yield Result(outputs, measured | {k: round(v, 4) for k, v in last.row().items()})


def _told(iteration: Iteration) -> str:
    return (
        f"iteration {iteration.number}: compared to {iteration.compared_angstrom:.1f} A, half-maps "
        f"agree to {iteration.resolution_angstrom:.1f} A (FSC {_RESOLVED})"
    )


def _write(history: list[Iteration], config: RefineConfig, outputs: dict[str, Path]) -> None:
    last, overwrite = history[-1], True
    last.stack.save(outputs["particles"], overwrite)
    last.maps.density.save(outputs["map"], overwrite)
    for half, role in zip(last.maps.halves, ("half1", "half2"), strict=True):
        half.save(outputs[role], overwrite)
    last.mask.save(outputs["mask"], overwrite)
    curves = {
        "fsc": last.fsc.corrected,
        "unmasked": last.fsc.unmasked,
        "masked": last.fsc.masked,
        "phase_randomised": last.fsc.randomised,
    }
    write_fsc_csv(curves, outputs["fsc"], overwrite=overwrite)
    with atomic_path(outputs["history"], overwrite=overwrite) as temporary:
        pd.DataFrame([iteration.row() for iteration in history]).to_csv(temporary, index=False)
    write_json(config.model_dump(mode="json"), outputs["config"], overwrite=overwrite)
