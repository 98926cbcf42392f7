"""The command line: parse, run a job, show its events.

Every command is a thin face on a job with one frozen config. Heavy modules (torch, e3nn, napari)
are imported only by the command that needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import sys
from copy import copy
from pathlib import Path
from typing import Annotated

import typer
from typer.models import CommandInfo

from napari_cryosphere._commands import (
    Assembly,
    Box,
    ConfigFile,
    DataDir,
    Device,
    MaxMemory,
    ModelBFactor,
    Overwrite,
    PixelSize,
    Resolution,
    Resume,
    Settings,
    State,
    Symmetry,
)
from napari_cryosphere._commands import config_of as _config
from napari_cryosphere._commands import run_job as _run
from napari_cryosphere.cli_benchmark import cesped, evaluate
from napari_cryosphere.cli_experiments import equivariance, experiments
from napari_cryosphere.cli_watch import watch
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.running.ranks import report_failure

__all__ = ["app", "main"]

app = typer.Typer(
    name="napari-cryosphere",
    help="How sure are we of this particle's orientation? Cryo-EM pose distributions and their maps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(evaluate)
app.add_typer(cesped, name="cesped")
app.command()(equivariance)
app.add_typer(experiments, name="experiment")
app.command()(watch)


def _show_version(wanted: bool) -> None:
    if wanted:
        from napari_cryosphere import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors and results.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    State.quiet, State.debug = quiet, debug
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="Particles, map, model or run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_images: Annotated[
        bool,
        typer.Option(
            "--no-images", help="Describe the particles' table alone; images may be elsewhere."
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Say what a file holds."""
    from napari_cryosphere.jobs.info import describe, text_lines

    description = describe(file, data_dir, images=not no_images)
    if as_json:
        typer.echo(json.dumps(description, indent=2, default=str))
    else:
        typer.echo("\n".join(text_lines(description)))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Particles: .star or .cs.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .star or .cs.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert particles between RELION's STAR and cryoSPARC's .cs files."""
    from napari_cryosphere.jobs.configs import ConvertConfig
    from napari_cryosphere.jobs.convert import convert as job

    given = {"particles": source, "output": output, "data_dir": data_dir}
    _run(job, _config(ConvertConfig, config, settings, given, overwrite))


@app.command()
def simulate(
    map_file: Annotated[
        Path, typer.Argument(metavar="MAP", help="Map, or model (.pdb, .cif), to project.")
    ],
    output: Annotated[Path, typer.Option(help="STAR file to write; images go beside it.")],
    number: Annotated[
        int | None, typer.Option(help="Number of particles (1000, or all of --poses).")
    ] = None,
    snr: Annotated[
        float | None, typer.Option(help="Signal-to-noise ratio; inf for no noise.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same particles.")
    ] = None,
    symmetry: Symmetry = None,
    shift_px: Annotated[
        float | None, typer.Option(help="Largest shift along x and y, pixels.")
    ] = None,
    no_ctf: Annotated[bool, typer.Option("--no-ctf", help="Images without a CTF.")] = False,
    poses: Annotated[
        Path | None, typer.Option(help="STAR file with poses, shifts and CTFs to use.")
    ] = None,
    preference: Annotated[
        float | None,
        typer.Option(help="Preferred views: > 0 along the axis, < 0 across it, 0 none."),
    ] = None,
    preferred_axis: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Axis of preferred views: x y z in the map."),
    ] = None,
    defocus: Annotated[
        tuple[float, float] | None, typer.Option(help="Lowest and highest defocus, A.")
    ] = None,
    phase_shift: Annotated[float | None, typer.Option(help="Phase plate's shift, degrees.")] = None,
    b_factor: Annotated[
        float | None, typer.Option(help="B-factor of the CTF's envelope, A^2.")
    ] = None,
    voltage: Annotated[float | None, typer.Option(help="Voltage, kV.")] = None,
    noise_length: Annotated[
        float | None,
        typer.Option(help="Noise power falls as 1 / (1 + (s L)^2): L in A; 0 is white."),
    ] = None,
    noise_spectrum: Annotated[
        Path | None, typer.Option(help="CSV with the noise's power: frequency_per_angstrom,power.")
    ] = None,
    pixel_size: PixelSize = None,
    box: Box = None,
    resolution: Resolution = None,
    model_b_factor: ModelBFactor = None,
    assembly: Assembly = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Simulate particles from a map, or from an atomic model."""
    from napari_cryosphere.jobs.configs import SimulateConfig
    from napari_cryosphere.jobs.simulate import simulate as job

    optics = {
        "defocus_angstrom": defocus,
        "phase_shift_degrees": phase_shift,
        "b_factor_angstrom2": b_factor,
        "voltage_kv": voltage,
    }
    chosen = {name: value for name, value in optics.items() if value is not None}
    given = {
        "map": map_file,
        "output": output,
        "number": number,
        "snr": snr,
        "seed": seed,
        "symmetry": symmetry,
        "shift_px": shift_px,
        "ctf": False if no_ctf else None,
        "poses": poses,
        "preference": preference,
        "preferred_axis": preferred_axis,
        "optics": [chosen] if chosen else None,
        "noise_length_angstrom": noise_length,
        "noise_spectrum": noise_spectrum,
        "pixel_size_angstrom": pixel_size,
        "box": box,
        "resolution_angstrom": resolution,
        "model_b_factor_angstrom2": model_b_factor,
        "assembly": assembly,
    }
    _run(job, _config(SimulateConfig, config, settings, given, overwrite))


