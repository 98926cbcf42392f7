"""CESPED's metrics of poses and of maps (Sanchez-Garcia et al., sections 2.3 and 10).

Where the paper leaves something open the definition is that of CESPED's package: PCC inside a mask
is the correlation of the masked maps over all voxels; an FSC's shell k holds the frequencies of
radius k <= r < k + 1 in cycles per box; a resolution is the first crossing of a threshold, linear in
1/angstrom, Nyquist if there is none; the MAnE and the shifts' error of two halves are the means of
the halves'. Two things differ. Shell 0, one frequency, is not taken for a crossing. And a
difference compares maps that are both masked or both not; the package takes a masked correlation of
half-maps less an unmasked one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import FourierShellCorrelation, check_one_grid
from napari_cryosphere.reconstruction.fsc import correlate_transforms
from napari_cryosphere.so3.symmetry import angular_error_degrees

__all__ = [
    "GoldStandard",
    "MapAgreement",
    "PoseErrors",
    "gold_standard",
    "map_agreement",
    "mean_angular_error_degrees",
    "pearson_correlation",
    "pose_errors",
    "shift_rmse_angstrom",
    "weighted_mean_angular_error_degrees",
    "whole_shell_correlation",
]


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """How far predicted poses are from the true ones, particle by particle.

    ``angles_degrees``, ``(n,)``: angular errors modulo the symmetry. ``shifts_angstrom``, ``(n,)``:
    lengths of the shifts' errors; None where a side has no shifts. ``weights``, ``(n,)``: how sure
    the true poses are, rlnMaxValueProbDistribution; None where the truth does not say.
    """

    angles_degrees: NDArray[np.float64]
    shifts_angstrom: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None


def pose_errors(
    truth: ArrayLike,
    predicted: ArrayLike,
    symmetry: str = "C1",
    true_shifts_angstrom: ArrayLike | None = None,
    predicted_shifts_angstrom: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> PoseErrors:
    """Compare poses, ``(n, 3, 3)``, image to map coordinates, and shifts, ``(n, 2)`` in x, y order."""
    angles = angular_error_degrees(truth, predicted, symmetry)
    distances = None
    if true_shifts_angstrom is not None and predicted_shifts_angstrom is not None:
        difference = np.asarray(predicted_shifts_angstrom) - np.asarray(true_shifts_angstrom)
        distances = np.linalg.norm(difference.astype(np.float64), axis=1)
    return PoseErrors(
        angles, distances, None if weights is None else np.asarray(weights, dtype=np.float64)
    )


def mean_angular_error_degrees(halves: Sequence[PoseErrors]) -> float:
    """Return the MAnE: the mean over the halves of each half's mean angular error."""
    return float(np.mean([half.angles_degrees.mean() for half in halves]))


def weighted_mean_angular_error_degrees(halves: Sequence[PoseErrors]) -> float | None:
    """Return the wMAnE: the mean angular error of all particles, weighted by the truth's confidence.

    None where a half has no weights, or all are 0: there is no such mean.
    """
    weighted, total = 0.0, 0.0
    for half in halves:
        if half.weights is None:
            return None
        weighted += float(half.weights @ half.angles_degrees)
        total += float(half.weights.sum())
    return weighted / total if total > 0 else None


def shift_rmse_angstrom(halves: Sequence[PoseErrors]) -> float | None:
    """Return the mean over the halves of the root mean square length of the shifts' errors; None without."""
    known = [half.shifts_angstrom for half in halves if half.shifts_angstrom is not None]
    if len(known) < len(halves):
        return None
    return float(np.mean([np.sqrt(np.mean(value**2)) for value in known]))


def pearson_correlation(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    mask: NDArray[np.floating] | None = None,
) -> float:
    """Return the PCC of two maps ``(n, n, n)`` over all voxels, each multiplied with the mask before.

    Summed section by section in float64. A constant map has none: the answer is 0.
    """
    sums, moments = np.zeros(2), np.zeros(3)
    for centred in (False, True):
        means = sums / first.size
        for z in range(len(first)):
            a, b = first[z].astype(np.float64), second[z].astype(np.float64)
            if mask is not None:
                a, b = a * mask[z], b * mask[z]
            if centred:
                a, b = a - means[0], b - means[1]
                moments += (a * b).sum(), (a * a).sum(), (b * b).sum()
            else:
                sums += a.sum(), b.sum()
    power = np.sqrt(moments[1] * moments[2])
    return float(moments[0] / power) if power > 0 else 0.0


