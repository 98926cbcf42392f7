"""The log of a training run, read while it grows. Knows no Qt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cryosphere.errors import FileFormatError

if TYPE_CHECKING:
    from napari_cryosphere.training.events import TrainingProgress

__all__ = ["RunLog"]


class RunLog:
    """Reports of a run folder, each given once.

    Parameters
    ----------
    folder
        Run folder; its ``log.jsonl`` need not be there yet.
    """

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

    def new_reports(self) -> list[TrainingProgress]:
        """Return the reports that were added since the last call; a line that is being written waits.

        Raises
        ------
        FileFormatError
            If a line is no report.
        """
        path = self.folder / "log.jsonl"
        if not path.is_file():
            return []
        if path.stat().st_size < self._read:  # begun anew
            self._read = 0
        with path.open("rb") as stream:
            stream.seek(self._read)
            fresh = stream.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        return [self._report(line) for line in whole.splitlines() if line.strip()]

    def _report(self, line: bytes) -> TrainingProgress:
        from dataclasses import fields

        from napari_cryosphere.training.events import TrainingProgress

        names = {field.name for field in fields(TrainingProgress)}
        try:
            values = json.loads(line)
            return TrainingProgress(**{name: values[name] for name in names if name in values})
        except (ValueError, TypeError) as error:
            raise FileFormatError(
                f"{self.folder.name}/log.jsonl holds a line that is no report"
            ) from error
