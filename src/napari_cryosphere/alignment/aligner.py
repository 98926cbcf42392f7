"""Poses, shifts and posteriors of images, given a map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.defocus import defocus_log_likelihoods
from napari_cryosphere.alignment.local import LocalSearch
from napari_cryosphere.alignment.modes import distinct_poses, local_maxima
from napari_cryosphere.alignment.noise import (
    estimate_noise,
    informative_shell,
    particle_radius_px,
    refit_noise,
    slice_power,
)
from napari_cryosphere.alignment.observation import NoiseModel, Observation, observe
from napari_cryosphere.alignment.posterior import posterior
from napari_cryosphere.alignment.presence import residual_power
from napari_cryosphere.alignment.refine import Climb, RefinedPoses
from napari_cryosphere.alignment.search import Candidates, GlobalSearch
from napari_cryosphere.alignment.shift_prior import ShiftPrior
from napari_cryosphere.alignment.summary import summarise_modes
from napari_cryosphere.alignment.widths import integrated
from napari_cryosphere.imaging.fourier import to_fourier
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = ["Aligner", "Alignment", "LogPrior"]

# of images ``(k,)``, ascending, and a pose of each ``(k, 3, 3)`` to log-densities ``(k,)``
LogPrior: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]

# Poses that are climbed from, and which of them are dropped. On 64 and 128 particles of a phantom (box
# 32, signal 0.6 and 0.3 of the noise) the median error moved by at most 6 % with half and 1.7 to 2
# times the number of climbed poses, their distance, the span, the same and the hopeless; steps as here.
_CLIMBED = 4  # per image, at most
# Between these: one cell of the search's fine grid (HEALPix order 3). Of 517 ribosomes (ribo70S_train, true
# map: all with errors above 6 degrees, every tenth of the others) 49 were lost with 15 degrees, a cell of the
# coarse grid, and 47 with 8; the others' median error was 1.80 and 1.77 degrees.
# The second is for strong images, see below.
_APART_DEGREES, _APART_LOCALLY_DEGREES = (8.0, 5.0), (7.5, 2.5)
_SPAN = 12.0  # nats below the best score, a factor of 6e-6: what lies lower is not climbed from
_SAME_DEGREES = 2.0  # climbs that end closer than this ended at one mode
_LOCAL_REACH_PX = (
    4.0  # shifts searched about those given, where no range is asked for; chosen, not tuned
)
_REACH_OF_BOX, _FARTHEST_OF_BOX = 1 / 12, 1 / 6
"""Shifts searched at first and at most, in boxes. Chosen for realistic simulations, where 3 % of the
particles are off by 5 to 8 % of the box; other values were not tried.
"""
_STEPS_ABOUT = 2  # of the grid of shifts, about centres that are known: the posterior is as narrow
_FIRST_STEPS, _LAST_STEPS = 2, 2  # of a climb before and after hopeless ones are dropped
_MATTERS = 3.0  # nats of evidence below the best: modes of less than 5 % keep Laplace's widths
_HOPELESS = 10.0  # nats of evidence below the best after the first steps, a factor of 5e-5
# Best score, nats, of an image with little noise: apoferritin and realistic simulations have 20 to 140,
# phantoms (box 64) 300 to 1100 at a signal-to-noise ratio of 1 and from 15,000 at 100. There half a step
# of the grid costs most of the score, so that a cell next to the right one can be best. Then cells that
# score half as much are climbed from as well, and starts may be as close as the cells of the fine grid.
# Chosen where one of 200 was lost, whose right cell scored 0.47 of the best less; no others were tried.
_STRONG = 5000.0
_MARGIN_OF_STRONG = 0.6


@dataclass(frozen=True)
class Alignment:
    """Where a batch of images fits a map.

    Attributes
    ----------
    rotations
        ``(n, 3, 3)`` float64: the pose of largest evidence; image to map coordinates.
    shifts_px
        ``(n, 2)``: where the particle's centre sits relative to pixel n // 2, x and y.
    log_likelihood
        ``(n,)`` nats at that pose over an image without a particle.
    presence_evidence
        ``(n, 3)``: what `presence` judges by: the logarithm of the evidence over poses, what is left
        over inside the particle, and how far the particle is off.
    summary
        How sure the pose is, from the modes and the cells of the search.
    distribution
        The posterior over poses with shifts integrated, if it was asked for.
    """

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    log_likelihood: NDArray[np.float64]
    presence_evidence: NDArray[np.float64]
    summary: PoseSummary
    distribution: PoseDistribution | None

    @classmethod
    def join(cls, parts: Sequence[Alignment], order: NDArray[np.int64]) -> Alignment:
        """Return the answers of several, one after the other, in another ``order``; without posteriors."""

        def every(of: Callable[[Alignment], Any]) -> list[Any]:
            each = zip(*(_arrays(of(part)) for part in parts), strict=True)
            return [np.concatenate(arrays)[order] for arrays in each]

        rotations, shifts_px, likelihood, evidence = every(lambda part: part)
        summary = PoseSummary(*every(lambda part: part.summary))
        return cls(rotations, shifts_px, likelihood, evidence, summary, None)


def _arrays(of: Any) -> list[NDArray[np.float64]]:
    """Return the fields of a dataclass that are arrays, in their order."""
    values = [getattr(of, field.name) for field in fields(of)]
    return [value for value in values if isinstance(value, np.ndarray)]


def _highest(image: Tensor, scores: Tensor, number: int) -> Tensor:
    """Return each image's highest score, ``(number,)``."""
    lowest = scores.new_full((number,), -torch.inf)
    return lowest.scatter_reduce(0, image, scores, "amax")


