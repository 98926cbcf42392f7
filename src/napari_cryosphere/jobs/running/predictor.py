"""What a model, and a map if there is one, say of a stack's particles: batch by batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.aligner import Aligner, Alignment, LogPrior
from napari_cryosphere.alignment.presence import presence, reached
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.jobs.align import AlignerInput, Pilot, with_alignment
from napari_cryosphere.jobs.running.batches import Arrays
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import (
    ANGLES,
    ORIGIN_SPREAD,
    ORIGINS,
    UNCERTAINTY,
    ImageGrid,
    ParticleStack,
    network_column,
    spread_rows,
    state_columns,
)
from napari_cryosphere.so3.asymmetric_unit import expand
from napari_cryosphere.so3.distributions import HarmonicDistribution, PoseDistribution
from napari_cryosphere.so3.distributions.cells import unit_rotations
from napari_cryosphere.so3.pose_summary import SUMMARY, PoseSummary
from napari_cryosphere.so3.rotations import random_rotations

__all__ = ["Predictor", "images_for", "pilot_of"]

_REFINED_WITHIN_DEGREES = 10.0  # of each mode; chosen, not tuned
_MODES_APART_DEGREES = 20.0  # twice that, so that no pose is looked at from two modes
_NETWORK_SUMMARY = tuple(f"network_{name}" for name in SUMMARY)
_REACHED_DEGREES = 20.0
"""A true pose this near a mode is found: 10 degrees compared, and the climb from there. On
particles with a network of 4 and one of 10 degrees of error confidence was then right to 1 point;
with 15 degrees, 4 and 10 points too low."""
_COMPARED_ORDER = 2  # of the grid that the probability near modes is summed on: cells of 15 degrees
_DECOYS = 64  # particles whose poses are sought in wrong places
_NETWORK_ORIGINS = ("network_origins_angstrom", "network_origin_spread_angstrom")
_FOUND = ("shifts_px", "log_likelihood", "presence_evidence")
_NOVELTY_COLUMN = "cryosphereNovelty"

WithCtf: TypeAlias = tuple[Tensor, Tensor | None]
Inputs: TypeAlias = tuple[WithCtf, WithCtf | None]


def images_for(model: PoseModel, stack: ParticleStack) -> PreparedImages:
    """Return a stack's images as a model takes them."""
    grid = ImageGrid(model.card.network.box, model.card.pixel_size_angstrom)
    return PreparedImages(stack, Preprocessing(grid=grid))


def pilot_of(model: PoseModel, stack: ParticleStack, modes: int) -> Pilot:
    """Return the pilot that searches around a model's modes, see `prepare_aligner`."""
    images, origins_px = images_for(model, stack), _centres_px(stack.shifts_angstrom(), stack)

    def pilot(
        aligner: Aligner, rows: NDArray[np.int64], unmasked: Tensor, ctf: Tensor | None
    ) -> Alignment:
        predicted = model.predict_all(*images.with_ctf(rows))
        starts, centres = _starts(predicted.distribution, modes), origins_px[rows]
        if predicted.origins_angstrom is not None:
            centres = _centres_px(predicted.origins_angstrom, stack)
        return aligner.refine(unmasked, ctf, starts, centres, _REFINED_WITHIN_DEGREES)

    return pilot


def _starts(distribution: PoseDistribution, modes: int) -> NDArray[np.float64]:
    """Return the poses to refine, ``(n, modes, 3, 3)``, NaN where there are fewer."""
    return distribution.mode(modes, apart_degrees=_MODES_APART_DEGREES).rotations