@app.command()
def density(
    model: Annotated[Path, typer.Argument(help="PDB or mmCIF file.")],
    output: Annotated[Path, typer.Option(help="Map to write.")],
    pixel_size: PixelSize = None,
    box: Box = None,
    resolution: Resolution = None,
    model_b_factor: ModelBFactor = None,
    assembly: Assembly = None,
    waters: Annotated[bool, typer.Option("--waters", help="Keep waters.")] = False,
    hydrogens: Annotated[bool, typer.Option("--hydrogens", help="Keep hydrogens.")] = False,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a density map from an atomic model."""
    from napari_cryosphere.jobs.configs import DensityConfig
    from napari_cryosphere.jobs.density import density as job

    given = {
        "model": model,
        "output": output,
        "pixel_size_angstrom": pixel_size,
        "box": box,
        "resolution_angstrom": resolution,
        "model_b_factor_angstrom2": model_b_factor,
        "assembly": assembly,
        "waters": waters or None,
        "hydrogens": hydrogens or None,
    }
    _run(job, _config(DensityConfig, config, settings, given, overwrite))


@app.command()
def train(
    particles: Annotated[Path, typer.Argument(help="STAR file with poses.")],
    output: Annotated[Path, typer.Option(help="Run folder to write.")],
    preset: Annotated[
        str | None, typer.Option(help="default, image2sphere, cryosphere, cesped.")
    ] = None,
    symmetry: Symmetry = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="Train on projections of this map.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time budget in minutes.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the particles, without --minutes.")
    ] = None,
    device: Device = None,
    half_set: Annotated[int | None, typer.Option(help="Train on half 1 or 2 only.")] = None,
    resume: Resume = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a pose network on particles with known poses."""
    from napari_cryosphere.jobs.train import train as job
    from napari_cryosphere.jobs.training_configs import TrainConfig

    given = {
        "particles": particles,
        "output": output,
        "preset": preset,
        "symmetry": symmetry,
        "map": map_file,
        "minutes": minutes,
        "epochs": epochs,
        "device": device,
        "half_set": half_set,
        "resume": resume,
        "data_dir": data_dir,
    }
    _run(job, _config(TrainConfig, config, settings, given, overwrite))


@app.command()
def infer(
    particles: Annotated[Path, typer.Argument(help="STAR file.")],
    model: Annotated[Path, typer.Option(help="Model file or run folder.")],
    output: Annotated[Path, typer.Option(help="STAR file to write.")],
    distributions: Annotated[
        Path | None, typer.Option(help="Also write every particle's distribution (zarr).")
    ] = None,
    refine: Annotated[
        bool | None,
        typer.Option("--refine", help="Refine the best modes against a map; finds shifts."),
    ] = None,
    map_: Annotated[
        Path | None, typer.Option("--map", help="Map to refine against (that of the run).")
    ] = None,
    device: Device = None,
    data_dir: DataDir = None,
    resume: Resume = None,
    max_memory: MaxMemory = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict each particle's pose and how sure it is."""
    from napari_cryosphere.jobs.configs import InferConfig
    from napari_cryosphere.jobs.infer import infer as job

    given = {
        "particles": particles,
        "model": model,
        "output": output,
        "distributions": distributions,
        "refine": refine,
        "map": map_,
        "device": device,
        "data_dir": data_dir,
        "resume": resume,
        "max_memory_gb": max_memory,
    }
    _run(job, _config(InferConfig, config, settings, given, overwrite))


@app.command()
def align(
    particles: Annotated[Path, typer.Argument(help="STAR or .cs file.")],
    map_: Annotated[Path, typer.Option("--map", help="Map to compare with.")],
    output: Annotated[Path, typer.Option(help="STAR file to write.")],
    symmetry: Symmetry = None,
    everywhere: Annotated[
        bool, typer.Option("--global", help="Search all orientations (the default).")
    ] = False,
    local: Annotated[
        float | None,
        # torchrun takes --local for the beginning of an option of its own
        typer.Option(
            "--local",
            "--local-degrees",
            metavar="DEGREES",
            help="Search within this angle of the given poses.",
        ),
    ] = None,
    resolution: Annotated[float | None, typer.Option(help="Finest detail compared, A.")] = None,
    shift_range: Annotated[
        float | None, typer.Option(help="Largest shift searched, pixels.")
    ] = None,
    distributions: Annotated[
        Path | None, typer.Option(help="Also write every particle's posterior (zarr).")
    ] = None,
    device: Device = None,
    data_dir: DataDir = None,
    resume: Resume = None,
    max_memory: MaxMemory = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Find each particle's pose and shift by comparing it with a map."""
    from napari_cryosphere.jobs.align import align as job
    from napari_cryosphere.jobs.configs import AlignConfig

    if everywhere and local is not None:
        raise typer.BadParameter("--global and --local exclude each other")
    given = {
        "particles": particles,
        "map": map_,
        "output": output,
        "symmetry": symmetry,
        "local_degrees": local,
        "resolution_angstrom": resolution,
        "shift_range_px": shift_range,
        "distributions": distributions,
        "device": device,
        "data_dir": data_dir,
        "resume": resume,
        "max_memory_gb": max_memory,
    }
    _run(job, _config(AlignConfig, config, settings, given, overwrite))


@app.command()
def reconstruct(
    particles: Annotated[Path, typer.Argument(help="STAR file with poses.")],
    output: Annotated[Path, typer.Option(help="Map to write.")],
    half_maps: Annotated[
        bool | None, typer.Option("--half-maps", help="Also write half-maps and their FSC.")
    ] = None,
    symmetry: Symmetry = None,
    mask: Annotated[Path | None, typer.Option(help="Mask for the half-maps' FSC.")] = None,
    regularise: Annotated[
        bool | None,
        typer.Option(
            "--regularise/--no-regularise", help="Filter the map by its half-maps' FSC (default)."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Insert at poses (the default) or at samples of distributions."),
    ] = None,
    distributions: Annotated[
        Path | None,
        typer.Option(help="The particles' distributions (zarr), for --weights distributions."),
    ] = None,
    data_dir: DataDir = None,
    max_memory: MaxMemory = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct a map from particles at their poses."""
    from napari_cryosphere.jobs.configs import ReconstructConfig
    from napari_cryosphere.jobs.reconstruct import reconstruct as job

    given = {
        "particles": particles,
        "output": output,
        "half_maps": half_maps,
        "symmetry": symmetry,
        "mask": mask,
        "regularise": regularise,
        "weights": weights,
        "distributions": distributions,
        "data_dir": data_dir,
        "max_memory_gb": max_memory,
    }
    _run(job, _config(ReconstructConfig, config, settings, given, overwrite))


@app.command()
def fsc(
    first: Annotated[Path, typer.Argument(metavar="A", help="First map.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Second map.")],
    output: Annotated[Path, typer.Option(help="CSV file to write.")],
    mask: Annotated[Path | None, typer.Option(help="Mask, multiplied with both maps.")] = None,
    cones: Annotated[
        bool | None, typer.Option("--cones", help="Also by direction: preferred orientations show.")
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare two maps by Fourier shell correlation."""
    from napari_cryosphere.jobs.configs import FscConfig
    from napari_cryosphere.jobs.fsc import fsc as job

    given = {"first": first, "second": second, "output": output, "mask": mask, "cones": cones}
    _run(job, _config(FscConfig, config, settings, given, overwrite))


@app.command()
def postprocess(
    half1: Annotated[Path, typer.Argument(metavar="HALF1", help="Unfiltered half-map.")],
    half2: Annotated[Path, typer.Argument(metavar="HALF2", help="The other.")],
    output: Annotated[Path, typer.Option(help="Map to write; its mask and its FSC go beside it.")],
    mask: Annotated[
        Path | None, typer.Option(help="Mask around the molecule; made if not given.")
    ] = None,
    b_factor: Annotated[
        float | None,
        typer.Option(help="B-factor in square angstrom, negative to sharpen; fitted if not given."),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Sharpen a map and measure its resolution from its half-maps."""
    from napari_cryosphere.jobs.configs import PostprocessConfig
    from napari_cryosphere.jobs.postprocess import postprocess as job

    given = {"half1": half1, "half2": half2, "output": output, "mask": mask, "b_factor": b_factor}
    _run(job, _config(PostprocessConfig, config, settings, given, overwrite))


@app.command()
def demo(
    output: Annotated[Path | None, typer.Option(help="Folder for what the demo makes.")] = None,
    no_gui: Annotated[bool, typer.Option("--no-gui", help="Only files, no napari.")] = False,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Simulate, predict, reconstruct and compare, and open napari on the result."""
    from napari_cryosphere.jobs.configs import DemoConfig
    from napari_cryosphere.jobs.demo import demo as job

    chosen = _config(DemoConfig, config, settings, {"output": output}, overwrite=True)
    result = _run(job, chosen)
    if not no_gui:
        from napari_cryosphere.widgets.docks.main.demo import show_demo

        for line in show_demo(result.outputs):
            typer.echo(line)


def _with_command(name: str) -> typer.Typer:
    """Return the app with one command alone, if it has it: typer builds all that it has (0.08 CPU s)."""
    commands = [command for command in app.registered_commands if _name_of(command) == name]
    groups = [group for group in app.registered_groups if group.name == name]
    if not commands and not groups:
        return app
    narrowed = copy(app)
    narrowed.registered_commands, narrowed.registered_groups = commands, groups
    return narrowed


def _name_of(command: CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")


def main() -> None:
    """Run the command line: exit 0 done, 1 an error (one line), 2 wrong usage, 130 Ctrl-C."""
    # threads that wait for work would spin, torch's and NumPy's, at a cost that can exceed the
    # work's
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    # what imports make stays: the collector would walk it dozens of times until a job begins (0.4
    # CPU s), and once more at the end (0.4 CPU s)
    gc.disable()
    atexit.register(gc.freeze)
    # --quiet and --debug belong to every command; typer wants them before it
    everywhere = [argument for argument in sys.argv[1:] if argument in ("--quiet", "-q", "--debug")]
    rest = [argument for argument in sys.argv[1:] if argument not in everywhere]
    try:
        _with_command(rest[0] if rest else "")(everywhere + rest)
    except CryosphereError as error:
        line = report_failure(str(error))
        if State.debug:
            raise
        sys.stderr.write(f"error: {line}\n")
        sys.exit(1)
    finally:
        gc.enable()
