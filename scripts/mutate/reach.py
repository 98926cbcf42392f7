"""Which lines each test reaches: a pytest plugin."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

__all__ = ["Reach"]


class Reach:
    """Follows tests through the modules of one folder.

    A fixture that serves many tests runs before the first of them: its lines count for all that ask
    for it. What functions remember is forgotten before each test, since only the first would reach
    them otherwise.

    Attributes
    ----------
    lines
        ``(file, line)`` that each test reached.
    seconds
        Processor time of each test, its fixtures included.
    """

    def __init__(self, folder: str) -> None:
        self.lines: dict[str, set[tuple[str, int]]] = {}
        self.seconds: dict[str, float] = {}
        self._folder = folder
        self._now: set[tuple[str, int]] = set()
        self._of_fixtures: dict[Any, set[tuple[str, int]]] = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        """Trace one test."""
        for name in [name for name in sys.modules if name.startswith("napari_cryosphere")]:
            for one in list(vars(sys.modules[name]).values()):
                if type(one) is functools._lru_cache_wrapper:
                    one.cache_clear()
        self._now = set()
        started = time.process_time()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.seconds[item.nodeid] = time.process_time() - started
            used = item._fixtureinfo.name2fixturedefs.values()
            self.lines[item.nodeid] = self._now.union(
                *(
                    self._of_fixtures[definition]
                    for definitions in used
                    for definition in definitions
                )
            )

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """Keep a fixture's lines apart."""
        before, self._now = self._now, set()
        try:
            return (yield)
        finally:
            self._of_fixtures[fixturedef] |= self._now
            self._now = before

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(self._folder) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._now.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line
