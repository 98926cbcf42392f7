"""The FSC curves of a window: what they are, what is read off them, how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_cryosphere.reconstruction import FourierShellCorrelation, HalfMapFsc

__all__ = ["Curve", "curves_by_kind", "described", "resolution_of", "value_at", "write_curves"]


@dataclass(frozen=True)
class Curve:
    """A curve of the FSC plot.

    - ``group``: what is correlated: "half-maps of X", "X / Y". Curves of a group share a colour.
    - ``kind``: how: "corrected", "masked", "unmasked"; may be empty.
    - ``fsc``: its values.
    - ``threshold``: at which its resolution is read.
    - ``shown``: whether it is drawn at first.
    - ``band``: the worst and the best cone's curve, where these were measured.
    """

    group: str
    kind: str
    fsc: FourierShellCorrelation
    threshold: float
    shown: bool = True
    band: tuple[FourierShellCorrelation, FourierShellCorrelation] | None = None

    @property
    def label(self) -> str:
        """The curve's name."""
        return f"{self.group}, {self.kind}" if self.kind else self.group


def curves_by_kind(
    group: str,
    curves: HalfMapFsc,
    threshold: float,
    kinds: Mapping[str, bool],
    band: tuple[FourierShellCorrelation, FourierShellCorrelation] | None = None,
) -> list[Curve]:
    """Return two maps' curves, by kind and whether they are drawn at first; a band is the masked one's."""
    return [
        Curve(
            group, kind, getattr(curves, kind), threshold, shown, band if kind == "masked" else None
        )
        for kind, shown in kinds.items()
    ]


def described(curve: Curve) -> str:
    """Return a curve's name with its resolution."""
    return f"{curve.label}: {resolution_of(curve)} at {curve.threshold:g}"


def resolution_of(curve: Curve) -> str:
    """Return where a curve crosses its threshold, in words; at Nyquist it is that or better."""
    values = curve.fsc.values[1:]
    resolution = f"{curve.fsc.resolution_angstrom(curve.threshold):.1f} Å"
    return f"≤ {resolution}" if len(values) and values.min() >= curve.threshold else resolution


def value_at(curve: Curve, frequency: float) -> float | None:
    """Return a curve's value at a spatial frequency in 1/A, interpolated; None beyond its ends."""
    frequencies = curve.fsc.frequencies
    if not frequencies[0] <= frequency <= frequencies[-1]:
        return None
    return float(np.interp(frequency, frequencies, curve.fsc.values))


def write_curves(curves: Sequence[Curve], path: Path) -> list[Path]:
    """Write curves as CSV, in the job's columns: one file for each grid that they were measured on.

    Cones become two columns next to their curve's. The second grid's file is ``NAME_2.csv``, and so
    on. Raises `CryosphereError` if a file cannot be written.
    """
    from napari_cryosphere.reconstruction import write_fsc_csv

    grids: dict[tuple[int, float], dict[str, FourierShellCorrelation]] = {}
    for curve in curves:
        columns = grids.setdefault((curve.fsc.box, round(curve.fsc.pixel_size_angstrom, 4)), {})
        columns[curve.label] = curve.fsc
        if curve.band is not None:
            columns |= dict(
                zip(
                    (f"{curve.label}, cone_min", f"{curve.label}, cone_max"),
                    curve.band,
                    strict=True,
                )
            )
    paths = [
        path if not i else path.with_name(f"{path.stem}_{i + 1}{path.suffix}")
        for i in range(len(grids))
    ]
    for columns, file in zip(grids.values(), paths, strict=True):
        write_fsc_csv(
            columns, file, overwrite=file == path
        )  # the dialog asked about this one alone
    return paths
