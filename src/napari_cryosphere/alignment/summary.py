"""How sure an alignment is, from its modes: what can be said without laying out the posterior."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cryosphere.alignment.refine import RefinedPoses
from napari_cryosphere.alignment.search import Candidates
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.pose_summary import (
    CONFIDENCE_RADIUS_DEGREES,
    EVALUATION_ORDER,
    PoseSummary,
)
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["summarise_modes"]

Values: TypeAlias = NDArray[np.float64]

_NEGLIGIBLE = 15.0  # nats below the best mode: cells of less than 3e-7 of its mass are left out
_APART = 1.5  # cells
_VOLUME = 8 * math.pi**2
_MEAN_LENGTH = math.sqrt(8 / math.pi)  # of a vector of three standard normal numbers


def summarise_modes(
    modes: RefinedPoses,
    counts: NDArray[np.int64],
    candidates: list[Candidates] | None,
    symmetry: str,
) -> tuple[PoseSummary, Values]:
    """Summarise posteriors as mixtures: a Gaussian at each mode, and the search's cells away from them.

    Parameters
    ----------
    modes
        All images' modes, image by image, best first.
    counts
        ``(n,)``: how many are each image's, one at least.
    candidates
        The cells of each image's search, if there was one.
    symmetry
        Point group of the map.

    Returns
    -------
    What `PoseDistribution.summary` says, without the posterior: a mode's mass is its evidence
    (Laplace's approximation), its entropy that of its Gaussian. The largest probability of an
    order-3 cell is bounded by the mode's mass and by what the Gaussian's peak puts into one cell. And
    the logarithm of each image's evidence, averaged over all distinct poses, ``(n,)``. The prior at
    each part's best pose and shift is taken out of it: one that knows poses would vouch for images without
    a particle too.
    """
    group = point_group(symmetry)
    first = np.cumsum(counts) - counts
    numbers = (modes.rotations.double(), modes.log_evidence.double(), modes.rotation_covariance())
    poses, masses, covariances = (part.cpu().numpy() for part in numbers)
    priors = modes.log_prior.double().cpu().numpy()
    owners = np.repeat(np.arange(len(counts)), counts)
    parts = [_modes(poses, masses, covariances, owners, first, group, priors)]
    if candidates is not None:
        top = np.maximum.reduceat(masses, first)
        parts.append(_cells_away(candidates, poses, counts, first, top, group))
    owner, mass, size, angle, prior = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )

    evidence = _log_sums(owner, mass - prior, len(counts)) - math.log(_VOLUME / len(group))
    weight = np.exp(mass - _log_sums(owner, mass, len(counts))[owner])
    entropy = np.bincount(owner, weight * (size - np.log(np.maximum(weight, 1e-300))))
    # a Gaussian's peak is e^1.5 times as high as a uniform density of the same entropy
    concentration = np.minimum(
        1.0, np.exp(1.5 - size[first]) * len(group) / SO3Grid(EVALUATION_ORDER).size
    )
    near = np.bincount(owner, weight * (angle <= CONFIDENCE_RADIUS_DEGREES))
    summary = PoseSummary(
        rotations=poses[first],
        max_probability=weight[first] * concentration,
        entropy=np.minimum(entropy, 0.0),
        spread_degrees=np.bincount(owner, weight * angle).astype(np.float64),
        confidence=np.minimum(near, 1.0),
    )
    return summary, evidence


def _log_sums(owner: NDArray[np.int64], logs: Values, number: int) -> Values:
    """Return the logarithm of the sum of each image's parts, ``(number,)``."""
    highest = np.full(number, -np.inf)
    np.maximum.at(highest, owner, logs)
    sums: Values = highest + np.log(np.bincount(owner, np.exp(logs - highest[owner])))
    return sums


class _Parts(NamedTuple):
    """Parts of mixtures: whose each is, its logarithmic mass, its entropy, its angle to the best pose.

    And the logarithm of the prior that is in its mass.
    """

    owner: NDArray[np.int64]
    mass: Values
    size: Values
    angle: Values
    prior: Values


def _modes(
    poses: Values,
    masses: Values,
    covariances: Values,
    owner: NDArray[np.int64],
    first: NDArray[np.int64],
    group: Values,
    priors: Values,
) -> _Parts:
    """Return the modes as parts; each image's ``first`` is the best."""
    _, volumes = np.linalg.slogdet(2 * np.pi * np.e * covariances)
    # entropy of each part relative to uniform: the logarithm of its share of the distinct poses
    sizes = np.minimum(0.5 * volumes - math.log(_VOLUME / len(group)), 0.0)
    angles = _angles(poses, poses[first][owner], group)
    angles[first] = np.degrees(_MEAN_LENGTH * np.linalg.det(covariances[first]) ** (1 / 6))
    return _Parts(owner, masses, sizes, angles, priors)


def _cells_away(
    images: list[Candidates],
    poses: Values,
    counts: NDArray[np.int64],
    first: NDArray[np.int64],
    top: Values,
    group: Values,
) -> _Parts:
    """Return as parts the cells that matter and lie away from all of their image's modes."""
    grid, cell = images[0].grid, 1 / images[0].grid.size
    owner = np.repeat(np.arange(len(images)), [len(candidates.cells) for candidates in images])
    every, priors = (
        torch.cat([getattr(candidates, name) for candidates in images]).double().cpu().numpy()
        for name in ("log_density", "log_prior")
    )
    masses = every + math.log(_VOLUME * cell)
    kept = np.flatnonzero(masses > top[owner] - _NEGLIGIBLE)
    owner, masses = owner[kept], masses[kept]
    centres = torch.cat([candidates.rotations for candidates in images]).cpu().numpy()[kept]
    to_best = _angles(centres, poses[first[owner]], group)
    away = to_best.copy()
    for rank in range(1, counts.max()):
        has = counts[owner] > rank
        to_mode = _angles(centres[has], poses[first[owner[has]] + rank], group)
        away[has] = np.minimum(away[has], to_mode)
    apart = away > _APART * grid.spacing_degrees
    sizes = np.full(int(apart.sum()), math.log(cell * len(group)))
    return _Parts(owner[apart], masses[apart], sizes, to_best[apart], priors[kept][apart])


def _angles(rotations: Values, poses: Values, group: Values) -> Values:
    """Return the angles between ``(c, 3, 3)`` pairs, modulo symmetry, in degrees."""
    turns = rotations @ np.swapaxes(poses, -1, -2)
    traces = turns.reshape(-1, 9) @ group.reshape(-1, 9).T
    angles: Values = np.degrees(np.arccos(np.clip((traces.max(1) - 1) / 2, -1, 1)))
    return angles
