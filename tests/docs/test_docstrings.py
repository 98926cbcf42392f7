"""Every public name says what it does, with the shapes of its arrays and the errors that it raises."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "napari_cryosphere"
MODULES = sorted(PACKAGE.rglob("*.py"))
ARRAYS = re.compile(r"\b(NDArray|ArrayLike|Tensor|Array)\b")
SHAPE = re.compile(
    r"``\([^`]*\)``|\((?:n|k|\.\.\.|box)\b[^)]*\)|\bshape\b|\bscalars?\b|\ban? (?:map|number|image)\b"
)


@dataclass(frozen=True)
class Name:
    """A public class, function or method."""

    module: str
    name: str
    node: ast.ClassDef | ast.FunctionDef
    owner: ast.ClassDef | None = None

    @property
    def text(self) -> str:
        """Its docstring; with that of the class it belongs to, which says what they share."""
        own = ast.get_docstring(self.node) or ""
        return own + (ast.get_docstring(self.owner) or "" if self.owner and own else "")


def _all_of(tree: ast.Module) -> set[str]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return set(ast.literal_eval(statement.value))
    return set()


def _public(path: Path) -> Iterator[Name]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module, wanted = path.relative_to(PACKAGE).as_posix(), _all_of(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in wanted:
            yield Name(module, node.name, node)
        if isinstance(node, ast.ClassDef) and node.name in wanted:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    yield Name(module, f"{node.name}.{part.name}", part, node)


PUBLIC = [name for path in MODULES if not path.stem.startswith("_") for name in _public(path)]
INSIDE = [name for path in MODULES for name in _public(path)]
"""Those too that only the package itself uses."""


def test_there_are_public_names() -> None:
    assert len(PUBLIC) > 400


def test_every_module_and_public_name_has_a_docstring() -> None:
    silent = [f"{name.module}: {name.name}" for name in INSIDE if not ast.get_docstring(name.node)]
    silent += [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


@pytest.mark.parametrize(
    "room", ["so3", "particles", "imaging", "reconstruction", "alignment", "training"]
)
def test_arrays_have_their_shapes(room: str) -> None:
    """A public function that takes or returns arrays says of which shape."""
    silent = []
    for name in PUBLIC:
        if name.module.startswith(f"{room}/") and isinstance(name.node, ast.FunctionDef):
            arguments = [*name.node.args.args, *name.node.args.kwonlyargs]
            types = [ast.unparse(item.annotation) for item in arguments if item.annotation]
            types += [ast.unparse(name.node.returns)] if name.node.returns else []
            if any(ARRAYS.search(kind) for kind in types) and not SHAPE.search(name.text):
                silent.append(f"{name.module}: {name.name}")
    assert not silent


def test_errors_are_told() -> None:
    """A public function that raises one of the package's errors itself has a section Raises."""
    silent = []
    for name in PUBLIC:
        if not isinstance(name.node, ast.FunctionDef):
            continue
        for node in ast.walk(name.node):
            if isinstance(node, ast.Raise) and node.exc is not None:
                error = ast.unparse(node.exc).split("(")[0]
                if error.endswith("Error") and "Raises" not in name.text:
                    silent.append(f"{name.module}: {name.name} raises {error}")
    assert not silent
