"""What there is to read of one particle's distribution beyond its summary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.widgets.state.lens import Lens, look_through
from napari_cryosphere.widgets.state.verdict import Candidate, Verdict, give_verdict

if TYPE_CHECKING:
    from napari_cryosphere.so3.distributions import PoseDistribution
    from napari_cryosphere.widgets.state.predictions import ParticlePose

__all__ = [
    "CREDIBLE_LEVEL",
    "NEAR_DEGREES",
    "Reading",
    "SphereProbe",
    "most_probable_pose",
    "read_distribution",
    "refined_line",
    "tile_texts",
    "view_angles",
]

CREDIBLE_LEVEL = 0.95
NEAR_DEGREES = 10.0
_ORDER = 4
_MOST_CANDIDATES = 5
_LEAST_PROBABILITY = 0.01
"""Modes that hold less within 10 degrees are not listed: they would be shown as 0 %."""
_DASH = "–"

Angles = tuple[float, float, float]


@dataclass(frozen=True)
class Reading:
    """One distribution in numbers.

    - ``candidates``: its modes, at most five, the highest first; always the first, of the others
      those that hold something.
    - ``lens``: what is seen around the first mode.
    - ``entropy``, ``spread_degrees``, ``confidence``: as in
      `napari_cryosphere.so3.pose_summary.PoseSummary`.
    - ``credible_share``: the share of all poses that the smallest set with 95 % of the probability
      fills.
    - ``error_degrees``: angle from the first mode to the known pose modulo symmetry; None where
      none is known.
    """

    candidates: tuple[Candidate, ...]
    lens: Lens
    entropy: float
    spread_degrees: float
    confidence: float
    credible_share: float
    error_degrees: float | None

    @property
    def best(self) -> Angles:
        """rot, tilt and psi in degrees of the first mode."""
        return self.candidates[0].angles

    @property
    def verdict(self) -> Verdict:
        """What it says in words."""
        return give_verdict(self.candidates, self.confidence, self.spread_degrees, self.entropy)


def read_distribution(
    distribution: PoseDistribution, known: NDArray[np.float64] | None = None
) -> Reading:
    """Read a batch of one; ``known`` is the particle's true pose, ``(3, 3)``. Takes some 0.4 s."""
    from napari_cryosphere.so3.symmetry import angular_error_degrees

    candidates, summary = _candidates(distribution), distribution.summary()
    best = candidates[0].rotation
    error = (
        None
        if known is None
        else angular_error_degrees(known[None], best[None], distribution.symmetry)
    )
    return Reading(
        candidates=candidates,
        lens=look_through(distribution, best),
        entropy=float(summary.entropy[0]),
        spread_degrees=float(summary.spread_degrees[0]),
        confidence=float(summary.confidence[0]),
        credible_share=float(distribution.credible_set(CREDIBLE_LEVEL).volume[0]),
        error_degrees=None if error is None else float(error[0]),
    )


def _candidates(distribution: PoseDistribution) -> tuple[Candidate, ...]:
    """Return the modes that hold something, the highest first."""
    from napari_cryosphere.so3.distributions.questions import angles_to
    from napari_cryosphere.so3.pose_summary import CONFIDENCE_RADIUS_DEGREES
    from napari_cryosphere.so3.symmetry import angular_error_degrees

    modes = distribution.mode(_MOST_CANDIDATES, NEAR_DEGREES)
    rotations = modes.rotations[0][np.isfinite(modes.rotations[0]).all((-1, -2))]
    cells = distribution.fine_cells()
    made = []
    for rotation in rotations:
        angles = angles_to(cells, rotation[None])
        made.append(
            Candidate(
                rotation,
                _angles(rotation),
                float(cells.probability[angles <= NEAR_DEGREES].sum()),
                float(cells.probability[angles <= CONFIDENCE_RADIUS_DEGREES].sum()),
                float(
                    angular_error_degrees(rotations[:1], rotation[None], distribution.symmetry)[0]
                ),
            )
        )
    return tuple(one for one in made if one is made[0] or one.probability >= _LEAST_PROBABILITY)


def _angles(rotation: NDArray[np.float64]) -> Angles:
    from napari_cryosphere.so3.rotations import relion_angles_from_rotation

    rot, tilt, psi = relion_angles_from_rotation(rotation)
    return float(rot), float(tilt), float(psi)


