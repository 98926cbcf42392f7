"""How far a map that particles are compared with can be trusted, and who says so."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from napari_cryosphere.alignment.map_noise import signal_shell
from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction.fsc_files import half_map_outputs

__all__ = ["MapDetail", "detail_of_map", "map_detail"]

_THRESHOLD = 0.143  # of the FSC between half-maps (Rosenthal & Henderson 2003)
_SAME = 1e-3  # relative difference of pixel sizes that rounding explains


class MapDetail(NamedTuple):
    """The finest detail of a map that is worth comparing, None for all of it, and why."""

    resolution_angstrom: float | None
    why: str


def map_detail(path: Path, density: DensityMap, asked_angstrom: float | None = None) -> MapDetail:
    """Return how far a map is compared.

    As far as asked for. Otherwise by the FSC that `reconstruct --half-maps` and `postprocess` write
    next to a map, if it is of this map's grid. Otherwise by the noise that the map holds around its
    particle.
    """
    if asked_angstrom is not None:
        return MapDetail(asked_angstrom, "as asked for")
    curve = half_map_outputs(path)["fsc"]
    written = _where_halves_differ(curve, density) if curve.is_file() else None
    if written is not None:
        return MapDetail(written, f"where the FSC in {curve.name} falls below {_THRESHOLD}")
    return detail_of_map(density)


def detail_of_map(density: DensityMap) -> MapDetail:
    """Return how far a map is compared by the noise that it holds around its particle."""
    shell = signal_shell(torch.from_numpy(density.voxels.copy()))
    if shell is None:
        return MapDetail(None, "all of the map's detail")
    resolution = density.box * density.pixel_size_angstrom / shell
    return MapDetail(resolution, "where the map is as strong around the particle as inside: noise")


def _where_halves_differ(curve: Path, density: DensityMap) -> float | None:
    """Return the resolution that an FSC's file gives; None if it is none, or of another grid."""
    from napari_cryosphere.reconstruction import read_fsc_csv  # scipy: half a second of start

    try:
        found = read_fsc_csv(curve).get("fsc")
    except FileFormatError:
        return None
    if found is None or found.box != density.box:
        return None
    if abs(found.pixel_size_angstrom / density.pixel_size_angstrom - 1) > _SAME:
        return None
    return found.resolution_angstrom(_THRESHOLD)
