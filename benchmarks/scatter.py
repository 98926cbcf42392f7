"""How the scatter feels: a stroke of the lasso over all particles, with a window.

Needs a display; without one: ``xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python
benchmarks/scatter.py``. 100,000 particles (10,000 with --quick) with predictions: spread against
defocus. `_gui` says what a round is. A stroke is drawn by mouse events as the system would send them:
40 moves, a round each, and the release, which selects and lets every open dock show what is selected;
it is given whole (the sum of its rounds) and in its parts. CPU is the window's thread's.

In napari's window every move has the whole window composed with OpenGL, which takes long without a
graphics card; as a window of its own the scatter is painted without it.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import options, report
from _gui import open_viewer, particles, predict, rounds, row

from napari_cryosphere.particles import ParticleStack

MOVES = 40


def main() -> None:
    """Measure and print."""
    arguments = options(__doc__ or "")
    number = 10_000 if arguments.quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        rows = scatter(particles(Path(folder), number), 10 if arguments.quick else 30)
    report("scatter", rows, arguments, ["napari", "pyqtgraph", "PySide6_Essentials", "numpy"])


def scatter(stack: ParticleStack, number: int) -> list[dict[str, Any]]:
    """Open the scatter with the gallery next to it, and draw."""
    from napari_cryosphere.widgets.plugin.open_docks import GALLERY, SCATTER, open_dock
    from napari_cryosphere.widgets.state.layer_data import particle_layer
    from napari_cryosphere.widgets.state.particle_choices import Flag

    viewer = open_viewer()
    data, settings, _ = particle_layer(stack)
    viewer.add_image(data, **settings)
    rounds(lambda: None, 20)
    start, cpu = time.perf_counter(), time.process_time()
    dock: Any = open_dock(viewer, SCATTER)
    rounds(lambda: None, 1)
    named = f"{len(stack):,} particles"
    taken = [time.perf_counter() - start], [time.process_time() - cpu]
    rows = [row(f"scatter of {named}: opened and drawn", *taken)]
    open_dock(viewer, GALLERY)
    session: Any = dock.controller.session
    predict(session.store)
    dock.show_quantities("spread", "defocus")
    rounds(lambda: None, 40)
    rows += strokes(dock, number, "")
    dock.parent().setFloating(True)
    rounds(lambda: None, 40)
    rows += strokes(dock, number, ", own window")
    chosen = session.choices
    changes = {
        "show only the selected": lambda: session.filter.show_only(chosen.selected),
        "reject them": lambda: chosen.flag_selected(Flag.REJECT),
        "undo": chosen.undo,
        "show all": session.filter.clear,
        "other quantities": lambda: dock.show_quantities("confidence", "spread"),
    }
    rows += [row(f"{name}, {named}", *rounds(action, 1)) for name, action in changes.items()]
    viewer.close()
    return rows


def strokes(dock: Any, number: int, where: str) -> list[dict[str, Any]]:
    """Draw ellipses that hold some of the points: whole strokes, their moves, and their ends."""
    moves: tuple[list[float], list[float]] = ([], [])
    ends: tuple[list[float], list[float]] = ([], [])
    whole: tuple[list[float], list[float]] = ([], [])
    rng = np.random.default_rng(4)
    for _ in range(number):
        places = _ellipse(dock, rng)
        at = iter(places[1:])
        send(dock, "press", places[0])
        drawn = rounds(lambda at=at: send(dock, "move", next(at)), MOVES)
        ended = rounds(lambda places=places: send(dock, "release", places[-1]), 1)
        for all_of, several in ((moves, drawn), (ends, ended)):
            for total, part in zip(all_of, several, strict=True):
                total += part
        for total, several, one in zip(whole, drawn, ended, strict=True):
            total.append(sum(several) + sum(one))
    selected = int(dock.controller.session.choices.selected.sum())
    assert selected, "the lasso holds nothing"
    return [
        row(f"a stroke of the lasso{where}", *whole),
        row(f"one of its {MOVES} moves{where}", *moves),
        row(f"its end, which selects{where}", *ends),
    ]


def _ellipse(dock: Any, rng: np.random.Generator) -> list[Any]:
    """Return places in the plot's viewport on an ellipse of random size and place."""
    from qtpy.QtCore import QPoint

    viewport = dock.plot.plot.viewport()
    size = np.array([viewport.width(), viewport.height()])
    middle, radii = size * rng.uniform(0.35, 0.65, 2), size * rng.uniform(0.1, 0.3, 2)
    angles = np.linspace(0, 2 * np.pi, MOVES + 1)
    points = middle + radii * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return [QPoint(*point) for point in points.round().astype(int).tolist()]


def send(dock: Any, kind: str, at: Any) -> None:
    """Send a mouse event to the plot."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    viewport = dock.plot.plot.viewport()
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    names = {
        "press": (QEvent.Type.MouseButtonPress, left, left),
        "move": (QEvent.Type.MouseMove, none, left),
        "release": (QEvent.Type.MouseButtonRelease, left, none),
    }
    what, button, held = names[kind]
    position = QPointF(at), QPointF(viewport.mapToGlobal(at))
    event = QMouseEvent(what, *position, button, held, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(viewport, event)


if __name__ == "__main__":
    main()
