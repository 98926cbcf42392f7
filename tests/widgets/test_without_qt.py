"""What the window knows and does runs without Qt."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import napari_cryosphere.widgets

ROOT = Path(napari_cryosphere.widgets.__file__).parent
MODULES = sorted(
    path.relative_to(ROOT.parents[1]).with_suffix("")
    for folder in ("control", "state")
    for path in (ROOT / folder).glob("*.py")
    if path.stem != "__init__"
)
QT = ("PySide6", "napari._qt", "napari.qt", "pyqtgraph", "qtpy")


def test_control_and_state_import_where_there_is_no_qt() -> None:
    names = [".".join(module.parts) for module in MODULES]
    code = f"""
import importlib, sys
for name in {QT!r}:
    sys.modules[name] = None  # importing it fails
for name in {names!r}:
    importlib.import_module(name)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_no_function_of_control_and_state_imports_qt(module: Path) -> None:
    tree = ast.parse((ROOT.parents[1] / module).with_suffix(".py").read_text())
    imported = [
        name
        for node in ast.walk(tree)
        for name in (
            [f"{node.module}.{alias.name}" for alias in node.names]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    ]
    assert not [name for name in imported if f"{name}.".startswith(tuple(f"{qt}." for qt in QT))]
