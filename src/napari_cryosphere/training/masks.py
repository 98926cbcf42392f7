"""Targets that are probabilities on a grid of poses: CryoSphere's masks and what they are compared with.

CryoSphere (Chheda & Nori) compares an image with the map's projections at every pose of a grid over
SO(3) and trains on the binary mask of the largest 5 % of 1/MSE. Three kinds of label are made here:

- ``mask``: those poses, all equally probable;
- ``raw``: every pose of the grid, as probable as its 1/MSE is large;
- ``one-hot``: the grid pose nearest to the known one, and its equivalents under the map's symmetry.

All are ``(n, cells)`` float32 over the whole grid of an order, in the order of `SO3Grid`'s flat
indices, and sum to 1.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.labels import best_matches, inverse_mse
from napari_cryosphere.alignment.observation import NoiseModel, observe
from napari_cryosphere.alignment.references import References
from napari_cryosphere.imaging.preprocess import soft_circle
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.resample import map_on_grid
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.particles import DensityMap, ImageGrid
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.symmetry import point_group
from napari_cryosphere.training.presets import LabelKind
from napari_cryosphere.training.sources import WHOLE, Batch, shuffled_rows

__all__ = [
    "LabelledImages",
    "inverse_mse_on_grid",
    "label_targets",
    "mask_targets",
    "one_hot_targets",
    "raw_targets",
]

_CHUNK = 64  # images compared with the gallery at once, which bounds the scores held


def inverse_mse_on_grid(
    images: Tensor, voxels: ArrayLike | Tensor, order: int, contrast: float = 1.0
) -> Tensor:
    """Return 1/MSE of every image against the map's projection at every pose of a grid.

    The mean runs over the frequencies from the first shell to the last below Nyquist: a constant
    added to an image makes no difference. It is in units of a variance of 1 a pixel.

    ``images``: ``(n, box, box)``, without a CTF, particles in their centres. ``voxels``:
    ``(box, box, box)`` in z, y, x order, on the images' grid. ``contrast``: factor from the map's
    projections to the images. Returns ``(n, cells)`` float32.
    """
    box = images.shape[-1]
    band = FourierBand(box, box // 2 - 1)
    references = References.of_grid(
        SliceSampler(voxels, band.max_shell), SO3Grid(order).reduced("C1"), band
    )
    noise = NoiseModel.white(box, contrast=contrast)
    in_place = band.phases(torch.zeros(1, 2))
    return torch.cat(
        [
            inverse_mse(references, observe(part, None, noise, band), in_place)
            for part in images.split(_CHUNK)
        ]
    )


def mask_targets(inverse_errors: Tensor, fraction: float = 0.05) -> Tensor:
    """Return equal probabilities on the best-matching ``fraction`` of the poses, ``(n, cells)``."""
    mask = best_matches(inverse_errors, fraction).float()
    return mask / mask.sum(1, keepdim=True)


def raw_targets(inverse_errors: Tensor) -> Tensor:
    """Return 1/MSE scaled to sum to 1, ``(n, cells)``."""
    return inverse_errors / inverse_errors.sum(1, keepdim=True)


def one_hot_targets(rotations: NDArray[np.float64], order: int, symmetry: str = "C1") -> Tensor:
    """Return probability 1 on the grid pose nearest to each ``(n, 3, 3)`` pose, shared by its equivalents."""
    group = point_group(symmetry)
    cells = torch.from_numpy(SO3Grid(order).nearest(np.einsum("gij,njk->ngik", group, rotations)))
    targets = torch.zeros(len(rotations), SO3Grid(order).size)
    return targets.scatter_add_(1, cells, torch.full(cells.shape, 1 / len(group)))


def label_targets(
    kind: LabelKind,
    inverse_errors: Tensor,
    rotations: NDArray[np.float64],
    order: int,
    *,
    fraction: float = 0.05,
    symmetry: str = "C1",
) -> Tensor:
    """Return targets of a kind, ``(n, cells)``; see the module.

    - ``kind``: which label.
    - ``inverse_errors``: ``(n, cells)`` from `inverse_mse_on_grid`; not looked at for ``one-hot``.
    - ``rotations``: ``(n, 3, 3)`` known poses; looked at for ``one-hot`` alone.
    - ``fraction``: share of the grid in a ``mask``.
    - ``symmetry``: point group of the map; 1/MSE has it by itself.
    """
    if kind == "mask":
        return mask_targets(inverse_errors, fraction)
    if kind == "raw":
        return raw_targets(inverse_errors)
    return one_hot_targets(rotations, order, symmetry)


class LabelledImages:
    """Training on images with targets on a grid, held in memory and shown as they are.

    Images are neither turned nor moved: a mask cannot follow by less than a cell.

    - ``images``: ``(n, box, box)`` prepared.
    - ``rotations``: ``(n, 3, 3)`` known poses; they only travel along.
    - ``targets``: ``(n, cells)`` probabilities.
    - ``seed``: of the order.
    """

    def __init__(
        self, images: Tensor, rotations: NDArray[np.float64], targets: Tensor, seed: int = 0
    ) -> None:
        self._images = images
        self._rotations = torch.from_numpy(rotations).float()
        self._targets = targets
        self._seed = seed

    @classmethod
    def of_map(
        cls,
        density: DensityMap,
        grid: ImageGrid,
        number: int,
        kind: LabelKind,
        order: int,
        *,
        fraction: float = 0.05,
        symmetry: str = "C1",
        seed: int = 0,
    ) -> LabelledImages:
        """Make noise-free, centred projections of a map without a CTF, and their labels.

        - ``grid``: what the network sees images on.
        - ``number``: how many; their directions are uniform.
        - ``kind``, ``order``, ``fraction``, ``symmetry``: see `label_targets`.
        - ``seed``: of the directions and of the order.
        """
        voxels = map_on_grid(density, grid.box, grid.pixel_size_angstrom)
        rotations = random_rotations(number, np.random.default_rng(seed))
        clean = Projector(voxels, padding=3).project(rotations)
        scale = float(clean.std())
        errors = inverse_mse_on_grid(clean / scale, voxels, order, 1 / scale)
        targets = label_targets(
            kind, errors, rotations, order, fraction=fraction, symmetry=symmetry
        )
        return cls(clean / scale * soft_circle(grid.box), rotations, targets, seed)

    def batch(self, step: int, size: int, progress: float, share: slice = WHOLE) -> Batch:
        """Return the next ``size`` images of a shuffled pass, or a share of them."""
        rows = torch.from_numpy(shuffled_rows(len(self._images), step, size, self._seed)[share])
        return Batch(
            self._images[rows], self._rotations[rows], torch.ones(len(rows)), self._targets[rows]
        )
