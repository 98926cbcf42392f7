"""Small outputs that several jobs write."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from napari_cryosphere._files import atomic_path
from napari_cryosphere.reconstruction import FourierShellCorrelation

__all__ = ["write_fsc", "write_json"]


def write_fsc(curve: FourierShellCorrelation, path: Path, *, overwrite: bool) -> None:
    """Write a curve as CSV: shell, resolution_angstrom (inf at shell 0), fsc."""
    with atomic_path(path, overwrite=overwrite) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["shell", "resolution_angstrom", "fsc"])
        for shell, (frequency, value) in enumerate(zip(curve.frequencies, curve.values, strict=True)):
            resolution = f"{1 / frequency:.4f}" if frequency > 0 else "inf"
            writer.writerow([shell, resolution, f"{value:.6f}"])


def write_json(value: Any, path: Path, *, overwrite: bool) -> None:
    """Write a JSON file."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n")
