"""A training run as the dock sees it: one of its own, or one that goes on elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.jobs.events import Preview, Progress
from napari_cryosphere.widgets.control import work
from napari_cryosphere.widgets.control.running import Runner

if TYPE_CHECKING:
    from napari_cryosphere.jobs.configs.training import TrainConfig
    from napari_cryosphere.particles import ParticleStack

__all__ = ["RunLog", "TrainingRun", "new_run_folder"]


class TrainingRun:
    """Trains in the background, or follows a run folder, and keeps the values for the plot."""

    changed = Signal()
    finished = Signal(object)
    """Sent with the run folder once it holds a model."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.active = False
        self.folder: Path | None = None
        self._followed: RunLog | None = None
        self._forget()

    def _forget(self) -> None:
        """Forget the values of an earlier run."""
        self.fractions: list[float] = []
        self.losses: list[float] = []
        self.errors_degrees: list[tuple[float, float]] = []
        self.images_per_second: float | None = None
        self.remaining_seconds: float | None = None
        self.preview: Preview | None = None

    @property
    def validation_median_degrees(self) -> float | None:
        """The last median error on held-out particles; None if there is none yet."""
        return self.errors_degrees[-1][1] if self.errors_degrees else None

    @property
    def following(self) -> bool:
        """Whether a run that goes on elsewhere is followed; `poll` looks for news."""
        return self._followed is not None

    def start(self, stack: ParticleStack, config: TrainConfig) -> None:
        """Train into a run folder, which must not hold a model unless the run is resumed."""
        if self.runner.busy:
            return
        folder = config.output
        self._followed = None
        self._forget()
        self.folder, self.active = folder, True
        if config.resume:
            self._note_all(RunLog(folder))
        self.changed.emit()
        self.runner.start(
            f"Training on {stack.source.name}",
            lambda: work.training_work(stack, config),
            self._take,
            lambda: self._end(folder),
        )

    def _take(self, event: object) -> None:
        if isinstance(event, Preview):
            self.preview = event
        elif isinstance(event, Progress) and "images_per_second" in event.metrics:
            self._note(event)
        self.changed.emit()

    def _note(self, report: Progress) -> None:
        """Keep the values of a report."""
        fraction, metrics = report.fraction, report.metrics
        self.fractions.append(fraction)
        self.losses.append(metrics["loss"])
        self.images_per_second = metrics["images_per_second"]
        self.remaining_seconds = report.remaining_seconds
        median = metrics.get("validation_median_degrees")
        if median is not None:
            self.errors_degrees.append((fraction, median))

    def _end(self, folder: Path) -> None:
        from napari_cryosphere.model.pose_model import MODEL_FILE

        self.active = False
        self.changed.emit()
        if self.losses and (folder / MODEL_FILE).is_file():
            self.finished.emit(folder)

    # ------------------------------------------------------------------ a run elsewhere

    def follow(self, folder: Path) -> None:
        """Show the values of a run folder, and go on looking while it has no model.

        Raises `FileFormatError` if its log cannot be read.
        """
        if self.active:
            return
        self._forget()
        self.folder = folder
        log = RunLog(folder)
        self._followed = None if log.finished else log
        self._note_all(log)
        self.changed.emit()

    def poll(self) -> None:
        """Look for news of the run that is followed.

        Raises `FileFormatError` if its log cannot be read; it is not followed any more.
        """
        log = self._followed
        if log is None:
            return
        self._followed = None  # unless what follows goes well
        news = self._note_all(log)
        if log.finished:
            self.changed.emit()
            self.finished.emit(log.folder)
            return
        self._followed = log
        if news:
            self.changed.emit()

    def leave(self) -> None:
        """Follow no run any more."""
        self._followed = None
        self.changed.emit()

    def _note_all(self, log: RunLog) -> int:
        """Keep the values of a log's new reports; returns their number."""
        reports = log.new_reports()
        for report in reports:
            self._note(report)
        return len(reports)


def new_run_folder(near: Path | None) -> Path:
    """Return the name of a run folder that does not exist yet, next to a file where that can be written."""
    runs, number = work.writable_folder(near) / "runs", 1
    while (runs / f"run{number:02d}").exists():
        number += 1
    return runs / f"run{number:02d}"


class RunLog:
    """Reports of a run folder, each given once. ``folder``: its ``log.jsonl`` need not be there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read = 0

    @property
    def finished(self) -> bool:
        """Whether the run has written its model."""
        model, log = self.folder / "model.safetensors", self.folder / "log.jsonl"
        return model.is_file() and (
            not log.is_file() or model.stat().st_mtime >= log.stat().st_mtime
        )

    def new_reports(self) -> list[Progress]:
        """Return the reports that were added since the last call; a line that is being written waits.

        Raises `FileFormatError` if a line is no report.
        """
        path = self.folder / "log.jsonl"
        if not path.is_file():
            return []
        if path.stat().st_size < self._read:  # begun again
            self._read = 0
        with path.open("rb") as stream:
            stream.seek(self._read)
            fresh = stream.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        return [self._report(line) for line in whole.splitlines() if line.strip()]

    def _report(self, line: bytes) -> Progress:
        try:
            values = json.loads(line)
            metrics = {
                name: value for name, value in values.items() if isinstance(value, int | float)
            }
            missing = {"fraction", "loss", "images_per_second"} - set(metrics)
            if missing:
                raise ValueError(f"no {min(missing)}")
            return Progress(values["fraction"], "", metrics, metrics.get("remaining_seconds"))
        except (AttributeError, ValueError) as error:
            raise FileFormatError(
                f"{self.folder.name}/log.jsonl holds a line that is no report"
            ) from error
