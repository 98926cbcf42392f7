"""A question about a data set, asked in a line of the dock with a button for each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Answer", "Question"]


@dataclass(frozen=True)
class Answer:
    """A button: what it says, what it does, and a tool tip."""

    text: str
    do: Callable[[], object]
    tip: str = ""


@dataclass(frozen=True)
class Question:
    """A line with its answers, the recommended one first."""

    text: str
    answers: tuple[Answer, ...]
