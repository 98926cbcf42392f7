"""The maps dock: what the plugin adds to napari's start, how late the window is, what memory comes
back.

Lateness is that of a 10 ms timer in the window's thread. Run it on a display, or under xvfb-run:
napari's canvas needs OpenGL. Wall-clock figures mean little on a busy machine: the idle row is
there to compare with.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import options, report
from _gui import lateness, open_viewer, resident_mib, settle

_REPEATS = 3
_IDLE_SECONDS = 5.0
_SEEN_SECONDS = 4.0  # long enough for everything that follows a click
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
    rows = [_at_start(), *_window(arguments), *_in_3d()]
    report("workbench_maps", rows, arguments, ["napari", "numpy"])


def _at_start() -> dict[str, Any]:
    """Return what the plugin adds to napari's start, the least of some tries in fresh interpreters."""
    tries = []
    for _ in range(_REPEATS):
        done = subprocess.run(
            [sys.executable, "-c", _AT_START], capture_output=True, text=True, check=True
        )
        tries.append([float(value) for value in done.stdout.split()])
    wall, cpu = np.min(tries, axis=0)
    return _row("plugin at napari's start", "ms", wall, f"{cpu:.0f} CPU ms")


def _row(what: str, unit: str, value: float, detail: str = "") -> dict[str, Any]:
    return {"what": what, "value": float(value), "unit": unit, "detail": detail}


def _window(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows that need a window."""
    from napari_cryosphere.jobs.sample import make_sample

    number = 400 if arguments.quick else 2000
    with tempfile.TemporaryDirectory() as folder:
        for _ in make_sample(Path(folder), number):
            pass
        _session(open_viewer(), Path(folder), [])  # what loads once and stays
        settle()
        before = resident_mib()
        rows: list[dict[str, Any]] = []
        _session(open_viewer(), Path(folder), rows)
        settle()
        after = resident_mib()
    return [
        *rows,
        _row("memory after closing everything", "MiB more", after - before, f"{before:.0f} before"),
    ]


def _session(viewer: Any, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Open particles and a map, reconstruct while slices are shown, close; add rows on lateness."""
    from napari_cryosphere.particles import DensityMap
    from napari_cryosphere.widgets.control.map_sources import Poses, recipe
    from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock

    viewer.open(str(folder / "particles.star"), plugin="napari-cryosphere")
    dock = open_dock(viewer, MAPS)
    controller = dock.controller
    controller.maps.add_map(DensityMap.read(folder / "truth.mrc"), "true map")
    dock.show_maps(slices=True)
    rows.append(_lateness("lateness, idle", lambda seconds: seconds > _IDLE_SECONDS))
    controller.maps.reconstruct(recipe(controller.session, Poses.INPUT))
    rows.append(_lateness("lateness, reconstructing", lambda seconds: not controller.runner.busy))
    viewer.close()


def _in_3d() -> list[dict[str, Any]]:
    """Return how long the window is busy until maps are seen in 3D, and at each turn of them."""
    from qtpy.QtCore import QTimer

    from napari_cryosphere.imaging.phantom import protein_phantom
    from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock

    rows = []
    for box, number in ((64, 1), (64, 2), (128, 2)):
        viewer = open_viewer()  # its canvas has drawn nothing yet
        dock = open_dock(viewer, MAPS)
        for name in range(number):
            dock.controller.maps.add_map(protein_phantom(box, 192 / box), f"map {name}")
        lateness(lambda seconds: seconds > 1)

        def turn(viewer: Any = viewer) -> None:
            viewer.scene.camera.angles = (20.0, -25.0, 75.0)

        for act, what in ((dock.show_maps, "appear in 3D"), (turn, "are turned")):
            QTimer.singleShot(100, act)
            late, _, cpu = lateness(lambda seconds: seconds > _SEEN_SECONDS)
            detail = f"{cpu:.1f} CPU s of all threads in {_SEEN_SECONDS:.0f} s"
            rows.append(
                _row(f"{number} of {box} voxels {what}: longest wait", "s", max(late), detail)
            )
        viewer.close()
        settle()
    return rows


def _lateness(what: str, done: Callable[[float], bool]) -> dict[str, Any]:
    """Watch the window until something is done."""
    late, wall, cpu = lateness(done)
    half, most, worst = 1e3 * np.percentile(late, [50, 95, 99])
    detail = (
        f"p50 {half:.1f}, p95 {most:.1f}, max {1e3 * max(late):.0f}; {wall:.1f} s, {cpu:.1f} CPU s"
    )
    return _row(what, "ms p99", worst, detail)


if __name__ == "__main__":
    main()
