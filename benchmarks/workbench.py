"""How the workbench feels: a gallery's first tile, scrolling, sorting and flagging, with a window.

Needs a display; without one: ``xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python
benchmarks/workbench.py``. 100,000 particles (10,000 with --quick) of 64 pixels with predictions; their images
are 4,000 on disk, shown again and again. No picture is at hand where scrolling comes to.

A round of the event loop takes a turn of the wheel or a jump of the scroll bar, all painting and what the
worker thread has delivered; nothing else can happen in a window meanwhile. Its wall time is what a user
feels, its CPU time (of the window's thread) what it costs: on a busy machine others' work makes the first
longer than the second. Every change in the window, however small, makes Qt compose it anew with OpenGL, which
without a graphics card takes long: the rounds that only write a number in a label say how long.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import options, report

from napari_cryosphere.particles import ParticleStack, write_stack, write_star

BOX, IMAGES, PER_BATCH = 64, 4_000, 128
ROUND_SECONDS = 0.016


def main() -> None:
    """Measure and print."""
    arguments = options(__doc__ or "")
    number = 10_000 if arguments.quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        rows = gallery(particles(Path(folder), number), 60 if arguments.quick else 300)
    report("workbench", rows, arguments, ["napari", "PySide6_Essentials", "numpy"])


def particles(folder: Path, number: int) -> ParticleStack:
    """Write particles with poses and return them."""
    rng = np.random.default_rng(0)
    write_stack(rng.normal(size=(IMAGES, BOX, BOX)).astype(np.float32), folder / "noise.mrcs", 3.0)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{row % IMAGES + 1:06d}@noise.mrcs" for row in range(number)],
            "rlnMicrographName": [f"mic{row // 100:05d}.mrc" for row in range(number)],
            "rlnOpticsGroup": 1,
            "rlnDefocusU": rng.uniform(8_000, 25_000, number),
            "rlnDefocusV": rng.uniform(8_000, 25_000, number),
            "rlnDefocusAngle": 0.0,
            "rlnAngleRot": rng.uniform(-180, 180, number),
            "rlnAngleTilt": np.degrees(np.arccos(rng.uniform(-1, 1, number))),
            "rlnAnglePsi": rng.uniform(-180, 180, number),
        }
    )
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
            "rlnImagePixelSize": [3.0],
            "rlnImageSize": [BOX],
            "rlnImageDimensionality": [2],
        }
    )
    write_star({"optics": optics, "particles": table}, folder / "particles.star")
    return ParticleStack.read(folder / "particles.star")


def predict(store: Any) -> None:
    """Fill a store with made-up predictions: the same distributions in every batch."""
    import torch

    from napari_cryosphere.so3.distribution import PoseDistribution, PoseSummary

    torch.manual_seed(0)
    coefficients = 0.4 * torch.randn(PER_BATCH, 7, 13, 7, dtype=torch.complex64)
    summary = PoseDistribution.from_coefficients(coefficients).summary()
    rng = np.random.default_rng(1)
    for start in range(0, store.number, PER_BATCH):
        rows = slice(start, min(start + PER_BATCH, store.number))
        many = rows.stop - rows.start
        values = {field.name: getattr(summary, field.name)[:many] for field in fields(PoseSummary)}
        values["spread_degrees"] = rng.gamma(2, 6, many)
        distribution = PoseDistribution.from_coefficients(coefficients[:many])
        store.add(rows, distribution, PoseSummary(**values))


def gallery(stack: ParticleStack, rounds: int) -> list[dict[str, Any]]:
    """Open the gallery and use it."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_cryosphere.widgets.gallery import GalleryDock
    from napari_cryosphere.widgets.layer_data import particle_layer
    from napari_cryosphere.widgets.particle_choices import Flag

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1400, 900)
    data, settings, _ = particle_layer(stack)
    viewer.add_image(data, **settings)
    for _ in range(20):
        QApplication.processEvents()
    start, cpu = time.perf_counter(), time.process_time()
    dock = GalleryDock(viewer)
    viewer.window.add_dock_widget(dock, name="CryoSphere gallery", area="right")
    pictures: Any = dock._pictures
    while pictures.get(0) is None:
        QApplication.processEvents()
        time.sleep(0.001)
    dock.view.viewport().repaint()
    named = f"{len(stack):,} particles"
    rows = [
        _row(f"gallery of {named}: first tile", [time.perf_counter() - start], [time.process_time() - cpu])
    ]
    session: Any = dock.controller.session
    predict(session.store)
    _rounds(lambda: None, 40)
    bar = dock.view.verticalScrollBar()
    rng = np.random.default_rng(2)
    rows.append(_row("a round at rest", *_rounds(lambda: None, rounds)))
    words = itertools.count()
    label = lambda: dock.status.setText(f"{next(words)}")  # noqa: E731
    rows.append(_row("a round that writes a number in a label", *_rounds(label, rounds)))
    rows.append(_row("a round with a turn of the wheel", *_rounds(lambda: _turn_wheel(dock.view), rounds)))
    turns = itertools.cycle([True, *[False] * 9])
    now_and_then = lambda: _turn_wheel(dock.view) if next(turns) else None  # noqa: E731
    rows.append(_row("a round, a turn in one of ten, tiles made between", *_rounds(now_and_then, rounds)))
    jump = lambda: bar.setValue(int(rng.integers(bar.maximum())))  # noqa: E731
    rows.append(_row("a round with a jump of the scroll bar", *_rounds(jump, rounds)))
    every = {
        "sort by spread": lambda: session.filter.sort_by("spread", not session.filter.descending),
        "brush half of the spreads": lambda: session.filter.set_range("spread", (0.0, 10.0)),
        "select all that are shown": lambda: session.choices.select(session.filter.rows),
        "flag them": lambda: session.choices.flag_selected(Flag.REJECT),
        "undo": session.choices.undo,
        "show all": session.filter.clear,
        "resize the dock": lambda: dock.view.resize(dock.view.width() - 1, dock.view.height()),
    }
    rows += [_row(f"{name}, {named}", *_rounds(action, 1)) for name, action in every.items()]
    viewer.close()
    return rows


