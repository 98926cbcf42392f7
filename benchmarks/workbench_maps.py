"""The maps dock: what the plugin adds to napari's start, how late the window is, what memory comes back.

Lateness is that of a 10 ms timer in the window's thread. Run it on a display, or under xvfb-run:
napari's canvas needs OpenGL. Wall-clock figures mean little on a busy machine: the idle row is there to
compare with.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import options, report

_REPEATS = 3
_IDLE_SECONDS = 5.0
_AT_START = """
import time, napari
from npe2 import PluginManager, PluginManifest
start, cpu = time.perf_counter(), time.process_time()
import napari_cryosphere
manifest = PluginManifest.from_distribution("napari-cryosphere")
PluginManager.instance().register(manifest)
print(1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - cpu))
"""


def main() -> None:
    """Measure and report."""
    arguments = options(__doc__ or "")
    rows = [_at_start(), *_window(arguments)]
    report("workbench_maps", rows, arguments, ["napari", "numpy"])


def _at_start() -> dict[str, Any]:
    """Return what the plugin adds to napari's start, the least of some tries in fresh interpreters."""
    tries = []
    for _ in range(_REPEATS):
        done = subprocess.run([sys.executable, "-c", _AT_START], capture_output=True, text=True, check=True)
        tries.append([float(value) for value in done.stdout.split()])
    wall, cpu = np.min(tries, axis=0)
    return _row("plugin at napari's start", "ms", wall, f"{cpu:.0f} CPU ms")


def _row(what: str, unit: str, value: float, detail: str = "") -> dict[str, Any]:
    return {"what": what, "value": float(value), "unit": unit, "detail": detail}


def _window(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows that need a window."""
    import napari

    from napari_cryosphere.jobs.sample import make_sample

    number = 400 if arguments.quick else 2000
    with tempfile.TemporaryDirectory() as folder:
        for _ in make_sample(Path(folder), number):
            pass
        _session(napari.Viewer(show=True), Path(folder), [])  # what loads once and stays
        _settle()
        before = _resident_mib()
        rows: list[dict[str, Any]] = []
        _session(napari.Viewer(show=True), Path(folder), rows)
        _settle()
        after = _resident_mib()
    return [
        *rows,
        _row("memory after closing everything", "MiB more", after - before, f"{before:.0f} before"),
    ]


def _session(viewer: Any, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Open particles and a map, reconstruct while slices are shown, close; add rows on lateness."""
    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.widgets.docks import MAPS, open_dock
    from napari_cryosphere.widgets.map_sources import Poses, recipe

    viewer.open(str(folder / "particles.star"), plugin="napari-cryosphere")
    dock = open_dock(viewer, MAPS)
    controller = dock.controller
    controller.maps.add_map(DensityMap.read(folder / "truth.mrc"), "true map")
    dock.show_maps(slices=True)  # software draws surfaces in a second a frame, whatever the plugin does
    ticks = _Ticks()
    rows.append(ticks.row("lateness, idle", lambda: ticks.seconds > _IDLE_SECONDS))
    controller.maps.reconstruct(recipe(controller.session, Poses.INPUT))
    rows.append(ticks.row("lateness, reconstructing", lambda: not controller.runner.busy))
    viewer.close()


class _Ticks:
    """A 10 ms timer and how late it is."""

    _INTERVAL = 0.01

    def __init__(self) -> None:
        self.seconds = 0.0

    def row(self, what: str, done: Any) -> dict[str, Any]:
        """Watch the window until something is done."""
        from qtpy.QtCore import QEventLoop, Qt, QTimer

        times: list[float] = []
        loop, timer, start = QEventLoop(), QTimer(), time.perf_counter()

        def tick() -> None:
            times.append(time.perf_counter())
            self.seconds = times[-1] - start
            if done():
                loop.quit()

        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(tick)
        timer.start(round(1e3 * self._INTERVAL))
        cpu = time.process_time()
        loop.exec()
        timer.stop()
        late = 1e3 * np.clip(np.diff(times) - self._INTERVAL, 0, None)
        half, most, worst = np.percentile(late, [50, 95, 99])
        detail = f"p50 {half:.1f}, p95 {most:.1f}, max {late.max():.0f}; {self.seconds:.1f} s"
        return _row(what, "ms p99", worst, f"{detail}, {time.process_time() - cpu:.1f} CPU s")


def _resident_mib() -> float:
    """Return the process's resident memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _settle() -> None:
    """Let closed windows be deleted."""
    from qtpy.QtCore import QCoreApplication, QEvent

    for _ in range(10):
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QCoreApplication.processEvents()
        gc.collect()


if __name__ == "__main__":
    main()
