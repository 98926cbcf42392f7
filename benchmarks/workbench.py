"""How the workbench feels: a gallery's first tile, scrolling, sorting and flagging, with a window.

Needs a display; without one: ``xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python
benchmarks/workbench.py``. 100,000 particles (10,000 with --quick) of 64 pixels with predictions;
their images are 4,000 on disk, shown again and again. No picture is at hand where scrolling comes
to. `_gui` says what a round is.

Every change in napari's window, however small, makes Qt compose it anew with OpenGL, which without
a graphics card takes long: the rounds that only write a number in a label say how long. As a window
of its own (a button in its title bar) the gallery is painted without OpenGL: the same rounds again.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import options, report
from _gui import open_viewer, particles, predict, rounds, row

from napari_cryosphere.particles import ParticleStack


def main() -> None:
    """Measure and print."""
    arguments = options(__doc__ or "")
    number = 10_000 if arguments.quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        rows = gallery(particles(Path(folder), number), 60 if arguments.quick else 300)
    report("workbench", rows, arguments, ["napari", "PySide6_Essentials", "numpy"])


def gallery(stack: ParticleStack, number: int) -> list[dict[str, Any]]:
    """Open the gallery and use it."""
    from qtpy.QtWidgets import QApplication

    from napari_cryosphere.widgets.docks.gallery.dock import GalleryDock
    from napari_cryosphere.widgets.state.layer_data import particle_layer

    viewer = open_viewer()
    data, settings, _ = particle_layer(stack)
    viewer.add_image(data, **settings)
    rounds(lambda: None, 20)
    start, cpu = time.perf_counter(), time.process_time()
    dock = GalleryDock(viewer)
    container = viewer.window.add_dock_widget(dock, name="CryoSphere gallery", area="right")
    pictures: Any = dock._pictures
    while pictures.get(0) is None:
        QApplication.processEvents()
        time.sleep(0.001)
    dock.view.viewport().repaint()
    named = f"{len(stack):,} particles"
    taken = [time.perf_counter() - start], [time.process_time() - cpu]
    rows = [row(f"gallery of {named}: first tile", *taken)]
    session: Any = dock.controller.session
    predict(session.store)
    rounds(lambda: None, 40)
    rows += scrolling(dock, number, "")
    rows += [
        row(f"{name}, {named}", *rounds(action, 1))
        for name, action in changes(dock, session).items()
    ]
    container.setFloating(True)
    rounds(lambda: None, 40)
    rows += scrolling(dock, number, ", own window")
    viewer.close()
    return rows


def scrolling(dock: Any, number: int, where: str) -> list[dict[str, Any]]:
    """Write a label, turn the wheel, jump."""
    bar, rng, words = dock.view.verticalScrollBar(), np.random.default_rng(2), itertools.count()
    turns = itertools.cycle([True, *[False] * 9])

    def label() -> None:
        dock.status.setText(f"{next(words)}")

    def now_and_then() -> None:
        if next(turns):
            turn_wheel(dock.view)

    def jump() -> None:
        bar.setValue(int(rng.integers(bar.maximum())))

    actions: dict[str, Callable[[], None]] = {
        "at rest": lambda: None,
        "that writes a number in a label": label,
        "with a turn of the wheel": lambda: turn_wheel(dock.view),
        "with a turn in one of ten, tiles made between": now_and_then,
        "with a jump of the scroll bar": jump,
    }
    return [
        row(f"a round {name}{where}", *rounds(action, number)) for name, action in actions.items()
    ]


def changes(dock: Any, session: Any) -> dict[str, Callable[[], Any]]:
    """Return what changes all tiles."""
    from napari_cryosphere.widgets.state.particle_choices import Flag

    return {
        "sort by spread": lambda: session.filter.sort_by("spread", not session.filter.descending),
        "brush half of the spreads": lambda: session.filter.set_range("spread", (0.0, 10.0)),
        "select all that are shown": lambda: session.choices.select(session.filter.rows),
        "flag them": lambda: session.choices.flag_selected(Flag.REJECT),
        "undo": session.choices.undo,
        "show all": session.filter.clear,
        "resize the dock": lambda: dock.view.resize(dock.view.width() - 1, dock.view.height()),
    }


def turn_wheel(view: Any) -> None:
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


if __name__ == "__main__":
    main()
