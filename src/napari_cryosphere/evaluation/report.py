"""Reports: tables as CSV and Markdown, plots by matplotlib where it is installed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_cryosphere._files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["NO_PLOT", "Panel", "Report", "Series", "Table", "can_plot", "draw_panels"]

NO_PLOT = "no plot is drawn: matplotlib is missing; pip install 'napari-cryosphere[plots]'"

Value: TypeAlias = str | int | float


@dataclass(frozen=True)
class Table:
    """Named columns and their rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def save(self, path: Path, *, overwrite: bool) -> None:
        """Write the table as CSV, numbers in full."""
        with (
            atomic_path(path, overwrite=overwrite) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.writer(stream)
            writer.writerow(self.columns)
            writer.writerows(self.rows)

    def markdown(self) -> str:
        """Return the table in Markdown, numbers to four digits."""
        lines = [self.columns, ("---",) * len(self.columns)]
        lines += [tuple(_shown(value) for value in row) for row in self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Series:
    """One line of a plot; points alone where ``low`` and ``high`` give each a bar."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    marked: bool = False
    """Mark the points on the line."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    x_label: str
    y_label: str
    series: tuple[Series, ...]
    ticks: tuple[str, ...] | None = None
    """Names of x = 0, 1, ..., or of ``tick_places``."""
    tick_places: tuple[float, ...] | None = None
    title: str = ""
    levels: tuple[float, ...] = ()
    """Heights of dashed lines."""
    y_range: tuple[float, float] | None = None
    log_x: bool = False
    log_y: bool = False

    def draw(self, axes: Axes) -> None:
        """Draw onto matplotlib's axes."""
        for series in self.series:
            if series.low is None or series.high is None:
                axes.plot(series.x, series.y, "o-" if series.marked else "-", label=series.label)
                continue
            below = [y - low for y, low in zip(series.y, series.low, strict=True)]
            above = [high - y for y, high in zip(series.y, series.high, strict=True)]
            axes.errorbar(
                series.x, series.y, (below, above), fmt="o", capsize=4, label=series.label
            )
        axes.set(xlabel=self.x_label, ylabel=self.y_label, title=self.title)
        if self.log_x:
            axes.set_xscale("log", base=2)
            places = sorted({x for series in self.series for x in series.x})
            axes.set_xticks(places, [f"{place:g}" for place in places])
        if self.log_y:
            axes.set_yscale("log")
        if self.tick_places is not None:
            axes.set_xticks(self.tick_places, self.ticks)
        elif self.ticks is not None:
            axes.set_xticks(range(len(self.ticks)), self.ticks)
            axes.margins(x=0.15)
        for level in self.levels:
            axes.axhline(level, color="0.6", linestyle="--", linewidth=0.8)
        if self.y_range is not None:
            axes.set_ylim(self.y_range)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", frameon=False)


@dataclass(frozen=True)
class Report:
    """The results of a benchmark.

    - ``name``: stem of its files.
    - ``title``: heading.
    - ``text``: what was done, in Markdown.
    - ``tables``: tables by their captions; the first is the CSV file.
    - ``panels``: plots, drawn side by side.
    - ``values``: the numbers that matter most, by name.
    """

    name: str
    title: str
    text: str
    tables: Mapping[str, Table]
    panels: tuple[Panel, ...]
    values: Mapping[str, float]

    def outputs(self, folder: Path) -> dict[str, Path]:
        """Return the files that `save` writes, by role."""
        roles = {"report": "md", "table": "csv", "data": "json"}
        if can_plot():
            roles["plot"] = "png"
        return {role: folder / f"{self.name}.{suffix}" for role, suffix in roles.items()}

    def save(self, folder: Path, config: Mapping[str, Any], *, overwrite: bool) -> dict[str, Path]:
        """Write Markdown, CSV (the first table), JSON (all tables) and, where it can be drawn, PNG.

        ``config`` goes into the JSON file and, in full, to the end of the Markdown.
        """
        files = self.outputs(folder)
        next(iter(self.tables.values())).save(files["table"], overwrite=overwrite)
        tables = {
            caption: [dict(zip(table.columns, row, strict=True)) for row in table.rows]
            for caption, table in self.tables.items()
        }
        data = {"values": dict(self.values), "tables": tables, "config": dict(config)}
        with atomic_path(files["data"], overwrite=overwrite) as temporary:
            temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        if "plot" in files:
            draw_panels(self.panels, files["plot"], overwrite=overwrite)
        with atomic_path(files["report"], overwrite=overwrite) as temporary:
            temporary.write_text(self._markdown(config, "plot" in files), encoding="utf-8")
        return files

    def _markdown(self, config: Mapping[str, Any], plotted: bool) -> str:
        parts = [f"# {self.title}", self.text]
        parts += [f"**{caption}**\n\n{table.markdown()}" for caption, table in self.tables.items()]
        if plotted:
            parts.append(f"![{self.title}]({self.name}.png)")
        parts.append(f"## Config\n\n```json\n{json.dumps(dict(config), indent=2)}\n```")
        return "\n\n".join(parts) + "\n"


def draw_panels(panels: Sequence[Panel], path: Path, *, overwrite: bool) -> None:
    """Draw panels side by side into a file of the kind that its suffix says, PNG or SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 3.4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel.draw(axes)
    # in SVG text stays text, and names of clip paths are the same each time
    with (
        atomic_path(path, overwrite=overwrite) as temporary,
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}),
    ):
        figure.savefig(temporary, dpi=110, format=path.suffix[1:])


def can_plot() -> bool:
    """Return whether matplotlib is installed: it comes with ``napari-cryosphere[plots]``."""
    return find_spec("matplotlib") is not None
