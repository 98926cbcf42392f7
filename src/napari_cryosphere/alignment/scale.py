"""The scale of a map that images fit best: what is left of an error of pixel sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.aligner import Aligner, Alignment

__all__ = ["ScaleEstimate", "best_scale"]

_STEPS = (0.02, 0.01, 0.005)
"""Differences of scale that are tried, coarse to fine: calibrations of one microscope differ by 1 to 2 %."""
_REACH = 3  # steps to either side at first
_FARTHEST = 0.12  # of scale errors: what is beyond cannot be found from poses at the wrong scale
_RIM_PHASE = 1.0
"""Radians that a step of the scale turns the phase at a particle's rim, at most, in the shells compared;
chosen, not tuned.
"""

AlignerAt = Callable[[float, int | None], Aligner]
"""From a scale and the highest shell (None: all that are informative) to an aligner."""


class ScaleEstimate(NamedTuple):
    """The factor on a map's pixel size at which images fit it best, and its standard error."""

    factor: float
    error: float


def best_scale(
    aligner_at: AlignerAt, images: Tensor, ctf: Tensor | None, found: Alignment
) -> ScaleEstimate:
    """Find the scale of largest likelihood, poses and shifts climbed at each scale.

    The error is that of an estimate from independent images whose likelihoods may be wrong (a
    sandwich: the scatter of the images' slopes over the curvature), so that it holds for images
    that differ from the map as well.

    Parameters
    ----------
    aligner_at
        Aligners with the same noise and the map at other scales.
    images, ctf
        ``(n, box, box)`` and ``(n, box, box // 2 + 1)``, as `Aligner.search` takes them: some hundred.
    found
        Where they fit at scale 1.

    Returns
    -------
    A factor at the rim of what was searched has an infinite error.
    """
    first = aligner_at(1.0, None)
    rim_shells = first.band.box / (2 * math.pi * first.radius_px)

    def scores(factor: float, shell: int) -> NDArray[np.float64]:
        poses = aligner_at(factor, shell).climbed(images, ctf, found.rotations, found.shifts_px)
        return poses.log_likelihood.double().cpu().numpy()

    best, reach = 1.0, _REACH
    for step in _STEPS:
        shell = min(first.band.max_shell, max(4, int(_RIM_PHASE * rim_shells / step)))
        tried = {rank: scores(best + rank * step, shell) for rank in range(-reach, reach + 1)}
        best_rank = max(tried, key=lambda rank: float(tried[rank].sum()))
        while abs(best_rank) == max(map(abs, tried)):
            farther = best_rank + (1 if best_rank > 0 else -1)
            if abs(best + farther * step - 1) > _FARTHEST:
                return ScaleEstimate(best + best_rank * step, math.inf)
            tried[farther] = scores(best + farther * step, shell)
            if tried[farther].sum() <= tried[best_rank].sum():
                break
            best_rank = farther
        centre, best, reach = best, best + best_rank * step, 2
    near = [rank for rank in sorted(tried) if abs(rank - best_rank) <= 2]
    offsets = np.array([centre + rank * step - best for rank in near])
    return _at_the_top(best, offsets, np.stack([tried[rank] for rank in near]))


def _at_the_top(
    best: float, offsets: NDArray[np.float64], logs: NDArray[np.float64]
) -> ScaleEstimate:
    """Fit parabolas to ``(k, n)`` log-likelihoods of images at ``(k,)`` offsets from the best scale."""
    square, slope, _ = np.polyfit(offsets, logs, 2)
    curvature = -2 * float(square.sum())
    if curvature <= 0:
        return ScaleEstimate(best, math.inf)
    moved = float(slope.sum()) / curvature
    at_top = slope + 2 * square * moved
    return ScaleEstimate(best + moved, float(np.linalg.norm(at_top)) / curvature)
