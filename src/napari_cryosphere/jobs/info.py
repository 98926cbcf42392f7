"""What a file is, without running anything on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.jobs.configs import ImagesInput, InfoConfig

__all__ = ["describe", "info", "text_lines"]

_COMPRESSED = {".gz", ".bz2"}
_PARTICLES = {".star", ".cs", ".csg", ".mrcs"}
_MAPS = {".mrc", ".map", ".ccp4"}


def info(config: InfoConfig) -> str:
    """Return what a file holds as text, or as JSON."""
    description = describe(config.file, config, images=config.images)
    if config.as_json:
        return json.dumps(description, indent=2, default=str)
    return "\n".join(text_lines(description))


def describe(path: Path, how: ImagesInput | None = None, *, images: bool = True) -> dict[str, Any]:
    """Return a JSON-ready description of particles, a map, a model or a run folder.

    Keys for particles are at least kind, particles, box, pixel_size_angstrom (those that all images
    are brought to), optics_groups (their number), optics (what is known of each), has_poses,
    has_ctf, half_sets, contrast, notes (what images hold besides a CTF) and warnings.

    ``path``: what to describe. ``how``: where the particles' images are, and which particles are
    looked at. ``images``: whether to look at the particles' images too; without them the table
    alone is described. Raises `CryosphereError` if there is no such file or it cannot be read.
    """
    if not path.exists():
        raise CryosphereError(f"{path} does not exist")
    if path.is_dir():
        return _describe_run(path)
    suffix = Path(path.stem).suffix if path.suffix.lower() in _COMPRESSED else path.suffix
    suffix = suffix.lower()
    if suffix == ".safetensors":
        return _describe_model(path)
    if suffix in _PARTICLES:
        return _describe_particles(path, how or ImagesInput(), images)
    if suffix in _MAPS:
        return _describe_mrc(path, how or ImagesInput(), images)
    known = ", ".join(sorted(_PARTICLES | _MAPS | {".safetensors"}))
    raise FileFormatError(f"{path} is of no known kind; known are {known} and run folders")


def text_lines(description: dict[str, Any]) -> list[str]:
    """Return a description as lines of text: a table of values, the optics groups, the warnings."""
    entries = {
        key: value
        for key, value in description.items()
        if key not in ("optics", "notes", "warnings")
    }
    width = max(map(len, entries))
    lines = []
    for key, value in entries.items():
        shown = json.dumps(value, default=str) if isinstance(value, (dict, list)) else _shown(value)
        lines.append(f"{key:<{width}}  {shown}")
        if key == "optics_groups":
            lines += _table(description["optics"])
    notes = [f"note: {line}" for line in description.get("notes", ())]
    return [*lines, *notes, *(f"warning: {line}" for line in description["warnings"])]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Return rows of values as indented columns under their names."""
    columns = [[name, *(_shown(row[name]) for row in rows)] for name in rows[0]] if rows else []
    widths = [max(map(len, column)) for column in columns]
    cells = zip(*columns, strict=True)
    return ["    " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def _shown(value: Any) -> str:
    """Return a value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not known"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _describe_particles(path: Path, how: ImagesInput, images: bool) -> dict[str, Any]:
    from napari_cryosphere.imaging.inspection import inspect_images
    from napari_cryosphere.jobs.running.inputs import chosen
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.particles.notes import notes_of

    stack = ParticleStack.read(path, how.data_dir, require_images=images, open_images=images)
    stack = chosen(stack, how)
    summary = stack.summary() | {"notes": list(notes_of(stack))}
    if not images:
        return summary
    seen = inspect_images(stack)
    return summary | {"contrast": seen.contrast, "warnings": [*summary["warnings"], *seen.warnings]}


def _describe_mrc(path: Path, how: ImagesInput, images: bool) -> dict[str, Any]:
    """Describe a map, or particles in a file that is named like one."""
    from napari_cryosphere.particles import DensityMap, MrcStack

    stack = MrcStack(path)
    sections, rows, columns = stack.shape
    uneven = stack.header.is_volume and rows != columns and sections > 1  # read as a map: refused
    if len(set(stack.shape)) > 1 and not uneven:
        return _describe_particles(path, how, images)
    density = DensityMap.read(path)
    warnings = []
    lowest, highest = float(density.voxels.min()), float(density.voxels.max())
    if lowest == highest:
        warnings.append(f"{path} is {lowest:g} everywhere: there is no structure in it")
    if density.pixel_size_angstrom == 1:
        warnings.append(
            f"{path} says 1 A a voxel, as programs write that do not know it; check it against the "
            "particles, and give --map-pixel-size where it is wrong"
        )
    return {
        "kind": "map",
        "source": str(path),
        "box": density.box,
        "pixel_size_angstrom": density.pixel_size_angstrom,
        "minimum": lowest,
        "maximum": highest,
        "mean": float(density.voxels.mean()),
        "warnings": warnings,
    }


def _describe_model(path: Path) -> dict[str, Any]:
    from napari_cryosphere.model.pose_model import PoseModel

    model = PoseModel.load(path)
    return {
        "kind": "model",
        "source": str(path),
        "box": model.card.network.box,
        "pixel_size_angstrom": model.card.pixel_size_angstrom,
        "symmetry": model.card.symmetry,
        "l_max": model.card.network.l_max,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "training": model.card.training,
        "warnings": [],
    }


def _describe_run(path: Path) -> dict[str, Any]:
    from napari_cryosphere.model.pose_model import MODEL_FILE

    config = path / "config.json"
    if not config.is_file():
        raise FileFormatError(
            f"{path} is a folder without a config.json; give a file or a run folder"
        )
    try:
        stored = json.loads(config.read_text())
    except json.JSONDecodeError as error:
        raise FileFormatError(
            f"{config} is not JSON (line {error.lineno}); the run folder is damaged"
        ) from error
    if (path / "watch.json").is_file():
        return _describe_watch(path, stored)
    finished = (path / MODEL_FILE).is_file()
    model = _describe_model(path / MODEL_FILE) if finished else None
    return {
        "kind": "run",
        "source": str(path),
        "config": stored,
        "model": model,
        "warnings": []
        if finished
        else [f"{path} holds no model yet: the run is going on or was stopped"],
    }


def _describe_watch(path: Path, stored: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    if (path / "state.json").is_file():
        state = json.loads((path / "state.json").read_text())
    aside = [
        f"{name} was set aside: {reason}" for name, reason in state.get("set_aside", {}).items()
    ]
    return {
        "kind": "watch",
        "source": str(path),
        "config": stored,
        "state": state,
        "warnings": aside,
    }
