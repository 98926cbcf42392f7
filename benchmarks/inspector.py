"""How the inspector feels: a step of the slider with the sphere, the window while a network learns,
opening.

Needs a display; without one: ``xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python
benchmarks/inspector.py``. What rounds and lateness are, `_gui` says; every step of the slider also
paints the canvas. "napari alone" is the same step with neither this plugin nor its layers.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import options, report
from _gui import lateness, open_viewer, particles, predict, rounds, row

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
            (folder / str(box)).mkdir()
            rows += [
                bare(box, steps),
                *slider(particles(folder / str(box), NUMBER, box), box, steps),
            ]
        rows += training(
            ParticleStack.read(folder / "64" / "particles.star"), folder / "run", steps
        )
        rows += opening(folder, 500 if arguments.quick else 4_000)
    report("inspector", rows, arguments, ["napari", "PySide6_Essentials", "numpy", "torch"])


def bare(box: int, steps: int) -> dict[str, Any]:
    """Move the slider of napari alone, an array in memory: what is napari's part of a step."""
    viewer = open_viewer(1280, 800)
    rng = np.random.default_rng(3)
    viewer.add_image(rng.normal(size=(NUMBER, box, box)).astype(np.float32))
    rounds(lambda: None, 30)
    line = row(
        f"a step of the slider, {box} px, napari alone",
        *rounds(lambda: viewer.dims.set_point(0, int(rng.integers(NUMBER))), steps),
    )
    viewer.close()
    return line


def slider(stack: ParticleStack, box: int, steps: int) -> list[dict[str, Any]]:
    """Move the slider, without and with the sphere."""
    from napari_cryosphere.widgets.docks.main.dock import CryosphereDock
    from napari_cryosphere.widgets.state.layer_data import particle_layer

    viewer = open_viewer(1280, 800)
    dock = CryosphereDock(viewer)
    viewer.window.add_dock_widget(dock, name="CryoSphere", area="right")
    data, settings, _ = particle_layer(stack)
    viewer.add_image(data, **settings)
    session: Any = dock.controller.session
    order = np.random.default_rng(3).permutation(len(stack))
    places = iter(np.tile(order, 4))

    def step() -> None:
        dock.controller.show_particle(int(next(places)))  # whichever they are by then

    rounds(lambda: None, 30)
    rows = [row(f"a step of the slider, {box} px, particle alone", *rounds(step, steps))]
    predict(session.store)
    dock.controller.show_sphere(session)
    rounds(step, 10)
    rows.append(row(f"a step of the slider, {box} px, with sphere", *rounds(step, steps)))
    places = iter(range(steps + 10))
    rounds(step, 10)
    name = f"a step of the slider, {box} px, with sphere, one particle after the other"
    rows.append(row(name, *rounds(step, steps)))
    viewer.close()
    return rows


def training(stack: ParticleStack, run: Path, steps: int) -> list[dict[str, Any]]:
    """Let the window rest, then train in it; lateness is that of a 10 ms timer."""
    from napari_cryosphere.widgets.docks.training.dock import TrainingDock
    from napari_cryosphere.widgets.state.layer_data import particle_layer
    from napari_cryosphere.widgets.state.training_choices import LOADED, TrainingChoices

    viewer = open_viewer(1280, 800)
    dock = TrainingDock(viewer)
    viewer.window.add_dock_widget(dock, name="CryoSphere training", area="right")
    data, settings, _ = particle_layer(stack)
    viewer.add_image(data, **settings)
    seconds = 0.02 * steps
    rows = [row("lateness at rest", lateness(lambda past: past > seconds)[0])]
    dock.controller.train(TrainingChoices(run, {"minutes": 2.0, "device": "cpu"}, source=LOADED))
    deadline = time.monotonic() + 240
    while not dock.controller.training.losses and time.monotonic() < deadline:
        rounds(lambda: None, 5)
    late, wall, cpu = lateness(lambda past: past > 4 * seconds)
    rows.append(row(f"lateness while a network learns ({cpu / wall:.0%} of a core)", late))
    dock.controller.runner.stop()
    while dock.controller.runner.busy:
        rounds(lambda: None, 5)
    viewer.close()
    return rows


def opening(folder: Path, stacks: int) -> list[dict[str, Any]]:
    """Open a table whose images are in thousands of stacks, into a window with the dock."""
    from napari_cryosphere.widgets.docks.main.dock import CryosphereDock

    images = np.random.default_rng(0).normal(size=(4, 32, 32)).astype(np.float32)
    many = folder / "many"
    many.mkdir()
    for number in range(stacks):
        write_stack(images, many / f"{number:05d}.mrcs", 3.0)
    rows = [(place + 1, number) for number in range(stacks) for place in range(4)]
    table = pd.DataFrame(
        {"rlnImageName": [f"{place:06d}@{number:05d}.mrcs" for place, number in rows]}
    )
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
    viewer = open_viewer(1280, 800)
    viewer.window.add_dock_widget(CryosphereDock(viewer), name="CryoSphere", area="right")
    rounds(lambda: None, 20)
    start, cpu = time.perf_counter(), time.process_time()
    viewer.open(many / "particles.star", plugin="napari-cryosphere")
    rounds(lambda: None, 1)
    taken = [time.perf_counter() - start], [time.process_time() - cpu]
    viewer.close()
    return [row(f"open {4 * stacks:,} particles in {stacks:,} stacks", *taken)]


if __name__ == "__main__":
    main()
