"""Which of many scored poses are worth refining."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.so3.symmetry import point_group

__all__ = ["distinct_poses", "local_maxima"]


def local_maxima(
    image: Tensor,
    rotations: Tensor,
    scores: Tensor,
    most: int,
    apart_degrees: Tensor,
    floor: Tensor,
) -> Tensor:
    """Return the indices of each image's best-scored poses that stand apart from each other.

    Parameters
    ----------
    image
        ``(c,)`` int64: which image each pose was scored for.
    rotations
        ``(c, 3, 3)``.
    scores
        ``(c,)`` nats.
    most
        How many to return of an image at most.
    apart_degrees
        ``(n,)``: least angle between two of an image's poses.
    floor
        ``(n,)`` nats: poses of an image that do not score more are not worth it.

    Returns
    -------
    ``(k,)`` int64: image by image, best first.
    """
    hopeful = torch.nonzero(scores > floor[image])[:, 0]
    owner, values = image[hopeful].cpu().numpy(), scores[hopeful].cpu().numpy()
    order = np.lexsort((-values, owner))
    owner = owner[order]
    poses = rotations[hopeful].reshape(-1, 9).cpu().numpy()[order]
    near = (1 + 2 * apart_degrees.deg2rad().cos()).cpu().numpy()[owner]
    free, chosen = np.arange(len(owner)), list[NDArray[np.int64]]()
    while len(chosen) < most and len(free):
        _, first, of_image = np.unique(owner[free], return_index=True, return_inverse=True)
        picks = free[first]
        chosen.append(picks)
        traces = np.einsum("ij,ij->i", poses[free], poses[picks[of_image]])
        free = free[(traces < near[free]) & (free != picks[of_image])]
    return hopeful[torch.from_numpy(order[np.sort(np.concatenate(chosen))]).to(hopeful.device)]


def distinct_poses(
    rotations: Tensor, scores: Tensor, apart_degrees: float, symmetry: str
) -> Tensor:
    """Return which poses differ modulo symmetry, best first; of those that do not the best stays.

    ``rotations`` is ``(k, 3, 3)``, ``scores`` ``(k,)``; the answer is ``(j,)`` int64 indices, j <=
    k.
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
