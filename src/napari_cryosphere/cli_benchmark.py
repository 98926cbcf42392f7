"""The commands ``evaluate`` and ``cesped``; `napari_cryosphere.cli` adds them to its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from napari_cryosphere._commands import (
    ConfigFile,
    DataDir,
    Device,
    Overwrite,
    Resume,
    Settings,
    Symmetry,
    config_of,
    run_job,
)

__all__ = ["cesped", "evaluate"]

cesped = typer.Typer(
    help="CESPED's benchmark: its entries, and its protocol on them.", no_args_is_help=True
)

BenchmarkDir = Annotated[
    Path | None,
    typer.Option(
        "--benchmark-dir", envvar="CESPED_BENCHMARK_DIR", help="Folder of the entries (cesped)."
    ),
]
Folder = Annotated[Path, typer.Option("--output", help="Folder for what is found.")]
Relion = Annotated[
    bool | None, typer.Option("--relion", help="Reconstruct with relion_reconstruct.")
]
Mask = Annotated[Path | None, typer.Option(help="Mask around the molecule.")]
PredictedParts = Annotated[
    str | None, typer.Option(help="What maps take from predictions: S2, SO3 (default) or SO3xR2.")
]


def evaluate(
    truth: Annotated[
        list[Path], typer.Option(help="True poses; twice for two halves in two files.")
    ],
    predicted: Annotated[list[Path], typer.Option(help="Predicted poses; twice for two halves.")],
    output: Folder,
    symmetry: Symmetry = None,
    mask: Mask = None,
    maps: Annotated[
        bool | None,
        typer.Option("--maps/--no-maps", help="Compare maps as well (if the images are found)."),
    ] = None,
    predicts: PredictedParts = None,
    relion: Relion = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare predicted poses, and the maps they make, with the true ones: CESPED's metrics."""
    from napari_cryosphere.jobs.benchmark_configs import EvaluateConfig
    from napari_cryosphere.jobs.evaluate import evaluate as job

    given = {
        "truth": truth,
        "predicted": predicted,
        "output": output,
        "symmetry": symmetry,
        "mask": mask,
        "maps": maps,
        "predicts": predicts,
        "relion": relion,
        "data_dir": data_dir,
    }
    run_job(job, config_of(EvaluateConfig, config, settings, given, overwrite))


@cesped.command("list")
def _list(
    benchmark_dir: BenchmarkDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the entries on Zenodo and those in the folder."""
    from napari_cryosphere.jobs.cesped.entries import list_entries, text_lines

    entries = list_entries(benchmark_dir)
    typer.echo(json.dumps(entries, indent=2) if as_json else "\n".join(text_lines(entries)))


@cesped.command("download")
def _download(
    entry: Annotated[str, typer.Argument(help="Name of the entry: see 'cesped list'.")],
    half: Annotated[int | None, typer.Argument(help="0 or 1; both if not given.")] = None,
    benchmark_dir: BenchmarkDir = None,
    no_mask: Annotated[bool, typer.Option("--no-mask", help="Leave the entry's mask out.")] = False,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch an entry from Zenodo; run again, it goes on where it stopped."""
    from napari_cryosphere.jobs.benchmark_configs import DownloadEntryConfig
    from napari_cryosphere.jobs.cesped.entries import download_entry as job

    given = {
        "entry": entry,
        "half": half,
        "benchmark_dir": benchmark_dir,
        "mask": False if no_mask else None,
    }
    run_job(job, config_of(DownloadEntryConfig, config, settings, given, overwrite))


@cesped.command("add")
def _add(
    name: Annotated[str, typer.Argument(help="Name of the new entry.")],
    particles: Annotated[
        list[Path], typer.Argument(help="STAR file with poses, or one for each half.")
    ],
    symmetry: Symmetry = None,
    mask: Mask = None,
    simulated: Annotated[
        bool | None, typer.Option("--simulated", help="Reports will say so.")
    ] = None,
    benchmark_dir: BenchmarkDir = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a local entry of particles with poses; their images are copied."""
    from napari_cryosphere.jobs.benchmark_configs import AddEntryConfig
    from napari_cryosphere.jobs.cesped.entries import add_entry as job

    given = {
        "name": name,
        "particles": particles,
        "symmetry": symmetry,
        "mask": mask,
        "simulated": simulated,
        "benchmark_dir": benchmark_dir,
        "data_dir": data_dir,
    }
    run_job(job, config_of(AddEntryConfig, config, settings, given, overwrite))


@cesped.command("run")
def _run(
    entry: Annotated[str, typer.Argument(help="Name of an entry in the folder.")],
    output: Folder,
    benchmark_dir: BenchmarkDir = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time for each of the two models (15).")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Network preset of 'train'.")] = None,
    trained_on: Annotated[
        str | None, typer.Option(help="Train on this entry of the same molecule instead.")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="Earlier run whose models are used.")] = None,
    local: Annotated[
        float | None,
        typer.Option(
            metavar="DEGREES", help="Refine within this angle, and evaluate before and after."
        ),
    ] = None,
    compare_global: Annotated[
        bool | None,
        typer.Option("--compare-global", help="Also time a search of all orientations."),
    ] = None,
    mask: Mask = None,
    predicts: PredictedParts = None,
    relion: Relion = None,
    device: Device = None,
    resume: Resume = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Run the gold-standard protocol: each half's poses from a model that saw the other half only."""
    from napari_cryosphere.jobs.benchmark_configs import CespedConfig
    from napari_cryosphere.jobs.cesped.protocol import run_entry as job

    given = {
        "entry": entry,
        "output": output,
        "benchmark_dir": benchmark_dir,
        "minutes": minutes,
        "preset": preset,
        "trained_on": trained_on,
        "models": models,
        "local_degrees": local,
        "compare_global": compare_global,
        "mask": mask,
        "predicts": predicts,
        "relion": relion,
        "device": device,
        "resume": resume,
    }
    run_job(job, config_of(CespedConfig, config, settings, given, overwrite))


@cesped.command("report")
def _report(
    runs: Annotated[list[Path], typer.Argument(help="Outputs of 'cesped run'.")],
    output: Folder,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Put the reports of several runs into one table, beside the published figures."""
    from napari_cryosphere.jobs.benchmark_configs import MergeReportsConfig
    from napari_cryosphere.jobs.cesped.entries import merge_reports as job

    given = {"runs": runs, "output": output}
    run_job(job, config_of(MergeReportsConfig, config, settings, given, overwrite))