def _margin(nats: float, best: Tensor) -> Tensor:
    """Return how far below an image's ``best`` score a pose can still win, nats."""
    return torch.where(best > _STRONG, _MARGIN_OF_STRONG * best, nats)


@dataclass(frozen=True)
class _Starts:
    """Poses to refine: which image each belongs to, the band they were found in, a search's cells if any."""

    image: Tensor
    rotations: Tensor
    shifts_px: Tensor
    max_shell: int
    candidates: list[Candidates] | None

    @classmethod
    def best_of(
        cls,
        scored: tuple[Tensor, Tensor, Tensor, Tensor],
        max_shell: int,
        apart_degrees: tuple[float, float],
        most: int = _CLIMBED,
        candidates: list[Candidates] | None = None,
    ) -> _Starts:
        """Choose each image's best poses that stand apart; of every pose (image, rotation, score, shift)."""
        image, rotations, scores, shifts_px = scored
        top = _highest(image, scores, int(image.max()) + 1)
        usual, closer = apart_degrees
        apart = torch.where(top > _STRONG, closer, usual)
        best = local_maxima(image, rotations, scores, most, apart, top - _margin(_SPAN, top))
        return cls(image[best], rotations[best], shifts_px[best], max_shell, candidates)


class Aligner:
    """Aligns images to one map.

    Parameters
    ----------
    voxels
        ``(box, box, box)``: the map on the images' grid, see `napari_cryosphere.imaging.resample`.
    symmetry
        Point group of the map.
    noise
        Noise spectrum and contrast; `estimated` finds them from images.
    max_shell
        Highest frequency compared, cycles a box.
    shift_reach_px
        Largest shift searched, from the middle in a search of all poses, from the given shifts
        otherwise. None starts from what particle picking usually leaves and goes on to a sixth
        of the box for images whose answers lie at the rim.

    Attributes
    ----------
    measures_widths
        Whether modes have the likelihood's own width (see `widths`), or Laplace's, which is too
        narrow for faint particles and spares 1.5 ms of some 5 per particle (box 64).
    shift_prior
        How far particles are off the middle; None knows nothing of it. See `with_shift_prior`.
    """

    def __init__(
        self,
        voxels: Tensor,
        symmetry: str,
        noise: NoiseModel,
        max_shell: int,
        shift_reach_px: float | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.symmetry = normalise_group_name(symmetry)
        self.noise = noise
        self.radius_px = particle_radius_px(voxels)
        self.band = FourierBand(voxels.shape[-1], min(max_shell, voxels.shape[-1] // 2 - 1))
        self._widens = shift_reach_px is None
        self._local_reach_px = _LOCAL_REACH_PX if shift_reach_px is None else shift_reach_px
        self._global_reach_px = (
            max(_LOCAL_REACH_PX, _REACH_OF_BOX * voxels.shape[-1])
            if shift_reach_px is None
            else shift_reach_px
        )
        self._sampler = SliceSampler(voxels.to(device), self.band.max_shell, moments=True)
        self._power = slice_power(self._sampler)
        self._global: GlobalSearch | None = None
        self.measures_widths = True
        self.shift_prior: ShiftPrior | None = None

    @classmethod
    def estimated(
        cls,
        voxels: Tensor,
        symmetry: str,
        images: Tensor,
        ctf: Tensor | None,
        max_shell: int | None = None,
        shift_reach_px: float | None = None,
        device: torch.device | None = None,
    ) -> Aligner:
        """Find noise, contrast and band from images, then be ready to align.

        Parameters
        ----------
        voxels, symmetry, shift_reach_px, device
            As for `Aligner`.
        images, ctf
            ``(n, box, box)`` with normalised backgrounds and ``(n, box, box // 2 + 1)``: some
            hundred images spread over the data.
        max_shell
            Highest frequency; by default that up to which the images hold 99.8 % of their
            information.
        """
        box = voxels.shape[-1]
        highest = box // 2 - 1 if max_shell is None else min(max_shell, box // 2 - 1)
        power = slice_power(SliceSampler(voxels, box // 2 - 1))
        noise = estimate_noise(images, ctf, power, particle_radius_px(voxels))
        shell = min(highest, informative_shell(noise, power, ctf))
        return cls(voxels, symmetry, noise, shell, shift_reach_px, device)

    def observe(self, images: Tensor, ctf: Tensor | None) -> Observation:
        """Whiten images ``(n, box, box)`` with normalised backgrounds."""
        return observe(images.to(self._sampler.device), ctf, self.noise, self.band)

    def search(
        self,
        images: Tensor,
        ctf: Tensor | None,
        with_distribution: bool = False,
        centres_px: NDArray[np.float64] | None = None,
    ) -> Alignment:
        """Align images from nothing: over all rotations, and shifts about the middle.

        Where an earlier search has found the particles' ``centres_px``, ``(n, 2)``, shifts are
        searched two steps about these, and farther only for images whose answers lie at the rim.
        """
        if self._global is None:
            self._global = GlobalSearch(
                self._sampler, self.band, self.radius_px, self._global_reach_px, self.symmetry
            )
        search, observation = self._global, self.observe(images, ctf)
        centres = None
        if centres_px is not None:
            centres = torch.from_numpy(centres_px).float().to(self._sampler.device)
            search = search.widened(min(self._global_reach_px, _STEPS_ABOUT * search.shift_step_px))
        near = observation if centres is None else observation.centred(centres)
        candidates = search.search(near, self.shift_prior, centres)
        if self._widens:
            self._search_beyond_rim(search, near, candidates, centres)
        if centres is not None:
            candidates = [
                found.moved(centre) for found, centre in zip(candidates, centres, strict=True)
            ]
        counts = torch.tensor([len(found.cells) for found in candidates])
        scored = (
            torch.arange(len(candidates)).repeat_interleave(counts).to(self._sampler.device),
            torch.cat([found.rotations for found in candidates]),
            torch.cat([found.log_density for found in candidates]),
            torch.cat([found.shifts_px for found in candidates]),
        )
        starts = _Starts.best_of(scored, search.max_shell, _APART_DEGREES, candidates=candidates)
        return self._finish(observation, starts, with_distribution)

    def _search_beyond_rim(
        self,
        search: GlobalSearch,
        observation: Observation,
        candidates: list[Candidates],
        centres_px: Tensor | None,
    ) -> None:
        """Search images again, twice as far, whose best answers lie at the rim of the shifts."""
        farthest = _FARTHEST_OF_BOX * self.band.box
        rows = list(range(len(candidates)))
        while search.shift_reach_px < farthest:
            rows = [row for row in rows if search.at_rim(candidates[row])]
            if not rows:
                return
            search, some = (
                search.widened(min(2 * search.shift_reach_px, farthest)),
                torch.tensor(rows),
            )
            about = None if centres_px is None else centres_px[some]
            again = search.search(observation[some], self.shift_prior, about)
            for row, found in zip(rows, again, strict=True):
                candidates[row] = found

    def refine(
        self,
        images: Tensor,
        ctf: Tensor | None,
        rotations: NDArray[np.float64],
        shifts_px: NDArray[np.float64],
        reach_degrees: float,
        with_distribution: bool = False,
        climbed: int = _CLIMBED,
        log_prior: LogPrior | None = None,
    ) -> Alignment:
        """Align images within ``reach_degrees`` of given poses, several an image if need be.

        All are scored on a coarse lattice within reach; from the best few that stand apart the
        likelihood is climbed, two steps from each, and on from those that can still win.

        Parameters
        ----------
        images, ctf
            As in `search`.
        rotations
            ``(n, 3, 3)``, or ``(n, m, 3, 3)`` with NaN where an image has fewer than m poses (see
            `PoseDistribution.mode`); it has at least one.
        shifts_px
            ``(n, 2)``: shared by an image's poses.
        reach_degrees
            Radius of the ball searched; 0 climbs from the poses alone.
        with_distribution
            Whether to return the distributions too.
        climbed
            From how many places an image's likelihood is climbed at most.
        log_prior
            What is known of poses before: for images ``(k,)`` int64, ascending, and a pose of each,
            ``(k, 3, 3)``, returns the logarithm of the prior's density relative to uniform, ``(k,)``.
            The modes are weighed by it; where they are, the likelihood alone decides. The
            evidence by which presence is judged leaves it out.

        Raises
        ------
        ValueError
            If an image has no pose.
        """
        observation, device = self.observe(images, ctf), self._sampler.device
        given = torch.from_numpy(rotations.reshape(len(images), -1, 3, 3)).float().to(device)
        there = given.isfinite().all(-1).all(-1)
        without = torch.nonzero(~there.any(1))[:, 0]
        if len(without):
            raise ValueError(
                f"image {int(without[0])} of {len(images)} (from 0) has no pose to start from"
            )
        owners = torch.nonzero(there)[:, 0]
        centres = torch.from_numpy(shifts_px).float().to(device)
        local = LocalSearch(
            self._sampler, self.band.max_shell, self.radius_px, reach_degrees, self._local_reach_px
        )
        tried, scores, shifts = local.search(observation, owners, given[there], centres)
        image = owners[:, None].expand_as(scores)
        scored = (image.flatten(), tried.flatten(0, 1), scores.flatten(), shifts.flatten(0, 1))
        starts = _Starts.best_of(scored, self.band.max_shell, _APART_LOCALLY_DEGREES, climbed)
        return self._finish(observation, starts, with_distribution, centres, log_prior)

    def climbed(
        self,
        images: Tensor,
        ctf: Tensor | None,
        rotations: NDArray[np.float64],
        shifts_px: NDArray[np.float64],
    ) -> RefinedPoses:
        """Climb the likelihood from one pose per image, and say nothing of how sure the result is.

        Rotations are ``(n, 3, 3)``, shifts ``(n, 2)``; the rest is as in `search`.
        """
        starts = (
            torch.from_numpy(part).float().to(self._sampler.device)
            for part in (rotations, shifts_px)
        )
        image = torch.arange(len(images), device=self._sampler.device)
        climb = Climb(self._sampler, self.observe(images, ctf), image, *starts)
        climb.step(_FIRST_STEPS + _LAST_STEPS)
        return climb.poses()

    def refitted(self, images: Tensor, ctf: Tensor | None, alignment: Alignment) -> Aligner:
        """Return the aligner with noise and contrast measured at the poses found for some images.

        References are shared. The contrast is negative if the images are dark where the map is bright.
        """
        slices = self._shifted_slices(alignment.rotations, alignment.shifts_px)
        changed = copy(self)
        changed.noise = refit_noise(
            self.band.of(to_fourier(images)),
            None if ctf is None else self.band.of(ctf),
            slices,
            torch.from_numpy(alignment.summary.confidence).float(),
            self.noise,
            self._power,
            self.band,
        )
        return changed

    def with_shift_prior(self, alignment: Alignment) -> Aligner:
        """Return the aligner with the prior that the shifts found for some images tell."""
        changed, off = copy(self), np.linalg.norm(alignment.shifts_px, axis=1)
        farthest = max(
            self._global_reach_px, _FARTHEST_OF_BOX * self.band.box if self._widens else 0
        )
        changed.shift_prior = ShiftPrior.fitted(off, alignment.summary.confidence, farthest)
        return changed

    def defocus_log_likelihoods(
        self,
        images: Tensor,
        ctfs: Iterable[Tensor],
        rotations: NDArray[np.float64],
        shifts_px: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Score images ``(n, box, box)`` at given poses with several CTFs of the band, ``(n, d)`` nats."""
        slices = self._shifted_slices(rotations, shifts_px)
        data = self.band.of(to_fourier(images))
        return defocus_log_likelihoods(data, slices, ctfs, self.noise, self.band)

    def _shifted_slices(
        self, rotations: NDArray[np.float64], shifts_px: NDArray[np.float64]
    ) -> Tensor:
        """Return the map's slices at poses, shifted, ``(n, k)``."""
        poses, shifts = (torch.from_numpy(part).float() for part in (rotations, shifts_px))
        device = self._sampler.device
        slices = self._sampler.values(poses.to(device), self.band.frequencies.to(device)).cpu()
        return slices * self.band.phases(shifts)

    def _finish(
        self,
        observation: Observation,
        starts: _Starts,
        with_distribution: bool,
        centres_px: Tensor | None = None,
        log_prior: LogPrior | None = None,
    ) -> Alignment:
        """Refine the starts, choose each image's best mode, and say how sure it is."""
        image, refined = self._climb(observation, starts)
        if self.shift_prior is not None:
            refined = refined.weighed(
                self.shift_prior.log_density(refined.shifts_px.square().sum(1))
            )
        if log_prior is not None:
            known = log_prior(image.numpy(), refined.rotations.double().cpu().numpy())
            refined = refined.weighed(torch.from_numpy(known))
        refined, counts = self._distinct(image, refined, len(observation))
        if self.measures_widths:
            refined = self._widened_modes(observation, refined, counts)
        ends = np.cumsum(counts)
        best = refined[torch.from_numpy(ends - counts).to(self._sampler.device)]
        summary, evidence = summarise_modes(refined, counts, starts.candidates, self.symmetry)
        left = residual_power(self._sampler, observation, self._power, best, self.radius_px)
        off = (best.shifts_px if centres_px is None else best.shifts_px - centres_px).cpu()
        distribution = (
            posterior(refined, counts, starts.candidates, self.symmetry)
            if with_distribution
            else None
        )
        return Alignment(
            best.rotations.double().cpu().numpy(),
            best.shifts_px.double().cpu().numpy(),
            best.log_likelihood.double().cpu().numpy(),
            np.stack([evidence, left.double().numpy(), off.norm(dim=1).double().numpy()], axis=1),
            summary,
            distribution,
        )

    def _widened_modes(
        self, observation: Observation, refined: RefinedPoses, counts: NDArray[np.int64]
    ) -> RefinedPoses:
        """Integrate the modes that hold a good part of their image's probability."""
        image = torch.arange(len(counts)).repeat_interleave(torch.from_numpy(counts))
        first = torch.from_numpy(np.cumsum(counts) - counts)
        evidence = refined.log_evidence
        rows = torch.nonzero(evidence > evidence[first[image]] - _MATTERS)[:, 0]
        image = image.to(self._sampler.device)[rows]
        return refined.with_rows(rows, integrated(self._sampler, observation, image, refined[rows]))

    def _distinct(
        self, image: Tensor, refined: RefinedPoses, number: int
    ) -> tuple[RefinedPoses, NDArray[np.int64]]:
        """Leave the poses that differ, each image's best first, and count them."""
        evidence = refined.log_evidence.cpu()
        kept = []
        for mine in torch.arange(len(image)).split(
            torch.bincount(image, minlength=number).tolist()
        ):
            distinct = distinct_poses(
                refined.rotations[mine], evidence[mine], _SAME_DEGREES, self.symmetry
            )
            kept.append(mine[distinct])
        return refined[torch.cat(kept).to(self._sampler.device)], np.array(
            [len(poses) for poses in kept]
        )

    def _climb(self, observation: Observation, starts: _Starts) -> tuple[Tensor, RefinedPoses]:
        """Refine the starts, and return which image each result belongs to.

        The first two steps are made in the band in which the starts were found: finer detail says
        nothing so far away. Then those are left whose evidence is within 10 nats of their image's
        best: a climb that is farther behind does not catch up.
        """
        image = starts.image.to(self._sampler.device)
        near = observation.narrowed(starts.max_shell)
        climb = Climb(self._sampler, near, image, starts.rotations, starts.shifts_px)
        whole = near is observation
        climb.step(_FIRST_STEPS if whole else _FIRST_STEPS - 1)
        evidence = climb.poses().log_evidence
        best = _highest(image, evidence, len(observation))
        climb.keep(evidence > (best - _margin(_HOPELESS, best))[image])
        if not whole:  # the second step is looked at in the whole band
            climb = Climb(self._sampler, observation, climb.image, *climb.next_poses())
        climb.step(_LAST_STEPS)
        return climb.image.cpu(), climb.poses()
