"""The fields of a config as a person meets them: name, kind of value, bounds, unit, help.

A field is declared once, in its config. The command line makes an option of it, the window a row of
a form, the documentation a row of a table; all three ask here.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

__all__ = [
    "Argument",
    "FieldSpec",
    "File",
    "Inside",
    "Kind",
    "Option",
    "assign",
    "complaint",
    "documentation",
    "fields_of",
    "limits",
    "limits_in_words",
]

Kind: TypeAlias = Literal["flag", "choice", "integer", "number", "path", "text", "nested"]

UNITS = {
    "_angstrom2": "A^2",
    "_angstrom": "A",
    "_degrees": "DEGREES",
    "_seconds": "SECONDS",
    "_gb": "GB",
    "_px": "PX",
    "_kv": "KV",
}
"""Unit of a field by the end of its name, which its option leaves out."""

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}


@dataclass(frozen=True)
class Argument:
    """Marks a field that the command line takes by its place, not by an option's name."""

    metavar: str | None = None


@dataclass(frozen=True)
class Option:
    """Marks a field whose option has other names than the field's own.

    - ``names``: such as ``--local``; the first is shown first.
    - ``unset``: a flag that says that the field has no value, which is the default, and its help.
    - ``variable``: variable of the environment that gives the value where no option does.
    - ``by_name``: the field holds a model that can be given as a string, its name.
    """

    names: tuple[str, ...] = ()
    unset: tuple[str, str] | None = None
    variable: str | None = None
    by_name: bool = False


@dataclass(frozen=True)
class File:
    """Marks what a path is: a file that is read or written, or a folder; with patterns of names."""

    use: Literal["read", "write", "folder"]
    patterns: str = "*"


@dataclass(frozen=True)
class Inside:
    """Marks a field whose default is a model, or a tuple of one: these fields of it are offered too."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class FieldSpec:
    """One field of a config, or of a model inside it.

    - ``path``: name of the field; for one of a model inside the config, after the name of that.
    - ``owner``: the model that the field is of.
    - ``info``: what pydantic knows of it.
    - ``default``: the default; None where there is none.
    - ``kind``: what a value is.
    - ``choices``: the legal values of a ``choice``.
    - ``count``: how many values: 1; more for a tuple of that many; 0 for any number.
    - ``optional``: whether None is legal.
    - ``listed``: whether the model inside the config is one of several.
    """

    path: tuple[str, ...]
    owner: type[BaseModel]
    info: FieldInfo
    default: Any
    kind: Kind
    choices: tuple[Any, ...]
    count: int
    optional: bool
    listed: bool = False

    @property
    def key(self) -> str:
        """Name of the field for programs: the path's names joined."""
        return "__".join(self.path)

    @property
    def name(self) -> str:
        """Name of the field in its model."""
        return self.path[-1]

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.info.is_required()

    @property
    def help(self) -> str:
        """What the field means, in one line."""
        text = documentation(self.owner).get(self.name, "")
        return " ".join(text.replace("``", "").split())

    @property
    def unit(self) -> str | None:
        """Unit of the value, where its name says it."""
        return next((UNITS[end] for end in UNITS if self.name.endswith(end)), None)

    @property
    def label(self) -> str:
        """The name in words, without its unit."""
        end = next((end for end in UNITS if self.name.endswith(end)), "")
        return self.name.removesuffix(end).replace("_", " ")

    @property
    def argument(self) -> Argument | None:
        """Set if the command line takes the value by its place."""
        return self._marker(Argument)

    @property
    def file(self) -> File:
        """What the path is."""
        return self._marker(File) or File("read")

    @property
    def option(self) -> Option:
        """Names of the option: the marked ones, else the field's without its unit."""
        marked = self._marker(Option) or Option()
        names = marked.names or (f"--{self.label.replace(' ', '-')}",)
        return Option(names, marked.unset, marked.variable)

    def _marker(self, kind: type[Any]) -> Any:
        return next((one for one in _metadata(self.info) if isinstance(one, kind)), None)


@cache
def fields_of(model: type[BaseModel]) -> tuple[FieldSpec, ...]:
    """Return the fields of a config: those of its own class first, then what it inherits.

    Fields of models inside it follow the field that offers them (see `Inside`).
    """
    names = (name for base in model.__mro__ for name in vars(base).get("__annotations__", ()))
    order = {name: place for place, name in enumerate(names)}
    found = sorted(model.model_fields.items(), key=lambda item: order[item[0]])
    return tuple(spec for name, info in found for spec in _specs(model, name, info))


