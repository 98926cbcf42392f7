"""Numeric constants say where they come from: a comment on or above the line, or a docstring below."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "napari_cryosphere"
PACKAGES = (
    "alignment",
    "evaluation",
    "imaging",
    "jobs",
    "model",
    "reconstruction",
    "so3",
    "training",
)


def is_number(node: ast.expr) -> bool:
    """Whether an expression is written with numbers alone: 3, -1e-6, 1 << 20, (0.82, 0.98)."""
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.UnaryOp(operand=operand):
            return is_number(operand)
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
        case ast.Tuple(elts=elements):
            return bool(elements) and all(map(is_number, elements))
    return False


def names_of(node: ast.stmt) -> tuple[list[str], ast.expr | None]:
    """Return the names that a statement assigns to, and the value."""
    match node:
        case ast.Assign(targets=[target], value=value):
            named = target.elts if isinstance(target, ast.Tuple) else [target]
            return [part.id for part in named if isinstance(part, ast.Name)], value
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return [name], value
    return [], None


def unexplained(text: str) -> list[str]:
    """Return ``line: NAME`` of every numeric constant of a module that nothing is said of."""
    lines, body, found = text.splitlines(), ast.parse(text).body, []
    for node, after in zip(body, [*body[1:], None], strict=True):
        names, value = names_of(node)
        constant = bool(names) and all(name.lstrip("_").isupper() for name in names)
        if value is None or not constant or not is_number(value):
            continue
        own = lines[node.lineno - 1 : node.end_lineno]
        commented = any("#" in line for line in own) or _explained_above(lines, node.lineno - 2)
        described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if not commented and not described:
            found.append(f"{node.lineno}: {', '.join(names)}")
    return found


def _explained_above(lines: list[str], row: int) -> bool:
    """Whether the lines above a constant, over others of its block, end in a comment."""
    while row >= 0 and lines[row] and not lines[row].startswith("#"):
        row -= 1
    return row >= 0 and lines[row].startswith("#")


@pytest.mark.parametrize("package", PACKAGES)
def test_numeric_constants_are_explained(package: str) -> None:
    modules = sorted((SOURCE / package).rglob("*.py"))
    assert modules
    missing = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in modules
        for line in unexplained(path.read_text(encoding="utf-8"))
    ]
    assert not missing, "say in one line what it is and where it comes from: " + "; ".join(missing)


def test_what_counts_as_explained() -> None:
    assert unexplained("_A = 3\n") == ["1: _A"]
    assert unexplained("_A, _B = 1e-3, 1 << 20\n") == ["1: _A, _B"]
    assert not unexplained("_A = 3  # shells\n# px\n_B = -2\nC = 0.5\n'''Of the FSC.'''\n")
    assert not unexplained("NAMES = ('a', 'b')\nlower = 3\n_PATH = 'x'\n")
