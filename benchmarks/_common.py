"""What the benchmarks share: options, CPU seconds, a table, JSON with versions and machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DATA",
    "child_cpu_seconds",
    "cpu_seconds",
    "has_data",
    "options",
    "report",
    "roc_area",
    "write_figures",
]

DATA = Path(
    os.environ.get("CRYOSPHERE_SHARED_DATA")
    or Path(__file__).resolve().parents[2] / "shared" / "data"
)
"""Reference data: particles of known poses made by RELION, their maps, and what RELION makes of
them.
"""


def has_data() -> bool:
    """Whether the reference data are there; says what to do if not."""
    if not DATA.is_dir():
        print(f"not run: no reference data at {DATA} (CRYOSPHERE_SHARED_DATA names another folder)")
    return DATA.is_dir()


def options(description: str) -> argparse.Namespace:
    """Parse ``--quick`` and ``--json FILE``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the least CPU time of one call, all threads counted, after one call that is not."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def child_cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the CPU time of the processes that a call starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def roc_area(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive scores higher than a negative (ties count half)."""
    from scipy.stats import rankdata

    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(positive) - count)))


def report(
    name: str, rows: list[dict[str, Any]], arguments: argparse.Namespace, packages: list[str]
) -> None:
    """Print the rows as a table and write them as JSON if asked."""
    columns = list(rows[0])
    widths = [max(len(column), *(len(_shown(row[column])) for row in rows)) for column in columns]
    print("  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True)))
    for row in rows:
        print(
            "  ".join(
                _shown(row[column]).ljust(width)
                for column, width in zip(columns, widths, strict=True)
            )
        )
    write_figures(name, rows, arguments, packages)


def write_figures(
    name: str, rows: list[dict[str, Any]], arguments: argparse.Namespace, packages: list[str]
) -> None:
    """Write rows as JSON if asked, with versions and machine."""
    if arguments.json:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        versions = {package: version(package) for package in ["napari-cryosphere", *packages]}
        content = {"benchmark": name, "rows": rows, "machine": machine, "versions": versions}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