def _specs(model: type[BaseModel], name: str, info: FieldInfo) -> Iterator[FieldSpec]:
    kind, choices, count, optional = _kind(info.annotation)
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    if any(isinstance(one, Option) and one.by_name for one in info.metadata):
        kind, default, optional = "text", None, True
    owner = _owner(model, name)
    yield FieldSpec((name,), owner, info, default, kind, choices, count, optional)
    offered = next((one.names for one in info.metadata if isinstance(one, Inside)), ())
    one: Any = default[0] if isinstance(default, tuple) and default else default
    for within in offered:
        inner = type(one).model_fields[within]
        yield FieldSpec(
            (name, within),
            _owner(type(one), within),
            inner,
            getattr(one, within),
            *_kind(inner.annotation),
            listed=isinstance(default, tuple),
        )


def _owner(model: type[BaseModel], name: str) -> type[BaseModel]:
    """Return the class that declares a field."""
    return next(base for base in model.__mro__ if name in vars(base).get("__annotations__", ()))


def _kind(annotation: Any) -> tuple[Kind, tuple[Any, ...], int, bool]:
    """Return kind, choices, number of values and whether None is legal."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin in (Union, UnionType):
        rest = [part for part in parts if part is not NoneType]
        kinds = [_kind(part) for part in rest]
        if len(kinds) == 1:
            return (*kinds[0][:3], True)
        if any(kind == "nested" for kind, *_ in kinds):
            return "nested", (), 1, NoneType in parts
        paths = any(kind == "path" for kind, *_ in kinds)
        words = tuple(choice for _, choices, *_ in kinds for choice in choices)
        return "path" if paths else "text", words, 1, NoneType in parts
    if origin is Literal:
        return "choice", parts, 1, False
    if origin is tuple:
        kind, choices, _, _ = _kind(parts[0])
        return kind, choices, 0 if parts[-1] is Ellipsis else len(parts), False
    simple: dict[Any, Kind] = {
        bool: "flag",
        int: "integer",
        float: "number",
        str: "text",
        Path: "path",
    }
    return simple.get(annotation, "nested"), (), 1, False


def _metadata(info: FieldInfo) -> list[Any]:
    """Return what a field's type is annotated with, also inside: of the items of a tuple, say."""
    return [*info.metadata, *_annotations(info.annotation)]


def _annotations(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _annotations(part)


def limits(info: FieldInfo) -> dict[str, float]:
    """Return the bounds of a number, by their names in pydantic (gt, ge, lt, le, multiple_of)."""
    constraints = [
        item for entry in _metadata(info) for item in getattr(entry, "metadata", [entry])
    ]
    return {
        name: value
        for item in constraints
        for name in _SIGNS
        if (value := getattr(item, name, None)) is not None
    }


def limits_in_words(info: FieldInfo) -> str:
    """Return the bounds of a number as text, such as ``>= 0, < 1``."""
    return ", ".join(f"{_SIGNS[name]} {value:g}" for name, value in limits(info).items())


def assign(values: dict[str, Any], spec: FieldSpec, value: Any) -> None:
    """Put a field's value in its place; of several models inside a config into the first."""
    for name in spec.path[:-1]:
        inner = values.setdefault(name, [{}] if spec.listed else {})
        values = inner[0] if isinstance(inner, list) else inner
    values[spec.name] = value


def complaint(
    error: ValidationError,
    config: type[BaseModel],
    fields: Iterable[FieldSpec],
    name_of: Callable[[FieldSpec], str],
) -> str:
    """Return one line on the first of a config's errors, on an unknown key before all others.

    - ``error``: what pydantic found.
    - ``config``: in the values of which config.
    - ``fields``: the fields that a person sees.
    - ``name_of``: names one of them.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where = [part for part in first["loc"] if isinstance(part, str)]
    message = first["msg"].removeprefix("Value error, ")
    if not where:
        return message  # a rule between keys says it all itself
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        keys = ", ".join(config.model_fields)
        return f"{name}: {message}" + (f"; the keys are {keys}" if len(where) == 1 else "")
    name = next((name_of(spec) for spec in fields if list(spec.path) == where), name)
    if first["type"] == "missing":
        return f"{name} is missing"
    return f"{name}: {message}, not {first['input']!r}"


def documentation(model: type[BaseModel]) -> dict[str, str]:
    """Return the strings that follow the fields of a model, by name; inherited ones are in it."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _of_module(base.__module__).get(base.__name__, {})
    return found


@cache
def _of_module(module: str) -> dict[str, dict[str, str]]:
    """Return the strings after the fields of each class of a module. Python itself keeps none."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {
        node.name: {
            field.target.id: inspect.cleandoc(text.value.value)
            for field, text in pairwise(node.body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
