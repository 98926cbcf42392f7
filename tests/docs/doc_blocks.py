"""Code blocks of the documentation: found, executed in a folder, or checked without being executed.

A block that cannot run here has a comment before it, ``<!-- checked, not run: REASON -->``. Bash
blocks are executed line by line: `napari-cryosphere` in this process, which saves its start,
everything else by bash. (Plugins such as sybil and pytest-markdown-docs execute Python alone; bash, which
most blocks are, would need as much code of ours on top.)
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("bash", "python")
NOT_RUN = {
    "docs/measurements/networks.md": "runs of hours, some on data that are not in the repository",
    "docs/measurements/alignment.md": "runs of hours, some on data that are not in the repository",
    "docs/measurements/maps.md": "runs of hours, some on data that are not in the repository",
    "docs/measurements/speed.md": "runs of hours, some on data that are not in the repository",
    "CHANGELOG.md": "the past",
}
"""Pages of which no block is run."""

_FENCE = re.compile(
    r"^(?: *<!-- checked, not run: (?P<reason>[^\n]+) -->\n)?"
    r" *```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_PROGRAM = "napari-cryosphere"
_MODULE = ("-m", "napari_cryosphere")


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None
    """Why it is not run, if it is not."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return the Markdown files of the top level and of docs/."""
    return sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))


def blocks(path: Path) -> list[Block]:
    """Return a page's blocks of bash and Python."""
    text = path.read_text(encoding="utf-8")
    page = path.relative_to(ROOT).as_posix()
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        reason = match["reason"] or NOT_RUN.get(page)
        if match["language"] in LANGUAGES:
            found.append(
                Block(page, line, match["language"], textwrap.dedent(match["code"]), reason)
            )
    return found


def inline_commands(path: Path) -> list[str]:
    """Return the command lines that stand in a page's text, which may be cut short."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    return [found.replace("\n", " ") for found in re.findall(rf"`({_PROGRAM} [^`]+)`", text)]


# ---------------------------------------------------------------------- executing


def execute(block: Block, folder: Path, names: dict[str, Any]) -> None:
    """Run a block in a folder, with the names that earlier Python blocks of its page left.

    Raises
    ------
    AssertionError
        With what was printed, if a command fails.
    """
    with contextlib.chdir(folder):
        if block.language == "python":
            exec(compile(block.code, str(block), "exec"), names)
            return
        for line in command_lines(block.code):
            if shlex.split(line, comments=True)[0] == _PROGRAM:
                status, text = run_here(shlex.split(line, comments=True)[1:])
            else:
                path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
                done = subprocess.run(
                    ["bash", "-c", line],
                    capture_output=True,
                    text=True,
                    check=False,
                    env=os.environ | {"PATH": path},
                )
                status, text = done.returncode, done.stdout + done.stderr
            assert status == 0, f"{block}: {line}\n{text}"


def command_lines(code: str) -> list[str]:
    """Return the commands of a bash block, continued lines joined, comments left out."""
    joined = re.sub(r"\\\n\s*", " ", code).splitlines()
    return [line.strip() for line in joined if line.strip() and not line.strip().startswith("#")]


def run_here(arguments: list[str]) -> tuple[int, str]:
    """Run the command line in this process; return its exit status and what it printed."""
    from napari_cryosphere.cli import main

    printed = io.StringIO()
    with (
        patch.object(sys, "argv", [_PROGRAM, *arguments]),
        patch("signal.signal"),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


# ---------------------------------------------------------------------- checking without executing


def check(block: Block) -> None:
    """Check a block without running it: its syntax, and that what it calls exists and takes what it
    is given.

    Raises
    ------
    AssertionError
        With the line and what is wrong with it.
    """
    if block.language == "python":
        ast.parse(block.code)
        return
    done = subprocess.run(
        ["bash", "-n"], input=block.code, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    for line in command_lines(block.code):
        for words in _commands(line):
            _check_command(words, f"{block}: {line}")


def _commands(line: str) -> Iterator[list[str]]:
    """Return the words of each command of a line."""
    splitter = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    splitter.whitespace_split = True
    words: list[str] = []
    for word in splitter:
        if word and set(word) <= set(";|&"):
            yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


def _check_command(words: list[str], where: str) -> None:
    name = Path(words[0]).name
    modules = [at for at in range(len(words)) if tuple(words[at : at + 2]) == _MODULE]
    if name == _PROGRAM:
        check_arguments(words[1:], where)
    elif modules:
        given = words[modules[0] + 2 :]
        if given != ["$@"]:  # what a script was given is checked where the script is called
            check_arguments(given, where)
        if "torchrun" in words:
            _check_torchrun(words[words.index("torchrun") + 1 :], where)
    elif name == "make":
        targets = re.findall(
            r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
        )
        wanted = {word for word in words[1:] if "=" not in word}
        assert wanted <= set(targets), f"{where}: the Makefile has {targets}"
    elif name in ("python", "python3", "pytest"):
        files = [word for word in words[1:] if re.match(r"(benchmarks|fuzz|scripts|tests)/", word)]
        missing = [file for file in files if not (ROOT / file.split("::")[0]).exists()]
        assert not missing, f"{where}: there is no {missing[0]} in the repository"


def check_arguments(arguments: list[str], where: str) -> None:
    """Parse a command line with the real parser and validate its config; no job is started."""
    from napari_cryosphere.jobs.events import Result

    nothing = Result({}, {})
    with (
        patch("napari_cryosphere.jobs.events.follow", lambda *_: nothing),
        patch("napari_cryosphere.jobs.info.describe", lambda *_, **__: {"warnings": []}),
        patch("napari_cryosphere.jobs.info.text_lines", lambda _: []),
        patch("napari_cryosphere.widgets.docks.main.demo.show_demo", lambda _: []),
    ):
        words = [word for word in arguments if not word.startswith(("<", ">"))]
        status, text = run_here(words)
    assert status == 0, f"{where}\n{text}"


def _check_torchrun(words: list[str], where: str) -> None:
    """Parse with torchrun's own parser, which takes abbreviations of its options for its own."""
    from torch.distributed.run import get_args_parser

    try:
        get_args_parser().parse_args(words)
    except (SystemExit, argparse.ArgumentError) as error:
        raise AssertionError(f"{where}: torchrun refuses it ({error})") from error


def check_inline(text: str) -> None:
    """Check a command line that may be cut short: its command exists, and so do its options."""
    from napari_cryosphere.cli import app

    command: Any = app
    context = click.Context(app)
    words = text.split()[1:]
    while words and isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        if found is not None:
            command = found
            words.pop(0)
        else:
            every = words[0].startswith("-") or not re.fullmatch(r"[a-z]+", words[0])
            assert every, f"`{text}`: there is no command {words[0]!r}"
            return
    flags = {
        flag
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    flags |= {"--help", "-h", "--quiet", "--debug"}
    unknown = [
        word for word in words if re.match(r"--[a-z]", word) and word.rstrip(",.;:]") not in flags
    ]
    assert not unknown, f"`{text}`: no option {unknown[0]}"
