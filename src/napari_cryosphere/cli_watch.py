"""The command ``watch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_cryosphere._commands import (
    ConfigFile,
    DataDir,
    Device,
    MaxMemory,
    Overwrite,
    Settings,
    config_of,
    run_job,
)

__all__ = ["watch"]


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder where STAR files appear.")],
    model: Annotated[Path, typer.Option(help="Model file or run folder.")],
    output: Annotated[Path, typer.Option(help="Run folder to write, or to go on with.")],
    map_: Annotated[
        Path | None, typer.Option("--map", help="Map to refine poses and find shifts with.")
    ] = None,
    until_idle: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End when nothing has come for so long.")
    ] = None,
    settle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long a file is left alone before it is taken."),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long a file that cannot be read is waited for."),
    ] = None,
    device: Device = None,
    data_dir: DataDir = None,
    max_memory: MaxMemory = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Follow a folder while a microscope writes: poses, half-maps and FSC grow with it."""
    from napari_cryosphere.jobs.configs import WatchConfig
    from napari_cryosphere.jobs.watch import watch as job

    given = {
        "folder": folder,
        "model": model,
        "output": output,
        "map": map_,
        "until_idle_seconds": until_idle,
        "settle_seconds": settle,
        "patience_seconds": patience,
        "device": device,
        "data_dir": data_dir,
        "max_memory_gb": max_memory,
    }
    run_job(job, config_of(WatchConfig, config, settings, given, overwrite))
