"""The job ``align``: particles and a map to poses, shifts and posteriors."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere._files import refuse_beyond_room, refuse_overwrite
from napari_cryosphere.alignment.aligner import Aligner, Alignment
from napari_cryosphere.alignment.presence import presence
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.ctf import transfer_functions
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.jobs.configs import AlignConfig, AligningConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.jobs.running.batches import Arrays, Batches, finished, joined, work_through
from napari_cryosphere.jobs.running.compute import batches_at_once, choose_device
from napari_cryosphere.jobs.running.inputs import (
    described,
    digest_of_table,
    open_particles,
    warnings_of,
)
from napari_cryosphere.jobs.running.journal import Finished, Journal, MemoryJournal
from napari_cryosphere.jobs.running.map_detail import MapDetail, detail_of_map, map_detail
from napari_cryosphere.jobs.running.memory import REFERENCES_BYTES, SEARCH_BYTES, MemoryLimit
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.ranks import Ranks, current_ranks
from napari_cryosphere.jobs.running.references import open_reference
from napari_cryosphere.jobs.running.uncertainty import summary_metrics
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.pose_summary import PoseSummary

__all__ = [
    "Aligned",
    "AlignerInput",
    "Pilot",
    "align",
    "align_rows",
    "align_stack",
    "band_note",
    "batches_of",
    "gathered",
    "pilot_around",
    "prepare_aligner",
    "refuse_without_poses",
    "spread_rows",
    "with_alignment",
]

Pilot: TypeAlias = Callable[[Aligner, NDArray[np.int64], Tensor, Tensor | None], Alignment]
"""From an aligner, rows of a stack, their images and CTFs to where these fit the map."""

_PILOT = 384  # particles from which noise and contrast are estimated
# Of these aligned to correct the contrast; 48 cost 0.1 s more (docs/measurements.md).
_PILOT_ALIGNED = 32
_LEAST_CHANGE = 0.03  # of the contrast: smaller corrections are not made; chosen, not tuned
# Per particle, by which inverted images must fit better: a factor of 20; chosen, not tuned.
_CLEARLY_NATS = 3.0
_DOUBTFUL = (
    0.6  # of the contrast: the poses given explain too little and are searched; chosen, not tuned
)
_HAND = (
    "the poses have the map's hand: projections of a map and of its mirror image are the same, so that "
    "alignment cannot tell which of the two is right"
)
_SUMMARY = tuple(field.name for field in fields(PoseSummary))
_EACH = ("shifts_px", "log_likelihood", "presence_evidence", *_SUMMARY)
# Of a posterior in the journal and in zarr: 616 to 1893 cells at SNR 1, of 13 and 6 bytes each.
_POSTERIOR_BYTES = 2e4
_CELLS = ("orders", "indices", "log_density")


def spread_rows(number: int, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` row numbers, spread evenly over ``number``: files are sorted by micrograph."""
    rows: NDArray[np.int64] = np.unique(
        np.linspace(0, number - 1, min(number, most)).astype(np.int64)
    )
    return rows


@dataclass(frozen=True)
class Aligned:
    """Particles aligned to a map.

    Attributes
    ----------
    particles
        The particles at their new poses and shifts, with the columns of how sure these are.
    summary
        Best poses and how sure these are.
    shifts_angstrom
        ``(n, 2)``, x and y, as rlnOriginX/YAngst.
    log_likelihood
        ``(n,)`` nats at the best pose over an image without a particle.
    distribution
        The posteriors over poses, with shifts integrated; None where they are kept in a file.
    """

    particles: ParticleStack
    summary: PoseSummary
    shifts_angstrom: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    distribution: PoseDistribution | None = None

    def _repr_html_(self) -> str:
        """Return the particles and their posteriors, for notebooks."""
        parts = [part for part in (self.particles, self.distribution) if part is not None]
        return "".join(part._repr_html_() for part in parts)


class AlignerInput:
    """The images and CTFs that an aligner takes, by rows of a stack."""

    def __init__(self, stack: ParticleStack) -> None:
        self.stack = stack
        self._images = PreparedImages(stack, Preprocessing(ctf=None, mask=False))

    def __call__(self, rows: Any) -> tuple[Tensor, Tensor | None]:
        """Return ``(k, box, box)`` images with normalised backgrounds and their transfer functions."""
        return self._images[rows], transfer_functions(self.stack[rows])


