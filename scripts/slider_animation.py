"""Draw the README's animation: the slider goes through a demo's particles, the sphere follows.

Run the demo first; without a display, on a virtual one::

    napari-cryosphere demo --no-gui --output demo-output xvfb-run -a -s "-screen 0 1400x900x24
    +extension GLX" python scripts/slider_animation.py demo-output \
        docs/images/slider.gif
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication, QDockWidget

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.control import work
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.docks.kit.workbench import take_seat
from napari_cryosphere.widgets.docks.main.demo import read_particle
from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock
from napari_cryosphere.widgets.state.layer_data import particle_layer

SIZE = (1150, 660)
WIDTH = 860
SHARES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.96, 0.985, 0.993, 0.996, 0.998, 1.0)
"""Which particles, in the order of their spread: from the surest to the least sure."""
COLOURS = 255
COLOURFUL = 24  # from the least to the most of red, green and blue
MILLISECONDS = 800


def main(folder: Path, output: Path) -> None:
    """Open the demo's particles, step from sure to unsure ones, and write the pictures as a GIF."""
    viewer = napari.Viewer(title="CryoSphere", show=True)
    seat = take_seat(viewer, SynchronousRunner())  # the first one's runner counts
    dock = open_dock(viewer, MAIN)
    seat.leave()
    data, options, _ = particle_layer(
        ParticleStack.read(folder / "particles.star"), "simulated particles"
    )
    viewer.add_image(data, **options)
    for name in ("layer controls", "layer list"):
        hide(viewer, name)
    viewer.window.resize(*SIZE)
    dock.controller.choose_model(work.SAMPLE_MODEL)
    dock.controller.poses.predict()
    session = dock.controller.session
    summary = None if session is None else session.store.summary()
    if summary is None:
        sys.exit("nothing was predicted")
    by_spread = np.argsort(summary.spread_degrees)
    pictures = []
    for share in SHARES:
        viewer.dims.set_point(0, int(by_spread[int(share * (len(by_spread) - 1))]))
        read_particle(dock)
        dock.controller.arrangement.fit()
        settle(30)
        pixels = viewer.screenshot(canvas_only=False, flash=False)
        picture = Image.fromarray(pixels[..., :3])
        pictures.append(
            picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.LANCZOS)
        )
    viewer.close()
    table = colour_table(pictures)
    first, *others = (
        picture.quantize(palette=table, dither=Image.Dither.NONE) for picture in pictures
    )
    stored = io.BytesIO()
    first.save(
        stored,
        "GIF",
        save_all=True,
        append_images=others,
        duration=MILLISECONDS,
        loop=0,
        optimize=True,
    )
    output.write_bytes(stored.getvalue())
    print(
        f"{output}: {len(stored.getvalue()) / 1e6:.2f} MB, {len(pictures)} pictures of {first.size}"
    )


def colour_table(pictures: list[Image.Image]) -> Image.Image:
    """Return an image with the colours of all pictures; hues are rare, and count as much as what is
    grey.
    """
    pixels = np.concatenate([np.asarray(picture).reshape(-1, 3) for picture in pictures])
    spread = pixels.max(axis=1).astype(int) - pixels.min(axis=1)
    hues = pixels[spread > COLOURFUL]
    both = np.concatenate([pixels, np.tile(hues, (max(1, len(pixels) // max(1, len(hues))), 1))])
    return Image.fromarray(both[None]).quantize(COLOURS, dither=Image.Dither.NONE)


def hide(viewer: napari.Viewer, name: str) -> None:
    """Hide one of napari's own docks."""
    for dock in viewer.window._qt_window.findChildren(QDockWidget):
        if dock.windowTitle() == name or dock.objectName() == name:
            dock.hide()


def settle(rounds: int = 12) -> None:
    """Let Qt lay out and paint."""
    for _ in range(rounds):
        QApplication.processEvents()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
