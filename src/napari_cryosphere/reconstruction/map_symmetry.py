"""Point groups of a map: where their axes lie, and how well the map agrees with itself under them.

The map's transform is compared with itself turned by a group's operators, shell by shell: the mean
of these Fourier shell correlations is 1 for a symmetric map, and about 0 for a turn by chance. Axes
are searched over the half sphere for every fold, then groups are built on the best axes and their
frames and centres climbed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize

from napari_cryosphere.imaging.fourier import rescale
from napari_cryosphere.imaging.map_mask import masked_map, particle_mask
from napari_cryosphere.particles import DensityMap, spread_rows
from napari_cryosphere.reconstruction.cones import half_sphere
from napari_cryosphere.reconstruction.map_alignment import centre_of_mass, moved
from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    random_rotations,
    rotation_from_vector,
)
from napari_cryosphere.so3.symmetry import point_group

__all__ = [
    "GROUPS",
    "SYMMETRIC",
    "SelfCorrelation",
    "SymmetryFit",
    "axes_to_lay",
    "found_symmetry",
    "symmetry_fits",
]

Values: TypeAlias = NDArray[np.float64]

GROUPS = (*(f"{kind}{n}" for n in range(2, 13) for kind in "CD"), "T", "O", "I2")
"""The point groups that are looked for."""
SYMMETRIC = 0.5
"""Mean shell correlation under a group's worst operator from which a map counts as symmetric: that
of a map within its resolution with itself (FSC 0.5 of all particles where half-maps have 0.143)."""
_FIRST_SHELL = 2  # the first holds the centre of mass alone
_SEARCH_SHELLS, _FINEST_SHELLS = 8, 20
"""Shells compared in the search, where 5 degrees are a fraction of a speckle, and at the end."""
_AXES = 800  # of the half sphere: 5 degrees apart
_PEAKS, _APART_DEGREES = 4, 15.0
"""Axes of one fold that are tried, and the least angle between them."""
_ANGLES = 36  # about the main axis, over its fold
_PROMISING = 0.6
"""Share of the best group's correlation from which a group is climbed: the search's grid costs a quarter."""
_RANDOM = 400  # turns that say what chance gives
_POINTS_PER_SHELL = 100  # at most; shells of fewer coefficients have fewer
_FEW = 5  # operators, spread over a group, that lay its frame; all are asked at the end


@dataclass(frozen=True)
class SymmetryFit:
    """A point group laid on a map.

    A point r of RELION's frame is ``rotation @ r + centre`` in the map, both in x, y, z from voxel
    n // 2.

    - ``group``: RELION's name.
    - ``rotation``: ``(3, 3)``.
    - ``centre_angstrom``, ``(3,)``: the point that all axes meet in.
    - ``correlation``: mean Fourier shell correlation of the map with itself under the group's worst
      operator.
    - ``chance``, ``chance_deviation``: mean and standard deviation of the same under random turns
      about the same centre.
    """

    group: str
    rotation: Values
    centre_angstrom: Values
    correlation: float
    chance: float
    chance_deviation: float

    @property
    def deviations(self) -> float:
        """How many standard deviations of random turns the correlation is above their mean."""
        return (self.correlation - self.chance) / max(self.chance_deviation, 1e-6)

    @property
    def holds(self) -> bool:
        """Whether the map has the symmetry."""
        return self.correlation >= SYMMETRIC

    @property
    def off_degrees(self) -> float:
        """Least turn that lays the axes into RELION's frame."""
        return float(geodesic_distance_degrees(np.eye(3), self.rotation))

    def laid(self, density: DensityMap) -> DensityMap:
        """Return a map, or a half of it, with the axes in RELION's frame (cubic splines)."""
        shift_px = self.centre_angstrom / density.pixel_size_angstrom
        voxels = moved(density.voxels, self.rotation, shift_px, order=3)
        return DensityMap(voxels, density.pixel_size_angstrom, self.group)

    def laid_poses(self, rotations: Values, shifts_angstrom: Values) -> tuple[Values, Values]:
        """Return poses ``(n, 3, 3)`` and rlnOriginX/YAngst ``(n, 2)`` that go with the `laid` map."""
        centres = np.einsum("nji,j->ni", rotations, self.centre_angstrom)
        return self.rotation.T @ rotations, shifts_angstrom - centres[:, :2]


