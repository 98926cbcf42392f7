"""The reference page of all configs and of the settings inside them, from the pydantic models."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

CONFIG_OF = {
    "align": "AlignConfig",
    "cesped add": "AddEntryConfig",
    "cesped download": "DownloadEntryConfig",
    "cesped report": "MergeReportsConfig",
    "cesped run": "CespedConfig",
    "convert": "ConvertConfig",
    "demo": "DemoConfig",
    "density": "DensityConfig",
    "equivariance": "EquivarianceConfig",
    "evaluate": "EvaluateConfig",
    "experiment equivariance": "ExperimentConfig",
    "experiment labels": "ExperimentConfig",
    "experiment projections": "ExperimentConfig",
    "fsc": "FscConfig",
    "infer": "InferConfig",
    "postprocess": "PostprocessConfig",
    "reconstruct": "ReconstructConfig",
    "simulate": "SimulateConfig",
    "train": "TrainConfig",
    "watch": "WatchConfig",
}
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
    from napari_cryosphere.jobs import benchmark_configs, configs, training_configs

    found: dict[str, type[BaseModel]] = {}
    for module in (benchmark_configs, configs, training_configs):
        found |= {
            name: getattr(module, name) for name in CONFIG_OF.values() if name in module.__all__
        }
    return dict(sorted(found.items()))


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
    texts = _attribute_docstrings(model)
    required = [item for item in model.model_fields.items() if item[1].is_required()]
    optional = [item for item in model.model_fields.items() if not item[1].is_required()]
    return [
        Field(
            name, _type_name(field.annotation), _limits(field), _default(field), texts.get(name, "")
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
    return [command for command, name in CONFIG_OF.items() if name == config]


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


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the strings that follow the fields of a model and of what it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for statement, following in pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = _string(following)
                if text:
                    found[statement.target.id] = inspect.cleandoc(text)
    return found


def _string(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        value = statement.value.value
        return value if isinstance(value, str) else None
    return None


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


def _limits(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}
    found = [
        f"{signs[name]} {value:g}"
        for item in _metadata(field)
        for name, value in _bounds(item, signs)
    ]
    return ", ".join(dict.fromkeys(found))  # the bounds of several numbers are those of each


def _metadata(field: FieldInfo) -> list[Any]:
    """Return the constraints of a field, also those of a type that may be None."""
    inner = [
        item for part in get_args(field.annotation) for item in getattr(part, "__metadata__", ())
    ]
    nested = [item for entry in inner for item in getattr(entry, "metadata", [entry])]
    return [*field.metadata, *nested]


def _bounds(item: Any, signs: dict[str, str]) -> list[tuple[str, float]]:
    return [(name, getattr(item, name)) for name in signs if getattr(item, name, None) is not None]


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
