"""Which of several maps each particle belongs to: one posterior over states and poses.

Every map is searched in the same band and against the same noise, so that the evidence that an image has
under each map, averaged over poses and integrated over shifts, can be compared. Shares of the states follow
from all particles by expectation maximisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cryosphere.alignment.aligner import Aligner, Alignment
from napari_cryosphere.alignment.presence import presence
from napari_cryosphere.particles import state_columns
from napari_cryosphere.so3.distributions import PoseDistribution

__all__ = ["States", "mixed", "refitted_together", "state_posterior"]

_ROUNDS = 100  # of EM at most; chosen, not tuned
_MOVED = 1e-3  # EM ends when no share moves by more; chosen, not tuned


class States:
    """Probabilities of the states of a set of particles.

    ``probabilities``, ``(n, k)``: of each state, given that the image is a particle. ``shares``,
    ``(k,)``: of the particles in each state. ``presence``, ``(n,)``: probability that the image is
    a particle of any of the maps.
    """

    def __init__(
        self,
        probabilities: NDArray[np.float64],
        shares: NDArray[np.float64],
        there: NDArray[np.float64],
    ) -> None:
        self.probabilities, self.shares, self.presence = probabilities, shares, there

    @property
    def best(self) -> NDArray[np.int64]:
        """Most probable state of each particle, ``(n,)``, counted from 0."""
        return self.probabilities.argmax(axis=1)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of a STAR file: class numbers from 1 and the states' probabilities."""
        return state_columns(self.probabilities)


def state_posterior(evidence: NDArray[np.float64], confidence: NDArray[np.float64]) -> States:
    """Find each particle's probabilities of the states, and the states' shares, by EM.

    ``evidence``, ``(n, k, 3)``: `Alignment.presence_evidence` under each map. ``confidence``,
    ``(n, k)``: how sure each pose is.
    """
    logs = evidence[:, :, 0]
    each = np.arange(len(logs))
    shares = np.full(logs.shape[1], 1 / logs.shape[1])
    for _ in range(_ROUNDS):
        joint = logs + np.log(shares)
        total = np.logaddexp.reduce(joint, axis=1)
        probabilities = np.exp(joint - total[:, None])
        best = probabilities.argmax(axis=1)
        _, left, shifts = evidence[each, best].T
        there = presence(total, left, shifts, confidence[each, best])
        found = (probabilities * there[:, None]).sum(0) + 1  # one particle each: no share is 0
        earlier, shares = shares, found / found.sum()
        if np.abs(shares - earlier).max() < _MOVED:
            break
    return States(probabilities, shares, there)


def refitted_together(
    aligners: Sequence[Aligner],
    images: torch.Tensor,
    ctf: torch.Tensor | None,
    found: Sequence[Alignment],
) -> list[Aligner]:
    """Return aligners with one noise model, whose contrasts are fitted to each map's own particles.

    ``aligners``: one for each map, of one band. ``images``, ``ctf``: ``(n, box, box)`` and
    ``(n, box, box // 2 + 1)``, as aligners take them. ``found``: what each aligner says of these
    images.
    """
    evidence = np.stack([one.presence_evidence for one in found], axis=1)
    confidence = np.stack([one.summary.confidence for one in found], axis=1)
    states = state_posterior(evidence, confidence)
    refitted = []
    for aligner, one, mine in zip(aligners, found, states.probabilities.T, strict=True):
        weighted = replace(one.summary, confidence=one.summary.confidence * mine)
        again = aligner.refitted(images, ctf, replace(one, summary=weighted))
        refitted.append(again if again.noise.contrast > 0 else aligner)
    first = refitted[int(states.shares.argmax())]
    for aligner in refitted:
        aligner.noise = replace(first.noise, contrast=aligner.noise.contrast)
        aligner.shift_prior = first.shift_prior
    return refitted


def mixed(parts: Sequence[PoseDistribution], weights: NDArray[np.float64]) -> PoseDistribution:
    """Return the mixture of the distributions of states, weighted ``(n, k)``."""
    total = weights[:, 0]
    found = parts[0]
    for part, weight in zip(parts[1:], weights.T[1:], strict=True):
        total = total + weight
        found = found.mixture(part, weight / np.maximum(total, np.finfo(float).tiny))
    return found
