"""The reference page of all commands, from the declarations that the parser is made of."""

from __future__ import annotations

from config_page import anchor

from napari_cryosphere.cli import JobCommand, help_of
from napari_cryosphere.jobs.commands import COMMANDS

INTRODUCTION = """# Commands

This page is made from the configs of `napari-cryosphere`. `--quiet` and `--debug` may come anywhere.
Every option is also a field of the command's [config](configs.md): `--config FILE` loads one (what it gives
need not be on the command line), `--set KEY=VALUE` changes one field, also of a model inside the config,
and the later wins (file, options, `--set`).

Exit status: 0 done; 1 one clear line on what is wrong; 2 wrong usage; 130 stopped.
"""


def commands() -> dict[str, JobCommand]:
    """Return every command by its full name, such as ``cesped run``."""
    return {row.name: JobCommand(row) for row in sorted(COMMANDS, key=lambda row: row.name)}


def command_page() -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION]
    for name, command in commands().items():
        config = command.row.load_config().__name__
        parts += [
            f"## `{name}` {{ #{name.replace(' ', '-')} }}\n",
            f"{command.row.help}\n",
            f"```text\n{_usage(name, command)}\n```\n",
            f"Config: [{config}](configs.md#{anchor(config)}).\n",
            _table(command),
        ]
    return "\n".join(parts)


def _usage(name: str, command: JobCommand) -> str:
    words = ["napari-cryosphere", name]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            words.append(parameter.metavar)
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {parameter.metavar}")
    return " ".join([*words, "[OPTIONS]"])


def _table(command: JobCommand) -> str:
    lines = ["| option | meaning |", "|---|---|"]
    for parameter in command.params:
        shown = parameter.metavar or ""
        if parameter.param_type_name == "option":
            flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
            shown = f"{flags} {shown}".strip()
        text = help_of(command, parameter)
        if parameter.required:
            text += " **Required.**"
        if parameter.envvar:
            text += f" Also from the variable `{parameter.envvar}`."
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in (shown, text)) + " |")
    return "\n".join(lines) + "\n"