def pilot_around(stack: ParticleStack, reach_degrees: float) -> Pilot:
    """Return the pilot that searches around a stack's own poses."""
    rotations, shifts_px = (
        stack.rotations(),
        -stack.shifts_angstrom() / stack.grid.pixel_size_angstrom,
    )

    def pilot(
        aligner: Aligner, rows: NDArray[np.int64], images: Tensor, ctf: Tensor | None
    ) -> Alignment:
        return aligner.refine(images, ctf, rotations[rows], shifts_px[rows], reach_degrees)

    return pilot


def _search(
    aligner: Aligner, rows: NDArray[np.int64], images: Tensor, ctf: Tensor | None
) -> Alignment:
    return aligner.search(images, ctf)


def prepare_aligner(
    stack: ParticleStack,
    density: DensityMap,
    symmetry: str,
    resolution_angstrom: float | None = None,
    shift_range_px: float | None = None,
    device: torch.device | None = None,
    pilot: Pilot = _search,
) -> Aligner:
    """Measure noise, contrast and band on a few hundred particles and return an aligner for them.

    The contrast is then fitted again at the poses found for some thirty of them, since the power
    alone is deceived where the map lacks what the particles have.

    Parameters
    ----------
    stack, density, symmetry
        Particles, and the map to compare them with.
    resolution_angstrom
        Finest detail compared; no more than what the particles tell of poses.
    shift_range_px
        Largest shift searched; None follows the data, see `Aligner`.
    device
        Where to compute.
    pilot
        How the some thirty are aligned. Where poses near the right ones are known, searching around
        these spares a search of all. If the map is hardly seen there, all poses are searched after
        all.

    Raises
    ------
    MetadataError
        If the particles are dark where the map is bright.
    """
    grid = stack.grid
    voxels = map_on_grid(density, grid.box, grid.pixel_size_angstrom)
    shell = None
    if resolution_angstrom is not None:
        shell = max(4, int(grid.field_angstrom / resolution_angstrom + 1e-6))
    read = AlignerInput(stack)
    images, ctf = read(spread_rows(len(stack), _PILOT))
    aligner = Aligner.estimated(voxels, symmetry, images, ctf, shell, shift_range_px, device)
    if aligner.noise.contrast == 0:
        raise MetadataError(
            f"{stack.source}: the particles hold no more power than their background; "
            f"nothing of the map is seen in them"
        )
    rows = spread_rows(len(stack), _PILOT_ALIGNED)
    images, ctf = read(rows)
    found = pilot(aligner, rows, images, ctf)
    refitted = aligner.refitted(images, ctf, found)
    if pilot is not _search and refitted.noise.contrast < _DOUBTFUL * aligner.noise.contrast:
        pilot, found = _search, aligner.search(images, ctf)
        refitted = aligner.refitted(images, ctf, found)
    few = slice(None, None, 3)
    dark = pilot(aligner, rows[few], -images[few], None if ctf is None else ctf[few])
    if dark.log_likelihood.mean() > found.log_likelihood[few].mean() + _CLEARLY_NATS:
        raise MetadataError(
            f"{stack.source}: the particles are dark where the map is bright; invert one of the two"
        )
    return refitted if refitted.noise.contrast > _LEAST_CHANGE * aligner.noise.contrast else aligner


def with_alignment(
    stack: ParticleStack,
    shifts_px: NDArray[np.float64],
    log_likelihood: NDArray[np.float64],
    summary: PoseSummary,
    symmetry: str,
    presence_evidence: NDArray[np.float64] | None = None,
) -> ParticleStack:
    """Return the particles with aligned poses and shifts and their uncertainty; the rest is kept.

    With the evidence of an `Alignment` of the whole set, cryospherePresence says how probably each
    image is a particle of the map, and a pose is right only if it is.
    """
    columns = {"rlnLogLikeliContribution": log_likelihood}
    if presence_evidence is not None:
        evidence, left, shifts = presence_evidence.T
        there = presence(evidence, left, shifts, summary.confidence)
        columns["cryospherePresence"] = there
        summary = replace(summary, confidence=summary.confidence * there)
    shifts = -shifts_px * stack.grid.pixel_size_angstrom
    posed = stack.with_summary(summary, symmetry, shifts)
    return posed.with_columns(columns)


