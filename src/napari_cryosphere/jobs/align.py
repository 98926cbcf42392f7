"""The job ``align``: particles and a map to poses, shifts and posteriors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere._files import refuse_beyond_room, refuse_overwrite
from napari_cryosphere.alignment.aligner import Aligner, Alignment
from napari_cryosphere.alignment.defocus import best_defocus
from napari_cryosphere.alignment.presence import presence
from napari_cryosphere.alignment.scale import best_scale
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.ctf import transfer_functions, transfer_values
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing, background_plane
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.jobs._states import States, mixed, refitted_together, state_posterior
from napari_cryosphere.jobs.configs import AlignConfig, AligningConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.jobs.running.batches import Arrays, Batches, finished, joined, work_through
from napari_cryosphere.jobs.running.compute import batches_at_once, choose_device
from napari_cryosphere.jobs.running.inputs import (
    described,
    digest_of_table,
    open_particles,
    refuse_unposed,
    warnings_of,
)
from napari_cryosphere.jobs.running.journal import Finished, Journal, MemoryJournal
from napari_cryosphere.jobs.running.map_detail import MapDetail, detail_of_map, map_detail
from napari_cryosphere.jobs.running.memory import REFERENCES_BYTES, SEARCH_BYTES, MemoryLimit
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.ranks import Ranks, current_ranks
from napari_cryosphere.jobs.running.references import open_reference
from napari_cryosphere.jobs.running.uncertainty import summary_metrics
from napari_cryosphere.particles import DensityMap, ParticleStack, spread_rows
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.pose_summary import SUMMARY, PoseSummary

__all__ = [
    "Aligned",
    "AlignerInput",
    "Pilot",
    "align",
    "align_rows",
    "align_rows_to_states",
    "align_stack",
    "band_note",
    "batches_of",
    "found_of_states",
    "gathered",
    "gathered_in_states",
    "pilot_about_known",
    "pilot_around",
    "prepare_aligner",
    "refuse_without_poses",
    "scale_note",
    "search_everywhere",
    "shares_of",
    "with_alignment",
    "with_refined_defocus",
]

Pilot: TypeAlias = Callable[[Aligner, Any, Tensor, Tensor | None], Alignment]
"""From an aligner, rows of a stack, their images and CTFs to where these fit the map."""

_PILOT = 384  # particles from which noise and contrast are estimated
# Of these aligned to correct the contrast; 48 cost 0.1 s more (docs/measurements.md).
_PILOT_ALIGNED = 32
_LOOKED_AT = 32  # images by which a set without noise is known
_NOISE_FREE = 0.1
"""Deviation of an image's noise relative to that of the image below which it is none (medians, by the lower
of two estimates): at most 0.05 in phantoms without noise (boxes of 32 to 64 px), 0.12 to 0.25 at a
signal-to-noise ratio of 100.
"""
_FRINGES = 0.5
"""Deviation of backgrounds, relative likewise, above which it is noise, be it without its high frequencies:
at most 0.13 in the phantoms, 0.4 to 0.6 at a signal-to-noise ratio of 10.
"""
_WHITE = 0.45  # cycles per pixel: beyond, few particles have power and white noise has as much as elsewhere
_PILOT_STATES = 96  # particles by which several maps' contrasts are fitted; chosen, not tuned
_LEAST_CHANGE = 0.03  # of the contrast: smaller corrections are not made; chosen, not tuned
# Per particle, by which inverted images must fit better: a factor of 20; chosen, not tuned.
_CLEARLY_NATS = 3.0
_DOUBTFUL = (
    0.6  # of the contrast: the poses given explain too little and are searched; chosen, not tuned
)
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV")
_DEFOCUS_STEP_ANGSTROM = 100.0
"""Turns the phase at 4 A and 300 kV by 0.4 radians."""
_DEFOCUS_REACH = 40  # steps to either side: 4000 A, more than fits of micrographs are usually off
_SCALE_CHECKED = 128
"""Particles of the scale check: of simulated ones 3 degrees off, 64 gave the scale to 0.25 %."""
_UNKNOWN_CONTRAST = 0.3
"""Spread of contrasts under which scales are compared: that found at a wrong scale is too low."""
_SURELY = (
    3.0  # standard errors by which a scale has to differ for a warning, and by how much at least:
)
_CALIBRATION = 0.003  # less than any two calibrations of a microscope do
_HAND = (
    "the poses have the map's hand: projections of a map and of its mirror image are the same, so that "
    "alignment cannot tell which of the two is right"
)
_EACH = ("shifts_px", "log_likelihood", "presence_evidence", *SUMMARY)
# Of a posterior in the journal and in zarr: 616 to 1893 cells at SNR 1, of 13 and 6 bytes each.
_POSTERIOR_BYTES = 2e4
_CELLS = ("orders", "indices", "log_density")


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
    states
        Which map each particle belongs to; None where there was one map.
    """

    particles: ParticleStack
    summary: PoseSummary
    shifts_angstrom: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    distribution: PoseDistribution | None = None
    states: States | None = None

    def _repr_html_(self) -> str:
        """Return the particles and their posteriors, for notebooks."""
        parts = [part for part in (self.particles, self.distribution) if part is not None]
        return "".join(part._repr_html_() for part in parts)


