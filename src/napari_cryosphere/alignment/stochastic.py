"""Stochastic expectation maximisation: coarse maps of images whose poses are unknown.

In every step some hundred images are compared with the map, or with those of several states, at all
rotations of a grid and all shifts, a few poses are drawn from each image's posterior, and the images
are inserted there. The sums of earlier steps decay, so that the random poses of the beginning are
forgotten. The noise is what the maps leave of the images (Scheres 2012, J. Mol. Biol. 415:406): large
at first, so that posteriors are wide, and smaller as the maps explain more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import logsumexp, softmax
from torch import Tensor

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.observation import NoiseModel, Observation, observe
from napari_cryosphere.alignment.references import References, real_row, shift_grid
from napari_cryosphere.alignment.search import shells_for_spacing
from napari_cryosphere.imaging.fourier import rescale, to_fourier
from napari_cryosphere.imaging.map_mask import soft_sphere
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.reconstruction import (
    BackProjector,
    fourier_shell_correlation,
    ssnr_of_full_map,
)
from napari_cryosphere.so3.grid import SO3Grid

__all__ = ["CoarseImages", "Course", "StochasticMaps", "image_radius_px", "shells_compared"]

_ORDER = 2  # HEALPix order of the poses compared: 14.7 degrees, for some 11 shells of a particle
_DRAWN = 4  # poses of an image; 6 found the same maps, more slowly
_PADDING = 2  # of transforms, as everywhere
_EDGE_PX = 3.0  # of the sphere that the map is cut out with; chosen, not tuned
_SHIFT_STEP = 0.3  # wavelengths of the finest shell, between shifts; chosen, not tuned
_NOISE_RATE = 0.5  # share of a step's noise in the new estimate; chosen, not tuned
_MARGIN_SHELLS = 3  # of the coarse box beyond the last shell compared; chosen, not tuned
_SCORES_AT_ONCE = 1 << 23  # of poses and shifts: 32 MB
_LEAST_LOG = -30.0  # nats below the best: a share of 1e-13 is never drawn
_BEYOND = 1e-6  # signal-to-noise ratio past the shells compared, where the map is zero
_RIM_PX = 2  # width of the rim that counts as background; chosen, not tuned
_RADIUS_SHARE = 0.05  # of the largest excess of variance, at a particle's rim; chosen, not tuned
_LEAST_RADIUS, _USUAL_RADIUS, _MOST_RADIUS = 0.15, 0.4, 0.45
"""Of the box: particles are boxed at 1.1 to 3 times their diameter; the middle one is taken where the
images do not show it.
"""


@dataclass(frozen=True)
class CoarseImages:
    """Images and CTFs cut to their coarse frequencies.

    Attributes
    ----------
    images
        ``(n, box, box)`` float32.
    ctf
        ``(n, box, box // 2 + 1)`` float32, or None.
    """

    images: Tensor
    ctf: Tensor | None

    @classmethod
    def of(cls, images: Tensor, ctf: Tensor | None, box: int) -> CoarseImages:
        """Cut ``(n, m, m)`` images and ``(n, m, m // 2 + 1)`` CTFs to a smaller even box."""
        half = box // 2
        if ctf is not None and box < images.shape[-1]:
            ctf = torch.cat([ctf[:, :half], ctf[:, -half:]], dim=1)[..., : half + 1].contiguous()
        return cls(rescale(images, box).contiguous(), ctf)

    @classmethod
    def joined(cls, parts: list[CoarseImages]) -> CoarseImages:
        """Return the images of several parts in one."""
        ctfs = [part.ctf for part in parts if part.ctf is not None]
        images = torch.cat([part.images for part in parts])
        return cls(images, torch.cat(ctfs) if ctfs else None)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.int64]) -> CoarseImages:
        chosen = torch.from_numpy(rows)
        return CoarseImages(self.images[chosen], None if self.ctf is None else self.ctf[chosen])

    def evidence_of_nothing(self, max_shell: int) -> float:
        """Return the mean logarithm of the images' probability if they were noise alone, in nats."""
        band = FourierBand(self.images.shape[-1], max_shell)
        return -float((1 + self.power()[band.shells].log()).sum())

    def power(self) -> Tensor:
        """Return the mean power of the images' transforms by shell, ``(box // 2 + 1,)``."""
        band = FourierBand(self.images.shape[-1], self.images.shape[-1] // 2 - 1)
        return _shell_means(band, band.of(to_fourier(self.images)).abs().square().mean(0))


@dataclass(frozen=True)
class Course:
    """What a search from random poses compares, and where.

    Attributes
    ----------
    box
        Of the coarse images, pixels.
    max_shell
        Finest shell compared at the end.
    radius_px
        Of the particle, in pixels of the coarse images.
    shift_reach_px
        Largest shift, likewise.
    symmetry
        Point group of the maps.
    states
        How many maps share the images.
    """

    box: int
    max_shell: int
    radius_px: float
    shift_reach_px: float
    symmetry: str
    states: int = 1


@dataclass(frozen=True)
class _Drawn:
    """Poses ``(n, k, 3, 3)``, shifts ``(n, k, 2)`` and states ``(n, k)`` drawn for images.

    And what was measured with them: the logarithm of the images' probability under each map,
    ``(n, states)`` nats, the mean probability of the best pose, and the variance of what the maps leave
    of the images by shell, ``(box // 2 + 1,)``.
    """

    poses: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    states: NDArray[np.int64]
    evidence: NDArray[np.float64]
    sharpness: float
    noise: Tensor


@dataclass
class StochasticMaps:
    """Maps that grow from random poses, step by step.

    All that a step depends on is kept here and can be stored between two steps.

    Attributes
    ----------
    course
        What is compared.
    spectrum
        ``(box // 2 + 1,)``: variance of the noise by shell; at first all of the images' power.
    voxels
        ``(states, box, box, box)``; None before the first step.
    sums
        Of the back-projections of every other image, ``(states, 2, m, m, m // 2 + 1, 3)``.
    evidence
        Of the last step: mean over images of the logarithm of their probability, nats.
    sharpness
        Of the last step: mean probability of an image's best pose and shift.
    """

    course: Course
    spectrum: Tensor
    voxels: NDArray[np.float32] | None = None
    sums: NDArray[np.float32] | None = None
    evidence: float = -math.inf
    sharpness: float = 0.0
    _mask: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self._mask = soft_sphere(self.course.box, self.course.radius_px, _EDGE_PX)

    def step(
        self, data: CoarseImages, max_shell: int, decay: float, rng: np.random.Generator
    ) -> None:
        """Align images to the maps and replace these by such in which they count.

        Parameters
        ----------
        data
            Images of this step.
        max_shell
            Finest shell compared.
        decay
            What the sums of earlier steps are multiplied by.
        rng
            Draws poses; in the first step all are random.
        """
        number, several = len(data), self.course.states
        if self.voxels is None:
            random = Rotation.random(number * _DRAWN, random_state=rng).as_matrix()
            poses, shifts = random.reshape(number, _DRAWN, 3, 3), np.zeros((number, _DRAWN, 2))
            states = np.zeros((number, _DRAWN), np.int64)
            if several > 1:
                states = np.repeat(rng.integers(several, size=(number, 1)), _DRAWN, axis=1)
        else:
            drawn = self._draw(data, max_shell, self.voxels, rng)
            poses, shifts, states = drawn.poses, drawn.shifts_px, drawn.states
            self.evidence = float((logsumexp(drawn.evidence, axis=1) - math.log(several)).mean())
            self.sharpness = drawn.sharpness
            new, old = drawn.noise[: max_shell + 1], self.spectrum[: max_shell + 1]
            self.spectrum[: max_shell + 1] += _NOISE_RATE * (new - old)
        self._insert(data, poses, shifts, states, max_shell, decay)

    def judged(self, data: CoarseImages, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return the logarithm of images' probability under each map as it is, ``(n, states)`` nats.

        With the same images and generator the values of several searches can be compared.
        """
        assert self.voxels is not None
        return self._draw(data, self.course.max_shell, self.voxels, rng).evidence

    def _draw(
        self,
        data: CoarseImages,
        max_shell: int,
        voxels: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> _Drawn:
        """Draw poses and shifts from the images' posteriors, and measure noise and evidence."""
        course, band = self.course, FourierBand(self.course.box, max_shell)
        samplers = [SliceSampler(torch.from_numpy(one), max_shell, _PADDING) for one in voxels]
        grid = SO3Grid(_ORDER)
        # moved by up to half a cell in every step, so that no pose is preferred
        turn = rng.uniform(-0.5, 0.5, 3) * math.radians(grid.spacing_degrees)
        rotations = (
            Rotation.from_rotvec(turn).as_matrix() @ grid.reduced(course.symmetry).rotations()
        )
        shifts_px = shift_grid(course.shift_reach_px, _SHIFT_STEP * course.box / max_shell)
        observation = observe(data.images, data.ctf, NoiseModel(self.spectrum, 1.0), band)
        found = [
            _drawn_places(
                References.of(sampler, rotations, band), observation, band.phases(shifts_px), rng
            )
            for sampler in samplers
        ]
        places, states = found[0][0], np.zeros((len(data), _DRAWN), np.int64)
        logs, sharp = (np.stack([one[part] for one in found], axis=1) for part in (1, 2))
        probabilities = softmax(logs, axis=1)
        if len(found) > 1:
            below = rng.random((len(data), _DRAWN, 1)) > probabilities.cumsum(1)[:, None, :-1]
            states = below.sum(-1)
            each = np.stack([one[0] for one in found], axis=-1)
            places = np.take_along_axis(each, states[..., None], axis=-1)[..., 0]
        poses = rotations[places % len(rotations)]
        shifts = shifts_px[torch.from_numpy(places // len(rotations))]
        whole = band.of(to_fourier(data.images))
        model = torch.zeros_like(whole)
        for state, sampler in enumerate(samplers):
            mine = torch.from_numpy(np.flatnonzero(states[:, 0] == state))
            if not len(mine):
                continue
            first = torch.from_numpy(poses[:, 0]).float()[mine]
            model[mine] = sampler.values(first, band.frequencies) * band.phases(shifts[mine, 0])
        left = whole - (model if data.ctf is None else model * band.of(data.ctf))
        variance = self.spectrum[band.shells]
        without = -(whole.abs().square() / variance).sum(1) - variance.log().sum()
        return _Drawn(
            poses,
            shifts.numpy().astype(np.float64),
            states,
            logs + without.numpy()[:, None],
            float((probabilities * sharp).sum(1).mean()),
            _shell_means(band, left.abs().square().mean(0)),
        )

    def _insert(
        self,
        data: CoarseImages,
        poses: NDArray[np.float64],
        shifts_px: NDArray[np.float64],
        states: NDArray[np.int64],
        max_shell: int,
        decay: float,
    ) -> None:
        """Add the images to the decaying sums, and solve for the maps, filtered by their halves' FSC."""
        course, new = self.course, list[NDArray[np.float32]]()
        halves = np.broadcast_to(np.arange(len(data))[:, None] % 2, states.shape)
        for state, half in product(range(course.states), (0, 1)):
            mine = (states == state) & (halves == half)
            rows = np.nonzero(mine)[0]
            projector = BackProjector(course.box, _PADDING, course.symmetry)
            projector.add(
                data.images.numpy()[rows],
                poses[mine],
                None if data.ctf is None else data.ctf.numpy()[rows],
                shifts_px[mine],
                np.full(len(rows), 1 / _DRAWN),
            )
            new.append(projector.sums())
        sums = np.stack(new).reshape(course.states, 2, *new[0].shape)
        self.sums = sums if self.sums is None else np.float32(decay) * self.sums + sums
        self.voxels = np.stack([self._map_of(halves, max_shell) for halves in self.sums])

    def _map_of(self, halves: NDArray[np.float32], max_shell: int) -> NDArray[np.float32]:
        """Return the map of two halves' sums."""
        first, second = (self._solved(half) * self._mask for half in halves)
        ssnr = ssnr_of_full_map(fourier_shell_correlation(first, second, 1.0))
        ssnr[max_shell + 2 :] = _BEYOND
        return self._solved(halves[0] + halves[1], ssnr) * self._mask

    def _solved(
        self, sums: NDArray[np.float32], ssnr: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        course = self.course
        projector = BackProjector.from_sums(course.box, _PADDING, course.symmetry, sums, 1)
        return projector.solve(ssnr)


def _drawn_places(
    references: References, observation: Observation, phases: Tensor, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw poses and shifts from posteriors over all of a grid.

    Returns
    -------
    ``(n, k)`` places in shifts x poses; of each image the logarithm of the evidence over that of an
    image without a particle in nats, and the probability of the best place, ``(n,)``.
    """
    number, poses, size = len(observation), len(references.slices), len(phases)
    norms = (0.5 * observation.filters.square()) @ references.power.T
    places = np.empty((number, _DRAWN), dtype=np.int64)
    evidence, sharp = np.empty(number), np.empty(number)
    at_once = max(1, _SCORES_AT_ONCE // (size * poses))
    for start in range(0, number, at_once):
        rows = slice(start, start + at_once)
        matched = real_row(observation[rows].matched(phases)).flatten(0, 1)
        scores = (matched @ references.slices.T).view(-1, size, poses)
        scores = scores.sub_(norms[rows, None]).flatten(1)
        best = scores.amax(1, keepdim=True)
        sums = scores.sub_(best).clamp_(min=_LEAST_LOG).exp_().cumsum(1)
        total = sums[:, -1:]
        wanted = torch.from_numpy(rng.random((len(sums), _DRAWN))).float() * total
        places[rows] = torch.searchsorted(sums, wanted).clamp(max=size * poses - 1).numpy()
        evidence[rows] = (best + total.log())[:, 0].numpy() - math.log(size * poses)
        sharp[rows] = (1 / total)[:, 0].numpy()
    return places, evidence, sharp


def shells_compared(radius_px: float, box: int, most: int | None = None) -> tuple[int, int]:
    """Return the finest shell that the grid of poses supports, and the box of coarse images for it.

    Parameters
    ----------
    radius_px
        Of the particle, in pixels of the images.
    box
        Of the images.
    most
        Largest shell wanted.
    """
    shell = shells_for_spacing(SO3Grid(_ORDER).spacing_degrees, radius_px, box)
    shell = max(4, min(shell, box // 2 - 1 - _MARGIN_SHELLS, shell if most is None else most))
    return shell, min(box, 2 * (shell + _MARGIN_SHELLS))


def image_radius_px(images: Tensor) -> float:
    """Return the radius of the particle in images ``(n, box, box)`` from their variance over a few hundred.

    Where the variance of pixels at a distance from the centre has fallen to 5 % of its largest
    excess over the rim's. Where none stands out, as in pure noise or crowded images, 0.4 boxes.
    """
    box = images.shape[-1]
    axis = (torch.arange(box) - box // 2).float()
    rings = torch.hypot(axis[:, None], axis).round().long().flatten()
    variance = images.square().mean(0).flatten().double()
    profile = torch.bincount(rings, variance) / torch.bincount(rings)
    excess = (profile - profile[box // 2 - _RIM_PX : box // 2].mean())[: box // 2]
    deviation = float(profile[: box // 2].mean()) * math.sqrt(2 / len(images) / box)
    low = torch.nonzero(excess < _RADIUS_SHARE * excess.max())[:, 0]
    inside = int(low[0]) if len(low) else box // 2
    if inside < _LEAST_RADIUS * box or float(excess[:inside].mean()) < 4 * deviation:
        return _USUAL_RADIUS * box
    return float(min(inside, _MOST_RADIUS * box))


def _shell_means(band: FourierBand, values: Tensor) -> Tensor:
    """Average ``(k,)`` over shells, ``(box // 2 + 1,)``; those beyond have their neighbour's."""
    sums = torch.zeros(band.box // 2 + 1).index_add_(0, band.shells, values)
    means = sums / torch.bincount(band.shells, minlength=len(sums)).clamp(min=1)
    last = int(band.shells.max())
    means[0], means[last + 1 :] = means[1], means[last]
    return means
