"""The optics groups of a particle stack, as the command ``info`` and the dock show them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from napari_cryosphere.particles._tables import GROUP, PIXEL_SIZE

__all__ = ["described_optics"]

_NAME = "rlnOpticsGroupName"
_SHOWN = {
    "voltage_kv": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "pixel_size_angstrom": PIXEL_SIZE,
    "box": "rlnImageSize",
}


def described_optics(particles: pd.DataFrame, optics: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what is known of each optics group that has particles, and how many it has."""
    counts = particles[GROUP].value_counts()
    groups = []
    for _, row in optics.iterrows():
        number = int(row[GROUP])
        if number not in counts:
            continue
        group: dict[str, Any] = {
            "group": number,
            "name": str(row.get(_NAME, f"opticsGroup{number}")),
            "particles": int(counts[number]),
        }
        group |= {
            key: float(row[column]) if column in row else None for key, column in _SHOWN.items()
        }
        group["box"] = None if group["box"] is None else int(group["box"])
        groups.append(group)
    return groups
