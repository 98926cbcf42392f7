"""Reports: measured values next to those that the CESPED paper published, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from napari_cryosphere._files import atomic_path, refuse_overwrite
from napari_cryosphere.evaluation.report import Table

__all__ = [
    "COLUMNS",
    "DIFFERENCES",
    "Measured",
    "published_entries",
    "published_summary",
    "report_files",
    "write_report",
]

COLUMNS: dict[str, str] = {
    "mane_degrees": "MAnE (°)",
    "wmane_degrees": "wMAnE (°)",
    "pcc_v0_v1": "PCC(V0, V1)",
    "pcc_gt_v": "PCC(GT, V)",
    "fscr_0143_v0_v1_angstrom": "FSCR 0.143 (V0, V1) (Å)",
    "fscr_05_v0_v1_angstrom": "FSCR 0.5 (V0, V1) (Å)",
    "fscr_0143_gt_v_angstrom": "FSCR 0.143 (GT, V) (Å)",
    "fscr_05_gt_v_angstrom": "FSCR 0.5 (GT, V) (Å)",
    "fscr_0143_gt0_gt1_angstrom": "FSCR 0.143 (GT0, GT1) (Å)",
    "fscr_05_gt0_gt1_angstrom": "FSCR 0.5 (GT0, GT1) (Å)",
    "pcc_gt0_gt1": "PCC(GT0, GT1)",
}
"""The columns of Supplementary Table 2 in its order: our names and the paper's."""

DIFFERENCES: dict[str, str] = {
    "delta_pcc": "ΔPCC",
    "delta_fscr_05_angstrom": "ΔFSCR 0.5 (Å)",
    "delta_fscr_0143_angstrom": "ΔFSCR 0.143 (Å)",
}
"""The columns of Table 1 that Supplementary Table 2 does not have."""
_OTHERS = {"shift_rmse_angstrom": "shift RMSE (Å)", "particles": "particles"}
_DECIMALS = {"pcc": 3, "delta_pcc": 3, "particles": 0}


@cache
def published_entries() -> dict[str, dict[str, float]]:
    """Return Supplementary Table 2: for each entry the values of `COLUMNS`, inside the authors' masks."""
    return {row.pop("entry"): _numbers(row) for row in _packaged("cesped_table_s2.csv")}


@cache
def published_summary() -> dict[str, dict[str, float]]:
    """Return Table 1: mean and standard deviation over the seven entries.

    The differences of resolution there are not those that Supplementary Table 2 gives: FSCR(GT, V)
    less FSCR(GT0, GT1) has a mean of 3.9 A at 0.5 and 1.3 A at 0.143, not 3.6 and 1.5.
    """
    return {row.pop("statistic"): _numbers(row) for row in _packaged("cesped_table_1.csv")}


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


