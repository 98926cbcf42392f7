"""What the commands share: their common options, the config they make of them, the job they run."""

from __future__ import annotations

import gc
import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs import JobConfig
    from napari_cryosphere.jobs.events import Events, Result

__all__ = [
    "Assembly",
    "Box",
    "ConfigFile",
    "DataDir",
    "Device",
    "MaxMemory",
    "ModelBFactor",
    "Overwrite",
    "PixelSize",
    "Resolution",
    "Resume",
    "Settings",
    "State",
    "Symmetry",
    "config_of",
    "run_job",
]

ConfigT = TypeVar("ConfigT", bound="JobConfig")

DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the images, where they have moved.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="JSON file with the command's config.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config value.")
]
Symmetry = Annotated[str | None, typer.Option(help="Point group of the map, e.g. C1, D2, O, I.")]
PixelSize = Annotated[float | None, typer.Option(help="Pixel size of a model's map, A.")]
Box = Annotated[
    int | None, typer.Option(help="Box of a model's map, pixels (1.25 times its diameter).")
]
Resolution = Annotated[float | None, typer.Option(help="Where a model's map ends, A (two pixels).")]
ModelBFactor = Annotated[
    float | None, typer.Option(help="One B-factor for all atoms, A^2 (the file's).")
]
Assembly = Annotated[
    str | None, typer.Option(help="Biological assembly of a model to build, e.g. 1.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
MaxMemory = Annotated[
    float | None,
    typer.Option("--max-memory", metavar="GB", help="Most memory that a process may take, GB."),
]
Resume = Annotated[
    bool | None, typer.Option("--resume", help="Go on with a run that was stopped or killed.")
]


class State:
    """Options that stand before the command."""

    quiet = False
    debug = False


def config_of(
    kind: type[ConfigT],
    file: Path | None,
    settings: list[str] | None,
    given: dict[str, Any],
    overwrite: bool,
) -> ConfigT:
    """Merge a config file, ``--set`` and the options that were given (the later wins), and validate.

    Raises
    ------
    typer.BadParameter
        With the key, what came and what is legal; the exit status is 2.
    """
    from pydantic import ValidationError

    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = json.loads(file.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise typer.BadParameter(f"{file}: {error}", param_hint="--config") from error
    values |= {key: value for key, value in given.items() if value is not None}
    for item in settings or []:
        key, separator, text = item.partition("=")
        if not separator:
            raise typer.BadParameter(f"{item!r} is not KEY=VALUE", param_hint="--set")
        _assign(values, key.split("."), text)
    if overwrite:
        values["overwrite"] = True
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        legal = ", ".join(kind.model_fields)
        hint = (
            f", not {first['input']!r}" if first["loc"] else ""
        )  # a rule between keys says it all itself
        if first["type"] == "extra_forbidden":
            hint = f"; the keys are {legal}" if len(first["loc"]) == 1 else ""
        raise typer.BadParameter(
            f"{where}: {first['msg'].removeprefix('Value error, ')}{hint}"
        ) from error


def _assign(values: dict[str, Any], keys: list[str], text: str) -> None:
    """Set ``values[a][b]`` from ``a.b=text``; the text is JSON where it parses as such."""
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    try:
        values[keys[-1]] = json.loads(text)
    except json.JSONDecodeError:
        values[keys[-1]] = text


def run_job(job: Callable[[ConfigT], Events], config: ConfigT) -> Result:
    """Run a job, showing a progress bar on a terminal and plain lines elsewhere, and print its result.

    Under torchrun rank 0 shows and prints for all; a rank that fails tells the others why.
    """
    from napari_cryosphere._console import Console
    from napari_cryosphere.jobs.events import follow
    from napari_cryosphere.jobs.running.ranks import this_rank, who

    if (
        not gc.isenabled()
    ):  # `main` has left it to the job: what has been imported needs no collecting
        gc.freeze()
        gc.enable()
    # what a cluster sends when time is up, and torchrun when another rank is gone
    signal.signal(signal.SIGTERM, _interrupt)
    with Console(quiet=State.quiet or this_rank() > 0) as console:
        try:
            result = follow(job(config), console.show)
        except KeyboardInterrupt as error:
            console.line(f"{who()}stopped; {config.kept_when_stopped}")
            raise typer.Exit(130) from error
    for key, value in result.metrics.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        typer.echo(f"{_in_words(key)}: {shown}")
    for role, path in result.outputs.items():
        typer.echo(f"{role.replace('_', ' ')}: {path}")
    return result


def _in_words(metric: str) -> str:
    """Return a metric's name as it is printed: ``resolution_0143_angstrom`` tells its threshold and unit."""
    for end, unit in (("_angstrom", " (A)"), ("_degrees", " (degrees)")):
        if metric.endswith(end):
            metric = metric.removesuffix(end) + unit
    return metric.replace("_0143", " at FSC 0.143").replace("_05", " at FSC 0.5").replace("_", " ")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
