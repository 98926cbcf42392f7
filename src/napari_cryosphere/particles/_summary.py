"""What the command ``info`` and the dock say of a particle stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cryosphere.particles._tables import GROUP, PIXEL_SIZE

if TYPE_CHECKING:
    from napari_cryosphere.particles.stack import ParticleStack

__all__ = ["summary_of"]

_NAME = "rlnOpticsGroupName"
_SHOWN = {
    "voltage_kv": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "pixel_size_angstrom": PIXEL_SIZE,
    "box": "rlnImageSize",
}


def summary_of(stack: ParticleStack, size_bytes: int) -> dict[str, Any]:
    """Return the description, ready for JSON. Box and pixel size are those that images are brought to."""
    half_sets = stack.half_sets()
    optics = _optics(stack)
    return {
        "kind": "particles",
        "particles": len(stack),
        "box": stack.box if "rlnImageSize" in stack.optics else None,
        "pixel_size_angstrom": stack.pixel_size_angstrom if PIXEL_SIZE in stack.optics else None,
        "optics_groups": len(optics),
        "optics": optics,
        "has_poses": stack.has_poses,
        "has_shifts": stack.has_shifts,
        "has_ctf": stack.has_ctf,
        "half_sets": {"1": int((half_sets == 1).sum()), "2": int((half_sets == 2).sum())},
        "half_sets_from": "rlnRandomSubset"
        if "rlnRandomSubset" in stack.particles
        else "order of the images",
        "warnings": list(stack.warnings),
        "source": str(stack.source),
        "size_bytes": size_bytes,
    }


def _optics(stack: ParticleStack) -> list[dict[str, Any]]:
    """Return what is known of each optics group that has particles, and how many it has."""
    counts = stack.particles[GROUP].value_counts()
    groups = []
    for _, row in stack.optics.iterrows():
        number = int(row[GROUP])
        if number not in counts:
            continue
        group: dict[str, Any] = {
            "group": number,
            "name": str(row.get(_NAME, f"opticsGroup{number}")),
        }
        group["particles"] = int(counts[number])
        group |= {
            key: float(row[column]) if column in row else None for key, column in _SHOWN.items()
        }
        group["box"] = None if group["box"] is None else int(group["box"])
        groups.append(group)
    return groups
