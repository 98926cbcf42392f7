"""How sure an alignment is, from its modes: what can be said without laying out the posterior."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.alignment.refine import RefinedPoses
from napari_cryosphere.alignment.search import Candidates
from napari_cryosphere.so3.distribution import CONFIDENCE_RADIUS_DEGREES, EVALUATION_ORDER, PoseSummary
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["summarise_modes"]

Values: TypeAlias = NDArray[np.float64]

_NEGLIGIBLE = 15.0
_VOLUME = 8 * math.pi**2
_MEAN_LENGTH = math.sqrt(8 / math.pi)  # of a vector of three standard normal numbers


def summarise_modes(images: list[tuple[RefinedPoses, Candidates | None]], symmetry: str) -> PoseSummary:
    """Summarise posteriors as mixtures: a Gaussian at each mode, and the search's cells away from them.

    Parameters
    ----------
    images
        For each image its modes, best first, and the cells of its search.
    symmetry
        Point group of the map.

    Returns
    -------
    What `PoseDistribution.summary` says, without the posterior: a mode's mass is its evidence (Laplace's
    approximation), its entropy that of its Gaussian. The largest probability of an order-3 cell is bounded
    by the mode's mass and by what the Gaussian's peak puts into one cell.
    """
    group = point_group(symmetry)
    every = RefinedPoses.join([modes for modes, _ in images])
    ends = np.cumsum([len(modes) for modes, _ in images])[:-1]
    numbers = (every.rotations.double(), every.log_evidence.double(), every.rotation_covariance())
    poses, masses, covariances = (np.split(part.cpu().numpy(), ends) for part in numbers)
    rows = [
        _summarise(pose, mass, covariance, candidates, group)
        for pose, mass, covariance, (_, candidates) in zip(poses, masses, covariances, images, strict=True)
    ]
    columns = np.array([row[1:] for row in rows]).T
    return PoseSummary(np.stack([row[0] for row in rows]), *columns)


def _summarise(
    poses: Values, masses: Values, covariance: Values, candidates: Candidates | None, group: Values
) -> tuple[Values, float, float, float, float]:
    """Return the best pose and what a summary says of it, from the modes of one image."""
    _, volumes = np.linalg.slogdet(2 * np.pi * np.e * covariance)
    # entropy of each part relative to uniform: the logarithm of its share of the distinct poses
    sizes = np.minimum(0.5 * volumes - math.log(_VOLUME / len(group)), 0.0)
    angles = _angles(poses, poses[0], group)
    angles[0] = math.degrees(_MEAN_LENGTH * float(np.linalg.det(covariance[0])) ** (1 / 6))
    if candidates is not None:
        grid, cell = candidates.grid, 1 / candidates.grid.size
        counts = candidates.log_density > masses.max() - math.log(_VOLUME * cell) - _NEGLIGIBLE
        centres = candidates.rotations[counts].cpu().numpy()
        density = candidates.log_density[counts].double().cpu().numpy()
        away = np.min([_angles(centres, pose, group) for pose in poses], axis=0)
        apart = away > 1.5 * grid.spacing_degrees
        density = density[apart]
        masses = np.concatenate([masses, density + math.log(_VOLUME * cell)])
        sizes = np.concatenate([sizes, np.full(len(density), math.log(cell * len(group)))])
        angles = np.concatenate([angles, _angles(centres[apart], poses[0], group)])
    weights = np.exp(masses - masses.max())
    weights /= weights.sum()
    entropy = float((weights * (sizes - np.log(np.maximum(weights, 1e-300)))).sum())
    # a Gaussian's peak is e^1.5 times as high as a uniform density of the same entropy
    concentration = min(1.0, math.exp(1.5 - sizes[0]) * len(group) / SO3Grid(EVALUATION_ORDER).size)
    return (
        poses[0],
        float(weights[0]) * concentration,
        min(entropy, 0.0),
        float((weights * angles).sum()),
        min(1.0, float(weights[angles <= CONFIDENCE_RADIUS_DEGREES].sum())),
    )


def _angles(rotations: Values, pose: Values, group: Values) -> Values:
    """Return the angle from each of ``(c, 3, 3)`` to a pose, modulo symmetry, in degrees."""
    traces = rotations.reshape(-1, 9) @ (group @ pose).reshape(len(group), 9).T
    angles: Values = np.degrees(np.arccos(np.clip((traces.max(1) - 1) / 2, -1, 1)))
    return angles
