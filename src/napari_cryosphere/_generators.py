"""Generators whose steps become others while what they return is kept."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

__all__ = ["converted", "returned"]

StepT = TypeVar("StepT")
OtherT = TypeVar("OtherT")
T = TypeVar("T")


def converted(
    work: Generator[StepT, Any, T], change: Callable[[StepT], OtherT]
) -> Generator[OtherT, None, T]:
    """Yield what ``change`` makes of each step of a generator, and return what that returns.

    Closing this generator closes the other.
    """
    kept: list[T] = []
    with closing(_keeping(work, kept)) as steps:
        for step in steps:
            yield change(step)
    return kept[0]


def returned(work: Generator[StepT, Any, T], show: Callable[[StepT], object]) -> T:
    """Pass on each step of a generator, return what it returns, and close it if showing a step fails."""
    kept: list[T] = []
    with closing(_keeping(work, kept)) as steps:
        for step in steps:
            show(step)
    return kept[0]


def _keeping(work: Generator[StepT, Any, T], kept: list[T]) -> Generator[StepT, None, None]:
    """Yield a generator's steps and keep what it returns."""
    kept.append((yield from work))
