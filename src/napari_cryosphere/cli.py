"""The command line: options made of a job's config, the job run, its events shown.

Each command of `napari_cryosphere.jobs.commands` gets an option for each field of its config
(`napari_cryosphere.jobs.configs.fields`). Heavy modules (torch, e3nn, napari) are imported by the command
that needs them alone, so that ``--help`` answers at once.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from napari_cryosphere.errors import CryosphereError, in_one_line
from napari_cryosphere.jobs.commands import COMMANDS, GROUPS, Command
from napari_cryosphere.jobs.running.ranks import report_failure, this_rank, who

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs.bases import JobConfig
    from napari_cryosphere.jobs.configs.fields import FieldSpec
    from napari_cryosphere.jobs.events import Events, Result

__all__ = ["app", "main"]

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_UNSET = "__unset"
_EVERYWHERE = ("--quiet", "-q", "--debug")


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{who()}stopped\n")
        raise click.exceptions.Exit(130) from error


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Raise KeyboardInterrupt after the block where Ctrl-C was pressed in it."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


class _Commands(click.Group):
    """The commands, or those of one group; a command is built when it is asked for."""

    def __init__(self, prefix: str = "", **options: Any) -> None:
        super().__init__(context_settings=_CONTEXT, no_args_is_help=True, **options)
        rows = {row.name.removeprefix(prefix): row for row in COMMANDS}
        self._rows = {
            name: row for name, row in rows.items() if row.name == prefix + name and " " not in name
        }
        self._groups = {} if prefix else GROUPS

    def make_context(self, *given: Any, **options: Any) -> click.Context:
        """Parse; Ctrl-C ends it with 130, where click says that it aborted, with 1."""
        with _ended_by_ctrl_c():
            return super().make_context(*given, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C ends it with 130, whatever it was at: imports may take seconds."""
        with _ended_by_ctrl_c():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which help shows them."""
        return [*self._rows, *self._groups]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name; None if there is none."""
        if cmd_name in self._groups:
            return _Commands(f"{cmd_name} ", name=cmd_name, help=self._groups[cmd_name])
        row = self._rows.get(cmd_name)
        return None if row is None else JobCommand(row)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command's line of help; no command is built for that."""
        lines = {name: row.help for name, row in self._rows.items()} | self._groups
        with formatter.section("Commands"):
            formatter.write_dl(list(lines.items()))