@claims(files=("output",), stores=("distributions",))
def align(config: AlignConfig) -> Events:
    """Align particles to a map and write their poses.

    Raises
    ------
    MetadataError
        If a local search has no poses to begin with.
    """
    refuse_overwrite(config.output, config.overwrite)
    if config.distributions is not None:
        refuse_overwrite(config.distributions, config.overwrite)
    stack = open_particles(config)
    opened = open_reference(config, config.map, stack.grid)
    density = opened.density
    yield from opened.notes
    yield from warnings_of(stack, "they are compared as they are")
    refuse_without_poses(stack, config)
    ranks, keep = current_ranks(), config.distributions is not None
    if config.distributions is not None:
        needed = _POSTERIOR_BYTES * len(stack)
        refuse_beyond_room(config.distributions.parent, needed, "the distributions")
    batches = batches_of(stack, config)
    journal = Journal(config.journal, _identity(config, stack, batches.size), config.resume, ranks)
    yield Progress(0.0, "measuring noise and contrast")
    detail = map_detail(config.map, opened.whole, config.resolution_angstrom)
    yield from align_rows(stack, density, config, detail, keep, batches, ranks, journal)
    if not ranks.first:
        yield Result({}, {})
        return
    found = gathered(stack, batches, journal, config.symmetry)
    outputs = {"star": config.output}
    if config.distributions is not None:
        _write_distributions(config.distributions, journal, batches, config)
        outputs["distributions"] = config.distributions
    found.particles.save(config.output, config.overwrite)
    journal.remove()
    yield Note(_HAND)
    yield Result(outputs, summary_metrics(stack, found.summary, config.symmetry))


def align_stack(
    stack: ParticleStack, density: DensityMap, config: AligningConfig
) -> Generator[Event, None, Aligned]:
    """Align particles to a map in memory; yields what the job yields and returns what it finds.

    Raises
    ------
    MetadataError
        If a local search has no poses to begin with.
    """
    refuse_without_poses(stack, config)
    yield from warnings_of(stack, "they are compared as they are")
    yield Progress(0.0, "measuring noise and contrast")
    asked = config.resolution_angstrom
    detail = detail_of_map(density) if asked is None else MapDetail(asked, "as asked for")
    batches, journal = batches_of(stack, config), MemoryJournal()
    yield from align_rows(stack, density, config, detail, True, batches, Ranks(), journal)
    found = gathered(stack, batches, journal, config.symmetry)
    return replace(found, distribution=_joined_cells(batches, journal, config.symmetry))


def refuse_without_poses(stack: ParticleStack, config: AligningConfig) -> None:
    """Check that there are poses where a config searches around them.

    Raises
    ------
    MetadataError
        If there are none.
    """
    if config.local_degrees is not None and not stack.has_poses:
        raise MetadataError(
            f"{stack.source}: no poses to search around; leave --local out to search everywhere"
        )


def batches_of(stack: ParticleStack, config: AligningConfig) -> Batches:
    """Return the batches; cells come in lists of different lengths, so that each is kept as it is."""
    limit = MemoryLimit(config.max_memory_gb)
    size = limit.batch_size(config.batch_size, stack.box, SEARCH_BYTES, REFERENCES_BYTES)
    return Batches(len(stack), size)


def align_rows(
    stack: ParticleStack,
    density: DensityMap,
    config: AligningConfig,
    detail: MapDetail,
    keep: bool,
    batches: Batches,
    ranks: Ranks,
    journal: Finished,
) -> Generator[Event, None, None]:
    """Measure the noise, align this rank's batches and put them into the journal; ``keep`` the posteriors."""
    local, device = config.local_degrees, choose_device(config.device)
    with batches_at_once(device, limited=config.max_memory_gb is not None) as at_once:
        aligner = prepare_aligner(
            stack,
            density,
            config.symmetry,
            detail.resolution_angstrom,
            config.shift_range_px,
            device,
            _search if local is None else pilot_around(stack, local),
        )
        yield Note(band_note(aligner, stack, detail))
        yield from work_through(
            batches,
            ranks,
            journal,
            AlignerInput(stack),
            lambda rows, inputs: _align_batch(local, keep, stack[rows], aligner, *inputs),
            "aligned",
            at_once=at_once,
        )


