"""Draw the README's animation: the slider goes through a demo's particles, the sphere follows.

Run the demo first; without a display, on a virtual one::

    napari-cryosphere demo --no-gui --output demo-output
    xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python scripts/slider_animation.py demo-output \
        docs/images/slider.gif
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import napari
import numpy as np
from PIL import Image

from napari_cryosphere.widgets.demo import _FILES, _settle, open_demo
from napari_cryosphere.widgets.workers import SynchronousRunner

SIZE = (1240, 760)
WIDTH = 840
FRAMES = 12
COLOURS = 96
MILLISECONDS = 700


def main(folder: Path, output: Path) -> None:
    """Open the demo's window, step through particles from sure to unsure, and write the pictures as a GIF."""
    viewer = napari.Viewer(title="CryoSphere", show=True)
    dock = open_demo(viewer, {role: folder / name for role, name in _FILES.items()}, SynchronousRunner())
    viewer.window.resize(*SIZE)
    dock.controller.predict()
    session = dock.controller.session
    summary = None if session is None else session.store.summary()
    if summary is None:
        sys.exit("nothing was predicted")
    by_spread = np.argsort(summary.spread_degrees)
    pictures = []
    for share in np.linspace(0.03, 0.99, FRAMES) ** 0.5:
        viewer.dims.set_point(0, int(by_spread[int(share * (len(by_spread) - 1))]))
        _settle()
        viewer.reset_view()
        _settle(30)
        pixels = viewer.screenshot(canvas_only=False, flash=False)
        picture = Image.fromarray(pixels[..., :3])
        pictures.append(picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.LANCZOS))
    viewer.close()
    first, *others = (picture.quantize(COLOURS, dither=Image.Dither.NONE) for picture in pictures)
    stored = io.BytesIO()
    first.save(
        stored, "GIF", save_all=True, append_images=others, duration=MILLISECONDS, loop=0, optimize=True
    )
    output.write_bytes(stored.getvalue())
    print(f"{output}: {len(stored.getvalue()) / 1e6:.2f} MB, {FRAMES} pictures of {first.size}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