class SelfCorrelation:
    """Compares a map's transform with itself, turned.

    ``density``: the map; what is outside its particle's mask is left out. ``resolution_angstrom``:
    finest detail compared; None for the 20 shells that are compared at most.
    """

    def __init__(self, density: DensityMap, resolution_angstrom: float | None = None) -> None:
        mask = particle_mask(density.voxels, density.pixel_size_angstrom)
        voxels = masked_map(density, mask).voxels
        last = min(_FINEST_SHELLS, density.box // 2 - 2)
        if resolution_angstrom is not None:
            field = density.box * density.pixel_size_angstrom
            last = min(last, max(_FIRST_SHELL + 3, int(field / resolution_angstrom)))
        box = min(density.box, 2 * (last + 2))
        small = rescale(torch.from_numpy(np.array(voxels)), box, dims=3).numpy()
        self.last_shell, self._box = last, box
        self._voxel_angstrom = density.pixel_size_angstrom * density.box / box
        # padded, so that linear interpolation between its values is good enough
        padded = np.fft.ifftshift(np.pad(small, box // 2))
        transform = np.fft.fftshift(np.fft.fftn(padded))
        self._parts = transform.real.astype(np.float32), transform.imag.astype(np.float32)
        self.centre = centre_of_mass(small)

    def centre_angstrom(self, centre: Values) -> Values:
        """Return a centre in angstrom from voxel n // 2."""
        return centre * self._voxel_angstrom

    def _values(self, points: Values, centre: Values) -> NDArray[np.complexfloating]:
        """Return the transform about a centre at ``(..., 3)`` frequencies x, y, z."""
        where = 2 * np.moveaxis(points, -1, 0)[::-1] + self._box
        real, imaginary = (map_coordinates(part, where, order=1) for part in self._parts)
        turn = np.exp(2j * np.pi / self._box * (points @ centre))
        return np.asarray((real + 1j * imaginary) * turn)

    def __call__(self, operators: Values, centre: Values, last_shell: int | None = None) -> Values:
        """Return the mean shell correlation under each of ``(k, 3, 3)`` turns about a centre, ``(k,)``."""
        last = self.last_shell if last_shell is None else min(last_shell, self.last_shell)
        points, starts = _points(last)
        here = self._values(points, centre)
        there = self._values(points @ operators.swapaxes(1, 2), centre)
        cross = np.add.reduceat((there * here.conj()).real, starts, axis=1)
        power = np.add.reduceat(np.abs(there) ** 2, starts, axis=1)
        own = np.add.reduceat(np.abs(here) ** 2, starts)
        return np.asarray((cross / np.sqrt(np.maximum(power * own, 1e-30))).mean(1))


@lru_cache(maxsize=8)
def _points(last_shell: int) -> tuple[Values, NDArray[np.intp]]:
    """Return frequencies spread over half of every shell, ``(p, 3)``, and where each shell starts."""
    shells = [
        shell * half_sphere(min(_POINTS_PER_SHELL, 7 * shell**2))
        for shell in range(_FIRST_SHELL, last_shell + 1)
    ]
    starts = np.cumsum([0, *(len(shell) for shell in shells[:-1])])
    return np.concatenate(shells), starts


def symmetry_fits(
    density: DensityMap, resolution_angstrom: float | None = None, groups: Sequence[str] = GROUPS
) -> list[SymmetryFit]:
    """Lay point groups on a map, and say how well the map agrees with each.

    ``density``: the map, in any orientation and up to a few voxels off its centre.
    ``resolution_angstrom``: finest detail compared: how far the map can be trusted. ``groups``:
    which groups. Returns a fit for each group, in their order.
    """
    itself = SelfCorrelation(density, resolution_angstrom)
    axes = half_sphere(_AXES)
    peaks = {fold: _axes_of(itself, fold, axes) for fold in {_main_axis(g)[0] for g in groups}}
    starts = [_start(itself, group, peaks[_main_axis(group)[0]]) for group in groups]
    hopeful = _PROMISING * max(score for _, score in starts)
    chance = itself(random_rotations(_RANDOM, np.random.default_rng(0)), itself.centre)
    fits = []
    for group, (rotation, score) in zip(groups, starts, strict=True):
        centre = itself.centre
        if score >= hopeful:
            rotation, centre = _climbed(itself, group, rotation, centre)
        fits.append(_fit(itself, group, rotation, centre, chance))
    return fits


def found_symmetry(fits: Sequence[SymmetryFit]) -> SymmetryFit | None:
    """Return the largest group that the map has; None if it has none."""
    holding = [fit for fit in fits if fit.holds]
    return max(
        holding, key=lambda fit: (len(point_group(fit.group)), fit.correlation), default=None
    )


def _fit(
    itself: SelfCorrelation, group: str, rotation: Values, centre: Values, chance: Values
) -> SymmetryFit:
    found = itself(rotation @ _distinct(group) @ rotation.T, centre)
    # of all frames that are the same for the group the nearest to the map's own
    turns = rotation @ _same_frames(group)
    nearest = turns[np.argmax(np.trace(turns, axis1=1, axis2=2))]
    return SymmetryFit(
        group,
        nearest,
        itself.centre_angstrom(centre),
        float(found.min()),
        float(chance.mean()),
        float(chance.std()),
    )


def _same_frames(group: str) -> Values:
    """Return turns of RELION's frame that leave a group's set of axes as it is, ``(k, 3, 3)``."""
    fold = int(group[1:]) if group[0] == "D" else 0
    return point_group("O" if fold == 2 else f"D{2 * fold}" if 2 < fold < 50 else group)


def axes_to_lay(
    density: DensityMap, group: str, resolution_angstrom: float | None = None
) -> SymmetryFit | None:
    """Return where a map has a group's axes if they do not lie in RELION's frame about the box's centre.

    None if they do, or if the map does not have the group.
    """
    if group == "C1":
        return None
    itself = SelfCorrelation(density, resolution_angstrom)
    if itself(_distinct(group), np.zeros(3)).min() >= SYMMETRIC:
        return None
    (fit,) = symmetry_fits(density, resolution_angstrom, (group,))
    return fit if fit.holds else None


@lru_cache(maxsize=64)
def _distinct(group: str) -> Values:
    """Return a group's operators but the identity, one of each pair of inverses, ``(k, 3, 3)``."""
    kept: list[Values] = []
    for operator in point_group(group)[1:]:
        if not any(np.abs(operator.T - other).max() < 1e-6 for other in kept):
            kept.append(operator)
    return np.stack(kept)


def _few(group: str) -> Values:
    every = _distinct(group)
    return every[spread_rows(len(every), _FEW)]


@lru_cache(maxsize=64)
def _main_axis(group: str) -> tuple[int, Values]:
    """Return the fold and the direction of a group's main axis, ``(3,)``: z where one lies there."""
    folds: dict[tuple[float, ...], tuple[int, Values]] = {}
    for operator in point_group(group)[1:]:
        angle = np.arccos(np.clip((np.trace(operator) - 1) / 2, -1, 1))
        values, vectors = np.linalg.eigh((operator + operator.T) / 2)
        axis = vectors[:, np.argmax(values)]
        axis = axis * np.sign(axis[np.abs(axis) > 1e-6][-1])
        key = tuple(np.round(axis, 5) + 0.0)
        fold = round(2 * np.pi / angle)
        if key not in folds or folds[key][0] < fold:
            folds[key] = fold, axis
    return max(folds.values(), key=lambda found: (found[0], found[1][2]))


def _about(axes: Values, radians: float) -> Values:
    """Return the turns by an angle about ``(k, 3)`` axes."""
    return np.asarray(rotation_from_vector(axes * radians))


def _axes_of(itself: SelfCorrelation, fold: int, axes: Values) -> Values:
    """Return the axes about which a map agrees best with itself turned by a fold, ``(k, 3)``."""
    scores = np.concatenate(
        [
            itself(_about(some, 2 * np.pi / fold), itself.centre, _SEARCH_SHELLS)
            for some in np.array_split(axes, 8)
        ]
    )
    chosen: list[Values] = []
    for place in np.argsort(-scores):
        near = np.cos(np.radians(_APART_DEGREES))
        if all(abs(axes[place] @ other) < near for other in chosen):
            chosen.append(axes[place])
        if len(chosen) == _PEAKS:
            break
    return np.stack(chosen)


def _start(itself: SelfCorrelation, group: str, peaks: Values) -> tuple[Values, float]:
    """Return the best frame of a group on one of the peaks of its main axis, and its mean correlation."""
    fold, main = _main_axis(group)
    angles = np.arange(_ANGLES) / _ANGLES * 2 * np.pi / fold if group[0] != "C" else np.zeros(1)
    operators, best = _few(group), (np.eye(3), -np.inf)
    for peak in peaks:
        onto = _turn_onto(main, peak)
        frames = [onto @ _about(main[None], float(angle))[0] for angle in angles]
        turned = np.stack([frame @ operators @ frame.T for frame in frames])
        scores = itself(turned.reshape(-1, 3, 3), itself.centre, _SEARCH_SHELLS)
        means = scores.reshape(len(frames), -1).mean(1)
        place = int(means.argmax())
        if means[place] > best[1]:
            best = frames[place], float(means[place])
    return best


def _turn_onto(start: Values, end: Values) -> Values:
    """Return the shortest rotation that takes a direction to another."""
    axis, cosine = np.cross(start, end), float(np.clip(start @ end, -1, 1))
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3) if cosine > 0 else _about(np.array([[1.0, 0, 0]]), np.pi)[0]
    return _about(axis[None] / sine, float(np.arctan2(sine, cosine)))[0]


def _climbed(
    itself: SelfCorrelation, group: str, rotation: Values, centre: Values
) -> tuple[Values, Values]:
    """Return frame and centre of the best mean correlation near given ones, coarse shells first."""
    operators = _few(group)
    for shells in sorted({min(_SEARCH_SHELLS, itself.last_shell), itself.last_shell}):

        def loss(x: Values, r: Values = rotation, c: Values = centre, last: int = shells) -> float:
            frame = rotation_from_vector(x[:3]) @ r
            return -float(itself(frame @ operators @ frame.T, c + x[3:], last).mean())

        simplex = np.concatenate([np.zeros((1, 6)), np.diag([0.06] * 3 + [0.5] * 3)])
        options = {"initial_simplex": simplex, "xatol": 5e-4, "fatol": 1e-5, "maxfev": 200}
        x = minimize(loss, np.zeros(6), method="Nelder-Mead", options=options).x
        rotation, centre = rotation_from_vector(x[:3]) @ rotation, centre + x[3:]
    return rotation, centre
