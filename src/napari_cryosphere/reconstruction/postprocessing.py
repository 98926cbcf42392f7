"""From two half-maps to a sharpened map, in RELION's steps: corrected FSC, B-factor, weighting, low-pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.map_mask import falling_edge
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction._shells import (
    scale_shells,
    shell_sums,
    squared_radii,
    transform_of,
)
from napari_cryosphere.reconstruction.fsc import (
    FourierShellCorrelation,
    correlate_transforms,
    fourier_shell_correlation,
)

__all__ = [
    "HalfMapFsc",
    "Postprocessed",
    "corrected_fsc",
    "guinier_fit",
    "guinier_plot",
    "postprocess_maps",
    "randomised_phases",
]

_RANDOMISE_BELOW = 0.8  # relion_postprocess --randomize_at_fsc
_FEWEST_SHELLS = 3  # that a line is fitted to: two are a line whatever they are


@dataclass(frozen=True)
class HalfMapFsc:
    """What two half-maps say about each other.

    - ``unmasked``, ``masked``: FSC of the maps, and of the maps times the mask.
    - ``randomised``: FSC inside the mask with phases made random: what the mask alone correlates.
    - ``corrected``: masked FSC without that part (Chen et al. 2013).
    - ``randomised_from``: first shell with random phases.
    """

    unmasked: FourierShellCorrelation
    masked: FourierShellCorrelation
    randomised: FourierShellCorrelation
    corrected: FourierShellCorrelation
    randomised_from: int

    @property
    def resolution_shell(self) -> int:
        """Last shell before the corrected FSC falls below 0.143, as RELION reads it."""
        below = np.flatnonzero(self.corrected.values[1:] < 0.143)
        return int(below[0]) if len(below) else len(self.corrected.values) - 1


def randomised_phases(
    voxels: NDArray[np.floating], first_shell: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a map with the phases beyond a radius made random, amplitudes kept.

    ``voxels``: ``(n, n, n)``. ``first_shell``: radius in cycles per box, inclusive. ``rng``: draws
    the phases, plane by plane of the half transform.
    """
    transform = transform_of(voxels)
    for z in range(len(transform)):
        beyond = squared_radii(len(transform), z) >= first_shell**2
        phases = 2 * np.pi * rng.random(int(np.count_nonzero(beyond)))
        transform[z][beyond] = np.abs(transform[z][beyond]) * np.exp(1j * phases)
    return np.asarray(scipy.fft.irfftn(transform, voxels.shape), dtype=np.float32)


def corrected_fsc(
    first: DensityMap,
    second: DensityMap,
    mask: NDArray[np.float32],
    rng: np.random.Generator | None = None,
    shared_angstrom: float | None = None,
) -> HalfMapFsc:
    """Measure two half-maps inside a mask, corrected for what the mask itself correlates.

    Phases are made random from the first shell on whose unmasked FSC is below 0.8. From two shells
    further the corrected value is ``(masked - randomised) / (1 - randomised)``; before it is the
    masked one, as in relion_postprocess (which draws its phases from the C library).

    - ``first``, ``second``: half-maps on one grid.
    - ``mask``: ``(box, box, box)`` between 0 and 1.
    - ``rng``: draws the random phases; None draws the same each time.
    - ``shared_angstrom``: resolution of the map that both halves began with, if there was one. Up
      to it they agree without having seen anything, and the mask spreads that to finer shells:
      phases are random only beyond it, and every shell beyond it is corrected.
    """
    size, box = first.pixel_size_angstrom, first.box
    unmasked = fourier_shell_correlation(first.voxels, second.voxels, size)
    masked = fourier_shell_correlation(first.voxels, second.voxels, size, mask)
    below = np.flatnonzero(unmasked.values[1:] < _RANDOMISE_BELOW)
    start = 1 + int(below[0]) if len(below) else len(unmasked.values) - 1
    correct = start + 2
    if shared_angstrom is not None and (shared := int(box * size / shared_angstrom) + 1) >= start:
        start = correct = min(shared, len(unmasked.values) - 1)
    rng = np.random.default_rng(0) if rng is None else rng
    noise = [
        transform_of(randomised_phases(half.voxels, start, rng) * mask) for half in (first, second)
    ]
    randomised = correlate_transforms(*noise)
    by_mask = np.minimum(randomised, 1 - 1e-6)
    corrected = (masked.values - by_mask) / (1 - by_mask)
    corrected[:correct] = masked.values[:correct]
    curves = [FourierShellCorrelation(values, box, size) for values in (randomised, corrected)]
    return HalfMapFsc(unmasked, masked, curves[0], curves[1], start)


