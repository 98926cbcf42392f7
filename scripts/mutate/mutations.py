"""Small faults that can be put into a module's syntax tree, one at a time.

Left alone is what no test could or should notice: docstrings and other texts, types, decorators,
what is logged, and the words of an error (but not the error).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Mutation", "mutations"]

_ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_COMPARISON: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_PAIRS = (
    ("min", "max"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("minimum", "maximum"),
    ("any", "all"),
    ("floor", "ceil"),
    ("sin", "cos"),
    ("mean", "sum"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("fftshift", "ifftshift"),
    ("intersection", "union"),
    ("real", "imag"),
)
_NAMES = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
# methods without arguments that change no value: leaving one out costs time or memory at most
_HARMLESS = {"clone", "close", "contiguous", "copy", "cpu", "detach", "ravel", "toarray", "tolist"}
_LOGGERS = {"_LOGGER", "_log", "log", "logger", "logging", "warnings"}
_TYPES = {"annotation", "returns", "decorator_list", "bases", "type_params"}


@dataclass(frozen=True)
class Mutation:
    """One fault: the child ``field`` (item ``place`` of it, if a list) of ``holder`` becomes
    ``new``.

    ``first`` to ``last`` are the lines of which one must run for the fault to matter; ``last`` 0
    stands for the whole file: what runs when the module is imported.
    """

    line: int
    column: int
    first: int
    last: int
    holder: ast.AST
    field: str
    place: int | None
    old: ast.AST
    new: ast.AST

    def __str__(self) -> str:
        """Return the line as it was and as it is."""
        before, after = (" ".join(ast.unparse(part).split()) for part in (self.old, self.new))
        return f"{before}  ->  {after}"

    def source(self, tree: ast.Module) -> str:
        """Return the module with the fault; the tree stays as it is."""
        self._put(self.new)
        try:
            return ast.unparse(ast.fix_missing_locations(tree))
        finally:
            self._put(self.old)

    def _put(self, child: ast.AST) -> None:
        if self.place is None:
            setattr(self.holder, self.field, child)
        else:
            getattr(self.holder, self.field)[self.place] = child


def mutations(tree: ast.Module) -> list[Mutation]:
    """Return all faults of a module in the order of its text."""
    return sorted(_within(tree, 1, 0, inside=False), key=lambda one: one.line)


def _within(node: ast.AST, first: int, last: int, inside: bool) -> Iterator[Mutation]:
    """Yield the faults below a node; ``first`` and ``last`` are its statement's lines."""
    for field, value in ast.iter_fields(node):
        if field in _TYPES:
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for place, child in children:
            if not isinstance(child, ast.AST) or _is_left_alone(child):
                continue
            span = _span(node, field, child, inside) or (first, last)
            if isinstance(child, ast.stmt | ast.expr):
                for new in _replacements(child):
                    yield Mutation(
                        child.lineno, child.col_offset + 1, *span, node, field, place, child, new
                    )
            if not isinstance(child, ast.Raise):
                is_body = isinstance(node, ast.FunctionDef) and field == "body"
                yield from _within(child, *span, inside=inside or is_body)


def _span(node: ast.AST, field: str, child: ast.AST, inside: bool) -> tuple[int, int] | None:
    """Return the lines that stand for a child of a node, or None if they are the node's own."""
    if isinstance(child, ast.FunctionDef):
        return child.lineno, child.end_lineno or 0
    if not inside and not (isinstance(node, ast.FunctionDef) and field == "body"):
        return None
    compound = hasattr(node, "body") and isinstance(node, ast.stmt)
    if isinstance(child, ast.stmt) or (compound and isinstance(child, ast.expr)):
        return child.lineno, child.end_lineno or 0
    return None


def _is_left_alone(node: ast.AST) -> bool:
    """Whether a node is text, a type or about logging."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        start = node.value.func
        while isinstance(start, ast.Attribute):
            start = start.value
        return isinstance(start, ast.Name) and start.id in _LOGGERS
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in {"cast", "TypeVar"}
    return False


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    match node:
        case ast.BinOp(left, ast.MatMult(), right):
            yield _like(node, left=right, right=left)
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _ARITHMETIC:
            yield _like(node, op=_ARITHMETIC[type(op)]())
        case ast.Compare(ops=ops):
            for place, sign in enumerate(ops):
                yield _like(node, ops=[*ops[:place], _COMPARISON[type(sign)](), *ops[place + 1 :]])
        case ast.BoolOp(op=ast.And()):
            yield _like(node, op=ast.Or())
        case ast.BoolOp():
            yield _like(node, op=ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield _like(node, value=not value)
        case ast.Constant(value=int(value)):
            yield _like(node, value=value + 1)
            if value > 0:
                yield _like(node, value=value - 1)
        case ast.Constant(value=float(value)):
            yield _like(node, value=2 * value if value else 1.0)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield _like(node, test=ast.copy_location(ast.UnaryOp(ast.Not(), test), test))
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield ast.copy_location(ast.Pass(), node)
        case ast.Break():
            yield ast.copy_location(ast.Continue(), node)
        case ast.Continue():
            yield ast.copy_location(ast.Break(), node)
        case ast.Attribute(value=value, attr="T" | "mT" | "H" | "mH"):
            yield value
        case ast.Attribute(attr=attr) if attr in _NAMES:
            yield _like(node, attr=_NAMES[attr])
        case ast.Name(id=name) if name in _NAMES:
            yield _like(node, id=_NAMES[name])
        case ast.Call(func=ast.Attribute(value=value, attr=attr), args=[], keywords=[]):
            if attr in {"conj", "abs"} or (
                attr not in _HARMLESS and not isinstance(value, ast.Name | ast.Call)
            ):
                yield value


def _like(node: ast.AST, **changes: Any) -> ast.AST:
    """Return a copy of a node with some fields changed; its other children stay the same objects."""
    twin = copy.copy(node)
    for field, value in changes.items():
        setattr(twin, field, value)
    return twin
