"""The packages that the project is built on are imported by the product, each where it works."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "napari_cryosphere"
TEN = (
    *("napari", "magicgui", "qtpy", "torch", "e3nn"),
    *("healpy", "numpy", "mrcfile", "starfile", "vispy"),
)
HEAVY = ("e3nn", "healpy", "matplotlib", "starfile")
"""Imported where they are used, never when a module loads."""

THROUGH_NAPARI = "vispy"
"""Draws every canvas of the window; napari imports it, and its version is bounded with napari's."""


def imports(tree: ast.AST) -> set[str]:
    """Return the packages that a tree imports, type annotations' imports left out."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


@pytest.fixture(scope="module")
def where() -> dict[str, list[str]]:
    """The modules that import each package when they run."""
    found: dict[str, list[str]] = {name: [] for name in TEN}
    for path in SOURCE.rglob("*.py"):
        tree = without_type_checking(ast.parse(path.read_text(encoding="utf-8")))
        for name in imports(tree) & set(TEN):
            found[name].append(path.relative_to(SOURCE).as_posix())
    return found


@pytest.mark.parametrize("name", [name for name in TEN if name != THROUGH_NAPARI])
def test_each_package_is_at_work(name: str, where: dict[str, list[str]]) -> None:
    assert where[name], f"no module imports {name}"


def test_each_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["gui"]]
    assert all(any(line.startswith(name) for line in lines) for name in TEN)


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    for path in SOURCE.rglob("*.py"):
        tree = without_type_checking(ast.parse(path.read_text(encoding="utf-8")))
        top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        eager = imports(ast.Module(body=top, type_ignores=[])) & set(HEAVY)
        assert not eager, f"{path}: {eager}"