class AlignerInput:
    """The images and CTFs that an aligner takes, by rows of a stack.

    Images are scaled by the noise in their background. In a set without noise, backgrounds hold the
    particles' own fringes only, which differ from view to view: grey values are kept.
    """

    def __init__(self, stack: ParticleStack) -> None:
        self.stack = stack

    @cached_property
    def _images(self) -> PreparedImages:
        some = torch.from_numpy(self.stack.images(spread_rows(len(self.stack), _LOOKED_AT)))
        normalise = not _noise_free(some)
        return PreparedImages(self.stack, Preprocessing(normalise=normalise, ctf=None, mask=False))

    def __call__(self, rows: Any) -> tuple[Tensor, Tensor | None]:
        """Return ``(k, box, box)`` images with normalised backgrounds and their transfer functions."""
        return self._images[rows], transfer_functions(self.stack[rows])


def _noise_free(images: Tensor) -> bool:
    """Return whether ``(n, box, box)`` images hold next to no noise."""
    planes, background = background_plane(images)
    flat = images - planes
    whole = flat.flatten(1).std(dim=1)
    frequencies = torch.fft.fftfreq(images.shape[-1], device=images.device)
    beyond = torch.hypot(frequencies[:, None], frequencies) > _WHITE
    high = torch.fft.fft2(flat, norm="ortho")[:, beyond].abs().square().mean(dim=1).sqrt()
    # NaN of an image that is empty
    fringes, white = (float((part / whole).nanmedian()) for part in (background, high))
    return min(fringes, white) < _NOISE_FREE and fringes < _FRINGES


def pilot_around(stack: ParticleStack, reach_degrees: float, keep: bool = False) -> Pilot:
    """Return the pilot that searches around a stack's own poses; ``keep`` the posteriors."""
    rotations, shifts_px = stack.rotations(), _centres_px(stack)

    def pilot(aligner: Aligner, rows: Any, images: Tensor, ctf: Tensor | None) -> Alignment:
        return aligner.refine(images, ctf, rotations[rows], shifts_px[rows], reach_degrees, keep)

    return pilot


def pilot_about_known(
    stack: ParticleStack,
    sure: NDArray[np.bool_],
    lost: NDArray[np.bool_],
    reach_degrees: float = 0.0,
) -> Pilot:
    """Return the pilot that climbs from a stack's own poses where they are ``sure``, ``(n,)``.

    With a reach it searches that far around them. Of the others it searches all rotations: those that
    are ``lost``, ``(n,)``, at all shifts, the rest at shifts about their own.
    """
    rotations, shifts_px = stack.rotations(), _centres_px(stack)

    def pilot(aligner: Aligner, rows: Any, images: Tensor, ctf: Tensor | None) -> Alignment:
        poses, centres, parts = rotations[rows], shifts_px[rows], list[Alignment]()
        climbs, everywhere = sure[rows], lost[rows] & ~sure[rows]
        chosen = (climbs, everywhere, ~climbs & ~everywhere)
        groups = [np.flatnonzero(group) for group in chosen]
        for number, some in enumerate(groups):
            if not len(some):
                continue
            own, own_ctf = images[some], None if ctf is None else ctf[some]
            if number == 0:
                found = aligner.refine(own, own_ctf, poses[some], centres[some], reach_degrees)
            else:
                about = None if number == 1 else centres[some]
                found = aligner.search(own, own_ctf, centres_px=about)
            parts.append(found)
        found = Alignment.join(parts, np.argsort(np.concatenate(groups)))
        # of the images that were climbed as well: from the middle
        found.presence_evidence[:, 2] = np.linalg.norm(found.shifts_px, axis=1)
        return found

    return pilot


