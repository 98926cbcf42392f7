"""The commands ``equivariance`` and ``experiment``; `napari_cryosphere.cli` adds them to its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_cryosphere._commands import (
    ConfigFile,
    Device,
    Overwrite,
    Settings,
    Symmetry,
    config_of,
    run_job,
)

__all__ = ["equivariance", "experiments"]

experiments = typer.Typer(
    help="CryoSphere's experiments: each writes CSV, PNG and a Markdown report with its config.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Option("--output", help="Folder for the report.")]
Volume = Annotated[
    Path | None, typer.Option("--map", help="Map to look at (the package's phantom).")
]
Snr = Annotated[float | None, typer.Option(help="Signal-to-noise ratio of the images (no noise).")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same figures.")]
Quick = Annotated[bool, typer.Option("--quick", help="Less of everything, to see that it works.")]
Width = Annotated[float | None, typer.Option(help="Width of the images, A (the map's).")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the projections (200).")]
TestViews = Annotated[int | None, typer.Option(help="Number of views held out (500).")]
Projections = Annotated[int | None, typer.Option(help="Number of projections to train on (400).")]


def equivariance(
    model: Annotated[Path, typer.Option(help="Model file or run folder.")],
    output: Folder,
    map_: Volume = None,
    snr: Snr = None,
    pairs: Annotated[
        int | None, typer.Option(help="Pairs of images before and after a turn (100).")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Images turned in their plane (50).")] = None,
    angles: Annotated[
        int | None, typer.Option(help="Angles that each of them is turned by (36).")
    ] = None,
    seed: Seed = None,
    device: Device = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure how equivariant a model is: volumes turned in space, images turned in their plane."""
    from napari_cryosphere.jobs.configs import EquivarianceConfig
    from napari_cryosphere.jobs.equivariance import equivariance as job

    given = {
        "model": model,
        "output": output,
        "map": map_,
        "snr": snr,
        "pairs": pairs,
        "images": images,
        "angles": angles,
        "seed": seed,
        "device": device,
    }
    run_job(job, config_of(EquivarianceConfig, config, settings, given, overwrite))


@experiments.command("equivariance")
def _equivariance(
    output: Folder,
    number: Projections = None,
    map_: Volume = None,
    field_angstrom: Width = None,
    snr: Snr = None,
    epochs: Epochs = None,
    symmetry: Symmetry = None,
    seed: Seed = None,
    quick: Quick = False,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Train, then measure equivariance against an untrained network and shuffled rotations."""
    given = _given("equivariance", output, map_, field_angstrom, snr, symmetry, seed, quick)
    _run(given, {"projections": number, "epochs": epochs}, config, settings, overwrite)


@experiments.command("projections")
def _projections(
    output: Folder,
    number: Annotated[
        list[int] | None,
        typer.Option(
            "--projections", help="Number to train on; once for each (50, 100, 200, 400)."
        ),
    ] = None,
    map_: Volume = None,
    field_angstrom: Width = None,
    snr: Snr = None,
    epochs: Epochs = None,
    test_views: TestViews = None,
    symmetry: Symmetry = None,
    seed: Seed = None,
    quick: Quick = False,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Train on more and more projections: what is known of views seen, and of others."""
    given = _given("projections", output, map_, field_angstrom, snr, symmetry, seed, quick)
    given |= {"projections": number or None, "test_views": test_views}
    _run(given, {"epochs": epochs}, config, settings, overwrite)


@experiments.command("labels")
def _labels(
    output: Folder,
    number: Projections = None,
    map_: Volume = None,
    field_angstrom: Width = None,
    snr: Snr = None,
    epochs: Epochs = None,
    test_views: TestViews = None,
    symmetry: Symmetry = None,
    seed: Seed = None,
    quick: Quick = False,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Train on binary masks, on raw 1/MSE and on one-hot labels."""
    given = _given("labels", output, map_, field_angstrom, snr, symmetry, seed, quick)
    given |= {"test_views": test_views}
    _run(given, {"projections": number, "epochs": epochs}, config, settings, overwrite)


def _given(
    name: str,
    output: Path,
    map_: Path | None,
    field_angstrom: float | None,
    snr: float | None,
    symmetry: str | None,
    seed: int | None,
    quick: bool,
) -> dict[str, Any]:
    """Return what all experiments are told, by the config's keys."""
    return {
        "name": name,
        "output": output,
        "map": map_,
        "field_angstrom": field_angstrom,
        "snr": snr,
        "symmetry": symmetry,
        "seed": seed,
        "quick": quick or None,
    }


def _run(
    given: dict[str, Any],
    preset: dict[str, Any],
    config: Path | None,
    settings: list[str] | None,
    overwrite: bool,
) -> None:
    """Run an experiment; ``preset`` holds the options that change the way of training."""
    from napari_cryosphere.jobs.experiment import experiment
    from napari_cryosphere.jobs.training_configs import ExperimentConfig

    told = [f"preset.{key}={value}" for key, value in preset.items() if value is not None]
    run_job(
        experiment, config_of(ExperimentConfig, config, told + (settings or []), given, overwrite)
    )
