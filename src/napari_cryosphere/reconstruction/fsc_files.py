"""Curves written as CSV, as RELION's STAR file and as EMDB's XML."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles.star import write_star
from napari_cryosphere.reconstruction.fsc import FourierShellCorrelation
from napari_cryosphere.reconstruction.postprocessing import Postprocessed

__all__ = ["half_map_outputs", "read_fsc_csv", "write_fsc_csv", "write_fsc_star", "write_fsc_xml"]


def write_fsc_csv(
    curves: Mapping[str, FourierShellCorrelation | NDArray[np.float64]],
    path: Path,
    *,
    overwrite: bool,
) -> None:
    """Write curves as CSV: shell, resolution_angstrom (inf at shell 0), then a column for each.

    The first must be a `FourierShellCorrelation`; the others may be values by shell,
    ``(box // 2 + 1,)``. Raises `TypeError` if the first is not.
    """
    axis = next(iter(curves.values()))
    if not isinstance(axis, FourierShellCorrelation):
        raise TypeError("the first curve must know its frequencies")
    columns = [
        curve.values if isinstance(curve, FourierShellCorrelation) else curve
        for curve in curves.values()
    ]
    with (
        atomic_path(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["shell", "resolution_angstrom", *curves])
        for shell, (frequency, *values) in enumerate(zip(axis.frequencies, *columns, strict=True)):
            resolution = f"{1 / frequency:.4f}" if frequency > 0 else "inf"
            writer.writerow([shell, resolution, *(f"{value:.6f}" for value in values)])


def read_fsc_csv(path: Path) -> dict[str, FourierShellCorrelation]:
    """Read `write_fsc_csv`'s file: curves by name. Raises `FileFormatError` if it is no such file."""
    try:
        table = pd.read_csv(path)
        box = 2 * (len(table) - 1)
        pixel_size_angstrom = float(table["resolution_angstrom"][1]) / box
        return {
            name: FourierShellCorrelation(table[name].to_numpy(float), box, pixel_size_angstrom)
            for name in table.columns[2:]
        }
    except (ValueError, KeyError, ZeroDivisionError) as error:
        raise FileFormatError(f"{path} is no table of FSC curves: {error}") from error


def write_fsc_star(made: Postprocessed, mask_name: str, path: Path, *, overwrite: bool) -> None:
    """Write the curves and the Guinier plot under relion_postprocess's names and blocks."""
    curves = made.curves
    frequencies = curves.corrected.frequencies
    with np.errstate(divide="ignore"):
        resolution = np.where(frequencies > 0, 1 / frequencies, 999.0)
    general = {
        "rlnFinalResolution": [made.resolution_angstrom],
        "rlnBfactorUsedForSharpening": [made.b_factor],
        "rlnMaskName": [mask_name],
        "rlnRandomiseFrom": [resolution[curves.randomised_from]],
    }
    table = {
        "rlnSpectralIndex": np.arange(len(frequencies)),
        "rlnResolution": frequencies,
        "rlnAngstromResolution": resolution,
        "rlnFourierShellCorrelationCorrected": curves.corrected.values,
        "rlnFourierShellCorrelationUnmaskedMaps": curves.unmasked.values,
        "rlnFourierShellCorrelationMaskedMaps": curves.masked.values,
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": curves.randomised.values,
    }
    plot = pd.DataFrame(
        made.guinier[:, :2], columns=["rlnResolutionSquared", "rlnLogAmplitudesOriginal"]
    )
    kept = plot[np.isfinite(plot["rlnLogAmplitudesOriginal"])]
    blocks = {"general": pd.DataFrame(general), "fsc": pd.DataFrame(table), "guinier": kept}
    write_star(blocks, path, overwrite)


def write_fsc_xml(
    curve: FourierShellCorrelation, title: str, path: Path, *, overwrite: bool
) -> None:
    """Write a curve as EMDB takes it for deposition: spatial frequency (1/A) and correlation."""
    root = ElementTree.Element(
        "fsc", title=title, xaxis="Resolution (A-1)", yaxis="Correlation Coefficient"
    )
    for frequency, value in zip(curve.frequencies, curve.values, strict=True):
        point = ElementTree.SubElement(root, "coordinate")
        ElementTree.SubElement(point, "x").text = f"{frequency:.6f}"
        ElementTree.SubElement(point, "y").text = f"{value:.6f}"
    ElementTree.indent(root)
    with atomic_path(path, overwrite=overwrite) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def half_map_outputs(output: Path) -> dict[str, Path]:
    """Return where half-maps and their FSC go, next to the map."""
    return {
        "half1": output.with_name(f"{output.stem}_half1.mrc"),
        "half2": output.with_name(f"{output.stem}_half2.mrc"),
        "fsc": output.with_name(f"{output.stem}_fsc.csv"),
    }
