"""The window that ``napari-cryosphere demo`` opens on its results."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    import napari.viewer

    from napari_cryosphere.reconstruction import FourierShellCorrelation
    from napari_cryosphere.widgets.control.running import Runner
    from napari_cryosphere.widgets.docks.main.dock import CryosphereDock

__all__ = ["read_particle", "show_demo"]

_FILES = {
    "truth": "truth.mrc",
    "particles": "particles.star",
    "map": "predicted_map.mrc",
    "half_map_fsc": "predicted_map_fsc.csv",
    "fsc_to_truth": "fsc_to_truth.csv",
}
_SCREENSHOTS = ("screenshot_particles.png", "screenshot_uncertain.png", "screenshot_maps.png")
_WINDOW = (1400, 900)
_MOST_READING_SECONDS = 20.0  # some 0.5 s, and the imports for it
_NO_WINDOW = 300  # seconds that a run without a display may take


def show_demo(outputs: dict[str, Path]) -> list[str]:
    """Open napari on the demo's files and return when its window is closed.

    Without a display (Linux), the window is drawn on a virtual one and two screenshots are written
    next to the files instead.

    ``outputs``: files by role, as `napari_cryosphere.jobs.demo.demo` returns them. Returns lines
    for the user.
    """
    if not _has_display():
        return _on_virtual_display(outputs["particles"].parent)
    import napari

    viewer = napari.Viewer(title="CryoSphere", show=True)
    dock = open_demo(viewer, outputs)
    viewer.window.resize(*_WINDOW)
    dock.controller.poses.predict()
    napari.run()
    return []


def _has_display() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _on_virtual_display(folder: Path) -> list[str]:
    """Run this module again under xvfb-run and return where its screenshots are."""
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        return [
            "no display: napari was not opened; the results are in the files above",
            "for screenshots of the window install xvfb-run (Debian: apt-get install xvfb) and run again",
        ]
    screen = f"-screen 0 {_WINDOW[0]}x{_WINDOW[1]}x24 +extension GLX"
    command = [
        xvfb,
        "-a",
        "-s",
        screen,
        sys.executable,
        "-m",
        __name__,
        str(folder),
        "--screenshots",
    ]
    environment = {**os.environ, "QT_QPA_PLATFORM": "xcb"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_NO_WINDOW,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CryosphereError(f"no screenshots after {_NO_WINDOW} s; take --no-gui") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CryosphereError(
            f"napari could not be drawn without a display: {reason}; run with --no-gui"
        )
    return [f"no display: the window's screenshots are {folder}/screenshot_*.png"]


def open_demo(
    viewer: napari.viewer.Viewer, outputs: dict[str, Path], runner: Runner | None = None
) -> CryosphereDock:
    """Load the demo's particles, maps and curves into a viewer and open both docks; returns the first."""
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.widgets.control.work import SAMPLE_MODEL
    from napari_cryosphere.widgets.docks.kit.workbench import take_seat
    from napari_cryosphere.widgets.plugin.open_docks import MAIN, MAPS, open_dock
    from napari_cryosphere.widgets.state.display_map import RESOLUTION
    from napari_cryosphere.widgets.state.layer_data import particle_layer
    from napari_cryosphere.widgets.state.session import MODEL

    seat = take_seat(viewer, runner)  # the first one's runner counts
    dock, map_dock = open_dock(viewer, MAIN), open_dock(viewer, MAPS)
    seat.leave()
    maps = dock.controller.maps
    truth = maps.add_map(DensityMap.read(outputs["truth"]), "true map")
    predicted = maps.add_map(DensityMap.read(outputs["map"]), "map from predicted poses")
    data, options, _ = particle_layer(
        ParticleStack.read(outputs["particles"]), "simulated particles"
    )
    options["metadata"][MODEL] = str(SAMPLE_MODEL)
    viewer.add_image(data, **options)
    map_dock.maps.choose(predicted, truth)
    pixel_size = DensityMap.read(outputs["truth"]).pixel_size_angstrom
    halves = read_fsc(outputs["half_map_fsc"], pixel_size)
    predicted.metadata[RESOLUTION] = halves.resolution_angstrom(0.143)
    maps.add_curve("half-maps", halves, 0.143, (predicted,))
    to_truth = read_fsc(outputs["fsc_to_truth"], pixel_size)
    maps.add_curve("against the true map", to_truth, 0.5, (predicted, truth))
    open_dock(viewer, MAIN)
    return dock


def read_fsc(path: Path, pixel_size_angstrom: float) -> FourierShellCorrelation:
    """Read a curve that a job has written."""
    from napari_cryosphere.reconstruction import FourierShellCorrelation

    with path.open(newline="") as stream:
        values = [float(row["fsc"]) for row in csv.DictReader(stream)]
    return FourierShellCorrelation(np.array(values), 2 * (len(values) - 1), pixel_size_angstrom)


def save_screenshots(folder: Path) -> list[Path]:
    """Draw the demo's window without an event loop: a typical particle, the most uncertain one, the maps."""
    import napari

    from napari_cryosphere.widgets.control.running import SynchronousRunner
    from napari_cryosphere.widgets.plugin.open_docks import MAPS, open_dock

    viewer = napari.Viewer(title="CryoSphere", show=True)
    try:
        outputs = {role: folder / name for role, name in _FILES.items()}
        dock = open_demo(viewer, outputs, SynchronousRunner())
        viewer.window.resize(*_WINDOW)
        dock.controller.poses.predict()
        *particles, maps = (folder / name for name in _SCREENSHOTS)
        for quantile, path in zip((0.5, 1.0), particles, strict=True):
            viewer.dims.set_point(0, _particle_of_spread(dock, quantile))
            read_particle(dock)
            dock.controller.arrangement.fit()
            _settle()
            viewer.screenshot(str(path), canvas_only=False, flash=False)
        open_dock(viewer, MAPS).show_maps()
        _settle()
        viewer.screenshot(str(maps), canvas_only=False, flash=False)
    finally:
        viewer.close()
    return [*particles, maps]


def _particle_of_spread(dock: CryosphereDock, quantile: float) -> int:
    """Return the particle whose spread is at a quantile of all particles' (0.5: a typical one)."""
    session = dock.controller.session
    summary = None if session is None else session.store.summary()
    if summary is None:
        return 0
    return int(np.argsort(summary.spread_degrees)[int(quantile * (len(summary) - 1))])


def read_particle(dock: CryosphereDock) -> None:
    """Wait, without an event loop, for what is read of the shown particle when the slider rests."""
    from qtpy.QtWidgets import QApplication

    inspector = dock.controller.inspector
    inspector.settle()
    deadline = time.monotonic() + _MOST_READING_SECONDS
    while inspector.lens is None and time.monotonic() < deadline:
        QApplication.processEvents()
        time.sleep(0.01)
    _settle()


def _settle(rounds: int = 12) -> None:
    """Let Qt lay out and paint."""
    from qtpy.QtWidgets import QApplication

    for _ in range(rounds):
        QApplication.processEvents()


if __name__ == "__main__":
    save_screenshots(Path(sys.argv[1]))
