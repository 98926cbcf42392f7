"""Small outputs that several jobs write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_cryosphere._files import atomic_path

__all__ = ["write_json"]


def write_json(value: Any, path: Path, *, overwrite: bool) -> None:
    """Write a JSON file."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n")
