"""Search over all poses: a coarse grid, then only the children of the cells that can hold the truth."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import (
    Observation,
    best_contrast,
    contrast_integral,
)
from napari_cryosphere.alignment.references import References, shift_grid
from napari_cryosphere.alignment.shift_prior import ShiftPrior
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.grid import SO3Grid

__all__ = ["Candidates", "GlobalSearch", "shells_for_spacing", "step_for_shell"]

_MAX_PHASE = 3.3  # radians at the particle's rim between neighbours on the grid, about pi
_SHIFT_STEP = 0.24  # of the wavelength: 0.75 radians to a side
# Cells of the coarse grid that are looked at on the fine one: the upper half of the scores, 16 to 128.
# Tuned on ribo70S_test and betagalD2_test; insensitive from 0.45 to 0.6 and 64 to 256 at most, and
# from 4 to 16 at least (docs/measurements.md).
_FEWEST, _MOST = 16, 128
_SPAN = 0.5
_SCORES_AT_ONCE = 1 << 23  # of coarse cells and shifts: 32 MB
_ENTRIES_AT_ONCE = 1 << 20  # of fine slices: 4 MB
_LEAST_LOG = -60.0  # nats: a share of 1e-26 adds nothing, and smaller ones slow exp down


def shells_for_spacing(spacing_degrees: float, radius_px: float, box: int) -> int:
    """Return the highest shell worth comparing on a grid of rotations of a given spacing.

    Half a spacing away from a grid point, the rim of a particle moves by ``radius * spacing / 2``;
    beyond the shell returned, the phases there turn by more than 3.3 radians. On the ribosome and
    the beta-galactosidase that the benchmarks use, more shells did not help the coarse grid, fewer
    harmed it.
    """
    return max(4, int(_MAX_PHASE * box / (math.pi * radius_px * math.radians(spacing_degrees))))


def step_for_shell(shell: int, box: int) -> float:
    """Return the spacing of shifts, px, at which the phase at ``shell`` turns by 0.75 radians to a side."""
    return _SHIFT_STEP * box / shell


@dataclass(frozen=True)
class Candidates:
    """The cells of the fine grid that one image was compared with.

    Attributes
    ----------
    grid
        The fine grid.
    cells
        ``(c,)`` flat indices in it.
    rotations
        ``(c, 3, 3)`` float32: their centres.
    log_density
        ``(c,)`` nats over an empty image, integrated over shifts (px^2), with their prior.
    shifts_px
        ``(c, 2)``: the best shift of each.
    log_prior
        ``(c,)``: the logarithm of the prior at that shift; 0 without one.
    """

    grid: SO3Grid
    cells: Tensor
    rotations: Tensor
    log_density: Tensor
    shifts_px: Tensor
    log_prior: Tensor

    def moved(self, by_px: Tensor) -> Candidates:
        """Return the cells with ``(2,)`` added to their shifts."""
        return replace(self, shifts_px=self.shifts_px + by_px)


class GlobalSearch:
    """Compares images with projections over all of SO(3) and a square of shifts.

    Every cell of a coarse grid is scored with all images in one matrix product. The coarse grid is
    over-confident: the truth's cell can score far below the best one, and the more so the stronger
    the signal. So an image keeps every cell in the upper half of its range of scores (from best
    down to median), at least 16 and at most 128, and is compared with their children, in as many
    shells as their spacing supports. Of the band's other shells a cell knows only what a wrong pose
    loses there on average: half of the model's power.

    Parameters
    ----------
    sampler
        The map's slices.
    band
        Band of the images.
    radius_px
        Radius of the particle.
    shift_reach_px
        Largest shift along x and along y.
    symmetry
        Point group of the map: only cells that meet its asymmetric unit are searched.
    coarse_order
        HEALPix order of the first grid; the second is one finer.
    """

    def __init__(
        self,
        sampler: SliceSampler,
        band: FourierBand,
        radius_px: float,
        shift_reach_px: float,
        symmetry: str = "C1",
        coarse_order: int = 2,
    ) -> None:
        coarse, fine = SO3Grid(coarse_order), SO3Grid(coarse_order + 1)
        self.grid = fine
        device = sampler.device
        reduced, fine_reduced = coarse.reduced(symmetry), fine.reduced(symmetry)
        shell = min(band.max_shell, shells_for_spacing(coarse.spacing_degrees, radius_px, band.box))
        self._coarse = References.of_grid(sampler, reduced, FourierBand(band.box, shell))
        kept = fine_reduced.indices()
        self._fine_cells = torch.from_numpy(kept).to(device)
        fine_shell = min(
            band.max_shell, shells_for_spacing(fine.spacing_degrees, radius_px, band.box)
        )
        fine_band = FourierBand(band.box, fine_shell)
        self._fine = References.of_grid(sampler, fine_reduced, fine_band)
        self._unseen = _power_beyond(sampler, band, fine_shell)
        rows = np.full(fine.size, -1, dtype=np.int64)
        rows[kept] = np.arange(len(kept))
        self._children = torch.from_numpy(rows[coarse.children(reduced.indices())]).to(device)
        self._centres = torch.from_numpy(fine.rotations(kept)).float().to(device)
        self._set_reach(shift_reach_px)

    def _set_reach(self, shift_reach_px: float) -> None:
        """Lay the grids of shifts."""
        box, device = self._fine.band.box, self._centres.device
        coarse_step, fine_step = (
            step_for_shell(references.band.max_shell, box)
            for references in (self._coarse, self._fine)
        )
        self.shift_step_px = fine_step
        self.shift_reach_px, self._rim_px = shift_reach_px, shift_reach_px - fine_step
        self.shifts_px = shift_grid(shift_reach_px, fine_step, device)
        self._log_shift_area = 2 * math.log(fine_step)
        self._fine_phases = self._fine.band.phases(self.shifts_px)
        self._coarse_shifts_px = shift_grid(shift_reach_px, coarse_step, device)
        self._coarse_phases = self._coarse.band.phases(self._coarse_shifts_px)

    def widened(self, shift_reach_px: float) -> GlobalSearch:
        """Return the search with the same references and another reach of shifts."""
        wider = copy(self)
        wider._set_reach(shift_reach_px)
        return wider

    def at_rim(self, candidates: Candidates) -> bool:
        """Return whether an image's best answer lies at the rim of the shifts searched."""
        best = candidates.shifts_px[candidates.log_density.argmax()]
        return float(best.norm()) > self._rim_px

    @property
    def max_shell(self) -> int:
        """The highest shell compared."""
        return self._fine.band.max_shell

    def search(
        self,
        observation: Observation,
        shift_prior: ShiftPrior | None = None,
        centres_px: Tensor | None = None,
    ) -> list[Candidates]:
        """Return the compared cells of every image.

        A prior, if there is one, weighs the whole shifts: those searched and the ``centres_px``,
        ``(n, 2)``, that were taken off the images before.
        """
        coarse, fine = (observation.narrowed(g.band.max_shell) for g in (self._coarse, self._fine))
        unseen = 0.5 * observation.filters.square() @ self._unseen
        at_once = max(1, _SCORES_AT_ONCE // (len(self._coarse.slices) * len(self._coarse_phases)))
        found = []
        log_prior, coarse_log_prior = (
            _shift_log_prior(shifts.expand(len(observation), -1, -1), shift_prior, centres_px)
            for shifts in (self.shifts_px, self._coarse_shifts_px)
        )
        # it ranks cells only, and counts times each one's contrast: without its constant
        coarse_log_prior = coarse_log_prior - coarse_log_prior.amax(1, keepdim=True)
        for start in range(0, len(observation), at_once):
            rows = slice(start, start + at_once)
            best = self._coarse.best_log_likelihoods(
                coarse[rows],
                self._coarse_phases,
                None if shift_prior is None else coarse_log_prior[rows],
            ).T.contiguous()
            found += self._compare_all(
                fine[rows], *self._chosen(best), unseen[rows], log_prior[rows]
            )
        return found

    def _chosen(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return each image's coarse cells, best first, and how many it keeps, from ``(n, cells)`` scores."""
        most = min(_MOST, scores.shape[1])
        best = scores.topk(most, dim=1)
        top = best.values[:, :1]
        floor = top - _SPAN * (top - scores.median(dim=1, keepdim=True).values)
        return best.indices, (best.values >= floor).sum(1).clamp(min=min(_FEWEST, most))

    def _compare_all(
        self,
        images: Observation,
        coarse_cells: Tensor,
        kept: Tensor,
        unseen: Tensor,
        shift_log_prior: Tensor,
    ) -> list[Candidates]:
        """Score images against the children of their cells: at once those that keep like numbers of them."""
        order = kept.argsort(descending=True)
        counts, found = kept[order].tolist(), list[Candidates]()
        while len(found) < len(images):
            start, width = len(found), counts[len(found)]
            entries = width * self._children.shape[1] * self._fine.slices.shape[1]
            some = order[start : start + max(1, _ENTRIES_AT_ONCE // entries)]
            found += self._compare(
                images[some],
                coarse_cells[some, :width],
                kept[some],
                unseen[some],
                shift_log_prior[some],
            )
        return [found[place] for place in order.argsort().tolist()]

    def _compare(
        self,
        images: Observation,
        coarse_cells: Tensor,
        kept: Tensor,
        unseen: Tensor,
        shift_log_prior: Tensor,
    ) -> list[Candidates]:
        """Score each image against its cells' children; ``unseen`` is what a pose loses elsewhere."""
        rows = self._children[coarse_cells]
        own = torch.arange(coarse_cells.shape[1], device=kept.device) < kept[:, None]
        there = ((rows >= 0) & own[..., None]).flatten(1)
        rows = rows.clamp(min=0).flatten(1)
        scores = self._fine.products_of_rows(images, self._fine_phases, rows)
        best = scores.amax(-1)
        lost = self._fine.norms_of_rows(images, rows) + unseen[:, None]
        spread = images.contrast_spread
        contrast = best_contrast(best, lost, spread)
        scores = scores.sub_(best[..., None]).mul_(contrast[..., None])
        places = scores.add_(shift_log_prior[:, None]).argmax(-1)
        log_prior = shift_log_prior.gather(1, places)
        # exponentials that underflow are slow
        shares = scores.clamp_(min=_LEAST_LOG).exp_().sum(-1)
        marginal = contrast_integral(best, lost, spread) + shares.log_() + self._log_shift_area
        rows, each = rows[there], there.sum(1).tolist()
        columns = (
            self._fine_cells[rows],
            self._centres[rows],
            marginal[there],
            self.shifts_px[places[there]],
            log_prior[there],
        )
        return [
            Candidates(self.grid, *part)
            for part in zip(*(c.split(each) for c in columns), strict=True)
        ]


def _shift_log_prior(
    shifts_px: Tensor, prior: ShiftPrior | None, centres_px: Tensor | None
) -> Tensor:
    """Return the logarithm of the prior at ``(n, t, 2)`` shifts about centres, ``(n, t)``; 0 without one."""
    if prior is None:
        return shifts_px.new_zeros(shifts_px.shape[:2])
    off = shifts_px if centres_px is None else shifts_px + centres_px[:, None]
    return prior.log_density(off.square().sum(-1))


def _power_beyond(sampler: SliceSampler, band: FourierBand, shell: int) -> Tensor:
    """Return the mean power of slices at the band's frequencies beyond a shell, 0 below; ``(k,)``."""
    power = torch.zeros(len(band.frequencies), device=sampler.device)
    beyond = band.frequencies.norm(dim=-1) > shell
    if bool(beyond.any()):
        poses = torch.from_numpy(SO3Grid(0).rotations()).float().to(sampler.device)
        values = sampler.values(poses, band.frequencies[beyond].to(sampler.device))
        power[beyond.to(sampler.device)] = values.abs().square().mean(0)
    return power
