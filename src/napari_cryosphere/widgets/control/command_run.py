"""A command of the command line run from the window: progress, result, outputs opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cryosphere.jobs.events import Note, Progress, Result
from napari_cryosphere.widgets.control.work import Events, spare_a_core, writable_folder
from napari_cryosphere.widgets.state.kinds import kind_of
from napari_cryosphere.widgets.state.notices import tell_note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.components import ViewerModel

    from napari_cryosphere.jobs.commands import Command
    from napari_cryosphere.jobs.configs.bases import JobConfig
    from napari_cryosphere.jobs.configs.fields import FieldSpec
    from napari_cryosphere.widgets.control.running import Runner

__all__ = ["CommandRun", "proposed_output", "to_open"]

_NOT_OPENED = {"stack", "half1", "half2", "mask"}
"""Roles of outputs that belong to another one, which is opened."""


class CommandRun:
    """Runs one command at a time in the background. ``viewer``: where outputs are opened."""

    changed = Signal()
    made_particles = Signal()
    """Particles that a command has written were opened."""

    def __init__(self, viewer: ViewerModel, runner: Runner) -> None:
        self._viewer, self._runner = viewer, runner
        self.active = False
        self.lines: list[str] = []
        """What the last command said: its warnings, values and files, or the text it returned."""

    def start(self, row: Command, config: JobConfig) -> None:
        """Run a command; nothing while other work is going on."""
        if self._runner.busy:
            return
        self.active, self.lines = True, []
        self.changed.emit()
        self._runner.start(
            row.name.capitalize(), lambda: _events(row, config), self._take, self._end
        )

    def _take(self, said: object) -> None:
        if isinstance(said, str):
            self.lines += said.splitlines()
        elif isinstance(said, Note):
            self.lines.append(f"warning: {said.text}" if said.warning else said.text)
        elif isinstance(said, Result):
            self.lines += said.lines()
            self._open(said.outputs)
        else:
            return
        self.changed.emit()

    def _end(self) -> None:
        self.active = False
        self.changed.emit()

    def _open(self, outputs: Mapping[str, Path]) -> None:
        paths = to_open(outputs)
        if paths:
            self._viewer.open([str(path) for path in paths], plugin="napari-cryosphere")
            if "particles" in outputs:
                self.made_particles.emit()
        elif outputs:
            tell_note(f"written: {next(iter(outputs.values())).name}")


def proposed_output(command: str, source: Path, spec: FieldSpec) -> Path:
    """Return the name of an output that does not exist yet, next to a file where that can be written."""
    suffix = "" if spec.file.use == "folder" else spec.file.patterns.split()[0].removeprefix("*")
    folder, stem = writable_folder(source), f"{source.name.split('.')[0]}_{command}"
    names = (f"{stem}{number}{suffix}" for number in ("", *range(2, 1000)))
    return next((folder / name for name in names if not (folder / name).exists()), folder / stem)


def to_open(outputs: Mapping[str, Path]) -> list[Path]:
    """Return which of a job's outputs are opened: not those inside another one, or tied to one."""
    mine = {role: path for role, path in outputs.items() if role not in _NOT_OPENED}
    folders = {path for path in mine.values() if path.is_dir() and kind_of(path) is not None}
    return [
        path
        for path in mine.values()
        if kind_of(path) is not None and not folders.intersection(path.parents)
    ]


def _events(row: Command, config: JobConfig) -> Events:
    """Run a job: its events, or the text that it returns. Closed, it writes what a stopped job leaves."""
    yield Progress(0.0, "starting")
    job = row.load_job()(config)
    if isinstance(job, str):
        yield job
        return
    spare_a_core()
    yield from job
