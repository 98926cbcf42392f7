"""Every cell of the notebooks runs, and what it ends with can be shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs").rglob("*.ipynb"))


def run(cell: str, names: dict[str, Any]) -> Any:
    """Execute a cell, and return the value of its last line if that is an expression."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert 8 <= len(code) <= 12
    assert not any(cell.get("outputs") for cell in cells)
    names: dict[str, Any] = {}
    shown = [run(cell, names) for cell in code]
    nouns = [value for value in shown[:-1] if hasattr(value, "_repr_html_")]
    html = [value._repr_html_() for value in nouns]
    assert shown[-1]._repr_png_().startswith(b"\x89PNG")
    assert len(html) >= 6
    assert sum("data:image/png" in text for text in html) >= 4
    assert any("<svg" in text for text in html)
    assert not list(tmp_path.iterdir())


def test_there_is_one() -> None:
    assert NOTEBOOKS