def whole_shell_correlation(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    pixel_size_angstrom: float,
    mask: NDArray[np.floating] | None = None,
) -> FourierShellCorrelation:
    """Return the FSC of two maps ``(n, n, n)`` in shells k <= r < k + 1, every frequency counted once.

    RELION's shells, those of `fourier_shell_correlation`, are k - 1/2 <= r < k + 1/2.
    """
    f, g = (np.fft.rfftn(v if mask is None else v * mask) for v in (first, second))
    values = correlate_transforms(f, g, whole_shells=True)
    return FourierShellCorrelation(values, len(first), pixel_size_angstrom)


@dataclass(frozen=True)
class MapAgreement:
    """How alike two maps are: their PCC and their FSC, whose crossings are the FSCR."""

    pcc: float
    curve: FourierShellCorrelation

    def fscr_angstrom(self, threshold: float) -> float:
        """Return the resolution at which the FSC first falls below a threshold."""
        return self.curve.resolution_angstrom(threshold)


def map_agreement(
    first: DensityMap, second: DensityMap, mask: DensityMap | None = None
) -> MapAgreement:
    """Compare two maps, each multiplied with the mask before.

    Raises `MetadataError` if the maps and the mask do not lie on one grid.
    """
    check_one_grid(first, second, mask, ("the first map", "the second map", "the mask"))
    weights = None if mask is None else mask.voxels
    size = first.pixel_size_angstrom
    curve = whole_shell_correlation(first.voxels, second.voxels, size, weights)
    return MapAgreement(pearson_correlation(first.voxels, second.voxels, weights), curve)


@dataclass(frozen=True)
class GoldStandard:
    """The three comparisons of the protocol.

    ``truth_halves``: GT0 with GT1, the half-maps from true poses. ``predicted_halves``: V0 with V1,
    the half-maps from predicted poses. ``truth_predicted``: GT with V, the means of the half-maps.
    """

    truth_halves: MapAgreement
    predicted_halves: MapAgreement
    truth_predicted: MapAgreement

    @property
    def delta_pcc(self) -> float:
        """PCC(GT0, GT1) - PCC(GT, V): what the predictions cost."""
        return self.truth_halves.pcc - self.truth_predicted.pcc

    def delta_fscr_angstrom(self, threshold: float) -> float:
        """FSCR(GT, V) - FSCR(GT0, GT1): positive where the predictions cost resolution, as in Table 1."""
        lost = self.truth_predicted.fscr_angstrom(threshold)
        return lost - self.truth_halves.fscr_angstrom(threshold)

    def values(self) -> dict[str, float]:
        """Return the map's columns of Supplementary Table 2, and the differences of Table 1."""
        pairs = {
            "v0_v1": self.predicted_halves,
            "gt_v": self.truth_predicted,
            "gt0_gt1": self.truth_halves,
        }
        metrics = {f"pcc_{name}": pair.pcc for name, pair in pairs.items()}
        for threshold, written in ((0.143, "0143"), (0.5, "05")):
            for name, pair in pairs.items():
                metrics[f"fscr_{written}_{name}_angstrom"] = pair.fscr_angstrom(threshold)
        metrics["delta_pcc"] = self.delta_pcc
        metrics["delta_fscr_0143_angstrom"] = self.delta_fscr_angstrom(0.143)
        metrics["delta_fscr_05_angstrom"] = self.delta_fscr_angstrom(0.5)
        return metrics


def gold_standard(
    truth: Sequence[DensityMap], predicted: Sequence[DensityMap], mask: DensityMap | None = None
) -> GoldStandard:
    """Compare half-maps from true and from predicted poses, and their means (Figure 1 of the paper)."""
    means = [mean_map(halves) for halves in (truth, predicted)]
    return GoldStandard(
        map_agreement(truth[0], truth[1], mask),
        map_agreement(predicted[0], predicted[1], mask),
        map_agreement(means[0], means[1], mask),
    )


def mean_map(halves: Sequence[DensityMap]) -> DensityMap:
    """Return the mean of two half-maps."""
    first, second = halves
    voxels = (first.voxels + second.voxels) / 2
    return DensityMap(voxels.astype(np.float32), first.pixel_size_angstrom, first.symmetry)
