"""The reference page of all configs and of the settings inside them, from the pydantic models."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from napari_cryosphere.jobs.commands import COMMANDS
from napari_cryosphere.jobs.configs.fields import documentation, limits_in_words

CONFIG_OF = {row.name: row.load_config() for row in COMMANDS}
"""Which config a command fills."""

INTRODUCTION = """# Configs

This page is made from the code. Every command that does a job fills one frozen config, which the run stores
beside its outputs; the docks of napari fill the same ones. A key that does not exist or a value that is not
legal ends the command before it begins. Settings inside a setting are reached with a dot:
`--set network.l_max=8`.
"""


@dataclass(frozen=True)
class Field:
    """One field of a config, as the page shows it."""

    name: str
    type: str
    limits: str
    default: str
    description: str


def job_configs() -> dict[str, type[BaseModel]]:
    """Return the configs that commands fill, by name."""
    return dict(sorted((config.__name__, config) for config in CONFIG_OF.values()))


def settings() -> dict[str, type[BaseModel]]:
    """Return the models that stand inside configs, by name, in the order in which they are met."""
    found: dict[str, type[BaseModel]] = {}
    waiting = list(job_configs().values())
    while waiting:
        for field in waiting.pop(0).model_fields.values():
            for model in _models(field.annotation):
                if model.__name__ not in found:
                    found[model.__name__] = model
                    waiting.append(model)
    return found


def fields(model: type[BaseModel]) -> list[Field]:
    """Return the fields of a model, those that must be given first."""
    texts = documentation(model)
    required = [item for item in model.model_fields.items() if item[1].is_required()]
    optional = [item for item in model.model_fields.items() if not item[1].is_required()]
    return [
        Field(
            name,
            _type_name(field.annotation),
            limits_in_words(field),
            _default(field),
            texts.get(name, ""),
        )
        for name, field in required + optional
    ]


def anchor(name: str) -> str:
    """Return the heading's anchor of a model."""
    return name.lower()


def config_page() -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION]
    for name, model in job_configs().items():
        users = ", ".join(
            f"[`{command}`](commands.md#{command.replace(' ', '-')})" for command in _users(name)
        )
        parts += [_heading(name), f"{_text(model)}\n\nCommand: {users}.\n", _table(model)]
    parts.append("# Settings inside configs { #settings }\n")
    for name, model in settings().items():
        parts += [_heading(name), _text(model) + "\n", _table(model)]
    return "\n".join(parts)


def _users(config: str) -> list[str]:
    return [command for command, model in CONFIG_OF.items() if model.__name__ == config]


def _heading(name: str) -> str:
    return f"## {name} {{ #{anchor(name)} }}\n"


def _text(model: type[BaseModel]) -> str:
    return _plain(inspect.cleandoc(model.__doc__ or ""))


def _table(model: type[BaseModel]) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for field in fields(model):
        kind = f"{field.type}{', ' if field.limits else ''}{field.limits}"
        cells = (
            f"`{field.name}`",
            kind,
            field.default,
            _plain(field.description).replace("\n", " "),
        )
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Return reStructuredText's literals as Markdown's."""
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _type_name(annotation: Any) -> str:
    """Return a type in words; that it may be left out is told by the default."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin in (Union, UnionType):
        return " or ".join(_type_name(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if origin is tuple and parts[-1] is Ellipsis:
        return f"any number of {_type_name(parts[0])}"
    if origin is tuple:
        return f"{len(parts)} {_type_name(parts[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{anchor(annotation.__name__)})"
    return f"`{getattr(annotation, '__name__', annotation)}`"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return f"[{type(value).__name__}](#{anchor(type(value).__name__)})"
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return f"one [{type(value[0]).__name__}](#{anchor(type(value[0]).__name__)})"
    if isinstance(value, tuple):
        return ", ".join(f"`{part}`" for part in value) or "none"
    return (
        {None: "", True: "yes", False: "no"}.get(value, f"`{value}`")
        if _hashable(value)
        else f"`{value}`"
    )


def _hashable(value: Any) -> bool:
    return value is None or isinstance(value, bool)
