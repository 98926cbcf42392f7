"""A copy of the package and its tests, and trials of faults in it.

Every trial is a process of its own, forked from one that has imported what the tests import
(PyTorch and the like, but nothing of the package), so that it costs the tests alone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from reach import Reach

__all__ = ["Trials"]

_MEMORY_BYTES = 12 * 2**30
_SLACK_SECONDS = 20  # of processor time, for what pytest itself and the imports take
_LONG_SECONDS = 1.0
_WAIT = 20  # for a trial that sleeps: times its limit of processor time
# hypothesis comes before pytest could rewrite its assertions, of which it has none
_OPTIONS = ("-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
_IGNORED = shutil.ignore_patterns("__pycache__", ".*")


@dataclass(frozen=True)
class Verdict:
    """How a trial ended: ``passed``, ``failed``, ``timeout``, or ``unreached`` where no test gets
    there.
    """

    name: str
    seconds: float
    by: str = ""


class Trials:
    """Trials of one room's modules against its tests.

    Parameters
    ----------
    root
        Checkout; only read.
    room
        Name of a package below ``napari_cryosphere``; its tests are in ``tests/ROOM``.
    scratch
        Empty folder.
    """

    def __init__(self, root: Path, room: str, scratch: Path) -> None:
        self.root, self.room = scratch / "checkout", room
        self.root.mkdir()
        for name in ("src", "tests", "fuzz"):
            shutil.copytree(root / name, self.root / name, ignore=_IGNORED)
        for name in ("pyproject.toml", "napari.yaml", "README.md"):
            shutil.copy2(root / name, self.root / name)
        self.folder = self.root / "src" / "napari_cryosphere" / room
        reference = os.environ.get("CRYOSPHERE_SHARED_DATA", str(root.parent / "shared" / "data"))
        os.environ["CRYOSPHERE_SHARED_DATA"] = reference
        os.environ["PYTHONPATH"] = str(self.root / "src")
        self._log, self._map = scratch / "log", scratch / "reach.json"
        self.lines: dict[str, set[tuple[str, int]]] = {}
        self.seconds: dict[str, float] = {}

    def measure(self, expression: str = "") -> None:
        """Run the unchanged tests once, find what each reaches, and import what they import.

        Parameters
        ----------
        expression
            Which tests, as for pytest's ``-k``; all without it.

        Raises
        ------
        RuntimeError
            If a test fails, at first or when run again in the way of a trial.
        """
        code = self._forked(lambda: self._measured(expression), None)
        if code != 0:
            raise RuntimeError(
                f"the tests fail without any change:\n{self._log.read_text()[-4000:]}"
            )
        found = json.loads(self._map.read_text())
        self.seconds = found["seconds"]
        self.lines = {
            test: {(file, line) for file, line in hit} for test, hit in found["lines"].items()
        }
        for name in found["modules"]:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        short = [test for test, seconds in self.seconds.items() if seconds <= _LONG_SECONDS]
        file = next(self.folder.glob("*.py"))
        if (verdict := self.trial(file, file.read_text(), short)).name != "passed":
            raise RuntimeError(
                f"the tests fail in a forked process: {verdict.by}\n{self._log.read_text()[-4000:]}"
            )

    def tests_of(self, file: Path, first: int, last: int) -> list[str]:
        """Return the tests that reach one of a file's lines (any of them if ``last`` is 0).

        Short ones come first, and those of one module together, since they share fixtures.
        """
        name = str(file)
        tests = [
            test
            for test, hit in self.lines.items()
            if any(path == name and (last == 0 or first <= line <= last) for path, line in hit)
        ]
        total = dict.fromkeys((test.split("::")[0] for test in tests), 0.0)
        for test in tests:
            total[test.split("::")[0]] += self.seconds[test]

        def rank(test: str) -> tuple[bool, float, str, float]:
            module = test.split("::")[0]
            return self.seconds[test] > _LONG_SECONDS, total[module], module, self.seconds[test]

        return sorted(tests, key=rank)

    def trial(self, file: Path, source: str, tests: list[str]) -> Verdict:
        """Run tests with another text in a file's place, up to the first that fails."""
        if not tests:
            return Verdict("unreached", 0.0)
        original, stat = file.read_text(), file.stat()
        limit = int(3 * sum(self.seconds[test] for test in tests)) + _SLACK_SECONDS
        started = time.monotonic()
        try:
            file.write_text(source)
            os.utime(file, (stat.st_atime, stat.st_mtime + 10))  # what was compiled is not this
            code = self._forked(lambda: self._pytest([*tests, "-x"]), limit)
        finally:
            file.write_text(original)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        seconds = time.monotonic() - started
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return Verdict("timeout", seconds)
        return Verdict("passed" if code == 0 else "failed", seconds, self._reason() if code else "")

    def _reason(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return (told or lines[-1:] or ["no word"])[0]

    def _measured(self, expression: str) -> int:
        reach = Reach(str(self.folder))
        code = self._pytest([f"tests/{self.room}", "-k", expression], reach)
        ours = ("napari_cryosphere", "test_", "conftest", "__main__")
        found = {
            "seconds": reach.seconds,
            "lines": {test: sorted(hit) for test, hit in reach.lines.items()},
            "modules": sorted(name for name in sys.modules if not name.startswith(ours)),
        }
        self._map.write_text(json.dumps(found))
        return code

    def _pytest(self, arguments: list[str], *plugins: object) -> int:
        return int(pytest.main([*arguments, *_OPTIONS], plugins=list(plugins)))

    def _forked(self, work: Callable[[], int], limit_seconds: int | None) -> int:
        """Do work in a process of its own and return its exit code, below 0 for the signal that
        ended it.
        """
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                self._settle(limit_seconds)
                code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ends = time.monotonic() + _WAIT * (limit_seconds or 3600)
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > ends:
                os.killpg(child, signal.SIGKILL)
                ends = float("inf")
            time.sleep(0.02)

    def _settle(self, limit_seconds: int | None) -> None:
        """Make a forked process one that runs the copy, quietly."""
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
        if limit_seconds is not None:
            used = int(time.process_time())
            resource.setrlimit(
                resource.RLIMIT_CPU, (used + limit_seconds, used + limit_seconds + 1)
            )
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.chdir(self.root)
        sys.path[:0] = [str(self.root / "src")]
        sys.dont_write_bytecode = limit_seconds is not None