class JobCommand(click.Command):
    """A command made of the fields of a job's config.

    Values reach the config as they were typed, so that there is one place that says what is legal.
    """

    def __init__(self, row: Command) -> None:
        self.row = row
        self.fields = {spec.key: spec for spec in row.fields()}
        arguments = [
            _argument(key, spec)
            for key, spec in sorted(self.fields.items(), key=self._place)
            if spec.argument
        ]
        options = [
            option
            for key, spec in sorted(self.fields.items(), key=lambda item: not item[1].required)
            if spec.argument is None
            for option in _options(key, spec)
        ]
        super().__init__(
            row.name.split()[-1],
            callback=self._run,
            params=[*arguments, *options, *_config_options()],
            help=row.help,
            context_settings=_CONTEXT,
        )

    def _place(self, item: tuple[str, FieldSpec]) -> int:
        """Return where a field stands in the config: arguments come in this order."""
        return list(self.row.load_config().model_fields).index(item[1].path[0])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; what a config file may give need not be on the command line."""
        if any(word.partition("=")[0] == "--config" for word in args):
            for parameter in self.params:
                parameter.required = False
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help, with that of each field, for which its module is read."""
        _describe(self)
        super().format_help(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments and options, with what they mean."""
        arguments = [one for one in self.params if isinstance(one, click.Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(
                    [(one.make_metavar(ctx), help_of(self, one)) for one in arguments]
                )
        super().format_options(ctx, formatter)

    def _run(self, config: str | None, settings: Sequence[str], **given: Any) -> None:
        from pydantic import ValidationError

        from napari_cryosphere.jobs.configs.fields import assign, complaint

        values = _from_file(config)
        chosen = {key: value for key, value in given.items() if value not in (None, ())}
        for key, value in chosen.items():
            field = key.removesuffix(_UNSET)
            unset = field != key
            if unset and field in chosen:
                names = [one.opts[0] for one in self.params if one.name in (field, key)]
                raise click.UsageError(f"{' and '.join(names)} exclude each other")
            spec = self.fields[field]
            # a choice may be a number
            typed = next((choice for choice in spec.choices if str(choice) == value), value)
            assign(values, spec, None if unset else typed)
        for item in settings:
            _set(values, item)
        kind = self.row.load_config()
        try:
            checked = kind.model_validate({**values, **self.row.fixed})
        except ValidationError as error:
            text = complaint(error, kind, self.fields.values(), _name_of)
            raise click.UsageError(text) from error
        _run_and_print(self.row, checked)


def help_of(command: JobCommand, parameter: click.Parameter) -> str:
    """Return what a parameter of a command means: its field's help, bounds and default."""
    spec = command.fields.get((parameter.name or "").removesuffix(_UNSET))
    if spec is None:
        return getattr(parameter, "help", None) or ""
    if (parameter.name or "").endswith(_UNSET) and spec.option.unset:
        return spec.option.unset[1]
    from napari_cryosphere.jobs.configs.fields import limits_in_words

    notes = [limits_in_words(spec.info)]
    if spec.count == 0 and isinstance(parameter, click.Option):
        notes.append("may be given several times")
    if spec.default not in (None, False, ()) and spec.kind in (
        "choice",
        "integer",
        "number",
        "path",
    ):
        shown = spec.default if isinstance(spec.default, tuple) else (spec.default,)
        notes.append(f"default {' '.join(map(str, shown))}")
    said = "; ".join(note for note in notes if note)
    return f"{spec.help}  [{said}]" if said else spec.help


def _name_of(spec: FieldSpec) -> str:
    return spec.name.upper() if spec.argument else spec.option.names[0].partition("/")[0]


def _describe(command: JobCommand) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            parameter.help = help_of(command, parameter)


def _argument(key: str, spec: FieldSpec) -> click.Argument:
    """Return the argument of a field that is taken by its place."""
    assert spec.argument is not None
    name = spec.argument.metavar or spec.name.upper()
    many = spec.count == 0
    return click.Argument(
        [key],
        required=spec.required,
        nargs=-1 if many else 1,
        metavar=f"{name}..." if many else name if spec.required else f"[{name}]",
        type=click.UNPROCESSED,
    )


def _options(key: str, spec: FieldSpec) -> list[click.Option]:
    """Return the option of a field, and the flag that says that it has no value."""
    names = spec.option
    if spec.kind == "flag":
        on = names.names[0]
        both = spec.default is not False and "/" not in on
        flags = f"{on}/--no-{on.removeprefix('--')}" if both else on
        return [click.Option([key, flags], is_flag=True, default=None, show_default=False)]
    found = [
        click.Option(
            [key, *names.names],
            nargs=max(1, spec.count),
            multiple=spec.count == 0,
            metavar=_metavar(spec),
            type=click.UNPROCESSED,
            required=spec.required,
            envvar=names.variable,
        )
    ]
    if names.unset:
        found.append(click.Option([key + _UNSET, names.unset[0]], is_flag=True, default=None))
    return found


def _metavar(spec: FieldSpec) -> str:
    if spec.kind == "choice":
        word = "|".join(map(str, spec.choices))
    elif spec.kind == "path":
        word = "|".join(map(str, (*spec.choices, "DIR" if spec.file.use == "folder" else "FILE")))
    else:
        word = spec.unit or {"integer": "N", "number": "X"}.get(spec.kind, "TEXT")
    return " ".join([word] * max(1, spec.count))


def _config_options() -> list[click.Option]:
    return [
        click.Option(["config", "--config"], metavar="FILE", help="JSON file with the config."),
        click.Option(
            ["settings", "--set"],
            multiple=True,
            metavar="KEY=VALUE",
            help="Set one value of the config; KEY may be a path, such as network.l_max.",
        ),
    ]


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--config: {path}: {error}") from error
    if not isinstance(values, dict):
        raise click.UsageError(f"--config: {path} holds no JSON object with a config's keys")
    return values


def _set(values: dict[str, Any], item: str) -> None:
    """Set ``values[a][b]`` from ``a.b=text``; the text is JSON where it parses as such."""
    key, separator, text = item.partition("=")
    if not separator:
        raise click.UsageError(f"--set: {item!r} is not KEY=VALUE")
    *outer, last = key.split(".")
    for name in outer:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise click.UsageError(f"--set: {name} of {key} has no keys of its own")
    try:
        values[last] = json.loads(text)
    except json.JSONDecodeError:
        values[last] = text


def _run_and_print(row: Command, config: JobConfig) -> None:
    """Run a job, showing its progress, and print its result; or print what it says."""
    try:
        with _ctrl_c_waits():  # torch does not survive it while it is imported
            load = row.load_job()
        job = load(config)
        if isinstance(job, str):
            click.echo(job)
            return
        result = _followed(job)
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{who()}stopped; {config.kept_when_stopped}\n")
        raise click.exceptions.Exit(130) from error
    for line in result.lines():
        click.echo(line)
    if row.name == "demo" and getattr(config, "gui", False):
        from napari_cryosphere.widgets.docks.main.demo import show_demo

        click.echo("\n".join(show_demo(result.outputs)))


def _followed(job: Events) -> Result:
    """Run a job to its end: a bar on a terminal, plain lines elsewhere.

    Under torchrun rank 0 shows and prints for all; a rank that fails tells the others why.
    """
    from napari_cryosphere._console import Console
    from napari_cryosphere.jobs.events import follow

    if not gc.isenabled():
        # `main` has left it to the job: what has been imported needs no collecting
        gc.freeze()
        gc.enable()
    # what a cluster sends when time is up, and torchrun when another rank is gone
    signal.signal(signal.SIGTERM, _interrupt)
    quiet = click.get_current_context().find_root().params["quiet"]
    with Console(quiet=quiet or this_rank() > 0) as console:
        return follow(job, console.show)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from napari_cryosphere import __version__

        click.echo(__version__)
        ctx.exit()


def _begin(quiet: bool, debug: bool) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)