def _prior_of(distribution: PoseDistribution) -> LogPrior:
    """Return what a network knows of poses, as `Aligner.refine` asks for it."""

    def log_prior(image: NDArray[np.int64], poses: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = np.bincount(image, minlength=len(distribution))
        column = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
        asked = np.tile(np.eye(3), (len(distribution), counts.max(), 1, 1))
        asked[image, column] = poses
        return np.asarray(distribution.log_prob(asked)[image, column])

    return log_prior


def _compared(distribution: PoseDistribution, starts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that a network gives to what is near the starts, ``(n,)``."""
    assert isinstance(distribution, HarmonicDistribution)
    symmetry = distribution.symmetry
    cells = unit_rotations(_COMPARED_ORDER, symmetry).reshape(-1, 9)
    probability = distribution.values_in_unit(_COMPARED_ORDER).softmax(1).double().cpu().numpy()
    mates = expand(np.nan_to_num(starts), symmetry).reshape(len(starts), -1, 9)
    nearest = np.stack([(row @ cells.T).max(0) for row in mates])  # one particle's at once: memory
    near = nearest >= 1 + 2 * np.cos(np.radians(_REACHED_DEGREES))
    return np.asarray((probability * near).sum(1))


def _centres_px(origins_angstrom: NDArray[np.float64], stack: ParticleStack) -> NDArray[np.float64]:
    """Return where centres are from pixel n // 2, ``(n, 2)`` x and y in pixels, from RELION's origins."""
    return -origins_angstrom / stack.grid.pixel_size_angstrom


class Predictor:
    """Predicts poses, and refines the best modes where there is an aligner.

    - ``model``: the network.
    - ``aligner``: compares them with a map; None leaves the network's poses.
    - ``modes``: how many modes of each distribution are tried, within the width of a network's
      peak.
    - ``climbed``: how many places near them, the best on a coarse lattice, are refined.
    - ``keep_coefficients``: whether `work` returns the distributions too, as ``coefficients``.
    """

    def __init__(
        self,
        model: PoseModel,
        stack: ParticleStack,
        aligner: Aligner | None = None,
        modes: int = 14,
        climbed: int = 4,
        keep_coefficients: bool = False,
    ) -> None:
        self._model, self._stack, self._aligner = model, stack, aligner
        self._modes, self._climbed = modes, climbed
        self._keep_coefficients = keep_coefficients
        self._images, self._unmasked = images_for(model, stack), AlignerInput(stack)
        self._origins_px = _centres_px(stack.shifts_angstrom(), stack)
        self._on_gpu = next(model.network.parameters()).device.type == "cuda"

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the arrays that `posed` takes."""
        novelty = () if self._model.novelty is None else ("novelty",)
        origins = () if self._model.card.shifts is None else _NETWORK_ORIGINS
        states = () if self._model.card.states is None else ("states",)
        refined = () if self._aligner is None else (*_FOUND, "compared", *_NETWORK_SUMMARY)
        return (*SUMMARY, *novelty, *origins, *states, *refined)

    @property
    def warnings(self) -> list[str]:
        """What was odd about the images read so far."""
        return self._images.warnings

    def read(self, rows: slice) -> Inputs:
        """Return the images of some particles, prepared; may be called ahead, in another thread."""
        images, ctf = self._images.with_ctf(rows)
        if self._on_gpu:
            images = images.pin_memory()
        return (images, ctf), None if self._aligner is None else self._unmasked(rows)

    def novelty(self) -> NDArray[np.float64] | None:
        """Return the novelty of all particles, ``(n,)``, without predicting; None if it is not known."""
        if self._model.novelty is None:
            return None
        images = self._images[:].to(next(self._model.network.parameters()).device)
        values: NDArray[np.float64] = self._model.novelty(images).double().cpu().numpy()
        return values

    def work(self, rows: slice, inputs: Inputs) -> Arrays:
        """Return what is found for some particles, one entry each."""
        prepared, unmasked = inputs
        distribution, novelty, origins, spread, states = self._model.predict_all(*prepared)
        summary = distribution.summary()
        predicted = _arrays(summary)
        if self._aligner is None or unmasked is None:
            arrays = predicted
        else:
            starts = _starts(distribution, self._modes)
            none = np.isnan(starts[:, 0]).any((1, 2))  # so flat that no maximum stands out
            starts[none, 0] = summary.rotations[none]
            centres = (
                self._origins_px[rows] if origins is None else _centres_px(origins, self._stack)
            )
            prior = _prior_of(distribution)
            found = self._refined(self._aligner, centres, unmasked, starts, prior)
            arrays = _arrays(found.summary)
            arrays |= {name: getattr(found, name) for name in _FOUND}
            arrays["compared"] = _compared(distribution, starts)
            arrays |= dict(zip(_NETWORK_SUMMARY, predicted.values(), strict=True))
        if novelty is not None:
            arrays["novelty"] = novelty
        if origins is not None and spread is not None:
            arrays |= dict(zip(_NETWORK_ORIGINS, (origins, spread), strict=True))
        if states is not None:
            arrays["states"] = states
        if self._keep_coefficients:
            assert isinstance(distribution, HarmonicDistribution)
            arrays["coefficients"] = distribution.coefficients.cpu().numpy()
        return arrays

    def posed(self, results: Arrays) -> tuple[ParticleStack, PoseSummary]:
        """Return all particles with their poses, and how sure these are.

        Where they were refined, confidence includes how probably the true pose is among those compared,
        and that the image is a particle at all. The network's poses and uncertainties stay as
        ``cryosphereNetworkAngleRot``, ``cryosphereNetworkSpread`` and so on. A model that knows its
        training's particles gives ``cryosphereNovelty`` too; one that knows shifts gives origins and
        ``cryosphereOriginSpread``, or where they were refined ``cryosphereNetworkOriginXAngst`` and so on;
        one that tells states apart ``rlnClassNumber`` and their probabilities.
        """
        posed, summary = self._posed(results)
        states = results.get("states")
        return posed if states is None else posed.with_columns(state_columns(states)), summary

    def _posed(self, results: Arrays) -> tuple[ParticleStack, PoseSummary]:
        symmetry, stack = self._model.card.symmetry, self._stack
        summary = PoseSummary(*(results[name] for name in SUMMARY))
        if "novelty" in results:
            stack = stack.with_columns({_NOVELTY_COLUMN: results["novelty"]})
        origins, spread = (results.get(name) for name in _NETWORK_ORIGINS)
        if self._aligner is None:
            posed = stack.with_summary(summary, symmetry, origins)
            return posed if spread is None else posed.with_columns({ORIGIN_SPREAD: spread}), summary
        network = PoseSummary(*(results[name] for name in _NETWORK_SUMMARY))
        predicted = stack.with_summary(network, symmetry, origins).particles
        names = (*ANGLES, *UNCERTAINTY) if origins is None else (*ANGLES, *ORIGINS, *UNCERTAINTY)
        kept = {network_column(name): predicted[name].to_numpy() for name in names}
        if spread is not None:
            kept[network_column(ORIGIN_SPREAD)] = spread
        shifts_px, log_likelihood, found = (results[name] for name in _FOUND)
        evidence, left, off = found.T
        there = presence(evidence, left, off, summary.confidence)
        decoys = self._at_wrong_poses(
            self._aligner,
            self._origins_px if origins is None else _centres_px(origins, self._stack),
        )
        near = reached(log_likelihood, decoys, results["compared"], there)
        summary = replace(summary, confidence=summary.confidence * near)
        posed = with_alignment(
            stack, shifts_px, log_likelihood, summary, self._aligner.symmetry, there
        )
        posed = posed.with_columns(kept)
        return posed, replace(summary, confidence=summary.confidence * there)

    def _refined(
        self,
        aligner: Aligner,
        centres_px: NDArray[np.float64],
        unmasked: tuple[Tensor, Tensor | None],
        starts: NDArray[np.float64],
        log_prior: LogPrior | None = None,
    ) -> Alignment:
        """Compare the map with some particles near poses ``(n, m, 3, 3)`` and centres ``(n, 2)``."""
        return aligner.refine(
            *unmasked,
            starts,
            centres_px,
            _REFINED_WITHIN_DEGREES,
            climbed=self._climbed,
            log_prior=log_prior,
        )

    def _at_wrong_poses(
        self, aligner: Aligner, centres_px: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the best log-likelihoods of some particles near random poses, as many as modes."""
        rows = spread_rows(len(self._stack), _DECOYS)
        rng = np.random.default_rng(0)
        poses = random_rotations(len(rows) * self._modes, rng).reshape(-1, self._modes, 3, 3)
        found = self._refined(aligner, centres_px[rows], self._unmasked(rows), poses)
        return found.log_likelihood


def _arrays(summary: PoseSummary) -> Arrays:
    return {name: getattr(summary, name) for name in SUMMARY}
