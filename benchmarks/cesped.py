"""CESPED's protocol on two simulated entries, C1 and D2: every column, its time, RELION beside.

The entries are made, in CESPED's layout, of reference particles that RELION projected
(``shared/data`` beside the repository or where CRYOSPHERE_SHARED_DATA says; in its folder
``particles``, ``ribo70S_train`` and ``betagalD2_train``). Each is run with ``--minutes`` of
training a model, local refinement, and a search of all orientations for comparison; then the same
predictions are evaluated with relion_reconstruct where it is installed. Reports go to ``--output``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import DATA, has_data, report

from napari_cryosphere.evaluation.cesped_report import COLUMNS
from napari_cryosphere.jobs.cesped.entries import add_entry, merge_reports
from napari_cryosphere.jobs.cesped.protocol import run_entry
from napari_cryosphere.jobs.configs.evaluation import (
    AddEntryConfig,
    CespedConfig,
    EvaluateConfig,
    MergeReportsConfig,
)
from napari_cryosphere.jobs.evaluate import evaluate
from napari_cryosphere.jobs.events import Event, Events, Progress, Result, follow
from napari_cryosphere.particles import DensityMap, ParticleStack

ROOT = Path(__file__).resolve().parents[1]
SYMMETRIES = {"ribo70S": "C1", "betagalD2": "D2"}


def finished(job: Events) -> Result:
    """Run a job, saying now and then where it is."""
    shown = [0.0]

    def show(event: Event) -> None:
        if isinstance(event, Progress) and time.monotonic() - shown[0] > 20:
            shown[0] = time.monotonic()
            print(f"  {event.fraction:4.0%} {event.message}", flush=True)

    return follow(job, show)


def make_entry(folder: Path, name: str, most: int | None) -> None:
    """Make a local entry of the reference particles, or of some of them, spread over the file."""
    star = DATA / "particles" / f"{name}_train.star"
    if most is not None:
        stack = ParticleStack.read(star)
        star = folder / f"{name}.star"
        stack[:: max(1, len(stack) // most)][:most].save(star)
    added = AddEntryConfig(
        name=name,
        particles=(star,),
        symmetry=SYMMETRIES[name],
        benchmark_dir=folder,
        mask=DATA / "relion_reference" / "reconstruct" / f"{name}_train_mask.mrc",
        simulated=True,
    )
    finished(add_entry(added))


def run(
    folder: Path, name: str, output: Path, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run the protocol on an entry; with RELION, evaluate the same predictions with its maps."""
    start = time.monotonic()
    options = {
        "minutes": arguments.minutes,
        "preset": arguments.preset,
        "local_degrees": arguments.local,
    }
    config = CespedConfig(
        entry=name,
        output=output / name,
        benchmark_dir=folder,
        rounds=1 if arguments.quick else 2,
        compare_global=True,
        overwrite=True,
        **options,
    )
    figures = finished(run_entry(config)).metrics
    rows = [_row(name, "own", figures, time.monotonic() - start)]
    if shutil.which("relion_reconstruct"):
        start = time.monotonic()
        settings = EvaluateConfig(
            truth=tuple(folder / name / f"particles_{half}.star" for half in (0, 1)),
            predicted=tuple(output / name / f"predicted_{half}.star" for half in (0, 1)),
            symmetry=SYMMETRIES[name],
            mask=folder / name / "mask.mrc",
            output=output / name / "evaluation_relion",
            relion=True,
            overwrite=True,
        )
        theirs = finished(evaluate(settings)).metrics
        rows.append(_row(name, "relion", theirs, time.monotonic() - start))
        rows.append(
            _difference(
                name, figures, theirs, DensityMap.read(output / name / "evaluation" / "v.mrc")
            )
        )
    return rows


def _row(name: str, maps: str, figures: dict[str, Any], seconds: float) -> dict[str, Any]:
    return (
        {"entry": name, "maps": maps}
        | {key: figures.get(key, "-") for key in COLUMNS}
        | {"seconds": seconds}
    )


def _difference(
    name: str, own: dict[str, Any], relion: dict[str, Any], density: DensityMap
) -> dict[str, Any]:
    """Return how far the maps of the two programs' figures are apart: PCC as it is, FSCR in shells."""
    width = density.box * density.pixel_size_angstrom
    row: dict[str, Any] = {"entry": name, "maps": "own - relion (FSCR: shells)"}
    for key in COLUMNS:
        if key.startswith("pcc"):
            row[key] = own[key] - relion[key]
        else:
            row[key] = width / own[key] - width / relion[key] if key.startswith("fscr") else "-"
    return row | {"seconds": "-"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few particles and seconds of training"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="training time of each of four models"
    )
    parser.add_argument("--preset", help="network preset of 'train'")
    parser.add_argument(
        "--local", type=float, default=10.0, help="local refinement within these degrees"
    )
    parser.add_argument(
        "--output", type=Path, help="keep models, predictions, maps and reports here"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.minutes = min(arguments.minutes, 0.1)
    if not has_data():
        return
    with tempfile.TemporaryDirectory() as temporary:
        output = arguments.output or Path(temporary) / "output"
        rows = []
        for name in SYMMETRIES:
            folder = Path(temporary) / "entries"
            folder.mkdir(exist_ok=True)
            make_entry(folder, name, 120 if arguments.quick else None)
            rows += run(folder, name, output, arguments)
        runs = tuple(output / name for name in SYMMETRIES)
        finished(merge_reports(MergeReportsConfig(runs=runs, output=output, overwrite=True)))
        report("cesped", rows, arguments, ["torch"])
        print(json.dumps({"report": str(output / "report.md")}) if arguments.output else "")


if __name__ == "__main__":
    main()