app = _Commands(
    name="napari-cryosphere",
    help="How sure are we of this particle's orientation? "
    "Cryo-EM pose distributions and their maps.",
    callback=_begin,
    params=[
        click.Option(["quiet", "--quiet", "-q"], is_flag=True, help="Only errors and results."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ],
)


def _in_one_line(error: CryosphereError | OSError | MemoryError) -> str:
    """Return what went wrong; of an error of the system also which file it is about."""
    if isinstance(error, MemoryError):
        return in_one_line(f"not enough memory: {error or 'an array could not be allocated'}")
    if isinstance(error, CryosphereError):
        return str(error)
    name = error.filename or "a file or the standard output"
    return in_one_line(f"cannot read or write {name}: {error.strerror or error}")


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
    # --quiet and --debug belong to every command; click wants them before it
    everywhere = [argument for argument in sys.argv[1:] if argument in _EVERYWHERE]
    rest = [argument for argument in sys.argv[1:] if argument not in everywhere]
    try:
        app(everywhere + rest, prog_name="napari-cryosphere")
    except (CryosphereError, OSError, MemoryError) as error:
        line = report_failure(_in_one_line(error))
        if "--debug" in everywhere:
            raise
        sys.stderr.write(f"error: {line}\n")
        sys.exit(1)
    finally:
        gc.enable()
