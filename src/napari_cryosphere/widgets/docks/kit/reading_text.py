"""Figures of a particle as the dock words them. Knows no Qt."""

from __future__ import annotations

from napari_cryosphere.widgets.control.projection_view import ShownMatch
from napari_cryosphere.widgets.state.predictions import ParticlePose
from napari_cryosphere.widgets.state.reading import Reading

__all__ = ["match_line", "second_line", "tile_texts"]

_DASH = "–"


def tile_texts(pose: ParticlePose | None, reading: Reading | None) -> dict[str, str]:
    """Return the texts of the tiles, from what is known at once and what follows when the slider rests."""
    angles = reading.best if reading is not None else None if pose is None else pose.angles_degrees
    said = pose if reading is None else reading
    if angles is None or said is None:
        return {}
    rot, tilt, psi = angles
    return {
        "rot": f"{rot:.1f}°",
        "tilt": f"{tilt:.1f}°",
        "psi": f"{psi:.1f}°",
        "error": _DASH if said.error_degrees is None else f"{said.error_degrees:.1f}°",
        "spread": f"{said.spread_degrees:.1f}°",
        "confidence": f"{100 * said.confidence:.0f} %",
        "entropy": f"{said.entropy:.2f}",
        "95 % set": _DASH if reading is None else f"{100 * reading.credible_share:.2g} %",
    }


def second_line(reading: Reading | None) -> str:
    """Return a line on the second mode."""
    if reading is None:
        return ""
    if reading.second is None or reading.second_ratio is None:
        return "Second mode: none"
    rot, tilt, psi = reading.second
    return (
        f"Second mode: {rot:.0f}°, {tilt:.0f}°, {psi:.0f}° · {reading.apart_degrees:.0f}° away · "
        f"density {reading.second_ratio:.2g} of the first"
    )


def match_line(match: ShownMatch | None, has_map: bool) -> str:
    """Return a line on the projection beside the particle, or on how to get one."""
    if match is not None:
        return f"Projection at the {match.what} and residual: correlation {match.correlation:.3f}"
    if has_map:
        return "Click on the sphere: the map's projection from there stands beside the particle"
    return "Open or reconstruct a map to see its projections beside the particle"