def gathered(stack: ParticleStack, batches: Batches, journal: Finished, symmetry: str) -> Aligned:
    """Put the batches together, all but their posteriors."""
    found = joined(finished(batches, journal, _EACH))
    summary = PoseSummary(*(found[name] for name in _SUMMARY))
    shifts_px, log_likelihood = found["shifts_px"], found["log_likelihood"]
    evidence = found["presence_evidence"]
    particles = with_alignment(stack, shifts_px, log_likelihood, summary, symmetry, evidence)
    confidence = particles.particles["cryosphereConfidence"].to_numpy(float)
    summary = replace(summary, confidence=confidence)
    return Aligned(particles, summary, particles.shifts_angstrom(), log_likelihood)


def _joined_cells(batches: Batches, journal: Finished, symmetry: str) -> PoseDistribution:
    """Return the posteriors of all batches, padded to the longest list of cells."""
    parts = list(finished(batches, journal, _CELLS))
    width = max(part["indices"].shape[1] for part in parts)

    def padded(name: str, value: float) -> NDArray[Any]:
        return np.concatenate(
            [
                np.pad(
                    part[name],
                    ((0, 0), (0, width - part[name].shape[1])),
                    constant_values=value,
                )
                for part in parts
            ]
        )

    orders, indices = padded("orders", 0), padded("indices", -1)
    return PoseDistribution.from_cells(orders, indices, padded("log_density", -np.inf), symmetry)


def _align_batch(
    local_degrees: float | None,
    keep: bool,
    stack: ParticleStack,
    aligner: Aligner,
    images: Tensor,
    ctf: Tensor | None,
) -> Arrays:
    """Align one batch, and return all that is kept of it."""
    if local_degrees is None:
        found = aligner.search(images, ctf, keep)
    else:
        shifts_px = -stack.shifts_angstrom() / stack.grid.pixel_size_angstrom
        found = aligner.refine(images, ctf, stack.rotations(), shifts_px, local_degrees, keep)
    arrays = {name: getattr(found, name) for name in _EACH if name not in _SUMMARY}
    arrays |= {name: getattr(found.summary, name) for name in _SUMMARY}
    if found.distribution is not None:
        cells = found.distribution.cells()
        arrays |= {name: getattr(cells, name) for name in _CELLS}
    return arrays


def _write_distributions(
    path: Path, journal: Journal, batches: Batches, config: AlignConfig
) -> None:
    """Gather the posteriors of all batches into one zarr folder, a batch at a time."""
    from napari_cryosphere.so3.distributions.store import (
        write_distributions,
    )  # brings all kinds of them

    with write_distributions(path, overwrite=config.overwrite) as writer:
        for batch in finished(batches, journal, _CELLS):
            orders, cells, densities = (batch[name] for name in _CELLS)
            writer.append(PoseDistribution.from_cells(orders, cells, densities, config.symmetry))


def _identity(config: AlignConfig, stack: ParticleStack, batch_size: int) -> dict[str, Any]:
    """Return all that the results depend on."""
    return described(config) | {
        "number": len(stack),
        "batch_size": batch_size,
        "table": digest_of_table(stack),
    }


def band_note(aligner: Aligner, stack: ParticleStack, detail: MapDetail) -> str:
    """Say which detail is compared and why, and what was measured."""
    shell, limit = aligner.band.max_shell, detail.resolution_angstrom
    reached = limit is not None and shell >= int(stack.grid.field_angstrom / limit + 1e-6)
    why = detail.why if reached else "finer detail tells nothing of these particles' poses"
    return (
        f"compared to {stack.grid.field_angstrom / shell:.1f} A ({why}); "
        f"contrast {aligner.noise.contrast:.3g}; "
        f"particle radius {aligner.radius_px * stack.grid.pixel_size_angstrom:.0f} A"
    )
