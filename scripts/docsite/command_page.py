"""The reference page of all commands, from the parser itself."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from config_page import CONFIG_OF, anchor

INTRODUCTION = """# Commands

This page is made from the parser of `napari-cryosphere`. `--quiet` and `--debug` may stand anywhere.
Every option of a job is also a field of its [config](configs.md), which has more: `--config FILE` loads one,
`--set KEY=VALUE` changes one field, and the later wins (file, options, `--set`).

Exit status: 0 done; 1 one clear line on what is wrong; 2 wrong usage; 130 stopped.
"""


def commands() -> dict[str, Any]:
    """Return every command by its full name, such as ``cesped run``; groups themselves are left
    out.
    """
    from typer.main import get_command

    from napari_cryosphere.cli import app

    return dict(sorted(_leaves(get_command(app), ())))


def _leaves(group: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, (*names, name))
        else:
            yield " ".join((*names, name)), command


def command_page() -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION]
    for name, command in commands().items():
        parts += [
            f"## `{name}` {{ #{name.replace(' ', '-')} }}\n",
            cleandoc(command.help or "") + "\n",
        ]
        parts.append(f"```text\n{_usage(name, command)}\n```\n")
        if name in CONFIG_OF:
            config = CONFIG_OF[name]
            parts.append(f"Config: [{config}](configs.md#{anchor(config)}).\n")
        parts.append(_table(command))
    return "\n".join(parts)


def _usage(name: str, command: Any) -> str:
    words = ["napari-cryosphere", name]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = _value(parameter) + ("..." if parameter.nargs == -1 else "")
            words.append(word if parameter.required else f"[{word}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {_value(parameter)}")
    return " ".join([*words, "[OPTIONS]"])


def _table(command: Any) -> str:
    lines = ["| option | meaning |", "|---|---|"]
    for parameter in command.params:
        shown = _value(parameter)
        if parameter.param_type_name == "option":
            flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
            shown = flags if parameter.is_flag else f"{flags} {shown}"
        text = parameter.help or ""
        if parameter.required:
            text += " **Required.**"
        if parameter.multiple:
            text += " May be given several times."
        if parameter.envvar:
            text += f" Also from the variable `{parameter.envvar}`."
        lines.append(f"| {shown} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _value(parameter: Any) -> str:
    """Return what stands for a parameter's value: its own metavar, or its name in capitals."""
    name = str(parameter.metavar or parameter.name.strip("_").removesuffix("_file").upper())
    return " ".join([name] * max(1, parameter.nargs))
