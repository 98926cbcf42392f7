"""The jobs on CESPED's entries: listing, downloading, making local ones; and merged reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from napari_cryosphere._files import atomic_path, refuse_overwrite
from napari_cryosphere._generators import converted
from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.evaluation.cesped_report import Measured, report_files, write_report
from napari_cryosphere.evaluation.download import download_half, download_mask
from napari_cryosphere.evaluation.entries import (
    CESPED_ENTRIES,
    HALVES,
    PIXEL_SIZE_ANGSTROM,
    add_half,
    cesped_entry,
    local_entries,
)
from napari_cryosphere.jobs.configs.evaluation import (
    DEFAULT_FOLDER,
    AddEntryConfig,
    DownloadEntryConfig,
    ListEntriesConfig,
    MergeReportsConfig,
)
from napari_cryosphere.jobs.events import Event, Events, Progress, Result
from napari_cryosphere.jobs.running.inputs import open_each, warnings_of
from napari_cryosphere.jobs.running.outputs import claimed, claims
from napari_cryosphere.jobs.running.references import open_mask

__all__ = [
    "add_entry",
    "download_entry",
    "entries_text",
    "list_entries",
    "merge_reports",
    "text_lines",
]

_SHOWN = {
    "symmetry": "symmetry",
    "box": "pixels",
    "pixel_size_angstrom": "A/pixel",
    "resolution_angstrom": "FSC 0.143",
    "masked_resolution_angstrom": "masked",
    "particles": "particles",
}


def list_entries(benchmark_dir: Path | None = None) -> list[dict[str, Any]]:
    """Return the entries on Zenodo, then the local ones, each with the halves that are on disk."""
    here = dict(local_entries(benchmark_dir or DEFAULT_FOLDER))
    entries: list[dict[str, Any]] = []
    for entry in CESPED_ENTRIES:
        resolution = entry.resolution_angstrom or (None, None)
        entries.append(
            {
                "entry": entry.name,
                "symmetry": entry.symmetry,
                "box": entry.box,
                "pixel_size_angstrom": PIXEL_SIZE_ANGSTROM,
                "resolution_angstrom": resolution[0],
                "masked_resolution_angstrom": resolution[1],
                "particles": entry.particles,
                "on_disk": list(here.pop(entry.name, ())),
                "composition": entry.composition,
            }
        )
    return entries + [{"entry": name, "on_disk": list(halves)} for name, halves in here.items()]


def entries_text(config: ListEntriesConfig) -> str:
    """Return the entries as a table, or as JSON."""
    entries = list_entries(config.benchmark_dir)
    return json.dumps(entries, indent=2) if config.as_json else "\n".join(text_lines(entries))


def text_lines(entries: list[dict[str, Any]]) -> list[str]:
    """Return entries as a table."""
    rows = [["entry", *_SHOWN.values(), "on disk", ""]]
    for entry in entries:
        halves = " ".join(str(half) for half in entry["on_disk"]) or "-"
        values = map(entry.get, _SHOWN)
        cells = ["-" if value is None else str(value) for value in values]
        rows.append([entry["entry"], *cells, halves, entry.get("composition", "local")])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def download_entry(config: DownloadEntryConfig) -> Events:
    """Fetch an entry's halves and its mask from Zenodo.

    Raises `CryosphereError` if there is no such entry, no network, or a file is not what its record
    says.
    """
    entry = cesped_entry(config.entry)
    folder = config.benchmark_dir / entry.name
    with claimed(folders=[folder]):
        outputs: dict[str, Path] = {}
        for half in HALVES if config.half is None else (config.half,):
            fetching = download_half(entry, half, folder, config.server, overwrite=config.overwrite)
            paths = yield from _with_progress(fetching, f"{entry.name}, half {half}")
            outputs |= {path.name.replace(".", "_"): path for path in paths}
        if config.mask:
            fetching_mask = download_mask(entry, folder, config.server, overwrite=config.overwrite)
            outputs["mask"] = yield from _with_progress(fetching_mask, f"{entry.name}, mask")
        yield Result(outputs, {"entry": entry.name, "symmetry": entry.symmetry})


def _with_progress(
    fetching: Generator[tuple[int, int], None, Any], what: str
) -> Generator[Event, None, Any]:
    """Turn bytes into events and return what the download returns."""

    def progress(step: tuple[int, int]) -> Event:
        done, total = step
        return Progress(done / max(total, 1), f"{what}: {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    return converted(fetching, progress)


def add_entry(config: AddEntryConfig) -> Events:
    """Copy particles with poses into CESPED's layout.

    Raises `MetadataError` if one of the halves would have no particles, or the particles no poses.
    """
    folder = config.benchmark_dir / config.name
    with claimed(folders=[folder]):
        yield from _add(config, folder)


def _add(config: AddEntryConfig, folder: Path) -> Events:
    for half in HALVES:
        for stem, suffix in (("particles", "star"), ("particles", "mrcs"), ("info", "json")):
            refuse_overwrite(folder / f"{stem}_{half}.{suffix}", config.overwrite)
    stacks = open_each(config, config.particles)
    for stack in stacks:
        yield from warnings_of(stack)
    halves = stacks[0].halves() if len(stacks) == 1 else tuple(stacks)
    if config.mask is not None:
        yield from open_mask(config.mask, halves[0].grid, "the images").notes
    total = sum(map(len, halves))
    before = 0
    for half, stack in enumerate(halves):
        writing = add_half(
            stack,
            config.benchmark_dir,
            config.name,
            half,
            config.symmetry,
            simulated=config.simulated,
            overwrite=config.overwrite,
        )
        for done in writing:
            yield Progress((before + done) / total, f"copied {before + done} of {total} images")
        before += len(stack)
    if config.mask is not None:
        with atomic_path(folder / "mask.mrc", overwrite=config.overwrite) as temporary:
            shutil.copyfile(config.mask, temporary)
    yield Result(
        {"entry": folder}, {f"particles_{half}": len(stack) for half, stack in enumerate(halves)}
    )


@claims(folders=("output",))
def merge_reports(config: MergeReportsConfig) -> Events:
    """Write one report of the lines that were measured in several runs."""
    lines = [line for run in config.runs for line in _measured(run)]
    outputs = write_report(lines, config.output, "CESPED protocol", overwrite=config.overwrite)
    yield Result({f"report_{name}": path for name, path in outputs.items()}, {"lines": len(lines)})


def _measured(run: Path) -> Iterator[Measured]:
    """Read what an earlier report says was measured."""
    path = report_files(run)["json"]
    if not path.is_file():
        raise CryosphereError(f"{run} holds no {path.name}; give outputs of 'cesped run'")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for row in rows:
            source = row.pop("source")
            if not source.startswith("published"):
                notes = tuple(filter(None, [row.pop("notes")]))
                simulated = source.endswith(", simulated")
                yield Measured(row.pop("entry"), row, simulated, notes, run.resolve().name)
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is no report of 'cesped run'") from error
