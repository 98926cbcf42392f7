"""Run folders of jobs that can be resumed: begun or taken up, and cleared of what no longer belongs there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import OutputExistsError
from napari_cryosphere.jobs.configs.bases import RunFolder
from napari_cryosphere.jobs.running.ranks import current_ranks

__all__ = [
    "OF_ANY_STATE",
    "UNFINISHED",
    "begins",
    "clear_unfinished",
    "ending_of_state",
    "files_of_state",
    "further_states",
    "refuse_ended",
    "remove_stale",
]

UNFINISHED = "unfinished"
"""Folder inside a run's that keeps what a stopped run goes on from."""
OF_ANY_STATE = "_class[0-9][0-9][0-9]"
"""Pattern of `ending_of_state`."""


def refuse_ended(config: RunFolder, finished: Path) -> None:
    """Check that a run can begin, or go on: it must not replace a finished one unasked.

    ``config``: says the folder, and whether to resume or to replace. ``finished``: a file that
    every finished run leaves there. Raises `OutputExistsError` if there is a finished run.
    """
    if config.resume and (config.output / UNFINISHED).is_dir():
        return
    if config.resume and finished.exists() and not config.overwrite:
        raise OutputExistsError(
            f"the run in {config.output} has ended; choose another output, or pass --overwrite without "
            "--resume"
        )
    refuse_overwrite(finished, config.overwrite)


def begins(config: RunFolder, finished: Path) -> bool:
    """Check as `refuse_ended`, and return whether this process does the work, which one of all does."""
    refuse_ended(config, finished)
    return current_ranks().first


def ending_of_state(state: int) -> str:
    """Return how the names of a state's files end, before the suffix; states count from 1."""
    return f"_class{state:03d}"


def files_of_state(
    outputs: Mapping[str, Path], roles: Iterable[str], state: int
) -> dict[str, Path]:
    """Return a state's files by role; those of states after the first end with their number."""
    ending = "" if state == 1 else ending_of_state(state)
    return {role + ending: outputs[role].with_stem(outputs[role].stem + ending) for role in roles}


def further_states(outputs: Mapping[str, Path], roles: Iterable[str]) -> list[str]:
    """Return patterns of the names that `files_of_state` gives states 2 to 99."""
    return [
        f"{outputs[role].stem}_class{number}{outputs[role].suffix}"
        for role in roles
        for number in ("00[2-9]", "0[1-9][0-9]")
    ]


def clear_unfinished(output: Path) -> None:
    """Delete what was kept to resume, also of earlier runs of another kind."""
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)


def remove_stale(output: Path, patterns: Sequence[str], written: Iterable[Path]) -> None:
    """Delete files of an earlier run, by patterns of their names, that this run has not written.

    Of a pattern ``folder/name`` also the folders that are empty then.
    """
    kept = set(written)
    for path in [path for pattern in patterns for path in output.glob(pattern)]:
        if path not in kept and path.is_file():
            path.unlink()
    for parent in {pattern.rpartition("/")[0] for pattern in patterns} - {""}:
        for folder in list(output.glob(parent)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
