"""How the inspector feels: a step of the slider with the sphere, the window while a network learns, opening.

Needs a display; without one: ``xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python
benchmarks/inspector.py``. Rounds of the event loop and their times are those of `workbench`; here every step
also paints the canvas.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import workbench
from _common import options, report

from napari_cryosphere.particles import ParticleStack, write_stack, write_star

NUMBER = 1_000


def main() -> None:
    """Measure and print."""
    arguments = options(__doc__ or "")
    steps = 60 if arguments.quick else 200
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = name
        for box in (64, 128):
            workbench.BOX = box
            (folder / str(box)).mkdir()
            rows += slider(workbench.particles(folder / str(box), NUMBER), box, steps)
        rows += training(ParticleStack.read(folder / "64" / "particles.star"), folder / "run", steps)
        rows += opening(folder, 500 if arguments.quick else 4_000)
    report("inspector", rows, arguments, ["napari", "PySide6_Essentials", "numpy", "torch"])


def row(name: str, wall: list[float], cpu: list[float]) -> dict[str, Any]:
    """Return a line of the table, in milliseconds."""
    line: dict[str, Any] = {"what": name, "times": len(wall)}
    for label, part in (("median", 50), ("p95", 95), ("p99", 99)):
        line[f"{label} ms"] = float(np.percentile(wall, part)) * 1000
    return line | {"CPU p95 ms": float(np.percentile(cpu, 95)) * 1000}


def slider(stack: ParticleStack, box: int, steps: int) -> list[dict[str, Any]]:
    """Move the slider, without and with the sphere."""
    import napari

    from napari_cryosphere.widgets.dock import CryosphereDock
    from napari_cryosphere.widgets.layer_data import particle_layer

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    dock = CryosphereDock(viewer)
    viewer.window.add_dock_widget(dock, name="CryoSphere", area="right")
    data, settings, _ = particle_layer(stack)
    viewer.add_image(data, **settings)
    session: Any = dock.controller.session
    order = np.random.default_rng(3).permutation(len(stack))
    places = iter(np.tile(order, 4))

    def step() -> None:
        dock.controller.show_particle(int(next(places)))

    workbench._rounds(lambda: None, 30)
    rows = [row(f"a step of the slider, {box} px, particle alone", *workbench._rounds(step, steps))]
    workbench.predict(session.store)
    dock.controller.show_sphere(session)
    workbench._rounds(step, 10)
    rows.append(row(f"a step of the slider, {box} px, with sphere", *workbench._rounds(step, steps)))
    viewer.close()
    return rows


def training(stack: ParticleStack, run: Path, steps: int) -> list[dict[str, Any]]:
    """Let the window rest, then train in it."""
    import napari

    from napari_cryosphere.widgets.layer_data import particle_layer
    from napari_cryosphere.widgets.training_choices import LOADED, TrainingChoices
    from napari_cryosphere.widgets.training_dock import TrainingDock

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    dock = TrainingDock(viewer)
    viewer.window.add_dock_widget(dock, name="CryoSphere training", area="right")
    data, settings, _ = particle_layer(stack)
    viewer.add_image(data, **settings)
    rows = [row("a round at rest", *workbench._rounds(lambda: None, steps))]
    dock.controller.train(TrainingChoices(run, minutes=1.0, source=LOADED, device="cpu"))
    deadline = time.monotonic() + 240
    while not dock.controller.training.losses and time.monotonic() < deadline:
        workbench._rounds(lambda: None, 5)
    rows.append(row("a round while a network learns", *workbench._rounds(lambda: None, 2 * steps)))
    dock.controller.runner.stop()
    while dock.controller.runner.busy:
        workbench._rounds(lambda: None, 5)
    viewer.close()
    return rows


def opening(folder: Path, stacks: int) -> list[dict[str, Any]]:
    """Open a table whose images are in thousands of stacks, into a window with the dock."""
    import napari

    from napari_cryosphere.widgets.dock import CryosphereDock

    images = np.random.default_rng(0).normal(size=(4, 32, 32)).astype(np.float32)
    many = folder / "many"
    many.mkdir()
    for number in range(stacks):
        write_stack(images, many / f"{number:05d}.mrcs", 3.0)
    rows = [(place + 1, number) for number in range(stacks) for place in range(4)]
    table = pd.DataFrame({"rlnImageName": [f"{place:06d}@{number:05d}.mrcs" for place, number in rows]})
    table["rlnOpticsGroup"] = 1
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnImagePixelSize": [3.0],
            "rlnImageSize": [32],
            "rlnImageDimensionality": [2],
        }
    )
    write_star({"optics": optics, "particles": table}, many / "particles.star")
    viewer = napari.Viewer(show=True)
    viewer.window.add_dock_widget(CryosphereDock(viewer), name="CryoSphere", area="right")
    workbench._rounds(lambda: None, 20)
    start, cpu = time.perf_counter(), time.process_time()
    viewer.open(many / "particles.star", plugin="napari-cryosphere")
    workbench._rounds(lambda: None, 1)
    taken = [time.perf_counter() - start], [time.process_time() - cpu]
    viewer.close()
    return [row(f"open {4 * stacks:,} particles in {stacks:,} stacks", *taken)]


if __name__ == "__main__":
    main()