def _turn_wheel(view: Any) -> None:
    """Send a wheel event of one notch downwards, as the system would."""
    from qtpy.QtCore import QPoint, QPointF, Qt
    from qtpy.QtGui import QWheelEvent
    from qtpy.QtWidgets import QApplication

    at = QPointF(view.viewport().rect().center())
    event = QWheelEvent(
        at,
        QPointF(view.viewport().mapToGlobal(at.toPoint())),
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view.viewport(), event)


def _rounds(action: Callable[[], Any], number: int) -> tuple[list[float], list[float]]:
    """Return wall and CPU seconds of rounds of the event loop, one every 16 ms."""
    from qtpy.QtWidgets import QApplication

    wall, cpu = [], []
    for _ in range(number):
        start, spent = time.perf_counter(), time.thread_time()
        action()
        QApplication.processEvents()
        wall.append(time.perf_counter() - start)
        cpu.append(time.thread_time() - spent)
        time.sleep(max(0.0, ROUND_SECONDS - wall[-1]))
    return wall, cpu


def _row(name: str, wall: list[float], cpu: list[float]) -> dict[str, Any]:
    """Return a line of the table, in milliseconds."""
    p50, p99 = (float(np.percentile(wall, part)) * 1000 for part in (50, 99))
    return {
        "what": name,
        "times": len(wall),
        "median ms": p50,
        "p99 ms": p99,
        "max ms": max(wall) * 1000,
        "CPU p99 ms": float(np.percentile(cpu, 99)) * 1000,
        "CPU max ms": max(cpu) * 1000,
    }


if __name__ == "__main__":
    main()
