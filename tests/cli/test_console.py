"""How events are shown: a bar on a terminal, plain lines elsewhere, next to nothing when quiet."""

from __future__ import annotations

import io
import sys

import pytest

from napari_cryosphere._console import Console
from napari_cryosphere.jobs.events import Note, Progress


class Terminal(io.StringIO):
    """What stderr is where somebody watches."""

    def isatty(self) -> bool:
        return True


def watch(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in {"TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_a_terminal_has_a_bar_with_notes_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    with Console() as console:
        console.show(Progress(0.25, "half 1"))
        console.show(Note("the box is odd", warning=True))
        console.show(Progress(1.0, "half 2"))
    shown = terminal.getvalue()
    assert "warning: the box is odd\n" in shown
    assert "half 2" in shown
    assert "100%" in shown
    assert shown.index("the box is odd") < shown.rindex("half 2")


def test_a_file_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """The first, the last, and those that come after a while; stdout is left to the results."""
    with Console(quiet=False) as console:
        console._last_line = -1e9
        for fraction in (0.1, 0.2, 0.3, 1.0):
            console.show(Progress(fraction, "aligned", remaining_seconds=7.0))
        console.show(Note("ten particles"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [" 10% aligned, 7 s left", "100% aligned, 7 s left", "ten particles"]


@pytest.mark.parametrize("watched", [False, True])
def test_quiet_shows_warnings_alone(
    watched: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = watch(monkeypatch) if watched else None
    with Console(quiet=True) as console:
        console.show(Progress(1.0, "aligned"))
        console.show(Note("ten particles"))
        console.show(Note("no half sets", warning=True))
    shown = terminal.getvalue() if terminal else capsys.readouterr().err
    assert shown == "warning: no half sets\n"