def _centres_px(stack: ParticleStack) -> NDArray[np.float64]:
    return np.asarray(-stack.shifts_angstrom() / stack.grid.pixel_size_angstrom)


def search_everywhere(
    aligner: Aligner, rows: Any, images: Tensor, ctf: Tensor | None, keep: bool = False
) -> Alignment:
    """Search all rotations and shifts; ``keep`` the posteriors."""
    return aligner.search(images, ctf, keep)


def prepare_aligner(
    stack: ParticleStack,
    density: DensityMap,
    symmetry: str,
    resolution_angstrom: float | None = None,
    shift_range_px: float | None = None,
    device: torch.device | None = None,
    pilot: Pilot = search_everywhere,
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
    aligner.measures_widths = False  # neither contrast nor sign depends on them
    rows = spread_rows(len(stack), _PILOT_ALIGNED)
    images, ctf = read(rows)
    found = pilot(aligner, rows, images, ctf)
    refitted = aligner.refitted(images, ctf, found)
    if refitted.noise.contrast < _DOUBTFUL * aligner.noise.contrast:
        pilot, found = search_everywhere, aligner.search(images, ctf)
        refitted = aligner.refitted(images, ctf, found)
    few = slice(None, None, 3)
    dark = pilot(aligner, rows[few], -images[few], None if ctf is None else ctf[few])
    if dark.log_likelihood.mean() > found.log_likelihood[few].mean() + _CLEARLY_NATS:
        raise MetadataError(
            f"{stack.source}: the particles are dark where the map is bright; invert one of the two"
        )
    kept = refitted if refitted.noise.contrast > _LEAST_CHANGE * aligner.noise.contrast else aligner
    kept.measures_widths = True
    return kept.with_shift_prior(found)


def with_alignment(
    stack: ParticleStack,
    shifts_px: NDArray[np.float64],
    log_likelihood: NDArray[np.float64],
    summary: PoseSummary,
    symmetry: str,
    there: NDArray[np.float64] | None = None,
) -> ParticleStack:
    """Return the particles with aligned poses and shifts and their uncertainty; the rest is kept.

    With ``there``, how probably each image is a particle of the map, ``(n,)`` (see `presence`), which
    is written as cryospherePresence, a pose is right only if it is.
    """
    columns = {"rlnLogLikeliContribution": log_likelihood}
    if there is not None:
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
        If a local search has no poses to begin with, or there is no CTF whose defocus to refine.
    """
    refuse_overwrite(config.output, config.overwrite)
    if config.distributions is not None:
        refuse_overwrite(config.distributions, config.overwrite)
    stack = open_particles(config)
    opened = [open_reference(config, path, stack.grid) for path in config.map]
    for one in opened:
        yield from one.notes
    yield from warnings_of(stack, "they are compared as they are")
    refuse_without_poses(stack, config)
    if config.refine_defocus and not stack.has_ctf:
        raise MetadataError(
            f"{stack.source}: no CTF to refine; leave out --refine-defocus or add rlnDefocusU"
        )
    ranks, keep = current_ranks(), config.distributions is not None
    if config.distributions is not None:
        needed = _POSTERIOR_BYTES * len(stack)
        refuse_beyond_room(config.distributions.parent, needed, "the distributions")
    batches = batches_of(stack, config)
    journal = Journal(config.journal, _identity(config, stack, batches.size), config.resume, ranks)
    yield Progress(0.0, "measuring noise and contrast")
    details = [
        map_detail(path, one.whole, config.resolution_angstrom)
        for path, one in zip(config.map, opened, strict=True)
    ]
    maps = [one.density for one in opened]
    if config.scale_check and ranks.first:
        for density, detail in zip(maps, details, strict=True):
            yield scale_note(stack, density, config, detail)
    yield from _compared(stack, maps, config, details, keep, batches, ranks, journal)
    if not ranks.first:
        yield Result({}, {})
        return
    found = _gathered(stack, batches, journal, config.symmetry, len(maps))
    outputs = {"star": config.output}
    if config.distributions is not None:
        _write_distributions(config.distributions, journal, batches, config, found.states)
        outputs["distributions"] = config.distributions
    particles = found.particles
    if config.refine_defocus:
        yield Progress(1.0, "refining the defocus")
        particles, note = with_refined_defocus(particles, density, config, detail)
        yield note
    particles.save(config.output, config.overwrite)
    journal.remove()
    yield Note(_HAND)
    metrics = summary_metrics(stack, found.summary, config.symmetry)
    yield Result(outputs, metrics | shares_of(found.states))


def align_stack(
    stack: ParticleStack, density: DensityMap | Sequence[DensityMap], config: AligningConfig
) -> Generator[Event, None, Aligned]:
    """Align particles to maps in memory; yields what the job yields and returns what it finds.

    Raises
    ------
    MetadataError
        If a local search has no poses to begin with.
    """
    refuse_without_poses(stack, config)
    yield from warnings_of(stack, "they are compared as they are")
    yield Progress(0.0, "measuring noise and contrast")
    asked = config.resolution_angstrom
    maps = [density] if isinstance(density, DensityMap) else list(density)
    details = [
        detail_of_map(one) if asked is None else MapDetail(asked, "as asked for") for one in maps
    ]
    batches, journal = batches_of(stack, config), MemoryJournal()
    yield from _compared(stack, maps, config, details, True, batches, Ranks(), journal)
    found = _gathered(stack, batches, journal, config.symmetry, len(maps))
    parts = list(_posteriors(batches, journal, config.symmetry, found.states))
    return replace(found, distribution=_joined_cells(parts, config.symmetry))


def refuse_without_poses(stack: ParticleStack, config: AligningConfig) -> None:
    """Check that there are poses where a config searches around them.

    Raises
    ------
    MetadataError
        If there are none.
    """
    if config.local_degrees is not None:
        refuse_unposed(stack, "to search around; leave --local out to search everywhere")


def batches_of(stack: ParticleStack, config: AligningConfig) -> Batches:
    """Return the batches; cells come in lists of different lengths, so that each is kept as it is."""
    limit = MemoryLimit(config.max_memory_gb)
    size = limit.batch_size(config.batch_size, stack.box, SEARCH_BYTES, REFERENCES_BYTES)
    return Batches(len(stack), size)


def _arrays_of(found: Alignment) -> Arrays:
    """Return all that is kept of a batch."""
    arrays = {name: getattr(found, name) for name in _EACH if name not in SUMMARY}
    arrays |= {name: getattr(found.summary, name) for name in SUMMARY}
    if found.distribution is not None:
        cells = found.distribution.cells()
        arrays |= {name: getattr(cells, name) for name in _CELLS}
    return arrays


def align_rows(
    stack: ParticleStack,
    density: DensityMap,
    config: AligningConfig,
    detail: MapDetail,
    align_each: Pilot,
    batches: Batches,
    ranks: Ranks,
    journal: Finished,
) -> Generator[Event, None, None]:
    """Measure the noise, ``align_each`` of this rank's batches and put the arrays into the journal."""
    device = choose_device(config.device)
    with batches_at_once(device, limited=config.max_memory_gb is not None) as at_once:
        aligner = prepare_aligner(
            stack,
            density,
            config.symmetry,
            detail.resolution_angstrom,
            config.shift_range_px,
            device,
            align_each,
        )
        yield Note(band_note(aligner, stack, detail))
        yield from _searched(stack, [aligner], [align_each], batches, ranks, journal, at_once)


def _searched(
    stack: ParticleStack,
    aligners: Sequence[Aligner],
    pilots: Sequence[Pilot],
    batches: Batches,
    ranks: Ranks,
    journal: Finished,
    at_once: int,
) -> Generator[Event, None, None]:
    """Put into the journal what each aligner and its pilot, one for every map, say of this rank's batches."""

    def work(rows: slice, inputs: tuple[Tensor, Tensor | None]) -> Arrays:
        return {
            _key(name, state, len(aligners)): values
            for state, (aligner, align_each) in enumerate(zip(aligners, pilots, strict=True))
            for name, values in _arrays_of(align_each(aligner, rows, *inputs)).items()
        }

    read = AlignerInput(stack)
    yield from work_through(batches, ranks, journal, read, work, "aligned", at_once=at_once)


def _key(name: str, state: int, number: int) -> str:
    """Return the name under which a journal keeps an array of one of several states."""
    return name if number == 1 else f"{name}_{state + 1}"


def _compared(
    stack: ParticleStack,
    maps: Sequence[DensityMap],
    config: AligningConfig,
    details: Sequence[MapDetail],
    keep: bool,
    batches: Batches,
    ranks: Ranks,
    journal: Finished,
) -> Generator[Event, None, None]:
    """Compare this rank's particles with every map, and put what each says into the journal."""
    number = len(maps)
    align_each = _pilot_of(stack, config, keep or number > 1)
    if number == 1:
        yield from align_rows(
            stack, maps[0], config, details[0], align_each, batches, ranks, journal
        )
        return
    pilot, pilots = _pilot_of(stack, config, keep=False), [align_each] * number
    yield from align_rows_to_states(
        stack, maps, config, details, pilot, pilots, batches, ranks, journal
    )


def align_rows_to_states(
    stack: ParticleStack,
    maps: Sequence[DensityMap],
    config: AligningConfig,
    details: Sequence[MapDetail],
    pilot: Pilot,
    pilots: Sequence[Pilot],
    batches: Batches,
    ranks: Ranks,
    journal: Finished,
) -> Generator[Event, None, None]:
    """Align this rank's batches to the maps of several states, each with one of ``pilots``.

    ``pilot`` aligns the particles by which noise and contrasts are measured.
    """
    device = choose_device(config.device)
    aligners = _state_aligners(stack, maps, config, details, pilot, device)
    for aligner, detail in zip(aligners, details, strict=True):
        yield Note(band_note(aligner, stack, detail))
    with batches_at_once(device, limited=config.max_memory_gb is not None) as at_once:
        yield from _searched(stack, aligners, pilots, batches, ranks, journal, at_once)


def _state_aligners(
    stack: ParticleStack,
    maps: Sequence[DensityMap],
    config: AligningConfig,
    details: Sequence[MapDetail],
    pilot: Pilot,
    device: torch.device,
) -> list[Aligner]:
    """Return an aligner for each map, all of one band and one noise: their evidence is compared."""
    common: list[Aligner] = []
    limits = [one.resolution_angstrom for one in details if one.resolution_angstrom is not None]
    resolution = max(limits, default=None)
    for _ in range(2):  # once more where one of the maps tells of poses in a narrower band
        common = [
            prepare_aligner(
                stack,
                density,
                config.symmetry,
                resolution,
                config.shift_range_px,
                device,
                pilot,
            )
            for density in maps
        ]
        shells = [aligner.band.max_shell for aligner in common]
        if len(set(shells)) == 1:
            break
        resolution = stack.grid.field_angstrom / min(shells)
    rows = spread_rows(len(stack), _PILOT_STATES)
    images, ctf = AlignerInput(stack)(rows)
    found = [pilot(aligner, rows, images, ctf) for aligner in common]
    return refitted_together(common, images, ctf, found)


def _gathered(
    stack: ParticleStack, batches: Batches, journal: Finished, symmetry: str, number: int
) -> Aligned:
    """Put the batches together; of several maps, each particle at its pose in its best state."""
    if number == 1:
        return gathered(stack, batches, journal, symmetry)
    found = found_of_states(batches, journal, number)
    states = state_posterior(found["presence_evidence"], found["confidence"])
    parts = _posteriors(batches, journal, symmetry, states)
    summed = PoseSummary.concatenate([part.summary() for part in parts])
    return _in_best_states(stack, found, states, symmetry, summed)


def gathered_in_states(
    stack: ParticleStack, batches: Batches, journal: Finished, symmetry: str, number: int
) -> Aligned:
    """Put the batches of several maps together, all but their posteriors; each particle in its best state."""
    found = found_of_states(batches, journal, number)
    states = state_posterior(found["presence_evidence"], found["confidence"])
    best = (np.arange(len(stack)), states.best)
    summary = PoseSummary(*(found[name][best] for name in SUMMARY))
    sure = summary.confidence * states.probabilities[best]
    return _in_best_states(stack, found, states, symmetry, replace(summary, confidence=sure))


def _in_best_states(
    stack: ParticleStack, found: Arrays, states: States, symmetry: str, summary: PoseSummary
) -> Aligned:
    """Return particles at their poses in their most probable states, as sure as a summary says."""
    best = (np.arange(len(stack)), states.best)
    summary = replace(
        summary,
        rotations=found["rotations"][best],
        confidence=summary.confidence * states.presence,
    )
    shifts_px, likelihood = found["shifts_px"][best], found["log_likelihood"][best]
    particles = with_alignment(stack, shifts_px, likelihood, summary, symmetry).with_columns(
        {"cryospherePresence": states.presence, **states.columns()}
    )
    shifts = particles.shifts_angstrom()
    return Aligned(particles, summary, shifts, likelihood, states=states)


def found_of_states(batches: Batches, journal: Finished, number: int) -> Arrays:
    """Return what all batches hold of particles and states but posteriors, ``(n, number, ...)`` by name."""
    names = tuple(_key(name, state, number) for state in range(number) for name in _EACH)
    found = joined(finished(batches, journal, names))
    return {
        name: np.stack([found[_key(name, state, number)] for state in range(number)], axis=1)
        for name in _EACH
    }


def shares_of(states: States | None) -> dict[str, float | int | str]:
    """Return the shares of the states as values that a run ends with."""
    if states is None:
        return {}
    return {f"share_of_state_{state + 1}": float(s) for state, s in enumerate(states.shares)}


def gathered(stack: ParticleStack, batches: Batches, journal: Finished, symmetry: str) -> Aligned:
    """Put the batches together, all but their posteriors."""
    found = joined(finished(batches, journal, _EACH))
    summary = PoseSummary(*(found[name] for name in SUMMARY))
    shifts_px, log_likelihood = found["shifts_px"], found["log_likelihood"]
    evidence, left, off = found["presence_evidence"].T
    there = presence(evidence, left, off, summary.confidence)
    particles = with_alignment(stack, shifts_px, log_likelihood, summary, symmetry, there)
    confidence = particles.particles["cryosphereConfidence"].to_numpy(float)
    summary = replace(summary, confidence=confidence)
    return Aligned(particles, summary, particles.shifts_angstrom(), log_likelihood)


def _joined_cells(parts: list[PoseDistribution], symmetry: str) -> PoseDistribution:
    """Return the posteriors of all batches, padded to the longest list of cells."""
    cells = [part.cells() for part in parts]
    width = max(part.indices.shape[1] for part in cells)

    def padded(name: str, value: float) -> NDArray[Any]:
        return np.concatenate(
            [
                np.pad(
                    getattr(part, name),
                    ((0, 0), (0, width - part.indices.shape[1])),
                    constant_values=value,
                )
                for part in cells
            ]
        )

    orders, indices = padded("orders", 0), padded("indices", -1)
    return PoseDistribution.from_cells(orders, indices, padded("log_density", -np.inf), symmetry)


def _pilot_of(stack: ParticleStack, config: AligningConfig, keep: bool) -> Pilot:
    """Return how a config has particles aligned; ``keep`` the posteriors."""
    if config.local_degrees is None:
        return partial(search_everywhere, keep=keep) if keep else search_everywhere
    return pilot_around(stack, config.local_degrees, keep)


def _posteriors(
    batches: Batches, journal: Finished, symmetry: str, states: States | None
) -> Iterator[PoseDistribution]:
    """Yield the posteriors of every batch over poses, summed over the states if there are several."""
    number = 1 if states is None else len(states.shares)
    names = tuple(_key(name, state, number) for state in range(number) for name in _CELLS)
    first = 0
    for batch in finished(batches, journal, names):
        parts = []
        for state in range(number):
            orders, indices, log_density = (batch[_key(name, state, number)] for name in _CELLS)
            parts.append(PoseDistribution.from_cells(orders, indices, log_density, symmetry))
        last = first + len(parts[0])
        yield parts[0] if states is None else mixed(parts, states.probabilities[first:last])
        first = last


def _write_distributions(
    path: Path, journal: Journal, batches: Batches, config: AlignConfig, states: States | None
) -> None:
    """Gather the posteriors of all batches into one zarr folder, a batch at a time."""
    from napari_cryosphere.so3.distributions.store import (
        write_distributions,
    )  # brings all kinds of them

    with write_distributions(path, overwrite=config.overwrite) as writer:
        for part in _posteriors(batches, journal, config.symmetry, states):
            writer.append(part)


def _identity(config: AlignConfig, stack: ParticleStack, batch_size: int) -> dict[str, Any]:
    """Return all that the results depend on."""
    return described(config) | {
        "number": len(stack),
        "batch_size": batch_size,
        "table": digest_of_table(stack),
    }


def with_refined_defocus(
    particles: ParticleStack, density: DensityMap, config: AligningConfig, detail: MapDetail
) -> tuple[ParticleStack, Note]:
    """Return aligned particles with the defocus at which each fits the map best, and what was found."""
    asked = detail.resolution_angstrom, config.shift_range_px
    aligner = prepare_aligner(
        particles, density, config.symmetry, *asked, pilot=pilot_around(particles, 0.0)
    )
    frequencies = aligner.band.frequencies.double().numpy() / particles.grid.field_angstrom
    farthest, read = _DEFOCUS_REACH * _DEFOCUS_STEP_ANGSTROM, AlignerInput(particles)
    offsets: NDArray[np.float64] = np.linspace(-farthest, farthest, 2 * _DEFOCUS_REACH + 1)
    rotations = particles.rotations()
    shifts_px = -particles.shifts_angstrom() / particles.grid.pixel_size_angstrom
    logs = []
    for rows in batches_of(particles, config).blocks():
        images, _ = read(rows)
        some = particles[rows]
        ctfs = (
            torch.from_numpy(transfer_values(_defocused(some, offset), frequencies))
            for offset in offsets
        )
        logs.append(aligner.defocus_log_likelihoods(images, ctfs, rotations[rows], shifts_px[rows]))
    codes = np.zeros(len(particles), dtype=np.int64)
    if "rlnMicrographName" in particles.particles:
        names = particles.particles["rlnMicrographName"].to_numpy()
        codes = np.unique(names, return_inverse=True)[1].astype(np.int64)
    found, error = best_defocus(np.concatenate(logs), offsets, codes)
    refined = _defocused(particles, found).with_columns({"cryosphereDefocusError": error})
    text = (
        f"defocus changed by {np.median(np.abs(found)):.0f} A (median; at most "
        f"{np.abs(found).max():.0f} A), known to {np.median(error):.0f} A"
    )
    return refined, Note(text)


def _defocused(stack: ParticleStack, offset_angstrom: Any) -> ParticleStack:
    """Return particles with another defocus, by one offset or ``(n,)``."""
    table = stack.particles
    return stack.with_columns(
        {name: table[name].to_numpy(float) + offset_angstrom for name in _DEFOCUS}
    )


def scale_note(
    stack: ParticleStack, density: DensityMap, config: AligningConfig, detail: MapDetail
) -> Note:
    """Say at which pixel size of the map some particles fit it best; a warning if it is another one."""
    grid, symmetry, device = stack.grid, config.symmetry, choose_device(config.device)
    given = density.pixel_size_angstrom
    asked = detail.resolution_angstrom, config.shift_range_px
    pilot: Pilot = search_everywhere
    if config.local_degrees is not None:
        pilot = pilot_around(stack, config.local_degrees)
    aligner = prepare_aligner(stack, density, symmetry, *asked, device, pilot)
    rows = spread_rows(len(stack), _SCALE_CHECKED)
    images, ctf = AlignerInput(stack)(rows)
    spread = max(_UNKNOWN_CONTRAST, aligner.noise.contrast_spread)
    noise = replace(aligner.noise, contrast_spread=spread)

    def aligner_at(factor: float, shell: int | None) -> Aligner:
        # a molecule keeps its mass, whatever the size of the pixels
        scaled = DensityMap(density.voxels * np.float32(factor**-3), given * factor)
        voxels = map_on_grid(scaled, grid.box, grid.pixel_size_angstrom)
        shell = shell or aligner.band.max_shell
        return Aligner(voxels, symmetry, noise, shell, device=device)

    found = best_scale(aligner_at, images, ctf, pilot(aligner, rows, images, ctf))
    if not np.isfinite(found.error):
        text = f"scale check: no scale within 12 % of the map's {given:.5g} A a pixel fits best"
        return Note(f"{text}; check the pixel sizes of the map and of the particles", warning=True)
    text = (
        f"scale check: the particles fit the map best at {given * found.factor:.5g} A a pixel, "
        f"{100 * (found.factor - 1):+.2f} % (standard error {100 * found.error:.2f} %) from its {given:.5g}"
    )
    if abs(found.factor - 1) <= max(_SURELY * found.error, _CALIBRATION):
        return Note(f"{text}: no sign of a wrong pixel size")
    return Note(f"{text}; give --map-pixel-size {given * found.factor:.5g}", warning=True)


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
