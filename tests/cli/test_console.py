"""How events are shown: a bar on a terminal, plain lines elsewhere, next to nothing when quiet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as RichConsole

from napari_cryosphere import _console
from napari_cryosphere._console import Console
from napari_cryosphere.jobs.events import Note, Progress


def on_a_terminal(quiet: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    console = Console(quiet)
    console._rich = RichConsole(file=text, force_terminal=True, width=100, highlight=False)
    return console, text


def test_a_terminal_has_a_bar_with_notes_above_it() -> None:
    console, text = on_a_terminal()
    with console:
        console.show(Progress(0.25, "half 1"))
        console.show(Note("the box is odd", warning=True))
        console.show(Progress(1.0, "half 2"))
    shown = text.getvalue()
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


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_shows_warnings_alone(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    console, text = on_a_terminal(quiet=True) if terminal else (Console(quiet=True), io.StringIO())
    with console:
        console.show(Progress(1.0, "aligned"))
        console.show(Note("ten particles"))
        console.show(Note("no half sets", warning=True))
    assert capsys.readouterr().err + text.getvalue() == "warning: no half sets\n"
    assert _console._PLAIN_SECONDS > 0
