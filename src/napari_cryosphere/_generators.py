"""Generators whose steps become others while what they return is kept."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

__all__ = ["converted"]

StepT = TypeVar("StepT")
OtherT = TypeVar("OtherT")
T = TypeVar("T")


def converted(
    work: Generator[StepT, Any, T], change: Callable[[StepT], OtherT]
) -> Generator[OtherT, None, T]:
    """Yield what ``change`` makes of each step of a generator, and return what that returns.

    Closing this generator closes the other.
    """
    returned: list[T] = []

    def steps() -> Generator[StepT, None, None]:
        returned.append((yield from work))

    with closing(steps()) as every:
        for step in every:
            yield change(step)
    return returned[0]
