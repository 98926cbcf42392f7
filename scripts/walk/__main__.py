"""Walk through docs/tutorials/napari.md with real clicks, and write its pictures and times.

Needs a display; without one, on a virtual one::

    xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX" python scripts/walk STORY OUTPUT

The stories:

sample
    The sample of the menu, its unsure particles, two maps.
images
    From the images of betagalD2_test.star in the folder ``--data``, its poses taken away, to a saved
    STAR file of the sure particles.
train
    Train on ribo70S_train.star in the folder ``--data``, predict and refine ribo70S_test.star, save
    it and open it again, where what is read back is compared with what was left; maps.
docks, maps
    Every dock with something in it.
states
    A folder ``--data`` with what ``align`` has made of particles and the maps of two states, particles.star,
    map.mrc and map_class002.mrc: the window in the states' colours.
slider
    From sure to unsure particles: the film of the README.

Buttons are pressed with the mouse, lists are opened and clicked, files are dropped or named in their
dialogs: what is not in sight cannot be clicked. Pictures are those of the whole screen.

``film OUTPUT FILE`` makes a film of the pictures that a story left in OUTPUT.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from hands import Walk
from pictures import film_of_walk
from stories import STORIES


def main() -> None:
    """Take a walk."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("story", choices=[*STORIES, "film"])
    parser.add_argument("output", type=Path, help="folder of the pictures")
    parser.add_argument("file", type=Path, nargs="?", help="of a film: .webp or .gif")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--size", default="1400x900")
    parser.add_argument(
        "--themes", nargs="+", default=["dark"], help="the last one is the window's"
    )
    arguments = parser.parse_args()
    if arguments.story == "film":
        film_of_walk(arguments.output, arguments.file)
        return
    os.environ["XDG_STATE_HOME"] = str(arguments.output.resolve() / "state")
    width, height = map(int, arguments.size.split("x"))
    walk = Walk(arguments.output.resolve(), (width, height), arguments.themes)
    STORIES[arguments.story](walk, arguments)
    walk.close()


if __name__ == "__main__":
    main()
