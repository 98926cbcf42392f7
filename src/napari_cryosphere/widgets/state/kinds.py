"""What a dropped file or folder is, from its name and a glance into folders. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeAlias

from napari_cryosphere.errors import FileFormatError

__all__ = ["SESSION_SUFFIX", "Kind", "kind_of", "outputs_in"]

Kind: TypeAlias = Literal["images", "model", "run", "outputs", "distributions", "session"]

SESSION_SUFFIX = ".cryosphere.json"
"""How the names of session files end."""

_COMPRESSED = ("", ".gz", ".bz2")
_IMAGES = (
    *(
        kind + packed
        for kind in (".star", ".mrcs", ".mrc", ".map", ".ccp4")
        for packed in _COMPRESSED
    ),
    *(".cs", ".csg"),
)
_TABLES = (".star", ".star.gz", ".star.bz2", ".cs")
_NOT_THE_MAP = ("_half1", "_half2", "mask", "_partial")
_MOST_ENTRIES = 200
_RELION_MARKS = ("job.star", "run.job", "job_pipeline.star")


def kind_of(path: Path) -> Kind | None:
    """Return what a path is; None for what is not ours.

    ``images`` are particles and maps, ``run`` is the folder of a training run, ``outputs`` one with
    a table of particles in it.
    """
    name = path.name.lower()
    if path.is_dir():
        return _kind_of_folder(path)
    if name.endswith(_IMAGES):
        return "images"
    if name.endswith(".safetensors"):
        return "model"
    return "session" if name.endswith(SESSION_SUFFIX) else None


def _kind_of_folder(folder: Path) -> Kind | None:
    if (folder / "zarr.json").is_file():
        return "distributions" if _holds(folder / "zarr.json", "napari-cryosphere") else None
    if (folder / "model.safetensors").is_file() or _is_run(folder):
        return "run"
    return "outputs" if outputs_in(folder) else None


def _is_run(folder: Path) -> bool:
    """Return whether a folder is a training run that has not written its model yet."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"particles", "output"} <= set(config)


def _holds(file: Path, text: str) -> bool:
    try:
        return text in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def outputs_in(folder: Path) -> list[Path]:
    """Return what to open of a folder with a job's outputs: its table, distributions and maps.

    The newest table of particles; folders of distributions; maps that are no half-maps and no
    masks. Of a RELION job, its last iteration's particles and map. Empty for a folder without a
    table, or with hundreds of files.
    """
    if any((folder / name).is_file() for name in _RELION_MARKS):
        from napari_cryosphere.reconstruction.relion_files import RelionJob

        try:
            files = RelionJob.open(folder).files
        except FileFormatError:
            return []
        return [files[role] for role in ("particles", "map") if role in files]
    try:
        entries = sorted(folder.iterdir())[: _MOST_ENTRIES + 1]
    except OSError:
        return []
    tables = [
        entry for entry in entries if entry.is_file() and entry.name.lower().endswith(_TABLES)
    ]
    if not tables or len(entries) > _MOST_ENTRIES:
        return []
    newest = max(tables, key=lambda file: file.stat().st_mtime)
    distributions = [
        entry for entry in entries if entry.is_dir() and kind_of(entry) == "distributions"
    ]
    maps = [
        entry
        for entry in entries
        if entry.suffix.lower() in (".mrc", ".map", ".ccp4") and entry.is_file()
    ]
    whole = [file for file in maps if not file.stem.endswith(_NOT_THE_MAP)]
    return [newest, *distributions, *whole]