class SphereProbe:
    """Answers what a distribution, a batch of one, says at places of the sphere, many times a second."""

    def __init__(self, distribution: PoseDistribution) -> None:
        self._cells = distribution.probability_grid(_ORDER)[0]
        self._marginal = self._cells.sum(-1)

    def probability_near(self, direction: ArrayLike) -> float:
        """Return the probability that the view is within 10 degrees of ``(3,)`` a direction."""
        near = _views() @ np.asarray(direction) >= np.cos(np.radians(NEAR_DEGREES))
        return float(self._marginal[near].sum())

    def pose(self, direction: ArrayLike) -> NDArray[np.float64]:
        """Return the most probable pose that looks along a direction, ``(3, 3)``.

        That of the direction's cell, turned the shortest way: next to a pole psi itself means
        little.
        """
        from napari_cryosphere.so3.grid import SO3Grid
        from napari_cryosphere.so3.rotations import rotation_from_vector

        wanted = np.asarray(direction, dtype=np.float64)
        view = int((_views() @ wanted).argmax())
        grid = SO3Grid(_ORDER)
        pose = grid.rotations(view * grid.n_psi + int(self._cells[view].argmax()))
        across = np.cross(pose[:, 2], wanted)
        sine = float(np.linalg.norm(across))
        turn = across * (np.arcsin(min(sine, 1.0)) / sine) if sine > 0 else across
        return np.asarray(rotation_from_vector(turn) @ pose)

    def psi_degrees(self, direction: ArrayLike) -> float:
        """Return the most probable in-plane angle at a direction, 0 to 360."""
        return _angles(self.pose(direction))[2] % 360


@lru_cache(maxsize=1)
def _views() -> NDArray[np.float64]:
    """Return the view directions of the probe's grid, ``(n_views, 3)``."""
    from napari_cryosphere.so3.healpix import pix2vec

    return pix2vec(2**_ORDER, np.arange(12 * 4**_ORDER))


def view_angles(direction: ArrayLike) -> tuple[float, float]:
    """Return rot and tilt in degrees of a view direction, ``(3,)``."""
    x, y, z = np.asarray(direction, dtype=np.float64)
    return float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arctan2(np.hypot(x, y), z)))


def most_probable_pose(probe: SphereProbe | None, direction: ArrayLike) -> NDArray[np.float64]:
    """Return the pose of a view direction at the in-plane angle that is most probable there, ``(3, 3)``.

    Without a distribution psi is 0.
    """
    from napari_cryosphere.so3.rotations import rotation_from_relion_angles

    if probe is not None:
        return probe.pose(direction)
    return rotation_from_relion_angles(np.array([*view_angles(direction), 0.0]))


def tile_texts(pose: ParticlePose | None, reading: Reading | None) -> dict[str, str]:
    """Return the texts of the tiles, from what is known at once and what follows when the slider rests."""
    angles = reading.best if reading is not None else None if pose is None else pose.angles_degrees
    said = pose if reading is None else reading
    if angles is None or said is None:
        return {}
    rot, tilt, psi = angles
    return {
        "rot": f"{rot:.1f}°",
        "tilt": f"{tilt:.1f}°",
        "psi": f"{psi:.1f}°",
        "error": _DASH if said.error_degrees is None else f"{said.error_degrees:.1f}°",
        "spread": _DASH if np.isnan(said.spread_degrees) else f"{said.spread_degrees:.1f}°",
        "confidence": _DASH if np.isnan(said.confidence) else f"{100 * said.confidence:.0f} %",
        "entropy": _DASH if np.isnan(said.entropy) else f"{said.entropy:.2f}",
        "95 % set": _DASH if reading is None else f"{100 * reading.credible_share:.2g} %",
    }


def refined_line(pose: ParticlePose | None, name: str) -> str:
    """Return a line on a particle's refined pose, which has a spread and a confidence of its own."""
    texts = tile_texts(pose, None)
    if not texts:
        return ""
    parts = [
        f"{name} {texts[name]}"
        for name in ("spread", "confidence", "error")
        if texts[name] != _DASH
    ]
    angles = ", ".join(texts[name] for name in ("rot", "tilt", "psi"))
    return " · ".join([f"{name}: {angles}", *parts])
