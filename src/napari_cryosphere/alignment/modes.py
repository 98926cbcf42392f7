"""The modes of images' posteriors: which scored poses are worth refining, and what was found there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.alignment.refine import RefinedPoses
from napari_cryosphere.so3.rotations import rotation_from_vector
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["PoseModes", "distinct_poses", "local_maxima"]

Values: TypeAlias = NDArray[np.float64]

_WIDEST = np.array([0.5, 0.5, 0.5, 4.0, 4.0])
"""Deviations of the prior about a mode, radians and px: a Gaussian means nothing further away."""


@dataclass(frozen=True)
class PoseModes:
    """Every image's modes, best first: Gaussians in rotation and shift that make up its posterior.

    Attributes
    ----------
    rotations
        ``(n, m, 3, 3)``; image to map coordinates.
    shifts_px
        ``(n, m, 2)``: where the particle's centre sits relative to pixel n // 2, x and y.
    log_evidence
        ``(n, m)`` nats; -inf where an image has fewer than m modes.
    information
        ``(n, m, 5, 5)``: inverse covariance of rotation vector (image frame, radians) and shift (px).
    """

    rotations: Values
    shifts_px: Values
    log_evidence: Values
    information: Values

    @classmethod
    def of(cls, refined: RefinedPoses, counts: NDArray[np.int64], most: int) -> PoseModes:
        """Return up to ``most`` modes per image of poses that follow image by image, best first.

        ``counts``, ``(n,)``, says how many are each image's, one at least.
        """
        place = np.minimum(np.arange(most), counts[:, None] - 1)
        index = torch.from_numpy((np.cumsum(counts) - counts)[:, None] + place)
        found = (refined.rotations, refined.shifts_px, refined.log_evidence, refined.information)
        values = [part.cpu()[index].double().numpy() for part in found]
        values[2][np.arange(most) >= counts[:, None]] = -np.inf
        return cls(*values)

    def draw(self, number: int, rng: np.random.Generator) -> tuple[Values, Values]:
        """Draw poses ``(n, number, 3, 3)`` and shifts ``(n, number, 2)`` from every image's posterior."""
        share = np.exp(self.log_evidence - self.log_evidence.max(1, keepdims=True))
        ends = np.cumsum(share, axis=1) / share.sum(1, keepdims=True)
        # evenly spread over the modes, so that shares are kept as well as the number allows
        levels = (np.arange(number) + rng.random((len(ends), 1))) / number
        mode = (levels[:, :, None] > ends[:, None, :-1]).sum(2)
        row = np.arange(len(ends))[:, None]
        precision = self.information[row, mode] + np.diag(_WIDEST**-2)
        normal = rng.normal(size=(*mode.shape, 5, 1))
        upper = np.linalg.cholesky(precision).swapaxes(-1, -2)
        step = np.linalg.solve(upper, normal)[..., 0]
        return (
            self.rotations[row, mode] @ rotation_from_vector(step[..., :3]),
            self.shifts_px[row, mode] + step[..., 3:],
        )


def local_maxima(
    image: Tensor, rotations: Tensor, scores: Tensor, most: int, apart_degrees: float, span: float
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
        Least angle between two of them.
    span
        Poses that score this much less than their image's best are not worth it.

    Returns
    -------
    ``(k,)`` int64: image by image, best first.
    """
    best = scores.new_full((int(image.max()) + 1,), -math.inf).scatter_reduce(
        0, image, scores, "amax"
    )
    hopeful = torch.nonzero(scores > (best - span)[image])[:, 0]
    owner, values = image[hopeful].cpu().numpy(), scores[hopeful].cpu().numpy()
    order = np.lexsort((-values, owner))
    owner = owner[order]
    poses = rotations[hopeful].reshape(-1, 9).cpu().numpy()[order]
    near = 1 + 2 * math.cos(math.radians(apart_degrees))
    free, chosen = np.arange(len(owner)), list[NDArray[np.int64]]()
    while len(chosen) < most and len(free):
        _, first, of_image = np.unique(owner[free], return_index=True, return_inverse=True)
        picks = free[first]
        chosen.append(picks)
        traces = np.einsum("ij,ij->i", poses[free], poses[picks[of_image]])
        free = free[(traces < near) & (free != picks[of_image])]
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
