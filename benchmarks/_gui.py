"""What the benchmarks of the window share: made-up particles, rounds of the event loop, lateness,
memory.

A round of the event loop takes an action, all painting, and what worker threads have delivered;
nothing else can happen in a window meanwhile. Its wall time is what a user feels, its CPU time (of
the window's thread) what it costs: on a busy machine others' work makes the first longer than the
second.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_cryosphere.particles import ParticleStack, write_stack, write_star

__all__ = [
    "lateness",
    "open_viewer",
    "particles",
    "predict",
    "resident_mib",
    "rounds",
    "row",
    "settle",
]

_IMAGES, _PER_BATCH = 4_000, 128
_ROUND_SECONDS = 0.016
_TICK_SECONDS = 0.01


def open_viewer(width: int = 1400, height: int = 900) -> Any:
    """Return a viewer with its window."""
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(width, height)
    return viewer


def particles(folder: Path, number: int, box: int = 64) -> ParticleStack:
    """Write particles with poses and return them; few images on disk, shown again and again."""
    rng = np.random.default_rng(0)
    write_stack(rng.normal(size=(_IMAGES, box, box)).astype(np.float32), folder / "noise.mrcs", 3.0)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{row % _IMAGES + 1:06d}@noise.mrcs" for row in range(number)],
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
            "rlnImageSize": [box],
            "rlnImageDimensionality": [2],
        }
    )
    write_star({"optics": optics, "particles": table}, folder / "particles.star")
    return ParticleStack.read(folder / "particles.star")


def predict(store: Any) -> None:
    """Fill a store with made-up predictions: the same distributions in every batch."""
    import torch

    from napari_cryosphere.so3.distributions import PoseDistribution
    from napari_cryosphere.so3.pose_summary import PoseSummary

    torch.manual_seed(0)
    coefficients = 0.4 * torch.randn(_PER_BATCH, 7, 13, 7, dtype=torch.complex64)
    summary = PoseDistribution.from_coefficients(coefficients).summary()
    rng = np.random.default_rng(1)
    for start in range(0, store.number, _PER_BATCH):
        rows = slice(start, min(start + _PER_BATCH, store.number))
        many = rows.stop - rows.start
        values = {field.name: getattr(summary, field.name)[:many] for field in fields(PoseSummary)}
        values["spread_degrees"] = rng.gamma(2, 6, many)
        distribution = PoseDistribution.from_coefficients(coefficients[:many])
        store.add(rows, distribution, PoseSummary(**values))


def rounds(action: Callable[[], Any], number: int) -> tuple[list[float], list[float]]:
    """Return wall and CPU seconds of rounds of the event loop, one every 16 ms."""
    from qtpy.QtWidgets import QApplication

    wall, cpu = [], []
    for _ in range(number):
        start, spent = time.perf_counter(), time.thread_time()
        action()
        QApplication.processEvents()
        wall.append(time.perf_counter() - start)
        cpu.append(time.thread_time() - spent)
        time.sleep(max(0.0, _ROUND_SECONDS - wall[-1]))
    return wall, cpu


def lateness(done: Callable[[float], bool]) -> tuple[list[float], float, float]:
    """Watch how late a timer of 10 ms is.

    Parameters
    ----------
    done
        Told the seconds since the start; whether that is enough.

    Returns
    -------
    Lateness of each tick in seconds, the wall seconds that were watched, and the process's CPU
    seconds.
    """
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    times: list[float] = []
    loop, timer, start = QEventLoop(), QTimer(), time.perf_counter()

    def tick() -> None:
        times.append(time.perf_counter())
        if done(times[-1] - start):
            loop.quit()

    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(tick)
    timer.start(round(1e3 * _TICK_SECONDS))
    cpu = time.process_time()
    loop.exec()
    timer.stop()
    late = np.clip(np.diff(times) - _TICK_SECONDS, 0, None)
    return late.tolist(), times[-1] - start, time.process_time() - cpu


def row(name: str, wall: list[float], cpu: list[float] | None = None) -> dict[str, Any]:
    """Return a line of the table, in milliseconds."""
    line: dict[str, Any] = {"what": name, "times": len(wall)}
    for label, part in (("median", 50), ("p95", 95), ("p99", 99), ("max", 100)):
        line[f"{label} ms"] = float(np.percentile(wall, part)) * 1000
    for label, part in (("p95", 95), ("max", 100)):
        line[f"CPU {label} ms"] = "" if cpu is None else float(np.percentile(cpu, part)) * 1000
    return line


def resident_mib() -> float:
    """Return the process's resident memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def settle() -> None:
    """Let closed windows be deleted."""
    from qtpy.QtCore import QCoreApplication, QEvent

    for _ in range(10):
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QCoreApplication.processEvents()
        gc.collect()
