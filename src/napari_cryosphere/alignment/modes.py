"""Which of many scored poses are worth refining."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from napari_cryosphere.so3.symmetry import point_group

__all__ = ["distinct_poses", "local_maxima"]

_CONSIDERED = 256


def local_maxima(rotations: Tensor, scores: Tensor, most: int, apart_degrees: float, span: float) -> Tensor:
    """Return the indices of the best-scored poses that stand apart from each other, best first.

    Parameters
    ----------
    rotations
        ``(c, 3, 3)``.
    scores
        ``(c,)`` nats.
    most
        How many to return at most.
    apart_degrees
        Least angle between two of them.
    span
        Poses that score this much less than the best are not worth it.
    """
    top = scores.topk(min(_CONSIDERED, len(scores)))
    near = 1 + 2 * math.cos(math.radians(apart_degrees))
    values = top.values.cpu().numpy()
    hopeful = int((values > values[0] - span).sum())
    candidates = rotations[top.indices[:hopeful]].reshape(-1, 9).cpu().numpy()
    free = np.ones(hopeful, dtype=bool)
    chosen: list[int] = []
    while len(chosen) < most and free.any():
        pick = int(free.argmax())
        chosen.append(pick)
        free &= candidates @ candidates[pick] < near
    return top.indices[torch.tensor(chosen, device=scores.device)]


def distinct_poses(rotations: Tensor, scores: Tensor, apart_degrees: float, symmetry: str) -> Tensor:
    """Return which poses differ modulo symmetry, best first; of those that do not the best stays.

    ``rotations`` is ``(k, 3, 3)``, ``scores`` ``(k,)``; the answer is ``(j,)`` int64 indices, j <= k.
    """
    if len(rotations) == 1:
        return torch.zeros(1, dtype=torch.int64, device=scores.device)
    group = torch.from_numpy(point_group(symmetry).copy()).to(rotations)
    near = 1 + 2 * math.cos(math.radians(apart_degrees))
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        images = (group @ rotations[index]).reshape(-1, 9)
        others = rotations[kept].reshape(-1, 9)
        if not bool((others @ images.T > near).any()):
            kept.append(index)
    return torch.tensor(kept, device=scores.device)
