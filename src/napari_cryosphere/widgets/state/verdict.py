"""What a particle's distribution says, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidate", "Verdict", "agreement", "give_verdict"]

_SURE_CONFIDENCE, _SURE_SPREAD_DEGREES = 0.9, 15.0
"""A particle is called sure where its confidence is at least 0.9 and its spread at most half of the angle
that confidence is about; conventions, not tuned."""
_CANDIDATE, _APART_DEGREES = 0.1, 30.0
"""Candidates hold at least a tenth of the probability each, within 30 degrees and farther apart than that."""
_LIKELY_CONFIDENCE = 0.5
_UNKNOWN_NATS = -3.0
"""Entropy above which nothing is known: the poses left are more than e^-3, a twentieth, of all."""
_AGREE_DEGREES, _DISAGREE_DEGREES = 10.0, 30.0
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


@dataclass(frozen=True)
class Candidate:
    """A mode of a distribution.

    - ``rotation``: ``(3, 3)``.
    - ``angles``: its rot, tilt and psi in degrees.
    - ``probability``, ``confidence``: that the truth is within 10 and within 30 degrees of it,
      modulo symmetry.
    - ``apart_degrees``: from the first mode, modulo symmetry.
    """

    rotation: NDArray[np.float64]
    angles: tuple[float, float, float]
    probability: float
    confidence: float
    apart_degrees: float


@dataclass(frozen=True)
class Verdict:
    """A few words, and a sentence that explains them."""

    words: str
    reason: str


def give_verdict(
    candidates: Sequence[Candidate], confidence: float, spread_degrees: float, entropy: float
) -> Verdict:
    """Put a distribution into words.

    ``candidates``: its modes, the highest first. ``confidence``, ``spread_degrees``, ``entropy``:
    as in `napari_cryosphere.so3.pose_summary.PoseSummary`.
    """
    percent = f"{100 * confidence:.0f} %"
    if confidence >= _SURE_CONFIDENCE and spread_degrees <= _SURE_SPREAD_DEGREES:
        return Verdict("sure", f"expected to be within {spread_degrees:.1f}°")
    strong = [
        candidate
        for place, candidate in enumerate(candidates)
        if candidate.confidence >= _CANDIDATE
        and (place == 0 or candidate.apart_degrees > _APART_DEGREES)
    ]
    if len(strong) >= 2:
        furthest = max(candidate.apart_degrees for candidate in strong)
        up_to = "" if len(strong) == 2 else "up to "
        shares = ", ".join(f"{100 * candidate.confidence:.0f} %" for candidate in strong)
        words = f"{_NUMBERS[len(strong)]} candidates, {up_to}{furthest:.0f}° apart"
        return Verdict(words, f"within 30° of them: {shares}")
    if entropy > _UNKNOWN_NATS:
        share = 100 * np.exp(min(entropy, 0.0))
        return Verdict("unknown", f"{share:.0f} % of all poses are as likely as each other")
    if confidence >= _LIKELY_CONFIDENCE:
        return Verdict("likely", f"{percent} within 30° of the best pose, the rest elsewhere")
    return Verdict("unsure", f"only {percent} within 30° of the best pose")


def agreement(apart_degrees: float) -> str:
    """Return a line on the angle between the network's best pose and the map's."""
    if apart_degrees <= _AGREE_DEGREES:
        return f"network and map agree within {max(apart_degrees, 1):.0f}°"
    if apart_degrees <= _DISAGREE_DEGREES:
        return f"network and map differ by {apart_degrees:.0f}°"
    return f"network and map disagree: {apart_degrees:.0f}° apart"