def guinier_plot(
    transform: NDArray[np.complexfloating], pixel_size_angstrom: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return squared spatial frequency (1/A^2) and the log of the mean amplitude, shell by shell.

    ``transform`` is ``(box, box, box // 2 + 1)``, each answer ``(box // 2 + 1,)``. Amplitudes are
    those of a transform divided by its number of voxels, RELION's; a shell without any gets nan.
    """
    box = len(transform)
    amplitude = np.abs(transform) / box**3
    total, count = shell_sums(box, amplitude, np.ones_like(amplitude))
    with np.errstate(divide="ignore"):
        logarithm = np.log(total / count)
    frequency = np.arange(box // 2 + 1) / (box * pixel_size_angstrom)
    return frequency**2, np.where(total > 0, logarithm, np.nan)


def guinier_fit(
    squared: NDArray[np.float64], logarithm: NDArray[np.float64], lowest: float, highest: float
) -> float:
    """Fit a straight line to a Guinier plot and return the B-factor, 4 times its slope, in A^2.

    ``squared``, ``logarithm``: ``(box // 2 + 1,)`` each, as `guinier_plot` returns them.
    ``lowest``, ``highest``: resolutions in A between which shells count. Raises `MetadataError` if
    fewer than three shells lie between.
    """
    with np.errstate(divide="ignore"):
        resolution = 1 / np.sqrt(squared)
    inside = (resolution <= lowest) & (resolution >= highest) & np.isfinite(logarithm)
    if np.count_nonzero(inside) < _FEWEST_SHELLS:
        raise MetadataError(
            f"fewer than three shells lie between {lowest:g} and {highest:.3g} A, too few to fit a B-factor; "
            "give one (--b-factor) or fit from a lower resolution (--set fit_from_angstrom=20)"
        )
    return float(4 * np.polyfit(squared[inside], logarithm[inside], 1)[0])


@dataclass(frozen=True)
class Postprocessed:
    """A sharpened map and what led to it.

    - ``density``: the mean of the half-maps, sharpened, weighted by its FSC and low-passed; not
      masked.
    - ``curves``: FSC of the half-maps.
    - ``b_factor``: what it was sharpened with, A^2; negative sharpens.
    - ``resolution_angstrom``: where the corrected FSC is last above 0.143.
    - ``guinier``, ``(box // 2 + 1, 3)``: squared frequency, log amplitude as it was and at the end.
    - ``note``: why no B-factor was fitted; empty where one was fitted or given.
    """

    density: DensityMap
    curves: HalfMapFsc
    b_factor: float
    resolution_angstrom: float
    guinier: NDArray[np.float64]
    note: str = ""


def postprocess_maps(
    first: DensityMap,
    second: DensityMap,
    mask: NDArray[np.float32],
    b_factor: float | None = None,
    fit_from_angstrom: float = 10.0,
    fit_to_angstrom: float = 0.0,
    low_pass_angstrom: float | None = None,
    rng: np.random.Generator | None = None,
) -> Postprocessed:
    """Sharpen the mean of two half-maps (Rosenthal & Henderson 2003) in relion_postprocess's steps.

    Amplitudes are weighted by sqrt(2 FSC / (1 + FSC)), a line is fitted to the logarithm of their
    mean against squared frequency, its B-factor is undone, and the map is low-passed at its
    resolution. Coarser than about 10 A the amplitudes follow the molecule's shape and no such line:
    a map that does not reach three shells beyond ``fit_from_angstrom`` is not sharpened.

    - ``first``, ``second``: half-maps on one grid.
    - ``mask``: ``(box, box, box)``; for the FSC.
    - ``b_factor``: in A^2, negative to sharpen; None fits it.
    - ``fit_from_angstrom``, ``fit_to_angstrom``: resolutions between which shells with an FSC above
      0 count in the fit; 0 means to Nyquist.
    - ``low_pass_angstrom``: None takes the resolution.
    - ``rng``: draws the random phases; None draws the same each time.
    """
    curves = corrected_fsc(first, second, mask, rng)
    size, box = first.pixel_size_angstrom, first.box
    shell = max(1, curves.resolution_shell)
    resolution = box * size / shell
    transform = transform_of((first.voxels + second.voxels) / 2)
    squared, before = guinier_plot(transform, size)
    scale_shells(transform, _fsc_weights(curves.corrected.values))
    note = ""
    if b_factor is None:
        reached = shell - math.ceil(box * size / fit_from_angstrom) + 1
        if reached < _FEWEST_SHELLS:
            b_factor = 0.0
            note = (
                f"not sharpened: the half-maps agree to {resolution:.1f} A, and a B-factor cannot be "
                f"fitted unless they agree well beyond {fit_from_angstrom:g} A; give one to sharpen all "
                "the same"
            )
        else:
            plot = guinier_plot(transform, size)
            b_factor = guinier_fit(*plot, fit_from_angstrom, fit_to_angstrom)
    _sharpen(transform, b_factor, box * size)
    _low_pass(transform, round(box * size / low_pass_angstrom) if low_pass_angstrom else shell)
    _, after = guinier_plot(transform, size)
    voxels = scipy.fft.irfftn(transform, first.voxels.shape)
    density = DensityMap(np.asarray(voxels, dtype=np.float32), size, first.symmetry)
    return Postprocessed(
        density, curves, b_factor, resolution, np.stack([squared, before, after], axis=1), note
    )


def _fsc_weights(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sqrt(2 FSC / (1 + FSC)) up to the first shell whose FSC is not above 0.0001, then 0."""
    gone = np.flatnonzero(values < 1e-4)
    kept = values.copy()
    kept[gone[0] if len(gone) else len(kept) :] = 0
    return np.sqrt(2 * kept / (1 + kept))


def _sharpen(
    transform: NDArray[np.complexfloating], b_factor: float, field_angstrom: float
) -> None:
    """Multiply by exp(-B/4 s^2), in place, s being each voxel's own frequency."""
    box = len(transform)
    for z in range(box):
        squared = squared_radii(box, z) / field_angstrom**2
        # corners are cut off afterwards
        reach = np.minimum(squared, (box / 2 / field_angstrom) ** 2)
        transform[z] *= np.exp(b_factor / 4 * -reach).astype(np.float32)


def _low_pass(transform: NDArray[np.complexfloating], shell: int) -> None:
    """Cut off at a shell, with a raised cosine from one shell before to one after, in place."""
    for z in range(len(transform)):
        radius = np.sqrt(squared_radii(len(transform), z))
        transform[z] *= falling_edge((radius - shell + 1) / 2).astype(np.float32)