def _packaged(name: str) -> list[dict[str, str]]:
    text = (files("napari_cryosphere") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


@dataclass(frozen=True)
class Measured:
    """One line of a report.

    - ``entry``: name of the entry, with what distinguishes the line where an entry has several.
    - ``values``: values by our names of the columns; None or absent where there is none.
    - ``simulated``: whether the particles are.
    - ``notes``: what the reader must know of the line, one sentence each.
    - ``run``: name of the run's folder, in a report of several.
    """

    entry: str
    values: dict[str, Any]
    simulated: bool = False
    notes: tuple[str, ...] = field(default=())
    run: str = ""

    @property
    def source(self) -> str:
        """Return where the values come from."""
        run = f" ({self.run})" if self.run else ""
        return f"measured here{run}, simulated" if self.simulated else f"measured here{run}"


def report_files(folder: Path) -> dict[str, Path]:
    """Return the files of a report."""
    return {name: folder / f"report.{name}" for name in ("md", "csv", "json")}


def write_report(
    lines: Sequence[Measured], folder: Path, title: str, details: str = "", *, overwrite: bool
) -> dict[str, Path]:
    """Write ``report.md``, ``report.csv`` and ``report.json``: our lines, then the published ones.

    - ``lines``: what was measured.
    - ``folder``: where the files go.
    - ``title``: the report's heading.
    - ``details``: Markdown that follows the tables: configuration, times.
    - ``overwrite``: whether an earlier report is replaced.
    """
    files = report_files(folder)
    for path in files.values():
        refuse_overwrite(path, overwrite)
    rows = _side_by_side(lines)
    contents = {
        "md": _markdown(lines, rows, title, details),
        "csv": _csv(rows),
        "json": json.dumps({"title": title, "rows": rows}, indent=2, ensure_ascii=False) + "\n",
    }
    for name, path in files.items():
        with atomic_path(path, overwrite=overwrite) as temporary:
            temporary.write_text(contents[name], encoding="utf-8")
    return files


def _row(line: Measured) -> dict[str, Any]:
    values = {name: line.values.get(name) for name in (*COLUMNS, *DIFFERENCES, *_OTHERS)}
    return {"entry": line.entry, "source": line.source} | values | {"notes": " ".join(line.notes)}


def _side_by_side(lines: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return our lines, each followed by what is published of its entry, then the other published lines."""
    published = {
        entry: {"entry": entry, "source": "published, Image2Sphere"} | _with_differences(values)
        for entry, values in published_entries().items()
    }
    rows = []
    for number, line in enumerate(lines):
        rows.append(_row(line))
        last = line.entry not in [later.entry for later in lines[number + 1 :]]
        if last and line.entry in published:
            rows.append(published.pop(line.entry))
    return rows + list(published.values())


def _with_differences(values: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of Supplementary Table 2 with the differences that follow from them."""
    made = {
        "delta_pcc": ("pcc_gt0_gt1", "pcc_gt_v", 3),
        "delta_fscr_05_angstrom": ("fscr_05_gt_v_angstrom", "fscr_05_gt0_gt1_angstrom", 1),
        "delta_fscr_0143_angstrom": ("fscr_0143_gt_v_angstrom", "fscr_0143_gt0_gt1_angstrom", 1),
    }
    return values | {
        name: round(values[a] - values[b], digits) for name, (a, b, digits) in made.items()
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    names = ["entry", "source", *COLUMNS, *DIFFERENCES, *_OTHERS, "notes"]
    writer = csv.DictWriter(stream, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _markdown(
    lines: Sequence[Measured], rows: list[dict[str, Any]], title: str, details: str
) -> str:
    head = {"entry": "entry", "source": "source"}
    tables = [
        f"# {title}\n",
        "Columns as in Supplementary Table 2 of the CESPED paper. GT: ground-truth map, V: map from "
        "predicted poses, 0 and 1: half-maps. Published lines are the paper's Image2Sphere, on CESPED's own "
        "particles inside the authors' masks; a line that says *simulated* is of simulated particles and no "
        "match for them.\n",
        _table(head | COLUMNS, rows),
        "## Differences, as in Table 1\n",
        "ΔPCC = PCC(GT0, GT1) - PCC(GT, V); ΔFSCR = FSCR(GT, V) - FSCR(GT0, GT1), so that more is worse. "
        "Those of published entries are computed from Supplementary Table 2; Table 1 itself has other means "
        "for ΔFSCR.\n",
        _table(head | DIFFERENCES | _OTHERS, rows + _summary_rows()),
    ]
    notes = [f"- {line.entry}: {note}" for line in lines for note in line.notes]
    if notes:
        tables.append("## Notes\n\n" + "\n".join(notes) + "\n")
    return "\n".join([*tables, details]).rstrip() + "\n"


def _summary_rows() -> list[dict[str, Any]]:
    """Return Table 1, and the means that Supplementary Table 2 gives."""
    rows = [_with_differences(values) for values in published_entries().values()]
    computed = {name: statistics.mean(row[name] for row in rows) for name in DIFFERENCES}
    stated = published_summary()["mean"]
    return [
        {"entry": "mean of seven", "source": "published, computed from Table S2"} | computed,
        {"entry": "mean of seven", "source": "published, Table 1"} | stated,
    ]


def _table(columns: dict[str, str], rows: Sequence[dict[str, Any]]) -> str:
    shown = (tuple(_shown(name, row.get(name)) for name in columns) for row in rows)
    return Table(tuple(columns.values()), tuple(shown)).markdown() + "\n"


def _shown(name: str, value: Any) -> str:
    """Return a value with as many decimals as the paper's; a dash where there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, str):
        return value
    digits = next((number for prefix, number in _DECIMALS.items() if name.startswith(prefix)), 1)
    return f"{value:.{digits}f}"
