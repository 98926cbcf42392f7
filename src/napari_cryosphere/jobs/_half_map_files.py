"""What is written beside a map of two halves."""

from __future__ import annotations

from pathlib import Path

__all__ = ["half_map_outputs"]


def half_map_outputs(output: Path) -> dict[str, Path]:
    """Return where half-maps and their FSC go, beside the map."""
    return {
        "half1": output.with_name(f"{output.stem}_half1.mrc"),
        "half2": output.with_name(f"{output.stem}_half2.mrc"),
        "fsc": output.with_name(f"{output.stem}_fsc.csv"),
    }
