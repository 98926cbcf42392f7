"""Run the benchmarks and write what they found as one page: ``docs/benchmarks.md``.

``--quick`` runs every script's short form, ``--only NAME ...`` some of the scripts. Scripts that
open windows need a display (``make benchmark`` gives them a virtual one). A script that fails is
named on the page, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
PAGE = ROOT / "docs" / "benchmarks.md"
SHORT = ("preprocessing", "so3")
"""The scripts of ``--short``, for every change of the code: less than a minute together."""

_HEAD = """# Side by side

Every table that a script in `benchmarks/` prints, made by `{command}` in one go. Both sides of a
comparison are measured in the same run, one after the other. What a column means is said at the top of the
script. [Measurements](measurements.md) has the figures of longer runs, with what was learnt from them.

{note}| | |
|---|---|
"""
_QUICK_NOTE = """!!! note "A quick run"
    These are the short forms of {which} scripts: fewer particles and repeats. Figures scatter, and those of
    training mean little.

"""


@dataclass(frozen=True)
class Outcome:
    """What a script left behind."""

    name: str
    purpose: str
    seconds: float
    tables: list[dict[str, Any]]
    error: str | None


def main() -> int:
    """Run, write the page, return the exit status."""
    arguments = _arguments()
    names = arguments.only or (SHORT if arguments.short else scripts())
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [_run(name, arguments.quick or arguments.short, Path(folder)) for name in names]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(page(outcomes, arguments), encoding="utf-8")
    print(f"wrote {arguments.output}")
    return int(any(outcome.error for outcome in outcomes))


def scripts() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted({path.stem for path in FOLDER.glob("[!_]*.py")} - {Path(__file__).stem})


def page(outcomes: list[Outcome], arguments: argparse.Namespace) -> str:
    """Return the page as Markdown."""
    note = ""
    if arguments.quick or arguments.short:
        which = "some of the" if len(outcomes) < len(scripts()) else "all"
        note = _QUICK_NOTE.format(which=which)
    command = "make benchmark-quick" if arguments.short else "make benchmark"
    given = ["--quick"] if arguments.quick else []
    given += ["--only", *arguments.only] if arguments.only else []
    if given:
        command += f' ARGS="{" ".join(given)}"'
    lines = [_HEAD.format(command=command, note=note).rstrip("\n")]
    lines += [f"| {key} | {value} |" for key, value in _circumstances(outcomes)]
    for outcome in outcomes:
        lines += ["", f"## {outcome.name}", "", outcome.purpose, ""]
        lines.append(f"`python benchmarks/{outcome.name}.py`: {outcome.seconds:.0f} s of CPU time.")
        if outcome.error:
            lines += ["", f"**It failed:** `{outcome.error}`"]
        elif not outcome.tables:
            lines += ["", "Not run: what it compares with, or the data that it needs, is not here."]
        for content in outcome.tables:
            if len(outcome.tables) > 1:
                lines += ["", f"### {content['benchmark']}"]
            for rows in _alike(content["rows"]):
                lines += ["", *_table(rows)]
    return "\n".join(lines) + "\n"


def _run(name: str, quick: bool, folder: Path) -> Outcome:
    print(f"== {name}", flush=True)
    place = folder / f"{name}.json"
    command = [
        sys.executable,
        str(FOLDER / f"{name}.py"),
        "--json",
        str(place),
        *(["--quick"] if quick else []),
    ]
    before = os.times()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    after = os.times()
    spent = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    tables = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}*.json"))]
    error = None
    if done.returncode:
        sys.stderr.write(done.stderr)
        error = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return Outcome(name, _purpose(name), spent, tables, error)


def _circumstances(outcomes: list[Outcome]) -> Iterator[tuple[str, str]]:
    """Return what a reader must know of the machine, the versions and the time."""
    yield "date", datetime.datetime.now(datetime.UTC).date().isoformat()
    yield "processor", f"{_processor()}, {os.cpu_count()} cores"
    yield (
        "load",
        f"{os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else "not known",
    )
    yield "system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    packages = {"napari-cryosphere": version("napari-cryosphere")}
    for outcome in outcomes:
        for content in outcome.tables:
            packages |= content["versions"]
    yield "versions", ", ".join(f"{name} {number}" for name, number in packages.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _alike(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Return runs of consecutive rows with the same columns."""
    run: list[dict[str, Any]] = []
    for row in rows:
        if run and list(row) != list(run[0]):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _table(rows: list[dict[str, Any]]) -> list[str]:
    head = [str(column) for column in rows[0]]
    cells = [[_shown(value) for value in row.values()] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]


def _shown(value: Any) -> str:
    if value is None or value != value:  # not a number: that side was not there
        return ""
    return (f"{value:.4g}" if isinstance(value, float) else str(value)).replace("|", r"\|")


def _purpose(name: str) -> str:
    """Return the first sentences of a script's docstring."""
    return (
        (ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or "")
        .split("\n\n")[0]
        .replace("\n", " ")
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every script's short form")
    parser.add_argument(
        "--short", action="store_true", help=f"the short form of {', '.join(SHORT)} alone"
    )
    parser.add_argument("--only", nargs="+", choices=scripts(), help="some of the scripts")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
