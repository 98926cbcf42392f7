"""What a file is, without running anything on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_cryosphere.errors import CryosphereError, FileFormatError

__all__ = ["describe"]

_PARTICLES = {".star", ".mrcs", ".gz"}
_MAPS = {".mrc", ".map"}


def describe(path: Path, data_dir: Path | None = None) -> dict[str, Any]:
    """Return a JSON-ready description of particles, a map, a model or a run folder.

    Keys for particles are at least kind, particles, box, pixel_size_angstrom, optics_groups, has_poses,
    has_ctf, half_sets and warnings.

    Raises
    ------
    CryosphereError
        If there is no such file or it cannot be read.
    """
    if not path.exists():
        raise CryosphereError(f"{path} does not exist")
    if path.is_dir():
        return _describe_run(path)
    if path.suffix == ".safetensors":
        return _describe_model(path)
    if path.suffix in _PARTICLES:
        return _describe_particles(path, data_dir)
    if path.suffix in _MAPS:
        return _describe_mrc(path, data_dir)
    known = ", ".join(sorted((_PARTICLES - {".gz"}) | _MAPS | {".safetensors"}))
    raise FileFormatError(f"{path} is of no known kind; known are {known} and run folders")


def _describe_particles(path: Path, data_dir: Path | None) -> dict[str, Any]:
    from napari_cryosphere.imaging.inspection import inspect_images
    from napari_cryosphere.particles import ParticleStack

    stack = ParticleStack.read(path, data_dir)
    seen = inspect_images(stack)
    summary = stack.summary()
    return summary | {"contrast": seen.contrast, "warnings": [*summary["warnings"], *seen.warnings]}


def _describe_mrc(path: Path, data_dir: Path | None) -> dict[str, Any]:
    """Describe a map, or particles in a file that is named like one."""
    from napari_cryosphere.particles import DensityMap, MrcStack

    number, rows, columns = MrcStack(path).shape
    if rows == columns and number != rows:
        return _describe_particles(path, data_dir)
    density = DensityMap.read(path)
    return {
        "kind": "map",
        "source": str(path),
        "box": density.box,
        "pixel_size_angstrom": density.pixel_size_angstrom,
        "minimum": float(density.voxels.min()),
        "maximum": float(density.voxels.max()),
        "mean": float(density.voxels.mean()),
        "warnings": [],
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
        raise FileFormatError(f"{path} is a folder without a config.json; give a file or a run folder")
    try:
        stored = json.loads(config.read_text())
    except json.JSONDecodeError as error:
        raise FileFormatError(
            f"{config} is not JSON (line {error.lineno}); the run folder is damaged"
        ) from error
    finished = (path / MODEL_FILE).is_file()
    model = _describe_model(path / MODEL_FILE) if finished else None
    return {
        "kind": "run",
        "source": str(path),
        "config": stored,
        "model": model,
        "warnings": [] if finished else [f"{path} holds no model yet: the run is going on or was stopped"],
    }
